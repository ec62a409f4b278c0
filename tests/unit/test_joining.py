"""A group's coordinator is waited for in silence while the broker's first group comes, and no longer."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorForGroupError,
)

from streams import joining
from streams.joining import meet_coordinator
from streams.settings import Settings

AWAY, ELSEWHERE = GroupCoordinatorNotAvailableError(), NotCoordinatorForGroupError.errno
"""There is none yet; and who is named has not read the topic."""
NEW = 69
"""The group has no member: Apache Kafka's answer."""


class Admin:
    """A client of brokers that give these answers, one after the other, the last for ever."""

    def __init__(self, *answers: KafkaError | int) -> None:
        self.answers = [*answers]
        self.asked, self.closed = 0, False

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True

    async def describe_consumer_groups(self, groups: list[str]) -> list[Any]:
        assert groups == ["shop"]
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, KafkaError):
            raise answer
        return [SimpleNamespace(groups=[(answer, "shop", "", "", "", [])])]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "ASK_AGAIN_S", 0)


def asked(monkeypatch: pytest.MonkeyPatch, *answers: KafkaError | int) -> int:
    """How often such brokers are asked."""
    admin = Admin(*answers)
    monkeypatch.setattr(joining, "AIOKafkaAdminClient", lambda **_: admin)
    asyncio.run(meet_coordinator(Settings(group="shop"), stops=lambda: False))
    assert admin.closed
    return admin.asked


@pytest.mark.parametrize("answer", [0, NEW])
def test_a_coordinator_that_is_there_is_asked_once(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    assert asked(monkeypatch, answer) == 1


def test_a_coordinator_that_comes_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, AWAY, AWAY, ELSEWHERE, NEW) == 4


def test_a_coordinator_that_never_comes_is_waited_for_no_longer_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Admin(AWAY)

    def on_a_clock_of_its_own(**_: Any) -> Admin:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: float(admin.asked))  # a question takes a second
        return admin

    monkeypatch.setattr(joining, "AIOKafkaAdminClient", on_a_clock_of_its_own)
    asyncio.run(meet_coordinator(Settings(group="shop"), stops=lambda: False))
    assert admin.closed
    assert joining.COORDINATOR_S <= admin.asked <= joining.COORDINATOR_S + 1


def test_a_worker_that_is_told_to_stop_waits_for_no_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    admin = Admin(AWAY)
    monkeypatch.setattr(joining, "AIOKafkaAdminClient", lambda **_: admin)
    asyncio.run(meet_coordinator(Settings(group="shop"), stops=lambda: admin.asked == 3))
    assert (admin.asked, admin.closed) == (3, True)


def test_another_failure_is_left_to_the_consumer_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, GroupAuthorizationFailedError("shop")) == 1
