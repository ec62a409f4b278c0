"""The group's offsets of all lanes: the newest alone, one request at a time, and all of it before a lane is left."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, TopicAuthorizationFailedError
from structlog.testing import capture_logs

from streams import group_offsets
from streams.group_offsets import GroupOffsets
from tests.unit.lanes import turns

CLICKS, OTHERS = TopicPartition("clicks", 3), TopicPartition("clicks", 4)
Request = dict[TopicPartition, int]
Scenario = Callable[["Group", GroupOffsets], Awaitable[None]]


class Group:
    """A consumer's group: what was committed to it, once `open` is set. Like Kafka, it refuses single partitions."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.offsets: Request = {}
        self.assigned = {CLICKS, OTHERS}
        self.open = asyncio.Event()
        self.open.set()
        self.refused: set[TopicPartition] = set()
        self.rebalances = False
        self._under_way = False

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    async def commit(self, offsets: Request) -> None:
        assert not self._under_way
        assert offsets.keys() <= self.assigned, "aiokafka would refuse all of it"
        self._under_way = True
        try:
            await self.open.wait()
        finally:
            self._under_way = False
        self.requests.append(offsets)
        if self.rebalances:
            raise CommitFailedError
        self.offsets |= {tp: offset for tp, offset in offsets.items() if tp not in self.refused}
        if self.refused & offsets.keys():
            raise TopicAuthorizationFailedError


def run(scenario: Scenario) -> Group:
    """The group after ``scenario``, at whose end both lanes are left."""

    async def whole() -> Group:
        group = Group()
        offsets = GroupOffsets(group)
        await scenario(group, offsets)
        await asyncio.gather(offsets.leave([CLICKS]), offsets.leave([OTHERS]))
        await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing goes on once all lanes are left"
        return group

    return asyncio.run(whole())


@pytest.fixture(autouse=True)
def _long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_offsets, "PAUSE_S", 600)
    monkeypatch.setattr(group_offsets, "AGAIN_S", 600)


def test_of_what_comes_while_a_write_is_under_way_the_newest_alone_is_written() -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        group.open.clear()
        for offset in (1, 2, 3):
            offsets.put({CLICKS: offset})
            await turns()
        group.open.set()

    assert run(scenario).requests == [{CLICKS: 1}, {CLICKS: 3}]


def test_between_two_writes_is_a_pause_and_a_lane_that_is_left_waits_for_none() -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        offsets.put({CLICKS: 1})
        await turns()
        offsets.put({CLICKS: 2})
        await turns()
        assert group.requests == [{CLICKS: 1}]
        await offsets.leave([CLICKS])
        assert group.requests == [{CLICKS: 1}, {CLICKS: 2}]

    run(scenario)


def test_lanes_that_have_nothing_to_write_are_left_without_a_request() -> None:
    async def scenario(_: Group, offsets: GroupOffsets) -> None:
        await offsets.leave([CLICKS])

    assert run(scenario).requests == []


def test_the_offsets_of_all_lanes_are_written_in_one_request() -> None:
    async def scenario(_: Group, offsets: GroupOffsets) -> None:
        offsets.put({CLICKS: 1})
        offsets.put({OTHERS: 2})
        await turns()

    assert run(scenario).requests == [{CLICKS: 1, OTHERS: 2}]


def test_a_lane_that_is_left_writes_its_own_offsets_and_the_others_keep_their_pause() -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        offsets.put({CLICKS: 1})
        await turns()
        offsets.put({OTHERS: 2})
        offsets.put({CLICKS: 3})
        await offsets.leave([CLICKS])
        await turns()
        assert group.requests == [{CLICKS: 1}, {CLICKS: 3}]

    assert run(scenario).offsets == {CLICKS: 3, OTHERS: 2}


@pytest.mark.parametrize("rebalances", [False, True], ids=["accepted", "refused"])
def test_lanes_that_are_left_together_write_what_is_due_in_one_request(rebalances: bool) -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        offsets.put({CLICKS: 1, OTHERS: 2})
        await turns()
        offsets.put({CLICKS: 3, OTHERS: 4})
        group.rebalances = rebalances
        await asyncio.gather(offsets.leave([CLICKS]), offsets.leave([OTHERS]))
        group.rebalances = False

    assert run(scenario).requests == [{CLICKS: 1, OTHERS: 2}, {CLICKS: 3, OTHERS: 4}]


def test_a_lane_that_is_left_while_another_is_writes_after_it() -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        group.open.clear()
        offsets.put({CLICKS: 1})
        first = asyncio.create_task(offsets.leave([CLICKS]))
        await turns()
        offsets.put({OTHERS: 2})
        second = asyncio.create_task(offsets.leave([OTHERS]))
        await turns()
        group.open.set()
        await asyncio.gather(first, second)

    assert run(scenario).requests == [{CLICKS: 1}, {OTHERS: 2}]


@pytest.mark.parametrize("writes", [True, False], ids=["by the writer", "as it is left"])
def test_a_lane_revoked_between_its_slice_and_the_write_loses_no_other_lane_its_offsets(writes: bool) -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        offsets.put({CLICKS: 1})
        offsets.put({OTHERS: 2})
        group.assigned = {OTHERS}
        if writes:
            await turns()
        await offsets.leave([CLICKS])

    assert run(scenario).requests == [{OTHERS: 2}]


def test_a_partition_that_is_refused_loses_no_other_its_offsets() -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        group.refused = {CLICKS}
        offsets.put({CLICKS: 1})
        offsets.put({OTHERS: 2})
        await turns()
        assert group.offsets == {OTHERS: 2}
        await offsets.leave([CLICKS])
        offsets.put({OTHERS: 3})

    assert run(scenario).offsets == {OTHERS: 3}


def test_what_a_rebalance_refuses_is_told_and_is_written_later_though_its_lane_has_no_further_slice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_offsets, "AGAIN_S", 0)

    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        group.rebalances = True
        offsets.put({CLICKS: 1})
        while not group.requests:
            await turns(1)
        group.rebalances = False
        await turns()
        assert group.offsets == {CLICKS: 1}

    with capture_logs() as logs:
        run(scenario)
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_what_is_refused_as_its_lane_is_left_is_not_written_over_what_the_next_owner_has_written() -> None:
    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        group.rebalances = True
        offsets.put({CLICKS: 1})
        await offsets.leave([CLICKS])
        group.rebalances = False
        offsets.put({OTHERS: 2})

    assert run(scenario).offsets == {OTHERS: 2}


def test_a_silent_broker_keeps_a_lane_that_is_left_for_the_time_of_a_farewell_and_its_offsets_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.leaving.FAREWELL_S", 0.0)

    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        group.open.clear()
        offsets.put({CLICKS: 1})
        await turns()
        await offsets.leave([CLICKS])
        group.open.set()
        monkeypatch.setattr("streams.leaving.FAREWELL_S", 600.0)
        offsets.put({OTHERS: 2})

    assert run(scenario).offsets == {OTHERS: 2}


def test_after_a_pause_without_news_the_next_offsets_are_written_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_offsets, "PAUSE_S", 0)

    async def scenario(group: Group, offsets: GroupOffsets) -> None:
        for offset in (1, 2):
            offsets.put({CLICKS: offset})
            await turns()
            assert group.offsets == {CLICKS: offset}

    run(scenario)
