"""What a node has late: the controller's answer comes before the other nodes have heard of it."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.api import Request
from confluent_kafka.admin import AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from streams import nodes, topic_admin
from streams.nodes import Says
from streams.topic_admin import TopicsError

RIGHTS = {(2, "clicks", 3, 3), (2, "clicks", 3, 4), (3, "salience", 3, 3)}


def rights(*held: tuple[int, str, Sequence[tuple[str, str, int, int]]], error_code: int = 0) -> Any:
    return SimpleNamespace(
        error_code=error_code,
        error_message="",
        resources=[(kind, name, 3, operations) for kind, name, operations in held],
    )


def metadata(*topics: tuple[int, str, Sequence[int]]) -> Any:
    """Of topics: an error, the name, and each partition's leader; -1 is none."""
    return SimpleNamespace(
        topics=[
            (error, name, False, [(0, number, leader, [0], [0]) for number, leader in enumerate(leaders)])
            for error, name, leaders in topics
        ]
    )


def configs(**values: str) -> Any:
    every = {name: [("retention.ms", "1"), ("cleanup.policy", value)] for name, value in values.items()}
    return SimpleNamespace(resources=[(0, None, 2, name, entries) for name, entries in every.items()])


ALL_RIGHTS = rights(
    (2, "clicks", [("User:w", "*", 3, 3), ("User:w", "*", 4, 3)]), (3, "salience", [("User:w", "*", 3, 3)])
)
SOME_RIGHTS = rights((2, "clicks", [("User:w", "*", 3, 3), ("User:w", "*", 4, 3)]))
MADE = metadata((0, "clicks", [0, 1]), (0, "ads", [1]), (0, "another's", [0]))
LATER = {
    "rights": (nodes.giving("User:w", RIGHTS), [SOME_RIGHTS, ALL_RIGHTS]),
    "topics": (
        nodes.knowing(["clicks", "ads"]),
        [
            metadata(),
            metadata((0, "clicks", [0, 1])),
            metadata((0, "clicks", [0, -1]), (0, "ads", [1])),
            metadata((0, "clicks", [0, 1]), (UnknownTopicOrPartitionError.errno, "ads", [])),
            MADE,
        ],
    ),
    "configs": (
        nodes.holding("cleanup.policy", {"clicks": "delete", "ads": "compact"}),
        [
            configs(clicks="compact", ads="delete"),
            configs(clicks="delete", ads="delete"),
            configs(clicks="delete", ads="compact"),
        ],
    ),
    "configs of topics that are gone": (nodes.holding("cleanup.policy", {"clicks": "delete"}), [configs()]),
}


class Nodes:
    """What aiokafka's client is of a cluster: each node gives its ``answers`` in turn, and the last for good."""

    def __init__(self, answers: dict[int, Sequence[Any]]) -> None:
        self.cluster = SimpleNamespace(brokers=lambda: [SimpleNamespace(nodeId=node) for node in answers])
        self.asked = dict.fromkeys(answers, 0)
        self.request: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        self.closed = False
        self._answers = answers

    async def bootstrap(self) -> None:
        pass

    async def send(self, node: int, request: Request[Any]) -> Any:
        self.request = request.prepare({request.API_KEY: (0, 9)}).to_object()
        answers = self._answers[node]
        self.asked[node] += 1
        return answers[min(self.asked[node], len(answers)) - 1]

    async def close(self) -> None:
        self.closed = True


def wait(monkeypatch: pytest.MonkeyPatch, asked: Nodes, says: Says) -> None:
    monkeypatch.setattr(nodes, "AIOKafkaClient", lambda **options: asked.options.update(options) or asked)
    monkeypatch.setattr(nodes, "LOOK_AGAIN_S", 0.0)
    topic_admin.wait_for_nodes("there:9092", says, "do it")


