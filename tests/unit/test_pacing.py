"""Pacing by its formula: what is behind the plan now, what has been, and where neither is remembered."""

import numpy as np
import pytest

from scoring.pacing import DAY_MS, Pacer, planned

HOUR_MS = 3_600_000


def share_wanted(now_ms: int) -> float:
    return float(planned(now_ms, np.full(24, 1 / 24)))


def paced(*updates: tuple[int, float]) -> Pacer:
    """A budget of a million, updated with (time, share of it that is spent)."""
    pacer = Pacer(np.array([1_000_000]))
    for now_ms, share in updates:
        pacer.update(now_ms, np.array([round(share * 1_000_000)]))
    return pacer


def test_a_multiplier_follows_what_is_behind_and_its_level_what_was_behind_as_the_plan_went_on() -> None:
    first, second = 8 * HOUR_MS, 8 * HOUR_MS + HOUR_MS // 10
    spent = round(share_wanted(first) + 0.01, 6)
    one = paced((first, spent))
    assert np.exp(one.base) == pytest.approx([0.5])  # before the first update the plan went nowhere
    assert one.multiplier == pytest.approx([0.5 * np.exp(20 * (share_wanted(first) - spent))])
    two, behind = paced((first, spent), (second, spent)), share_wanted(second) - spent
    level = 0.5 * np.exp(250 * behind * (share_wanted(second) - share_wanted(first)))
    assert np.exp(two.base) == pytest.approx([level])
    assert two.multiplier == pytest.approx([level * np.exp(20 * behind)])


@pytest.mark.parametrize(("share", "level"), [(0.0, 1.0), (0.999, 0.001)])
def test_what_the_bounds_cut_off_is_not_remembered(share: float, level: float) -> None:
    pacer = paced(*((hour * HOUR_MS, share) for hour in range(1, 12)))
    assert np.exp(pacer.base) == pytest.approx([level])
    assert pacer.multiplier == pytest.approx([level])


@pytest.mark.parametrize("back_ms", [DAY_MS, 6 * HOUR_MS])
def test_a_plan_that_begins_anew_or_a_clock_that_goes_back_moves_no_level(back_ms: int) -> None:
    before = paced((12 * HOUR_MS, 0.5))
    level = before.base.tolist()
    before.update(back_ms, np.array([400_000]))
    assert before.base.tolist() == level


@pytest.mark.parametrize("cut", [False, True])
def test_who_has_spent_the_budget_by_bidding_begins_the_next_day_lower_by_as_much_as_too_soon(*, cut: bool) -> None:
    stopped = paced((13 * HOUR_MS, 0.57), (14 * HOUR_MS, 0.61))
    level = stopped.base
    stopped.stopped[:] = cut
    for hour in range(15, 24):
        stopped.update(hour * HOUR_MS, np.array([1_100_000]))
        assert stopped.multiplier.tolist() == [0]
    assert stopped.base == pytest.approx(level + (0 if cut else np.log(share_wanted(15 * HOUR_MS))))


def test_a_campaign_of_which_one_sale_spends_the_budget_learns_to_bid_less() -> None:
    draw, pacer = np.random.default_rng(1), Pacer(np.full(50, 1_000_000))
    minutes: list[float] = []
    for day in range(6):
        sold = np.zeros(50, dtype=np.int64)
        for minute in range(1_440):
            pacer.update(day * DAY_MS + minute * 60_000, 1_000_000 * sold)
            sold += draw.poisson(50 / 1_440 * pacer.multiplier)
        minutes.append(float(np.exp(pacer.base).mean()))
    assert minutes[-1] < 0.1  # at a level of 1 the budget is gone in half an hour
