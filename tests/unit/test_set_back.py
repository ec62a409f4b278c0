"""What a worker knows of campaigns when a lane that was ahead, by an hour past midnight or by a year, is set back."""

import numpy as np
import pytest

from scoring.budgets import EVERY_MS, Budgets
from scoring.catalogue import Catalogue
from scoring.market import Market
from scoring.settlement import DAYS, Settlement
from scoring.units import DAY_MS
from streams.feeds.campaigns import tell
from tests.builders import entry
from tests.unit.test_budgets import DAY, NOON_MS, offered, shop, spent
from tests.unit.test_told_budgets import cell, replace_told

AHEAD_DAYS = [1, 3, 365]


def ahead_and_back(budgets: Budgets, days: int) -> None:
    """A lane's clock jumps, its slices are paced, and it is set back."""
    budgets.tell(5, "", spent(10, DAY + days, "two"))
    for second in range(3):
        budgets.pace(NOON_MS + days * DAY_MS + second * EVERY_MS)
    budgets.set_back(DAY)
    budgets.tell(5, "", spent(10, DAY, "two"))
    budgets.pace(NOON_MS + EVERY_MS)


@pytest.mark.parametrize("days", AHEAD_DAYS)
def test_a_campaign_that_was_withdrawn_before_the_worker_began_keeps_the_limit_that_was_told(days: int) -> None:
    stock = shop()
    stock.withdraw(["a", "b"])
    budgets = Budgets(Market(), stock)
    tell(budgets, [cell(1_000_000)])
    budgets.pace(NOON_MS)
    ahead_and_back(budgets, days)
    assert budgets.budget_micros("one") == 1_000_000
    assert budgets.billed_micros(["one"], [DAY]) == 1_000_000  # of 1,400,000


@pytest.mark.parametrize("days", [1, 3, 7])
def test_what_was_billed_before_the_budget_was_lowered_stays_billed(days: int) -> None:
    stock = shop(1_500_000)
    budgets = Budgets(Market(), stock)
    budgets.tell(0, "", spent(600_000))
    budgets.pace(NOON_MS)
    stock.upsert([entry("a", campaign_id="one", budget_micros=1_000)])
    budgets.pace(NOON_MS + EVERY_MS)
    ahead_and_back(budgets, days)
    assert budgets.billed_micros(["one"], [DAY]) == 600_000


@pytest.mark.parametrize("days", AHEAD_DAYS)
def test_a_campaign_that_had_spent_its_budget_bids_no_lower_on_the_next_day_for_it(days: int) -> None:
    budgets = Budgets(Market(), shop())
    budgets.tell(0, "", spent(1_000_000))
    for second in range(3):
        budgets.pace(NOON_MS + second * EVERY_MS)
    level = budgets.level("one")
    ahead_and_back(budgets, days)
    assert budgets.level("one") == pytest.approx(level, abs=0.01)
    assert offered(budgets) == [0, 0, 1]


def test_a_budget_of_tomorrow_is_tomorrows_again() -> None:
    stock = shop(1_000)
    budgets = Budgets(Market(), stock)
    budgets.pace(NOON_MS)
    stock.upsert([entry("a", campaign_id="one", budget_micros=50_000)], [NOON_MS + DAY_MS])
    budgets.pace(NOON_MS + EVERY_MS)
    ahead_and_back(budgets, 1)
    assert budgets.budget_micros("one") == 1_000
    budgets.pace(NOON_MS + DAY_MS)
    assert budgets.budget_micros("one") == 50_000


def test_a_day_before_is_settled_by_its_own_limit_still() -> None:
    stock = shop(1_000)
    budgets = Budgets(Market(), stock)
    budgets.pace(NOON_MS - DAY_MS)
    budgets.tell(0, "", spent(900, DAY - 1))
    budgets.pace(NOON_MS)
    stock.upsert([entry("a", campaign_id="one", budget_micros=50_000)])
    budgets.pace(NOON_MS + EVERY_MS)
    ahead_and_back(budgets, 1)
    budgets.tell(0, "", spent(9_000, DAY - 1))
    assert budgets.billed_micros(["one"], [DAY - 1]) == 1_000


@pytest.mark.parametrize("days", AHEAD_DAYS)
@pytest.mark.parametrize("told", [False, True])
def test_bids_go_on_from_the_level_that_was_told_or_found(days: int, told: bool) -> None:
    budgets = Budgets(Market(), shop())
    if told:
        budgets.tell_level("one", 0.2, NOON_MS)
    else:
        for minute in range(60):
            budgets.tell(0, "", spent(530_000 + 730 * minute))
            budgets.pace(NOON_MS + 60_000 * (minute - 60))
    budgets.pace(NOON_MS)
    level = budgets.level("one")
    assert 0.1 < level < 0.9
    ahead_and_back(budgets, days)
    assert budgets.level("one") == pytest.approx(level, rel=0.05)


