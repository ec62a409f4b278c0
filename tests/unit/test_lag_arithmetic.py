"""Lag from samples: interpolated time, rates, and Burrow's statuses one by one."""

import math
from collections.abc import Sequence

import pytest

from streams.lag.arithmetic import (
    COMMITS_MIN,
    POINTS_MAX,
    LogEnds,
    PartitionLag,
    Rules,
    Sample,
    Status,
    Track,
    catch_up_s,
    rates,
    time_lag,
)

RULES = Rules(window_ms=30_000, stuck_ms=10_000)
Point = tuple[int | None, int | None]  # committed, log end


def watched(points: Sequence[Point], *, owned: bool = True, every_ms: int = 1_000) -> PartitionLag:
    """What a monitor says after seeing ``points``, one a second."""
    track, ends = Track(RULES), LogEnds()
    for number, (committed, end) in enumerate(points):
        if end is not None:
            ends.add(number * every_ms, end)
        track.add(Sample(number * every_ms, committed, end, owned))
    return track.lag("clicks", 3, ends, "worker@10.0.0.1")


def test_a_consumer_at_the_log_end_has_no_lag_of_any_kind() -> None:
    lag = watched([(10, 10), (20, 20)])

    assert (lag.status, lag.lag, lag.time_lag_s, lag.catch_up_s, lag.stuck_s) == (Status.OK, 0, 0.0, 0.0, 0.0)
    assert (lag.topic, lag.partition, lag.owner) == ("clicks", 3, "worker@10.0.0.1")


def test_time_lag_is_since_the_committed_offset_was_the_log_end() -> None:
    # The log grows by 100 a second; the consumer stands at 250, which was the log end 2.5 s into 5.
    lag = watched([(250, 100 * second) for second in range(6)])

    assert (lag.time_lag_s, lag.time_lag_at_least) == (2.5, False)


def test_a_record_that_came_after_a_pause_is_as_old_as_the_end_of_the_pause() -> None:
    ends = LogEnds()
    for time_ms, end in [(0, 50), (1_000, 50), (600_000, 50), (601_000, 60)]:
        ends.add(time_ms, end)

    assert len(ends) == 3  # of a rest its first moment and its last
    assert time_lag(ends, 50, 60, 602_000) == (2_000, True)
    assert time_lag(ends, 55, 60, 602_000) == (1_500, True)


def test_time_lag_from_before_the_watch_is_told_as_at_least() -> None:
    lag = watched([(7, 1_000), (7, 1_000), (7, 1_100)])

    assert (lag.time_lag_s, lag.time_lag_at_least) == (2.0, True)


def test_a_log_that_is_shorter_than_before_is_another_log() -> None:
    ends = LogEnds()
    ends.add(0, 1_000)
    ends.add(1_000, 10)
    ends.add(2_000, 30)

    assert time_lag(ends, 20, 30, 3_000) == (1_500, True)
    assert time_lag(ends, 5, 30, 3_000) == (2_000, False)


def test_rates_are_over_the_window_and_say_when_it_will_have_caught_up() -> None:
    # Reads 300 a second, 100 come: 200 a second are gained, and 3,000 were behind.
    lag = watched([(300 * second, 3_000 + 100 * second) for second in range(6)])

    assert (lag.consumed_per_s, lag.produced_per_s) == (300.0, 100.0)
    assert lag.catch_up_s == pytest.approx(2_000 / 200)


def test_rates_forget_what_is_older_than_the_window() -> None:
    lag = watched([(0, 1_000_000)] + [(10 * second, 1_000_000) for second in range(1, 100)])

    assert lag.consumed_per_s == 10.0


@pytest.mark.parametrize(
    ("lag", "consumed", "produced", "seconds"),
    [(0, 0, 9, 0.0), (10, 5, 3, 5.0), (10, 3, 3, None), (10, 3, 5, None), (None, 3, 1, None)],
)
def test_who_gains_nothing_never_catches_up(
    lag: int | None, consumed: float, produced: float, seconds: float | None
) -> None:
    assert catch_up_s(lag, consumed, produced) == seconds


def test_one_sample_tells_no_rate() -> None:
    assert rates([Sample(0, 5, 10, True)]) == (0.0, 0.0)


@pytest.mark.parametrize(("owned", "status"), [(True, Status.STALL), (False, Status.STOP)])
def test_lag_without_progress_is_a_stall_where_a_member_lives_and_a_stop_where_none_does(
    owned: bool, status: Status
) -> None:
    frozen: list[Point] = [(100, 100)] * 3 + [(100, 100 + 10 * second) for second in range(1, 14)]

    assert watched(frozen[:12], owned=owned).status is Status.OK
    lag = watched(frozen, owned=owned)
    assert (lag.status, lag.stuck_s) == (status, 12.0)


def test_a_quiet_consumer_is_not_stuck_for_the_time_in_which_nothing_came() -> None:
    assert watched([(100, 100)] * 120 + [(100, 101)]).status is Status.OK


