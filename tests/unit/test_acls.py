"""Rights that a node has late: the controller's answer comes before the other nodes have read of them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import ClusterAuthorizationFailedError

from streams import acls
from streams.topic_admin import TopicsError

RIGHTS = {(2, "clicks", 3, 3), (2, "clicks", 3, 4), (3, "salience", 3, 3)}
HELD = [(2, "clicks", 3, [("User:w", "*", 3, 3), ("User:w", "*", 4, 3)]), (3, "salience", 3, [("User:w", "*", 3, 3)])]


class Nodes:
    """What aiokafka's client is of a cluster: ``late`` says at which question each node has learnt of the rights."""

    def __init__(self, late: dict[int, float], error_code: int = 0) -> None:
        self.cluster = SimpleNamespace(brokers=lambda: [SimpleNamespace(nodeId=node) for node in late])
        self.asked = dict.fromkeys(late, 0)
        self.closed = False
        self._late, self._error_code = late, error_code

    async def bootstrap(self) -> None:
        pass

    async def send(self, node: int, _request: object) -> Any:
        self.asked[node] += 1
        known = HELD if self.asked[node] >= self._late[node] else HELD[:1]
        return SimpleNamespace(error_code=self._error_code, error_message="", resources=known)

    async def close(self) -> None:
        self.closed = True


def spread(monkeypatch: pytest.MonkeyPatch, nodes: Nodes) -> None:
    monkeypatch.setattr(acls, "AIOKafkaClient", lambda **_options: nodes)
    monkeypatch.setattr(acls, "LOOK_AGAIN_S", 0.0)
    asyncio.run(acls._spread("there:9092", "User:w", RIGHTS))


def test_rights_are_given_when_the_last_node_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes({0: 1, 1: 3, 2: 2})
    spread(monkeypatch, nodes)
    assert nodes.asked == {0: 1, 1: 3, 2: 2}
    assert nodes.closed


def test_a_node_that_never_has_them_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes({0: 1, 1: float("inf")})
    monkeypatch.setattr(acls, "ANSWER_S", 0.05)
    with pytest.raises(TopicsError, match=r"Not every node of there:9092 was seen to have the rights of User:w"):
        spread(monkeypatch, nodes)
    assert nodes.closed


def test_a_node_that_does_not_say_what_it_has_is_told_of_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TopicsError, match=ClusterAuthorizationFailedError.__name__):
        spread(monkeypatch, Nodes({0: 1}, error_code=ClusterAuthorizationFailedError.errno))
