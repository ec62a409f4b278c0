"""When people come: hours that a lane counts, what it tells of them, and the day that budgets are planned by."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.budgets import Budgets
from scoring.ledger import Spending
from scoring.market import Market
from scoring.pacing import FINISH, planned
from scoring.traffic import HOURS, LEAST, Traffic, day_curve, unknown
from scoring.units import DAY_MS, HOUR_MS
from streams.control_wire import HourlyTraffic
from streams.feeds.campaigns import learn
from streams.step import Effects, LaneState, Step
from tests.builders import START_MS, impression, records
from tests.unit.slices import slice_of
from tests.unit.test_budgets import shop
from tests.unit.test_models import engine_of, toy

DAY = START_MS // DAY_MS * DAY_MS


def lived(traffic: Traffic, counts: list[int], start_ms: int = DAY) -> None:
    """Hours of so many impressions, in four parts each, and the moment after the last."""
    for hour, count in enumerate(counts):
        for part in range(4):
            traffic.observe(start_ms + hour * HOUR_MS + part * HOUR_MS // 4, count // 4)
    traffic.observe(start_ms + len(counts) * HOUR_MS, 0)


def test_an_hour_is_known_when_it_has_ended_and_the_first_was_not_seen_whole():
    traffic = Traffic()
    assert not traffic.observe(DAY + 1, 8)
    assert not traffic.observe(DAY + HOUR_MS - 1, 8)
    assert not traffic.observe(DAY + HOUR_MS, 4)  # it may have begun before
    assert np.isnan(traffic.mean).all()
    assert traffic.observe(DAY + 2 * HOUR_MS, 0)
    assert traffic.mean[1] == 4
    assert np.isnan(traffic.mean).sum() == HOURS - 1


def test_hours_without_anybody_count_nothing_and_newer_days_count_more():
    traffic = Traffic()
    lived(traffic, [40] * 25)
    assert (traffic.mean == 40).all()
    traffic.observe(DAY + 30 * HOUR_MS, 0)
    assert traffic.mean[2:6] == pytest.approx([28.0] * 4)  # 40 - 0.3 × 40
    traffic.observe(DAY + 500 * HOUR_MS, 0)
    assert (traffic.mean < 40).all()


def listed(told: list[tuple[int, int]]) -> tuple[list[float], list[bool]]:
    """The means, by hours as a list of all there were, and after which of (time, impressions) hours had ended."""
    mean, counts, ended = [np.nan] * HOURS, dict[int, int](), list[bool]()
    first, newest = told[0][0] // HOUR_MS, told[0][0] // HOUR_MS
    for time_ms, impressions in told:
        hour = time_ms // HOUR_MS
        gone = range(newest, hour) if newest > first else range(newest + 1, hour)
        for each in (each for each in gone if each in counts or each >= hour - HOURS):
            count, was = counts.get(each, 0), mean[each % HOURS]
            mean[each % HOURS] = count if np.isnan(was) else 0.7 * was + 0.3 * count
        ended.append(len(gone) > 0)
        newest = hour
        counts[hour] = counts.get(hour, 0) + impressions
    return mean, ended


STEPS = st.lists(
    st.tuples(st.sampled_from([0, HOUR_MS // 2, HOUR_MS, 2 * HOUR_MS, 25 * HOUR_MS, 90 * HOUR_MS]), st.integers(0, 9)),
    min_size=1,
    max_size=30,
)


@given(st.integers(1, 2 * DAY_MS), STEPS)
def test_means_are_those_of_all_hours_that_were_seen_whole_and_of_a_day_at_most_without_anybody(
    start_ms: int, steps: list[tuple[int, int]]
) -> None:
    times = start_ms + np.cumsum([step for step, _ in steps])
    told = [(time_ms, count) for time_ms, (_, count) in zip(times.tolist(), steps, strict=True)]
    traffic = Traffic()
    ended = [traffic.observe(*each) for each in told]
    mean, expected = listed(told)
    assert ended == expected
    np.testing.assert_allclose(traffic.mean, mean, rtol=1e-12)


def test_a_lane_without_time_learns_nothing():
    traffic = Traffic()
    assert not traffic.observe(0, 0)
    assert not traffic.observe(DAY, 1)
    assert np.isnan(traffic.mean).all()


@given(st.lists(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=24, max_size=24), max_size=4))
def test_a_day_is_shared_out_whole_and_every_hour_has_its_least(lanes: list[list[float | None]]) -> None:
    curve = day_curve(np.array([np.nan if hour is None else hour for hour in lane]) for lane in lanes)
    assert curve.sum() == pytest.approx(1)
    assert curve.min() >= LEAST / HOURS


def test_one_hour_that_has_all_the_traffic_leaves_the_others_their_least():
    curve = day_curve([np.where(np.arange(HOURS) == 3, 1_000.0, 0.0)])
    assert (np.delete(curve, 3) == LEAST / HOURS).all()
    short = np.array([0.0] * 20 + [8.5, 8.6, 1_000.0, 1_000.0])  # two are above the least until others are raised
    assert (short / short.sum() > LEAST / HOURS).sum() == 4
    assert (day_curve([short])[:22] == LEAST / HOURS).all()


def test_the_plan_follows_all_lanes_traffic():
    evening = np.where(np.arange(HOURS) >= 18, 90.0, 10.0)
    curve = day_curve([evening, unknown(), 2 * evening])
    assert curve[20] / curve[3] == pytest.approx(9)
    assert planned(DAY + 18 * HOUR_MS, curve) == pytest.approx(18 * curve[0] / FINISH)
    np.testing.assert_allclose(day_curve([]), 1 / HOURS)
    morning = np.where(np.arange(HOURS) < 12, 10.0, np.nan)  # of the rest nothing is known: it is as what is
    np.testing.assert_allclose(day_curve([morning]), 1 / HOURS)


def test_a_day_keeps_the_plan_that_it_began_with():
    budgets, evening = Budgets(Market(), shop()), np.where(np.arange(HOURS) >= 18, 90.0, 10.0)
    day = DAY // DAY_MS
    budgets.tell(0, "", Spending("c1", day, 1, 1, 0, 0, 0.0))
    budgets.pace(DAY + HOUR_MS)
    budgets.learn(0, evening)
    budgets.pace(DAY + 2 * HOUR_MS)
    np.testing.assert_allclose(budgets.day_curve, 1 / HOURS)
    budgets.pace(DAY + DAY_MS)
    assert budgets.day_curve[20] == pytest.approx(9 * budgets.day_curve[3])
    again = Budgets(Market(), shop())  # a worker that starts in mid-day plans by what is known then
    again.learn(0, evening)
    np.testing.assert_array_equal(again.day_curve, budgets.day_curve)
    np.testing.assert_array_equal(again.traffic(0), evening)
    assert np.isnan(again.traffic(1)).all()


def told(effects: Effects) -> list[HourlyTraffic]:
    return [
        msgspec.json.decode(message.value or b"", type=HourlyTraffic)
        for message in effects.control
        if message.key == b"traffic/0"
    ]


def test_a_lane_tells_its_traffic_as_hours_end_and_its_next_owner_goes_on_from_there(tmp_path: Path) -> None:
    step, state = Step(engine_of(toy(tmp_path, 0)), lambda _: 0, 0, 10**12), LaneState(0, ("a", "b"), 1)
    shown = [
        impression(f"u{user}", "ad-1", DAY + hour * HOUR_MS + user) for hour in range(4) for user in range(5 + hour)
    ]
    shown.insert(11, shown[10])  # sent again: it counts once
    given = records(shown)
    cuts = [slice(0, 5), slice(5, 12), slice(12, 19), slice(19, 27)]
    found = [one for cut in cuts for one in told(step.run(state, slice_of(given[cut]), 2**42))]
    assert [one.hours[:4] for one in found] == [(None, 6, None, None), (None, 6, 7, None)]
    other = Budgets(Market(), shop())
    learn(other, "0", found[-1])
    learn(other, "0", None)  # taken back: what was known stays
    np.testing.assert_array_equal(other.traffic(0), state.traffic.mean)
    assert step.budgets is not None
    np.testing.assert_array_equal(step.budgets.day_curve, other.day_curve)


@pytest.mark.parametrize("count", [-1, 1e308, 1e13])
def test_means_of_hours_that_can_be_none_are_refused(count: float) -> None:
    told = msgspec.json.encode(HourlyTraffic(lane=0, hours=(None,) * 23 + (count,), time_ms=0))
    with pytest.raises(msgspec.ValidationError, match="hours"):
        msgspec.json.decode(told, type=HourlyTraffic)
