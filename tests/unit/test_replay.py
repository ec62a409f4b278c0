"""The pace of a replay, and what keeps a log from topics that would delete it."""

import asyncio
from collections.abc import Sequence

import pytest

from streams import topics
from streams.logs import Event, Log, in_order
from streams.replay import (
    KEPT_FOR_EVER,
    RECORDS_PER_ROUND,
    TICK_S,
    ReplayError,
    check_retention,
    in_rounds,
    paced,
)
from tests.builders import START_MS, click, impression


class Time:
    """A clock that only sleeping moves, and work where told."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now_s += seconds


def play(events: Sequence[Event], speed: float, time: Time, work_s: float = 0.0) -> list[tuple[float, int]]:
    """When each event left, in seconds since the start, and its own time since the first's, in ms."""

    async def run() -> list[tuple[float, int]]:
        left = []
        async for due in paced(events, speed, time.clock, time.sleep):
            left += [(time.now_s - 1_000.0, event.time_ms - events[0].time_ms) for event in due]
            time.now_s += work_s
        return left

    return asyncio.run(run())


def at(*offsets_ms: int) -> list[Event]:
    return [impression(f"user-{place}", time_ms=START_MS + offset) for place, offset in enumerate(offsets_ms)]


@pytest.mark.parametrize("speed", [0.5, 1.0, 60.0])
def test_events_leave_at_a_multiple_of_their_own_pace_and_never_early(speed: float) -> None:
    left = play(at(0, 1_000, 5_000, 60_000), speed, Time())

    assert [own_ms for _, own_ms in left] == [0, 1_000, 5_000, 60_000]
    for left_s, own_ms in left:
        due_s = own_ms / 1000 / speed
        assert due_s - 1e-6 <= left_s <= due_s + TICK_S + 1e-6


def test_the_first_event_leaves_at_once_whenever_the_log_was_recorded() -> None:
    time = Time()

    assert play(at(0), 1.0, time) == [(0.0, 0)]
    assert time.slept == []


def test_what_is_late_is_caught_up_without_sleeping() -> None:
    time = Time()

    left = play(at(0, 1_000, 2_000, 3_000), 1.0, time, work_s=10.0)

    assert [left_s for left_s, _ in left] == [0.0, 10.0, 10.0, 10.0]
    assert time.slept == []


def test_events_that_are_nearer_than_a_tick_leave_together() -> None:
    time = Time()

    play(at(*range(100)), 1_000.0, time)

    assert len(time.slept) <= 100 / 1_000 / TICK_S + 1


def test_every_event_is_in_one_round_in_order() -> None:
    numbers = range(2 * RECORDS_PER_ROUND + 1)

    rounds = list(in_rounds(numbers))

    assert [len(each) for each in rounds] == [RECORDS_PER_ROUND, RECORDS_PER_ROUND, 1]
    assert [number for each in rounds for number in each] == list(numbers)


def test_of_one_millisecond_impressions_come_first_and_the_rest_as_given() -> None:
    first, second = click("a", time_ms=START_MS), click("b", time_ms=START_MS)
    shown, before = impression("c", time_ms=START_MS), click("d", time_ms=START_MS - 1)

    assert in_order([first, second, shown, before]) == [before, shown, first, second]


def test_a_topic_that_would_delete_the_log_is_refused_with_what_helps() -> None:
    now_ms = START_MS + 8 * topics.DAY_MS

    with pytest.raises(ReplayError) as raised:
        check_retention(Log([], at(0, 1_000)), {"shop-clicks": 7 * topics.DAY_MS}, now_ms)

    message = str(raised.value)
    assert "shop-clicks keeps records for 7.0 days" in message
    assert "2023-11-14" in message
    assert "--add-config retention.ms=-1" in message


@pytest.mark.parametrize("kept_ms", [None, 9 * topics.DAY_MS])
def test_a_topic_that_keeps_the_log_is_taken(kept_ms: int | None) -> None:
    check_retention(Log([], at(0)), {"clicks": kept_ms}, START_MS + 8 * topics.DAY_MS)


def test_a_log_without_events_has_no_age() -> None:
    check_retention(Log([], []), {"clicks": 1}, START_MS)


def test_every_topic_that_carries_the_logs_times_and_deletes_by_age_keeps_them_for_ever() -> None:
    deleting = {topic.name for topic in topics.TABLE if topic.cleanup == "delete"}

    made_now = {
        topics.DECISIONS,
        topics.OUTCOMES,
        topics.SHADOW_SCORES,
        topics.LATE_EVENTS,
    }  # these carry the time when they were made
    of_no_log = {topics.REVIEWS}
    assert deleting - KEPT_FOR_EVER.keys() == made_now | of_no_log
    assert KEPT_FOR_EVER.keys() <= deleting
