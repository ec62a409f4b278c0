"""The order of a lane, by example: ties, waiting, and a record dated in the future."""

from typing import Any

import numpy as np

from scoring.order import Taken, take

LIMIT_MS = 60


def array(times: list[int]) -> Any:
    return np.array(times, dtype=np.int64)


def taken(queued: tuple[list[int], list[int]], marks: tuple[int, int], complete: tuple[bool, bool], most: int) -> Taken:
    return take((array(queued[0]), array(queued[1])), marks, complete, LIMIT_MS, most)


def test_of_one_time_the_impression_comes_first() -> None:
    assert taken(([5, 7], [5, 5, 7]), (0, 0), (True, True), 10).order.tolist() == [0, 1, 1, 0, 1]


def test_a_click_waits_for_an_impression_of_its_own_time_that_may_still_come() -> None:
    assert taken(([5], [5]), (0, 0), (False, True), 10).order.tolist() == [0]
    assert taken(([6], [5]), (0, 0), (False, True), 10).order.tolist() == [1, 0]


def test_an_impression_does_not_wait_for_a_click_of_its_own_time() -> None:
    assert taken(([5], [5]), (0, 0), (True, False), 10).order.tolist() == [0, 1]


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


def test_nothing_queued_gives_nothing_and_leaves_the_watermarks() -> None:
    out = taken(([], []), (3, 4), (True, True), 10)

    assert out.order.tolist() == []
    assert out.watermarks_ms == (3, 4)


def test_a_late_record_is_taken_at_its_topics_watermark_and_moves_it_no_further_back() -> None:
    out = taken(([10, 3], [5, 10]), (0, 0), (True, True), 10)

    assert out.order.tolist() == [1, 0, 0, 1]
    assert out.watermarks_ms == (10, 10)


def test_no_more_is_taken_than_asked_for_and_the_watermarks_are_those_of_what_was_taken() -> None:
    out = taken(([1, 2, 9], [3, 4]), (0, 0), (True, True), 3)

    assert out.order.tolist() == [0, 0, 1]
    assert out.watermarks_ms == (2, 3)
