"""What is left of a day's budget is planned anew where the budget changes, or the campaign goes on after a break."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.attention import load
from scoring.budgets import EVERY_MS, Budgets
from scoring.catalogue import Catalogue
from scoring.ledger import Spending
from scoring.market import Market
from scoring.pacing import FINISH, planned
from scoring.units import DAY_MS, HOUR_MS
from streams.console.campaigns import Campaigns
from streams.feeds.campaigns import tell
from streams.wire import CampaignMetrics, Figures, encode_json
from tests.builders import START_MS, Record, entry, impression
from tests.unit.test_lane_ledger import Played, metrics, step_of

DAY = 20_000
MIDNIGHT_MS, NOON_MS = DAY * DAY_MS, DAY * DAY_MS + DAY_MS // 2
BUDGET = 1_000_000
AD = entry("a", campaign_id="one", budget_micros=BUDGET)
NEXT = entry("b", campaign_id="one", budget_micros=BUDGET)
EVEN = np.full(24, 1 / 24)


class Shop:
    """A worker whose campaign would spend four budgets a day by its whole bid."""

    def __init__(self, *ads: Any) -> None:
        self.stock, self.micros = Catalogue(), 0
        self.stock.upsert([entry("other", campaign_id="two", budget_micros=BUDGET), *ads])
        self.budgets = Budgets(Market(), self.stock)

    def live(self, begin: int, end: int, *, runs: bool = True) -> list[float]:
        """Share of `BUDGET` that is spent at the end of each hour between two of a day."""
        shares = []
        for minute in range(begin * 60, end * 60):
            self.budgets.tell(0, "", Spending("one", DAY, self.micros, 0, 0, 0, 0.0))
            self.budgets.pace(MIDNIGHT_MS + minute * 60_000)
            if runs:
                offers = self.budgets.market.offers(self.stock, self.stock.slots_of(self.stock.ad[1:2])[None])
                assert offers is not None
                self.micros += round(4 * BUDGET / 1_440 * float(offers.multiplier[0, 0]))
            shares += [self.micros / BUDGET] if minute % 60 == 59 else []
        return shares

    def wanted(self) -> float:
        """The plan's share of the other and of this campaign, in the mean, while nothing more than planned is spent."""
        return self.budgets.standing()[0]


def _raised(shop: Shop) -> None:
    shop.stock.upsert([entry("a", campaign_id="one", budget_micros=2 * BUDGET)])


