"""The order of a lane: by time across its topics, the same however the records arrive, and never too early."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scoring.events import Source
from scoring.order import Taken, stream_times, take

LIMIT_MS = 60
"""Now and tolerance; some times lie beyond it, and are clamped to it."""
TIMES = st.lists(st.integers(0, 90), max_size=30)
Effective = list[tuple[int, int, int]]


def array(times: list[int]) -> Any:
    return np.array(times, dtype=np.int64)


def effective(times: list[int], mark: int, source: int) -> Effective:
    """(running maximum, source, place) of each record, one after the other."""
    out = []
    for place, time in enumerate(times):
        mark = max(mark, min(time, LIMIT_MS))
        out.append((mark, source, place))
    return out


def by_definition(
    queued: tuple[list[int], list[int]], marks: tuple[int, int], complete: tuple[bool, bool]
) -> list[tuple[int, int]]:
    """What may be taken: records in order, up to the first that an incomplete source's next record may precede."""
    streams = [effective(times, marks[source], source) for source, times in enumerate(queued)]
    held = [
        (stream[-1][0] if stream else marks[source], source)
        for source, stream in enumerate(streams)
        if not complete[source]
    ]
    merged = sorted(streams[0] + streams[1])
    return [(source, place) for time, source, place in merged if all((time, source) <= first for first in held)]


def taken(queued: tuple[list[int], list[int]], marks: tuple[int, int], complete: tuple[bool, bool], most: int) -> Taken:
    return take((array(queued[0]), array(queued[1])), marks, complete, LIMIT_MS, most)


@given(TIMES, TIMES, st.tuples(st.integers(0, 50), st.integers(0, 50)), st.tuples(st.booleans(), st.booleans()))
def test_exactly_what_no_incomplete_source_may_precede_is_taken_in_order(
    impressions: list[int], clicks: list[int], marks: tuple[int, int], complete: tuple[bool, bool]
) -> None:
    queued = impressions, clicks

    out = taken(queued, marks, complete, 1_000)

    expected = by_definition(queued, marks, complete)
    assert out.order.tolist() == [source for source, _ in expected]
    assert out.counts == (out.order.tolist().count(0), out.order.tolist().count(1))


@given(TIMES, TIMES, st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_a_filled_backlog_taken_in_pieces_gives_the_order_of_all_at_once(
    impressions: list[int], clicks: list[int], sizes: list[int]
) -> None:
    whole = taken((impressions, clicks), (0, 0), (True, True), 1_000)
    order: list[int] = []
    marks, at = (0, 0), [0, 0]

    while len(order) < len(impressions) + len(clicks):
        most = sizes[len(order) % len(sizes)]
        heads = impressions[at[0] : at[0] + most], clicks[at[1] : at[1] + most]  # no more is looked at than is taken
        piece = taken(heads, marks, (True, True), most)
        assert len(piece.order)
        order += piece.order.tolist()
        marks = piece.watermarks_ms
        at = [at[0] + piece.counts[0], at[1] + piece.counts[1]]

    assert order == whole.order.tolist()
    assert marks == whole.watermarks_ms


@given(
    TIMES, TIMES, st.lists(st.tuples(st.sampled_from(list(Source)), st.integers(1, 8), st.integers(1, 5)), max_size=40)
)
def test_the_way_in_which_records_arrive_does_not_change_their_order(
    impressions: list[int], clicks: list[int], arrivals: list[tuple[Source, int, int]]
) -> None:
    streams = impressions, clicks
    whole = taken(streams, (0, 0), (True, True), 1_000)
    order: list[int] = []
    marks, at, fetched = (0, 0), [0, 0], [0, 0]

    for source, count, most in [*arrivals, (Source.IMPRESSION, 1_000, 1_000), (Source.CLICK, 1_000, 1_000)]:
        fetched[source] = min(fetched[source] + count, len(streams[source]))
        done = all(fetched[each] == len(streams[each]) for each in Source)
        queued = streams[0][at[0] : fetched[0]], streams[1][at[1] : fetched[1]]
        piece = taken(queued, marks, (done, done), most)
        order += piece.order.tolist()
        marks = piece.watermarks_ms
        at = [at[0] + piece.counts[0], at[1] + piece.counts[1]]

    assert order == whole.order.tolist()


@given(TIMES, TIMES, st.integers(1, 30), st.integers(1, 9))
def test_pieces_of_one_span_of_the_lanes_time_each_are_as_large_as_they_may_be_and_give_the_order_of_all_at_once(
    impressions: list[int], clicks: list[int], span: int, most: int
) -> None:
    whole = taken((impressions, clicks), (0, 0), (True, True), 1_000)
    places = [iter(impressions), iter(clicks)]
    lanes_ms = stream_times(array([next(places[source]) for source in whole.order.tolist()]), 0, LIMIT_MS)
    marks, at = (0, 0), [0, 0]

    while (start := sum(at)) < len(whole.order):
        queued = array(impressions[at[0] :]), array(clicks[at[1] :])
        piece = take(queued, marks, (True, True), LIMIT_MS, most, span)
        spans = (lanes_ms[start : start + most] // span).tolist()
        size = next((size for size, each in enumerate(spans) if each != spans[0]), len(spans))
        assert piece.order.tolist() == whole.order[start : start + size].tolist()
        marks, at = piece.watermarks_ms, [at[0] + piece.counts[0], at[1] + piece.counts[1]]

    assert marks == whole.watermarks_ms


@given(TIMES, TIMES)
def test_everything_is_taken_once_nothing_older_is_to_be_waited_for(impressions: list[int], clicks: list[int]) -> None:
    assert taken((impressions, clicks), (0, 0), (True, True), 1_000).counts == (len(impressions), len(clicks))


@given(TIMES, st.integers(0, 50))
def test_the_lanes_time_is_that_of_the_newest_record_so_far_and_never_goes_back(times: list[int], from_ms: int) -> None:
    expected = [time for time, *_ in effective(times, from_ms, 0)]

    assert stream_times(array(times), from_ms, LIMIT_MS).tolist() == expected


def test_one_record_far_in_the_future_holds_nobody_back_beyond_the_limit() -> None:
    far = 10**15
    first = take((array([far, 3]), array([1, 2, 3])), (0, 0), (True, False), LIMIT_MS, 10)
    assert first.order.tolist() == [1, 1, 1]  # the clicks go on

    second = take((array([far, 3]), array([LIMIT_MS])), first.watermarks_ms, (True, False), LIMIT_MS, 10)
    assert second.order.tolist() == [0, 0, 1]  # and when they have reached the limit, so do the impressions
    assert max(second.watermarks_ms) == LIMIT_MS

    # Without the clamp the impressions' watermark would lie in the far future, and this click's time never reach it.
    later = take((array([70]), array([71])), second.watermarks_ms, (True, False), LIMIT_MS + 20, 10)
    assert later.order.tolist() == [0, 1]