def test_a_record_that_is_there_when_one_looks_again_is_no_stall_however_long_one_did_not_look() -> None:
    seldom = watched([(10, 10), (10, 11)], every_ms=15_000)
    assert (seldom.status, seldom.stuck_s) == (Status.OK, 0.0)
    untold = watched([(10, 10), *[(10, None)] * 60, (None, 11), (10, 11)])
    assert (untold.status, untold.stuck_s) == (Status.OK, 0.0)
    still_there = watched([(10, 10), (10, 11), (10, 12)], every_ms=15_000)
    assert (still_there.status, still_there.stuck_s) == (Status.STALL, 15.0)
    never_well = watched([(10, 11), *[(10, None)] * 60, (10, 11)])
    assert (never_well.status, never_well.stuck_s) == (Status.STALL, 61.0)


def test_a_stall_lasts_however_long_and_ends_with_the_first_progress() -> None:
    stalled: list[Point] = [(0, 5_000 + second) for second in range(100)]

    assert (watched(stalled).status, watched(stalled).stuck_s) == (Status.STALL, 99.0)
    assert watched([*stalled, (10, 5_100)]).status is Status.OK


def test_consuming_and_falling_behind_at_every_commit_is_a_warning() -> None:
    falling: list[Point] = [(10 * second, 100 + 30 * second) for second in range(40)]

    assert watched(falling).status is Status.WARN
    assert watched(falling[:COMMITS_MIN]).status is Status.OK, "too few to be a trend"
    shrinks: list[Point] = [*falling[:35], (10 * 35 + 300, 100 + 30 * 35), *falling[36:]]
    assert watched(shrinks[:36]).status is Status.OK
    caught_up: list[Point] = [*falling[:30], (1_000, 1_000), *[(1_000 + 10 * s, 1_000 + 30 * s) for s in range(1, 9)]]
    assert watched(caught_up).status is Status.OK, "lag was 0 within the window"