def _lowered(shop: Shop) -> None:
    shop.stock.upsert([entry("a", campaign_id="one", budget_micros=BUDGET * 7 // 10)])


def _limited(shop: Shop) -> None:
    shop.stock.upsert([entry("a", campaign_id="one", budget_micros=BUDGET)])


@pytest.mark.parametrize(
    ("budget", "change", "after"), [(BUDGET, _raised, 2.0), (BUDGET, _lowered, 0.7), (BUDGET // 2, _limited, 1.0)]
)
def test_a_budget_that_is_changed_at_noon_is_spent_evenly_over_the_rest_of_the_day(
    budget: int, change: Callable[[Shop], None], after: float
) -> None:
    shop = Shop(entry("a", campaign_id="one", budget_micros=budget))
    spent = shop.live(0, 12)[-1]
    change(shop)
    shares, hours = shop.live(12, 24), np.arange(1, 13)
    assert shares == pytest.approx(spent + (after - spent) * np.minimum(hours / 12 / FINISH, 1), abs=0.05 * after)
    assert shares[-1] == pytest.approx(after, abs=0.02 * after)


def _withdrawn(shop: Shop) -> None:
    shop.stock.withdraw(["a"])


def _paused(shop: Shop) -> None:
    shop.stock.upsert([replace(AD, active=False)])


def _ended(shop: Shop) -> None:
    shop.stock.upsert([replace(AD, end_ms=MIDNIGHT_MS + 6 * HOUR_MS)])


def _stopped(shop: Shop) -> None:
    shop.stock.upsert([entry("a", campaign_id="one", budget_micros=0)])


def _moved(shop: Shop) -> None:
    shop.stock.upsert([entry("a", campaign_id="two", budget_micros=BUDGET)])


@pytest.mark.parametrize("breaks", [_withdrawn, _paused, _ended, _stopped, _moved])
@pytest.mark.parametrize("goes_on", [AD, replace(AD, end_ms=MIDNIGHT_MS + 2 * DAY_MS)])
def test_a_campaign_that_goes_on_at_noon_does_not_make_up_for_its_break_in_haste(
    breaks: Callable[[Shop], None], goes_on: Any
) -> None:
    shop = Shop(AD)
    spent = shop.live(0, 6)[-1]
    breaks(shop)
    shop.live(6, 12, runs=False)
    shop.stock.upsert([goes_on])
    shares, hours = shop.live(12, 24), np.arange(1, 13)
    assert shares == pytest.approx(spent + (1 - spent) * np.minimum(hours / 12 / FINISH, 1), abs=0.05)
    assert shares[-1] == pytest.approx(1, abs=0.02)


def test_a_campaign_without_a_start_is_planned_from_when_a_worker_sees_its_first_ad_come() -> None:
    shop = Shop()
    shop.live(0, 12, runs=False)
    shop.stock.upsert([AD])
    shares = shop.live(12, 24)
    assert shares == pytest.approx(np.minimum(np.arange(1, 13) / 12 / FINISH, 1), abs=0.05)


def test_a_campaign_that_comes_at_noon_to_begin_in_the_afternoon_is_planned_from_then() -> None:
    shop = Shop()
    shop.live(0, 12, runs=False)
    shop.stock.upsert([replace(AD, start_ms=MIDNIGHT_MS + 15 * HOUR_MS)])
    shop.live(12, 15, runs=False)
    assert shop.live(15, 24) == pytest.approx(np.minimum(np.arange(1, 10) / 9 / FINISH, 1), abs=0.05)


def test_a_budget_cut_below_what_is_spent_is_planned_as_spent() -> None:
    shop = Shop(AD)
    shop.stock.upsert([entry("other", campaign_id="two")])
    shop.live(0, 12)
    shop.stock.upsert([entry("a", campaign_id="one", budget_micros=BUDGET // 10)])
    shop.live(12, 13)
    assert shop.budgets.standing()[0] == 0


def test_what_changes_while_lanes_are_still_in_the_day_before_is_planned_from_midnight() -> None:
    shop = Shop(AD)
    shop.budgets.pace(NOON_MS)
    shop.budgets.tell(1, "", Spending("one", DAY + 1, 5, 0, 0, 0, 0.0))
    _raised(shop)
    shop.budgets.pace(NOON_MS + EVERY_MS)
    assert shop.budgets.anew("one", DAY + 1) == (MIDNIGHT_MS + DAY_MS, 5)


def _untouched(_: Shop) -> None:
    pass


def _again(shop: Shop) -> None:
    shop.stock.upsert([entry("a", campaign_id="one", budget_micros=BUDGET, bid_micros=7)])


def _replaced(shop: Shop) -> None:
    shop.stock.upsert([NEXT])
    shop.stock.withdraw(["a"])


def _unlimited(shop: Shop) -> None:
    shop.stock.upsert([entry("a", campaign_id="one")])


def _joined(shop: Shop) -> None:
    shop.stock.upsert([entry("b", campaign_id="one", budget_micros=BUDGET // 2)])


@pytest.mark.parametrize("change", [_untouched, _again, _replaced, _unlimited, _joined])
def test_nothing_is_planned_anew_where_a_campaign_only_goes_on_with_its_budget(change: Callable[[Shop], None]) -> None:
    shop = Shop(AD)
    shop.budgets.pace(MIDNIGHT_MS)
    for seconds in range(1, 5):
        change(shop)
        shop.budgets.pace(NOON_MS + seconds * EVERY_MS)
    assert shop.budgets.anew("one", DAY) is None


def test_a_campaign_whose_hours_are_over_is_not_planned_anew_each_time_that_the_catalogue_changes() -> None:
    shop = Shop(replace(AD, end_ms=NOON_MS))
    for seconds in range(5):
        shop.stock.upsert([entry("other", campaign_id="two", budget_micros=BUDGET, bid_micros=seconds + 1)])
        shop.budgets.pace(NOON_MS + seconds * EVERY_MS)
    assert shop.budgets.anew("one", DAY) is None


def test_a_worker_that_begins_meanwhile_plans_as_the_one_that_saw_the_change() -> None:
    shop = Shop(AD)
    shop.live(0, 6)
    _withdrawn(shop)
    shop.live(6, 12, runs=False)
    shop.stock.upsert([AD])
    shop.live(12, 15)
    seen, later = shop.budgets, Budgets(Market(), shop.stock)
    anew = seen.anew("one", DAY)
    assert anew is not None
    assert anew[0] == NOON_MS
    figures = Figures(spent_micros=shop.micros)
    told = CampaignMetrics(
        lane=0, campaign_id="one", time_ms=NOON_MS, day=DAY, today=figures, total=figures, budget_micros=BUDGET,
        level=seen.level("one"), anew_ms=anew[0], anew_micros=anew[1],
    )  # fmt: skip
    now_ms = MIDNIGHT_MS + 15 * HOUR_MS
    seen.tell(0, "", Spending("one", DAY, shop.micros, 0, 0, 0, 0.0))
    tell(later, [Record("campaign-metrics", 0, 0, NOON_MS, b"0/one/", encode_json(told))])
    for budgets in (seen, later):
        budgets.pace(now_ms)
    assert later.standing() == pytest.approx(seen.standing())
    assert later.anew("one", DAY) == anew
    console = Campaigns()
    console.take([Record("campaign-metrics", 0, 0, NOON_MS, b"0/one/", encode_json(told))])
    console.take([Record("campaign-metrics", 0, 0, NOON_MS, b"1/two/", encode_json(msgspec.structs.replace(
        told, lane=1, campaign_id="two", time_ms=now_ms, anew_ms=None)))])  # fmt: skip
    one, two = sorted(console.day().campaigns, key=lambda each: each.campaign)
    assert one.planned == pytest.approx(anew[1] / BUDGET + (1 - anew[1] / BUDGET) * 3 / 12 / FINISH, abs=1e-4)
    assert two.planned == pytest.approx(15 / 24 / FINISH, abs=1e-4)


_REPORTS = st.lists(
    st.tuples(st.sampled_from([MIDNIGHT_MS - 1, MIDNIGHT_MS, NOON_MS - HOUR_MS, NOON_MS]), st.integers(0, 2 * BUDGET)),
    max_size=6,
)  # fmt: skip


@given(_REPORTS, st.randoms(use_true_random=False))
def test_reports_of_new_plans_count_alike_in_any_order_and_however_often(
    reports: list[tuple[int, int]], by: Any
) -> None:
    plans = []
    for told in (reports, by.sample([*reports, *reports], 2 * len(reports))):
        budgets = Shop(AD).budgets
        for each in told:
            budgets.tell_anew("one", *each)
        budgets.pace(NOON_MS + HOUR_MS)
        plans.append((budgets.anew("one", DAY), budgets.standing()))
    assert plans[0] == plans[1]


@pytest.mark.parametrize("anew_ms", [MIDNIGHT_MS - 1, MIDNIGHT_MS + 2 * DAY_MS])
def test_a_plan_of_another_day_holds_nothing_back(anew_ms: int) -> None:
    usual, told = Shop(AD).budgets, Shop(AD).budgets
    told.tell_anew("one", anew_ms, BUDGET // 2)
    for budgets in (usual, told):
        budgets.pace(NOON_MS)
    assert told.standing() == usual.standing()


def test_a_plan_that_is_told_to_a_worker_that_paces_counts_as_it_does_for_one_that_begins() -> None:
    began, pacing = Shop(AD).budgets, Shop(AD).budgets
    pacing.pace(NOON_MS)
    for budgets in (began, pacing):
        budgets.tell_anew("one", NOON_MS - HOUR_MS, BUDGET // 10)
        budgets.pace(NOON_MS + EVERY_MS)
    assert pacing.standing() == pytest.approx(began.standing())


def test_a_worker_whose_lanes_are_behind_those_that_saw_a_raise_makes_up_for_no_morning_until_they_get_there() -> None:
    shop = Shop(entry("a", campaign_id="one", budget_micros=2 * BUDGET))
    shop.stock.upsert([entry("other", campaign_id="two")])
    shop.budgets.tell_anew("one", NOON_MS + HOUR_MS, BUDGET // 2)
    spent = Spending("one", DAY, BUDGET // 2, 0, 0, 0, 0.0)
    shop.budgets.tell(0, "", spent)
    for now_ms in (NOON_MS, NOON_MS + HOUR_MS):
        shop.budgets.pace(now_ms)
        assert shop.budgets.standing()[0] == 0  # on its plan
    shop.budgets.pace(NOON_MS + 2 * HOUR_MS)
    assert shop.budgets.standing()[0] == pytest.approx(0.75 / 11 / FINISH)


@given(st.integers(MIDNIGHT_MS, MIDNIGHT_MS + DAY_MS - 1), st.floats(0, 1), st.integers(0, DAY_MS))
def test_a_plan_made_anew_starts_at_what_was_spent_never_falls_and_ends_at_the_whole_budget(
    starts_ms: int, spent: float, later_ms: int
) -> None:
    at = [float(planned(starts_ms + ms, EVEN, starts_ms, MIDNIGHT_MS + DAY_MS, spent)) for ms in (0, later_ms)]
    assert at[0] == pytest.approx(spent)
    if starts_ms + later_ms < MIDNIGHT_MS + DAY_MS:
        assert at[0] - 1e-12 <= at[1] <= 1 + 1e-12
    end = float(planned(MIDNIGHT_MS + DAY_MS - 1, EVEN, starts_ms, MIDNIGHT_MS + DAY_MS, spent))
    assert end == pytest.approx(1) or starts_ms > MIDNIGHT_MS + DAY_MS - 100


def test_a_lane_tells_when_its_campaigns_were_planned_anew_and_how_much_was_planned_by_then() -> None:
    played = Played(step_of(load()))
    ad = entry("best", campaign_id="best", bid_micros=10**9, budget_micros=10**12)
    played.step.engine.catalogue.upsert([ad])
    played.take([impression(ad_id="ad-1")])
    played.take(played.answer(10))
    told = metrics(played)["best"]
    assert (told.anew_ms, told.anew_micros) == (None, 0)
    played.step.engine.catalogue.upsert([replace(ad, budget_micros=10**13)])
    played.take(played.answer(20))
    anew = metrics(played)["best"]
    wanted = float(planned(START_MS + 20_500, EVEN)) * 10**12
    assert (anew.anew_ms, anew.anew_micros) == (START_MS + 20_500, pytest.approx(wanted, rel=1e-6))


def _a_little_more(shop: Shop, minute: int) -> None:
    shop.stock.upsert([entry("a", campaign_id="one", budget_micros=BUDGET + minute)])


def _off_and_on(shop: Shop, minute: int) -> None:
    shop.stock.upsert([replace(AD, active=minute % 10 > 0)])


@pytest.mark.parametrize("change", [_a_little_more, _off_and_on])
def test_plans_made_anew_every_minute_keep_to_the_day_as_one_plan_does(change: Callable[[Shop, int], None]) -> None:
    shop, micros = Shop(AD), [0]
    for minute in range(1_440):
        change(shop, minute)
        shop.budgets.tell(0, "", Spending("one", DAY, micros[-1], 0, 0, 0, 0.0))
        shop.budgets.pace(MIDNIGHT_MS + minute * 60_000)
        offers = shop.budgets.market.offers(shop.stock, shop.stock.slots_of(shop.stock.ad[1:2])[None])
        assert offers is not None
        bid = float(offers.multiplier[0, 0]) if shop.stock.active[1] else 0.0
        micros.append(micros[-1] + round(4 * BUDGET / 1_440 * bid))
    hours = np.arange(1, 25)
    assert np.array(micros[60::60]) / BUDGET == pytest.approx(np.minimum(hours / 24 / FINISH, 1), abs=0.08)
    assert micros[-1] / BUDGET == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("budget", "planned_then"), [(2 * BUDGET, 0.2 + 0.326), (BUDGET // 2, 0.2 + 0.326 / 2)])
def test_who_is_behind_stays_so_in_money_or_of_a_lowered_budget_in_its_share(budget: int, planned_then: float) -> None:
    shop = Shop(AD)
    shop.budgets.tell(0, "", Spending("one", DAY, BUDGET // 5, 0, 0, 0, 0.0))
    shop.budgets.pace(NOON_MS - EVERY_MS)
    shop.stock.upsert([entry("a", campaign_id="one", budget_micros=budget)])
    shop.budgets.pace(NOON_MS)
    assert shop.budgets.anew("one", DAY) == (NOON_MS, pytest.approx(planned_then * BUDGET, rel=1e-3))


def test_what_a_campaign_was_behind_when_it_was_withdrawn_is_not_made_up_for_on_another_day() -> None:
    shop = Shop(AD)
    shop.budgets.pace(NOON_MS - EVERY_MS)
    _withdrawn(shop)
    shop.budgets.pace(NOON_MS)  # half a budget behind
    shop.budgets.pace(NOON_MS + DAY_MS)
    shop.stock.upsert([AD])
    shop.budgets.pace(NOON_MS + DAY_MS + EVERY_MS)
    assert shop.budgets.anew("one", DAY + 1) == (NOON_MS + DAY_MS + EVERY_MS, 0)


def test_a_budget_that_is_spent_and_doubled_at_noon_is_spent_evenly_from_then() -> None:
    shop = Shop(AD)
    shop.live(0, 12)
    shop.micros = BUDGET  # one large event
    shop.live(12, 13)
    _raised(shop)
    hours = np.arange(1, 12)
    assert shop.live(13, 24) == pytest.approx(1 + np.minimum(hours / 11 / FINISH, 1), abs=0.1)