@pytest.mark.parametrize("of", LATER)
def test_each_node_is_asked_until_it_says_so(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    says, answers = LATER[of]
    asked = Nodes({0: answers[-1:], 1: answers, 2: answers[-2:]})
    wait(monkeypatch, asked, says)
    assert asked.asked == {0: 1, 1: len(answers), 2: min(2, len(answers))}
    assert asked.closed


@pytest.mark.parametrize(
    ("of", "request_of"),
    [
        ("topics", {"topics": None, "allow_auto_topic_creation": False}),
        ("configs", {"resources": [(2, "clicks", None), (2, "ads", None)], "include_synonyms": False}),
        (
            "rights",
            {
                "resource_type": ResourceType.ANY.value,
                "resource_name": None,
                "resource_pattern_type_filter": ResourcePatternType.ANY.value,
                "principal": "User:w",
                "host": None,
                "operation": AclOperation.ANY.value,
                "permission_type": AclPermissionType.ALLOW.value,
            },
        ),
    ],
)
def test_a_node_makes_nothing_for_being_asked_and_tells_of_all_configs_and_of_what_one_is_allowed(
    of: str, request_of: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    says, answers = LATER[of]
    asked = Nodes({0: answers[-1:]})
    wait(monkeypatch, asked, says)
    told = asked.request
    told |= {name: [tuple(one.values()) for one in told[name]] for name in told.keys() & {"resources"}}
    assert told == request_of
    assert asked.options["request_timeout_ms"] == 1_000 * topic_admin.ANSWER_S


def test_rights_are_of_their_pattern_and_more_of_them_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    more = rights((2, "clicks", [("User:w", "*", 3, 3), ("User:w", "*", 4, 3), ("User:w", "*", 8, 3)]))
    wait(monkeypatch, Nodes({0: [more]}), nodes.giving("User:w", {(2, "clicks", 3, 3)}))
    literal, prefixed = ResourcePatternType.LITERAL.value, ResourcePatternType.PREFIXED.value
    more.resources[0] = 2, "clicks", prefixed, more.resources[0][3]
    wait(monkeypatch, Nodes({0: [more]}), nodes.giving("User:w", {(2, "clicks", prefixed, 3)}))
    monkeypatch.setattr(topic_admin, "DONE_WITHIN_S", 0.05)
    with pytest.raises(TopicsError):
        wait(monkeypatch, Nodes({0: [more]}), nodes.giving("User:w", {(2, "clicks", literal, 3)}))


def test_a_node_that_never_does_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Nodes({0: [ALL_RIGHTS], 1: [SOME_RIGHTS]})
    monkeypatch.setattr(topic_admin, "DONE_WITHIN_S", 0.05)
    with pytest.raises(TopicsError, match=r"Not every node of there:9092 was seen to do it"):
        wait(monkeypatch, asked, nodes.giving("User:w", RIGHTS))
    assert asked.closed


@pytest.mark.parametrize(
    ("says", "answer", "why"),
    [
        (
            nodes.giving("User:w", RIGHTS),
            rights(error_code=ClusterAuthorizationFailedError.errno),
            ClusterAuthorizationFailedError,
        ),
        (
            nodes.holding("cleanup.policy", {"clicks": "delete"}),
            SimpleNamespace(resources=[(TopicAuthorizationFailedError.errno, "no", 2, "clicks", [])]),
            TopicAuthorizationFailedError,
        ),
    ],
)
def test_a_node_that_does_not_say_what_it_has_is_told_of_with_its_reason(
    says: Says, answer: Any, why: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TopicsError, match=why.__name__):
        wait(monkeypatch, Nodes({0: [answer]}), says)


def test_a_topic_that_is_deleted_meanwhile_has_any_config(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = SimpleNamespace(resources=[(UnknownTopicOrPartitionError.errno, "gone", 2, "clicks", [])])
    wait(monkeypatch, Nodes({0: [gone]}), nodes.holding("cleanup.policy", {"clicks": "delete"}))


def test_it_is_waited_for_where_a_loop_runs_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async def in_a_loop(asked: Nodes) -> None:
        wait(monkeypatch, asked, nodes.giving("User:w", RIGHTS))

    asked = Nodes({0: [SOME_RIGHTS, ALL_RIGHTS]})
    asyncio.run(in_a_loop(asked))
    assert asked.asked == {0: 2}