def test_commits_that_are_rarer_than_polls_are_judged_at_the_commits() -> None:
    # Commits every 4 s, so that lag grows between them; what it is at each commit decides.
    steady: list[Point] = [(40 * (second // 4), 100 + 10 * second) for second in range(40)]
    slower: list[Point] = [(20 * (second // 4), 100 + 10 * second) for second in range(40)]
    faster: list[Point] = [(60 * (second // 4), 1_000 + 10 * second) for second in range(40)]

    assert watched(slower).status is Status.WARN
    assert watched(steady).status is Status.WARN, "behind, and never less: Burrow warns"
    assert watched(faster).status is Status.OK


def test_offsets_that_went_back_are_a_rewind_until_all_is_read_again() -> None:
    rewound: list[Point] = [(100, 100), (100, 100), (20, 100)]

    assert watched(rewound).status is Status.REWIND
    assert watched([*rewound, (60, 100)]).status is Status.REWIND
    assert watched([*rewound, (60, 100), (100, 100)]).status is Status.OK
    assert watched([*rewound, (60, 100), (100, 100), (100, 110)]).status is Status.OK


def test_a_rewind_from_behind_is_one_too_and_is_forgotten_with_the_window() -> None:
    rewound: list[Point] = [(50, 100), (20, 100)]
    recovering: list[Point] = [(20 + second, 100) for second in range(1, 40)]

    assert watched([*rewound, *recovering[:3]]).status is Status.REWIND
    assert watched([*rewound, *recovering]).status is Status.OK


def test_nothing_committed_or_no_log_end_is_unknown() -> None:
    for point in ((None, 100), (100, None), (None, None)):
        lag = watched([point])
        assert (lag.status, lag.lag, lag.time_lag_s, lag.catch_up_s) == (Status.UNKNOWN, None, None, None)
        assert watched([point] * 20).stuck_s == 0  # of what nobody knows to be behind


@pytest.mark.parametrize("untold", [(None, 100), (50, None), (None, None)])
def test_a_poll_that_was_not_told_an_offset_is_no_rewind_and_no_progress(untold: Point) -> None:
    assert watched([(50, 100), untold, (51, 100)]).status is Status.OK
    frozen: list[Point] = [(50, 100)] * 9
    lag = watched([*frozen, untold, (50, 100)])
    assert (lag.status, lag.stuck_s) == (Status.STALL, 10.0)
    assert watched([(50, 100), untold, (20, 100)]).status is Status.REWIND
    falling: list[Point] = [(10 * second, 100 + 30 * second) for second in range(20)]
    assert watched([*falling[:10], untold, *falling[11:]]).status is Status.WARN


def test_who_stands_before_the_offsets_that_are_kept_is_stuck_since_the_first_that_was_told() -> None:
    lag = watched([(None, 100), (None, 100), (50, 100), (50, 100)])
    assert (lag.status, lag.stuck_s) == (Status.OK, 1.0)


def test_a_consumer_beyond_the_log_end_is_not_behind() -> None:
    lag = watched([(120, 100)])
    assert (lag.status, lag.lag, lag.time_lag_s) == (Status.OK, 0, 0.0)


def test_a_partition_is_stuck_from_the_bound_on_and_not_before() -> None:
    frozen: list[Point] = [(50, 100)] * 11
    assert watched(frozen[:10]).status is Status.OK
    assert watched(frozen).status is Status.STALL
    assert (Rules().window_ms, Rules().stuck_ms) == (30_000, 10_000)


def test_a_trend_takes_as_many_commits_as_are_called_one() -> None:
    falling: list[Point] = [(10 * second, 100 + 30 * second) for second in range(40)]
    assert watched(falling[: COMMITS_MIN + 1]).status is Status.WARN
    assert watched(falling[:COMMITS_MIN]).status is Status.OK
    assert math.factorial(COMMITS_MIN) == 120


def test_a_lag_that_begins_within_the_window_is_no_trend() -> None:
    falling: list[Point] = [(100, 100), *[(100 + 10 * second, 100 + 30 * second) for second in range(1, 20)]]
    assert watched(falling).status is Status.OK
    assert watched([(90, 100), *falling[1:]]).status is Status.WARN


@pytest.mark.parametrize("pace", [9, 10])  # behind all the time, and caught up until it stands still
def test_a_window_of_more_polls_than_are_kept_is_looked_back_on_whole(pace: int) -> None:
    track, ends = Track(Rules(window_ms=3_600_000)), LogEnds()
    for second in range(7_200):  # of the hour that counts, it stands still for the last twenty minutes
        ends.add(1_000 * second, 10 * second)
        track.add(Sample(1_000 * second, pace * min(second, 6_000), 10 * second, owned=True))
    lag = track.lag("clicks", 3, ends)
    assert (lag.committed, lag.log_end) == (pace * 6_000, 71_990)
    assert lag.consumed_per_s == pytest.approx(pace * 2_400 / 3_600, rel=0.01)
    assert lag.produced_per_s == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("phase", range(4))
def test_a_group_that_catches_up_now_and_then_is_well_over_a_long_window_too(phase: int) -> None:
    track, ends = Track(Rules(window_ms=3_600_000)), LogEnds()
    for second in range(7_200):
        left = 0 if second % 4 == phase else 3 + second // 1_000
        ends.add(1_000 * second, 10 * second)
        track.add(Sample(1_000 * second, 10 * second - left, 10 * second, owned=True))
        if second % 600 == 599:
            assert track.lag("clicks", 3, ends).status is Status.OK


def test_rates_go_back_to_the_sample_on_the_edge_of_the_window_and_no_further() -> None:
    # A poll each ten seconds, and a window of thirty: the first within it stands on its edge.
    steps = [0, 0, 500, 600, 650, 800]
    lag = watched([(offset, 1_000) for offset in steps], every_ms=10_000)
    assert lag.consumed_per_s == 10.0
    lag = watched([(offset, 1_000) for offset in steps], every_ms=20_000)
    assert lag.consumed_per_s == 5.0  # from the last one before the edge, where none is on it
    lag = watched([(offset, 1_000) for offset in steps], every_ms=31_000)
    assert lag.consumed_per_s == round(150 / 31, 3)


def test_samples_of_one_moment_tell_no_rate() -> None:
    assert rates([Sample(5, 5, 10, True), Sample(5, 9, 10, True)]) == (0.0, 0.0)


def test_offsets_that_go_back_are_no_consumption() -> None:
    lag = watched([(90, 100), (40, 100), (60, 100)])
    assert lag.consumed_per_s == 10.0


def test_a_record_that_was_appended_after_the_poll_is_no_younger_than_nothing() -> None:
    ends = LogEnds()
    ends.add(0, 0)
    ends.add(2_000, 100)
    assert time_lag(ends, 50, 100, 500) == (0, True)


def test_of_a_history_that_grows_sparse_the_newer_half_stays_and_of_the_older_what_tells_most() -> None:
    ends = LogEnds()
    moments = [(1_000 * second, 10 * second * second) for second in range(POINTS_MAX + 1)]
    for time_ms, end in moments[:-1]:
        ends.add(time_ms, end)
    assert len(ends) == POINTS_MAX
    ends.add(*moments[-1])
    assert len(ends) == POINTS_MAX - POINTS_MAX // 4 + 1
    half = POINTS_MAX // 2
    kept = {time_ms for time_ms, end in moments[:-1] if ends.reached_ms(end) == (time_ms, True)}
    assert {1_000 * second for second in (0, *range(half, POINTS_MAX))} <= kept
    for time_ms, end in moments[:-1]:  # every fourth second would be half a second off where it grows fastest
        assert ends.reached_ms(end)[0] == pytest.approx(time_ms, abs=200)


@pytest.mark.parametrize("busy", [300, 301])  # whichever of the points goes that are every second one
def test_a_consumer_that_stands_still_after_a_long_rest_is_as_far_behind_as_the_traffic_since(busy: int) -> None:
    ends, rest = LogEnds(), 8 * 3_600
    for second in range(busy + rest + 600):
        ends.add(1_000 * second, 10 * (min(second, busy) + max(0, second - busy - rest)))
        since = second - busy - rest
        if since > 0:
            now_ms, end = 1_000 * second, 10 * (busy + since)
            assert time_lag(ends, 10 * busy, end, now_ms) == (1_000 * since, True)
            assert time_lag(ends, 10 * busy - 10, end, now_ms) == (1_000 * (rest + since + 1), True)
