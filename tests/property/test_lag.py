"""What holds of every lag, whatever was seen."""

from bisect import bisect_right
from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from streams.lag.arithmetic import POINTS_MAX, LogEnds, Rules, Sample, Status, Track, time_lag
from streams.lag.board import Board, GroupSeen, Observation, Partition, worst

STEPS = st.lists(st.tuples(st.integers(1, 60_000), st.integers(0, 1_000)), min_size=1, max_size=600)


def history(steps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Moments and log ends that only grow."""
    return list(accumulate(steps, lambda at, step: (at[0] + step[0], at[1] + step[1]), initial=(0, 10)))


@given(STEPS)
def test_a_log_ends_history_is_bounded_and_keeps_its_first_and_last_point(steps: list[tuple[int, int]]) -> None:
    points, ends = history(steps), LogEnds()
    for time_ms, end in points:
        ends.add(time_ms, end)

    assert len(ends) <= POINTS_MAX
    assert ends.reached_ms(0) == (0, False)
    if points[-1][1] > points[0][1]:
        assert ends.reached_ms(points[-1][1] - 1)[1]


@given(STEPS, st.data())
def test_the_time_lag_lies_between_the_polls_that_bracket_the_record(
    steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    points, ends = history(steps[: POINTS_MAX - 2]), LogEnds()
    for time_ms, end in points:
        ends.add(time_ms, end)
    now_ms, last = points[-1]
    committed = data.draw(st.integers(0, last + 5))

    lag_ms, exact = time_lag(ends, committed, last, now_ms)

    after = bisect_right([end for _, end in points], committed)
    if committed >= last:
        assert (lag_ms, exact) == (0, True)
    elif after == 0:
        assert (lag_ms, exact) == (now_ms, False)
    else:
        assert exact
        assert now_ms - points[after][0] <= lag_ms <= now_ms - points[after - 1][0]


@given(STEPS)
def test_of_two_consumers_the_one_further_on_is_never_behind_longer(steps: list[tuple[int, int]]) -> None:
    points, ends = history(steps), LogEnds()
    for time_ms, end in points:
        ends.add(time_ms, end)
    now_ms, last = points[-1]

    lags = [time_lag(ends, committed, last, now_ms)[0] for committed in range(0, last + 1, max(1, last // 50))]

    assert all(later <= earlier for earlier, later in pairwise(lags))


TRAFFIC = st.lists(st.tuples(st.sampled_from((0, 1, 20, 1_000)), st.integers(1, 300)), min_size=2, max_size=40)
"""Records a second, and for how many seconds."""


@given(TRAFFIC)
def test_the_time_lag_of_traffic_that_rests_and_bursts_is_a_tenth_off_at_most_however_old(
    traffic: list[tuple[int, int]],
) -> None:
    ends, seen = LogEnds(), list(accumulate((rate for rate, seconds in traffic for _ in range(seconds)), initial=10))
    for second, end in enumerate(seen):
        ends.add(1_000 * second, end)
    now_ms, last = 1_000 * (len(seen) - 1), seen[-1]

    for committed in {*seen, *range(10, last, max(1, last // 50))} - {last}:
        lag_ms, exact = time_lag(ends, committed, last, now_ms)
        after = bisect_right(seen, committed)
        assert exact
        least_ms, most_ms = now_ms - 1_000 * after, now_ms - 1_000 * (after - 1)
        assert 0.9 * least_ms <= lag_ms <= 1.1 * most_ms


@st.composite
def samples(draw: st.DrawFn) -> list[Sample]:
    """Polls of a partition: an offset anywhere at or before a log end that only grows."""
    out, time_ms, end = [], 0, 0
    for _ in range(draw(st.integers(1, 40))):
        time_ms += draw(st.integers(1, 5_000))
        end += draw(st.integers(0, 50))
        committed = draw(st.one_of(st.none(), st.integers(0, end)))
        out.append(Sample(time_ms, committed, end, draw(st.sampled_from((True, False, None)))))
    return out


@given(samples())
def test_a_status_says_what_it_means(seen: list[Sample]) -> None:
    rules, ends = Rules(), LogEnds()
    track = Track(rules)
    for sample in seen:
        ends.add(sample.time_ms, sample.log_end or 0)
        track.add(sample)
    now = seen[-1]

    lag = track.lag("t", 0, ends)

    assert (lag.status is Status.UNKNOWN) == (now.committed is None)
    if now.lag == 0:
        assert lag.status is Status.OK
    if lag.status in (Status.STALL, Status.STOP):
        assert lag.stuck_s * 1000 >= rules.stuck_ms
        assert (lag.status is Status.STALL) == (now.owned is True)
        stuck = [sample for sample in seen if sample.time_ms >= now.time_ms - lag.stuck_s * 1000]
        assert {sample.committed for sample in stuck} - {None} == {now.committed}
        assert all(sample.lag != 0 for sample in stuck[1:])
    if lag.status is Status.REWIND:
        known = [sample.committed for sample in seen if sample.committed is not None]
        assert any(later < earlier for earlier, later in pairwise(known))
    assert lag.consumed_per_s >= 0
    assert lag.produced_per_s >= 0


GROUPS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.dictionaries(st.tuples(st.sampled_from(["x", "y"]), st.integers(0, 2)), st.integers(0, 100), max_size=6),
)


@given(st.lists(GROUPS, min_size=1, max_size=8))
def test_a_report_adds_up_and_holds_what_the_last_poll_saw_and_nothing_else(
    polls: list[dict[str, dict[tuple[str, int], int]]],
) -> None:
    board = Board(Rules())
    for number, poll in enumerate(polls):
        groups = {
            name: GroupSeen("stable", 1, {Partition(*tp): offset for tp, offset in committed.items()}, {})
            for name, committed in poll.items()
        }
        ends = {partition: 100 for group in groups.values() for partition in group.committed}
        report = board.observe(Observation(number * 1_000, groups, ends))

    assert [group.group for group in report.groups] == sorted(polls[-1])
    for group in report.groups:
        committed = polls[-1][group.group]
        assert {(lag.topic, lag.partition): lag.committed for lag in group.partitions} == committed
        assert group.total.lag == sum(100 - offset for offset in committed.values())
        assert group.total.lag == sum(of_topic.lag for of_topic in group.topics.values())
        assert group.total.status is worst(of_topic.status for of_topic in group.topics.values())
    assert len(board._tracks) == sum(map(len, polls[-1].values()))