@pytest.mark.parametrize("days", AHEAD_DAYS)
def test_a_campaign_whose_first_ad_was_withdrawn_is_planned_from_the_start_that_was_told(days: int) -> None:
    stock = Catalogue()
    stock.upsert([entry("a", campaign_id="one", budget_micros=2_800_000, start_ms=NOON_MS)])
    budgets = Budgets(Market(), stock)
    tell(budgets, [replace_told(cell(2_800_000), starts_ms=NOON_MS - DAY_MS // 4)])
    budgets.pace(NOON_MS)
    ahead_and_back(budgets, days)
    assert budgets.hours_ms("one") == (NOON_MS - DAY_MS // 4, None)


@pytest.mark.parametrize("days", AHEAD_DAYS)
def test_what_was_planned_anew_stays_so_and_nothing_of_days_to_come(days: int) -> None:
    stock = shop()
    budgets = Budgets(Market(), stock)
    budgets.tell(0, "", spent(300_000))
    budgets.pace(NOON_MS)
    stock.upsert([entry("a", campaign_id="one", budget_micros=2_000_000)])
    budgets.pace(NOON_MS + EVERY_MS)
    anew = budgets.anew("one", DAY)
    assert anew is not None
    ahead_and_back(budgets, days)
    assert budgets.anew("one", DAY) == anew
    assert offered(budgets)


@pytest.mark.parametrize("days", AHEAD_DAYS)
def test_what_was_spent_and_what_came_of_it_counts_once(days: int) -> None:
    budgets, never = Budgets(Market(), shop()), Budgets(Market(), shop())
    for each in (budgets, never):
        each.tell(0, "", spent(300_000, clicks=900, sold=90))
        each.tell(1, "", spent(400, DAY - 1))
        each.tell(2, "", spent(400, DAY - 3))
    budgets.pace(NOON_MS)
    ahead_and_back(budgets, days)
    never.pace(NOON_MS + EVERY_MS)
    assert (
        budgets.billed_micros(["one"] * 9, range(DAY - 7, DAY + 2)).tolist()
        == never.billed_micros(["one"] * 9, range(DAY - 7, DAY + 2)).tolist()
    )
    told, expected = (each.market.offers(each.catalogue, np.arange(3)[None]) for each in (budgets, never))
    assert told is not None
    assert expected is not None
    assert told.conversion.tolist() == expected.conversion.tolist()


@pytest.mark.parametrize("days", AHEAD_DAYS)
def test_campaigns_are_paced_by_the_time_to_which_the_lane_goes_back(days: int) -> None:
    budgets, never = Budgets(Market(), shop()), Budgets(Market(), shop())
    budgets.pace(NOON_MS)
    ahead_and_back(budgets, days)
    never.pace(NOON_MS + EVERY_MS)
    assert budgets.standing() == pytest.approx(never.standing())


def test_what_was_delivered_beyond_the_day_before_is_told_of_lanes_that_are_in_it_alone() -> None:
    budgets = Budgets(Market(), shop(1_000))
    budgets.tell(0, "", spent(1_500, DAY - 1))
    budgets.pace(NOON_MS)
    assert budgets.standing()[1] == pytest.approx(0.5)
    budgets.tell(0, "", spent(5))
    ahead_and_back(budgets, 1)
    budgets.pace(NOON_MS + 2 * EVERY_MS)
    assert budgets.standing()[1] == 0


def test_of_days_that_are_kept_no_more_there_are_limits_and_no_bills() -> None:
    days = Settlement()
    days.grow(1)
    days.turn(100)
    days.hear_limit(0, 100, 70, time_ms=5)
    days.turn(100 + DAYS)  # whose row is that of day 100
    for day, owed in ((101, 10), (100 + DAYS, 90)):
        days.hear(0, day, owed)
        days.spend(0, day, 1_000)
    days.hear_limit(0, 104, 80, time_ms=6)
    days.set_back(103)
    assert [days.known(0, day) for day in range(96, 105)] == [70] * 8 + [0]
    assert [int(days.billed(np.array([0]), day)[0]) for day in range(96, 105)] == [0, 0, 0, 0, 0, 10, 0, 0, 0]


def test_a_limit_of_a_day_to_come_begins_on_no_other_day() -> None:
    days, one = Settlement(), np.array([0])
    days.grow(1)
    days.turn(100 + DAYS)
    days.hear_limit(0, 100, 70, time_ms=5)
    days.limit(one, np.array([900]), np.array([101 + DAYS]))
    days.set_back(100)
    days.turn(102)
    assert days.limits(one, np.arange(100, 103)).tolist() == [70, 70, 70]


@pytest.mark.parametrize("days", AHEAD_DAYS)
def test_what_others_plan_anew_counts_though_it_was_planned_later_by_a_lane_that_was_ahead(days: int) -> None:
    budgets = Budgets(Market(), shop())
    budgets.pace(NOON_MS)
    budgets.tell_anew("one", NOON_MS + days * DAY_MS, 5)
    ahead_and_back(budgets, days)
    budgets.tell_anew("one", NOON_MS + 1, 7)
    assert budgets.anew("one", DAY) == (NOON_MS + 1, 7)


@pytest.mark.parametrize("days", AHEAD_DAYS)
def test_a_lane_that_was_ahead_and_falls_behind_is_in_the_day_before(days: int) -> None:
    budgets = Budgets(Market(), shop(1_000))
    budgets.pace(NOON_MS)
    ahead_and_back(budgets, days)
    budgets.tell(5, "", spent(1_500))
    budgets.tell(0, "", spent(5, DAY + 1))
    budgets.pace(NOON_MS + DAY_MS)
    assert budgets.standing()[1] == pytest.approx(0.5)
