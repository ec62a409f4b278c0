"""Pacing by its formula: what is behind the plan now, what has been, and where neither is remembered."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.budgets import Budgets
from scoring.catalogue import Catalogue
from scoring.ledger import Spending
from scoring.market import Market
from scoring.pacing import FINISH, Pacer, planned
from scoring.units import DAY_MS, HOUR_MS
from tests.builders import entry

DAY = 20_000


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


def test_a_pacer_made_anew_between_two_updates_counts_what_the_plan_wanted_meanwhile_as_the_former_would() -> None:
    """A catalogue that changes every second makes one each time: no level would ever move."""
    first, second, spent = 8 * HOUR_MS, 9 * HOUR_MS, share_wanted(8 * HOUR_MS)
    whole, former = paced((first, spent), (second, spent)), paced((first, spent))
    anew = Pacer(former.budget_micros)
    anew.base = former.base
    anew.resume(former)
    anew.update(second, np.array([round(spent * 1_000_000)]))
    assert (anew.base, anew.multiplier) == (whole.base, whole.multiplier)
    assert whole.base > np.log(0.5)


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


def spent_by_hour(starts: int, ends: int | None) -> list[float]:
    """Share of a day's budget that a campaign has spent by each hour, whose ad runs between two hours of one day.

    Its whole bid would spend four budgets in these hours.
    """
    shop, micros, shares = Catalogue(), 0, []
    ends_ms = None if ends is None else DAY * DAY_MS + ends * HOUR_MS
    starts_ms = DAY * DAY_MS + starts * HOUR_MS if starts else 0
    shop.upsert([entry("a", campaign_id="one", budget_micros=1_000_000, start_ms=starts_ms, end_ms=ends_ms)])
    budgets = Budgets(Market(), shop)
    minutes = range(starts * 60, (ends or 24) * 60)
    for minute in minutes:
        budgets.tell(0, "", Spending("one", DAY, micros, 0, 0, 0, 0.0))
        budgets.pace(DAY * DAY_MS + minute * 60_000)
        offers = budgets.market.offers(shop, np.array([[0]]))
        assert offers is not None
        micros += round(4_000_000 / len(minutes) * float(offers.multiplier[0, 0]))
        shares += [micros / 1_000_000] if minute % 60 == 59 else []
    return shares


@pytest.mark.parametrize(("starts", "ends"), [(0, None), (12, None), (20, None), (9, 17), (0, 12)])
def test_a_campaign_that_begins_or_ends_within_the_day_spends_its_budget_evenly_over_its_own_hours(
    starts: int, ends: int | None
) -> None:
    shares = spent_by_hour(starts, ends)
    hours = np.arange(1, len(shares) + 1)
    assert shares == pytest.approx(np.minimum(hours / len(shares) / FINISH, 1), abs=0.05)
    assert shares[-1] == pytest.approx(1, abs=0.02)


NOON_MS = DAY * DAY_MS + DAY_MS // 2


def test_a_level_that_others_report_counts_until_a_worker_has_paced_the_campaign_itself() -> None:
    shop = Catalogue()
    shop.upsert([entry("a", campaign_id="one", budget_micros=1_000_000)])
    budgets = Budgets(Market(), shop)
    budgets.tell_level("one", 0.25, NOON_MS - 1)
    budgets.pace(NOON_MS)
    assert budgets.level("one") == pytest.approx(0.25)
    budgets.tell_level("one", 0.75, NOON_MS + 1)
    assert budgets.level("one") == pytest.approx(0.25)


@pytest.mark.parametrize(
    "former",
    [
        {"start_ms": NOON_MS - DAY_MS},
        {"start_ms": NOON_MS - DAY_MS, "end_ms": 0},  # its status is "ended"
        {"start_ms": NOON_MS - 9 * DAY_MS, "end_ms": NOON_MS - DAY_MS},
        {},
    ],
    ids=["runs", "is ended", "ended on a day before", "does not tell its start"],
)
def test_a_campaign_is_planned_from_midnight_if_any_ad_of_it_began_on_a_day_before(former: dict[str, int]) -> None:
    shop = Catalogue()
    new = entry("new", campaign_id="one", budget_micros=1_000_000, start_ms=NOON_MS)
    shop.upsert([entry("old", campaign_id="one", **former), new])
    budgets = Budgets(Market(), shop)
    budgets.pace(NOON_MS)
    assert budgets.standing()[0] == pytest.approx(share_wanted(NOON_MS))  # nothing is spent


@pytest.mark.parametrize("ends", ["withdrawn", "ended", "not there after a restart"])
def test_a_campaign_whose_only_ad_is_replaced_today_is_held_back_for_nothing_that_the_first_has_spent(
    ends: str,
) -> None:
    shop, six_ms = Catalogue(), DAY * DAY_MS + DAY_MS // 4
    first = entry("a", campaign_id="one", budget_micros=1_000_000, start_ms=six_ms)
    shop.upsert([first])
    budgets = Budgets(Market(), shop)
    budgets.pace(six_ms)
    budgets.tell(0, "", Spending("one", DAY, 350_000, 0, 0, 0, 0.0))  # a third of its eighteen hours' plan
    budgets.pace(NOON_MS)
    if ends == "withdrawn":
        shop.withdraw(["a"])
    elif ends == "ended":
        shop.upsert([replace(first, end_ms=0)])
    else:
        began_ms, _ = budgets.hours_ms("one")
        assert began_ms == six_ms
        shop = Catalogue()
        budgets = Budgets(Market(), shop)
        budgets.tell(0, "", Spending("one", DAY, 350_000, 0, 0, 0, 0.0))
        budgets.tell_start("one", began_ms)
    shop.upsert([entry("b", campaign_id="one", budget_micros=1_000_000, start_ms=NOON_MS)])
    budgets.pace(NOON_MS + 1_000)
    assert budgets.standing()[0] == pytest.approx(1 / 3 / FINISH - 0.35, abs=1e-4)


def test_a_campaign_whose_longer_ad_is_withdrawn_is_planned_until_the_end_of_the_one_left() -> None:
    shop, six_pm_ms = Catalogue(), NOON_MS + DAY_MS // 4
    left = entry("left", campaign_id="one", budget_micros=1_000_000, end_ms=six_pm_ms)
    shop.upsert([left, entry("longer", campaign_id="one", budget_micros=1_000_000)])
    budgets = Budgets(Market(), shop)
    budgets.pace(NOON_MS)
    assert budgets.hours_ms("one")[1] is None
    shop.withdraw(["longer"])
    budgets.pace(NOON_MS + 1_000)
    assert budgets.hours_ms("one")[1] == six_pm_ms
    assert budgets.standing()[0] == pytest.approx(2 / 3 / FINISH, abs=1e-4)


def test_a_campaign_that_begins_tomorrow_is_not_behind_today_and_bids_no_higher_then() -> None:
    shop, begins_ms = Catalogue(), (DAY + 1) * DAY_MS
    shop.upsert([entry("a", campaign_id="one", budget_micros=1_000_000, start_ms=begins_ms)])
    budgets, new = Budgets(Market(), shop), Pacer(np.array([1_000_000]))
    for hour in range(24):
        budgets.pace(DAY * DAY_MS + hour * HOUR_MS)
        assert budgets.standing()[0] == 0
    budgets.pace(begins_ms)
    new.update(begins_ms, np.array([0]))
    assert budgets.market.offers(shop, np.array([[0]])).multiplier[0] == pytest.approx(new.multiplier)


@given(
    st.integers(0, DAY_MS - 1), st.integers(-2 * DAY_MS, 3 * DAY_MS), st.integers(0, 2 * DAY_MS),
    st.lists(st.floats(0.01, 1), min_size=24, max_size=24),
)  # fmt: skip
def test_a_plan_wants_a_share_that_grows_from_nothing_to_all_between_any_start_and_end(
    now_ms: int, starts_ms: int, runs_ms: int, traffic: list[float]
) -> None:
    curve = np.array(traffic) / sum(traffic)
    share = planned(np.array([now_ms, min(now_ms + HOUR_MS, DAY_MS - 1)]), curve, starts_ms, starts_ms + runs_ms)
    assert 0 <= share[0] <= share[1] <= 1
    assert share[0] == 0 or now_ms > starts_ms
    assert share[0] == 1 or now_ms <= max(starts_ms + runs_ms, 0)
