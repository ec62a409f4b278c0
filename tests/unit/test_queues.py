"""What a lane has fetched: bounded, cut into slices in order, and how long it waits for its other topic."""

from scoring.events import Source
from streams.lanes.queues import LaneQueues
from streams.step import Slice
from tests.builders import START_MS, Record, record
from tests.builders import click as click_event
from tests.builders import impression as impression_event

WAIT_MS = 50
LIMIT_MS = START_MS + 300_000
NONE_SEEN = (0, 0)


def shown(*seconds: int) -> list[Record]:
    return [record(impression_event(time_ms=START_MS + 1_000 * at), offset=offset) for offset, at in enumerate(seconds)]


def clicked(*seconds: int) -> list[Record]:
    return [record(click_event(time_ms=START_MS + 1_000 * at), offset=offset) for offset, at in enumerate(seconds)]


def queues(records_max: int = 100, bytes_max: int = 10**6) -> LaneQueues:
    return LaneQueues(records_max, bytes_max, WAIT_MS)


def cut(of: LaneQueues, tick_ms: int = 0, records_max: int = 100, marks: tuple[int, int] = NONE_SEEN) -> Slice | None:
    return of.take(marks, LIMIT_MS, tick_ms, records_max)


def seconds_of(taken: Slice | None) -> list[int]:
    assert taken is not None
    return [(taken_record.timestamp - START_MS) // 1_000 for taken_record in taken.records]


def caught_up(of: LaneQueues, source: Source, empty_since_ms: int = 0) -> None:
    of.sources[source].caught_up = True
    of.sources[source].empty_since_ms = empty_since_ms


def test_a_slice_is_cut_by_time_across_both_topics_with_its_order_and_watermarks() -> None:
    of = queues()
    of.put(Source.IMPRESSION, shown(1, 4, 9))
    of.put(Source.CLICK, clicked(2, 3, 9))

    taken = cut(of)

    assert taken is not None
    assert seconds_of(taken) == [1, 2, 3, 4, 9]
    assert taken.order.tolist() == [0, 1, 1, 0, 0]
    assert taken.watermarks_ms == (START_MS + 9_000, START_MS + 3_000)
    assert len(of) == 1  # the click of second 9 waits for another impression of its time


def test_a_backlog_is_cut_where_the_lanes_time_enters_another_hour_of_utc_and_nothing_waits_for_that() -> None:
    of = queues()
    of.put(Source.IMPRESSION, shown(-90_000, -801, -800, 5))  # 800 s before the start an hour begins
    of.put(Source.CLICK, clicked(-4_401, -4_400, -801, 4, 5))

    cuts, marks = [], NONE_SEEN
    while (taken := cut(of, marks=marks)) is not None:
        cuts.append(seconds_of(taken))
        marks = taken.watermarks_ms

    assert cuts == [[-90_000], [-4_401], [-4_400, -801, -801], [-800, 4, 5]]
    assert len(of) == 1  # as above, and whatever the hour


def test_what_comes_late_of_many_hours_is_one_slice_of_the_lanes_own_hour() -> None:
    of = queues()
    of.put(Source.CLICK, clicked(-90_000, -4_401, -801, 4))
    caught_up(of, Source.IMPRESSION)

    assert seconds_of(cut(of, WAIT_MS, marks=(START_MS, 0))) == [-90_000, -4_401, -801, 4]


def test_nothing_queued_gives_no_slice() -> None:
    assert cut(queues()) is None


def test_while_nothing_is_known_of_the_other_topic_it_is_waited_for_without_limit() -> None:
    of = queues()
    of.put(Source.CLICK, clicked(1))

    assert cut(of, tick_ms=10**9) is None
    assert len(of) == 1


def test_a_topic_that_is_caught_up_is_waited_for_a_moment_from_when_its_queue_became_empty() -> None:
    of = queues()
    of.put(Source.CLICK, clicked(1))
    caught_up(of, Source.IMPRESSION, empty_since_ms=1_000)

    assert cut(of, tick_ms=1_000 + WAIT_MS - 1) is None
    assert seconds_of(cut(of, tick_ms=1_000 + WAIT_MS)) == [1]


def test_the_wait_begins_anew_when_a_slice_empties_the_queue() -> None:
    of = queues()
    of.put(Source.IMPRESSION, shown(1))
    of.put(Source.CLICK, clicked(1, 5))
    caught_up(of, Source.IMPRESSION)

    assert seconds_of(cut(of, tick_ms=500)) == [1]
    assert cut(of, tick_ms=500 + WAIT_MS - 1) is None
    assert seconds_of(cut(of, tick_ms=500 + WAIT_MS)) == [1, 5]


def test_a_topic_with_records_queued_is_not_complete_however_caught_up() -> None:
    of = queues()
    of.put(Source.IMPRESSION, shown(3))
    of.put(Source.CLICK, clicked(1, 3, 7))
    caught_up(of, Source.IMPRESSION)

    assert seconds_of(cut(of, tick_ms=10**6)) == [1, 3]  # the click of second 3 might precede nothing, but 7 could


def test_a_slice_has_at_most_the_records_asked_for_and_the_rest_follows_in_order() -> None:
    of = queues()
    of.put(Source.IMPRESSION, shown(*range(0, 20, 2)))
    of.put(Source.CLICK, clicked(*range(1, 21, 2)))
    seconds: list[int] = []
    marks = NONE_SEEN

    while (taken := cut(of, records_max=3, marks=marks)) is not None:
        assert len(taken.records) <= 3
        marks = taken.watermarks_ms
        seconds += seconds_of(taken)

    assert seconds == list(range(19))
    assert len(of) == 1


def test_records_and_bytes_are_bounded_each_topic_by_itself() -> None:
    of = queues(records_max=2)
    assert of.has_room(Source.CLICK)
    of.put(Source.CLICK, clicked(1, 2))

    assert not of.has_room(Source.CLICK)
    assert of.has_room(Source.IMPRESSION)

    one = clicked(1)
    size = len(one[0].key or b"") + len(one[0].value or b"")
    narrow = queues(bytes_max=2 * size)
    narrow.put(Source.CLICK, one)
    assert narrow.has_room(Source.CLICK)
    narrow.put(Source.CLICK, one)
    assert not narrow.has_room(Source.CLICK)


def test_headers_count_in_what_a_lane_holds() -> None:
    of = queues(bytes_max=1_000_000)
    of.put(Source.CLICK, [Record("clicks", 0, 0, START_MS, b"user-1", b"{}", [("trace", bytes(999_000))])])
    assert of.has_room(Source.CLICK)
    of.put(Source.CLICK, [Record("clicks", 0, 1, START_MS, b"user-1", b"{}", [("trace", bytes(1_000))])])
    assert not of.has_room(Source.CLICK)


def test_what_is_taken_makes_room_to_the_byte() -> None:
    of = queues()
    of.put(Source.CLICK, [*clicked(1, 2, 3), Record("clicks", 0, 3, START_MS + 3_000, None, None)])
    caught_up(of, Source.IMPRESSION)
    assert of.sources[Source.CLICK].bytes > 0

    while cut(of, tick_ms=10**6, records_max=1) is not None:
        pass

    assert len(of) == 0
    assert of.sources[Source.CLICK].bytes == 0


def test_a_cleared_lane_has_nothing_and_knows_nothing() -> None:
    of = queues()
    of.put(Source.CLICK, clicked(1))
    caught_up(of, Source.IMPRESSION)

    of.clear()

    assert len(of) == 0
    assert [(queue.bytes, queue.caught_up) for queue in of.sources] == [(0, False), (0, False)]
    assert of.has_room(Source.CLICK)
