"""The group's offsets of a lane: the newest alone, one request at a time, and all of it before the lane is left."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError
from structlog.testing import capture_logs

from streams import group_offsets
from streams.group_offsets import GroupOffsets

CLICKS = TopicPartition("clicks", 3)


class Group:
    """A consumer's group: what was committed to it, once `open` is set."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.open = asyncio.Event()
        self.refuses = False
        self._under_way = False

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        assert not self._under_way
        self._under_way = True
        await self.open.wait()
        self._under_way = False
        if self.refuses:
            raise CommitFailedError
        self.committed.append(offsets[CLICKS])


def run(scenario: Callable[[Group, GroupOffsets], Awaitable[None]]) -> list[int]:
    """What the group has after ``scenario``."""

    async def whole() -> list[int]:
        group = Group()
        await scenario(group, GroupOffsets(group, 3))
        return group.committed

    return asyncio.run(whole())


async def turns() -> None:
    """Let whatever can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_offsets, "PAUSE_S", 600)


def test_of_what_comes_while_a_write_is_under_way_the_newest_alone_is_written() -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        for offset in (1, 2, 3):
            offsets.put({CLICKS: offset})
            await turns()
        group.open.set()
        await offsets.flush()

    assert run(scenario) == [1, 3]


def test_between_two_writes_is_a_pause_and_a_lane_that_is_left_waits_for_none() -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        group.open.set()
        offsets.put({CLICKS: 1})
        await turns()
        offsets.put({CLICKS: 2})
        await turns()
        assert group.committed == [1]
        await offsets.flush()

    assert run(scenario) == [1, 2]


def test_a_lane_that_has_nothing_to_write_is_left_at_once() -> None:
    async def scenario(_: Group, offsets: GroupOffsets) -> None:
        await offsets.flush()

    assert run(scenario) == []


def test_after_a_pause_without_news_the_next_offsets_are_written_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_offsets, "PAUSE_S", 0)

    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        group.open.set()
        for offset in (1, 2):
            offsets.put({CLICKS: offset})
            await turns()
            assert group.committed[-1] == offset

    assert run(scenario) == [1, 2]


def test_offsets_that_a_rebalance_refuses_are_told_and_newer_ones_are_written() -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        group.open.set()
        group.refuses = True
        offsets.put({CLICKS: 1})
        await turns()
        group.refuses = False
        offsets.put({CLICKS: 2})
        await offsets.flush()

    with capture_logs() as logs:
        assert run(scenario) == [2]
    assert [(entry["log_level"], entry["lane"]) for entry in logs] == [("warning", 3)]
