"""Budgets of a worker: what lanes tell in any order is one figure, and what is spent stops."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.budgets import EVERY_MS, Budgets
from scoring.catalogue import Catalogue
from scoring.ledger import Spending
from scoring.market import Market
from scoring.pacing import planned
from scoring.traffic import day_curve
from scoring.units import DAY_MS
from streams.feeds.campaigns import tell
from tests.builders import Record, entry

DAY = 20_000
NOON_MS = DAY * DAY_MS + DAY_MS // 2


def shop(budget: int | None = 1_000_000, bid_type: str = "cpc") -> Catalogue:
    stock = Catalogue()
    stock.upsert([
        entry("a", campaign_id="one", budget_micros=budget, bid_type=bid_type), entry("b", campaign_id="one"),
        entry("c", campaign_id="two"),
    ])  # fmt: skip
    return stock


def spent(micros: int, day: int = DAY, campaign: str = "one", clicks: int = 0, sold: int = 0) -> Spending:
    return Spending(campaign, day, micros, 10 * clicks, clicks, sold, 0.0)


def offered(budgets: Budgets) -> list[float] | None:
    offers = budgets.market.offers(budgets.catalogue, np.arange(3)[None])
    return None if offers is None else offers.multiplier[0].tolist()


def test_without_budgets_nobody_is_paced() -> None:
    budgets = Budgets(Market(), shop(None))
    budgets.pace(NOON_MS)
    assert offered(budgets) is None


@pytest.mark.parametrize("was_ahead", [False, True])
def test_a_budget_told_after_a_lane_whose_clock_is_ahead_has_paced_stops_its_campaign_when_it_is_spent(
    was_ahead: bool,
) -> None:
    stock = shop()
    tick_ms = [0]
    budgets = Budgets(Market(), stock, tick_ms=lambda: tick_ms[0])
    if was_ahead:
        budgets.pace(NOON_MS + DAY_MS)
        budgets.set_back(DAY)
    budgets.pace(NOON_MS + 300_000)  # a record dated ahead
    stock.upsert([entry("c", campaign_id="two", budget_micros=1_000)])
    budgets.pace(NOON_MS)
    assert budgets.budget_micros("two") == 0  # ads may change all the time, and all of them are read
    tick_ms[0] = 1_000
    budgets.pace(NOON_MS)
    assert budgets.budget_micros("two") == 1_000
    budgets.tell(0, "", spent(1_000, campaign="two"))
    budgets.pace(NOON_MS + 1)
    assert (offered(budgets) or [])[2] == 0


def test_a_campaign_is_paced_in_all_its_ads_and_stopped_when_all_lanes_together_have_spent_its_budget() -> None:
    budgets = Budgets(Market(), shop())
    budgets.tell(0, "", spent(400_000))
    budgets.pace(NOON_MS)
    first, second, third = offered(budgets) or []
    assert 0 < first == second <= 1
    assert third == 1
    budgets.tell(1, "", spent(300_000))
    budgets.tell(1, "1-0", spent(300_000))
    budgets.pace(NOON_MS + 1)  # at once, however soon after the last
    assert offered(budgets) == [0, 0, 1]
    assert budgets.spent_micros("one") == 1_000_000


@pytest.mark.parametrize("other", [None, 5_000_000])
def test_a_campaign_whose_limit_is_lifted_has_none_whether_or_not_another_has(other: int | None) -> None:
    budgets = Budgets(Market(), shop())
    budgets.catalogue.upsert([entry("c", campaign_id="two", budget_micros=other)])
    budgets.tell(0, "", spent(400_000))
    budgets.pace(NOON_MS)
    assert (budgets.budget_micros("one"), budgets.level("one")) == (1_000_000, 0.5)
    budgets.catalogue.upsert([entry("a", campaign_id="one")])
    budgets.pace(NOON_MS + 1_000)
    assert (budgets.budget_micros("one"), budgets.level("one")) == (0, 0.0)
    assert offered(budgets) is None if other is None else (offered(budgets) or [])[:2] == [1, 1]
    budgets.tell(1, "", spent(100_000))
    budgets.tell_level("one", 0.25, NOON_MS)  # another worker's, from before
    assert budgets.level("one") == 0.0
    assert budgets.budget_micros("two") == (other or 0)


def test_a_new_day_begins_with_nothing_spent() -> None:
    budgets = Budgets(Market(), shop())
    budgets.tell(0, "", spent(2_000_000))
    budgets.pace(NOON_MS)
    assert offered(budgets) == [0, 0, 1]
    budgets.pace(NOON_MS + DAY_MS)
    assert (offered(budgets) or [0])[0] > 0
    budgets.tell(0, "", spent(5, DAY + 1))
    assert budgets.spent_micros("one") == 5


def test_a_day_is_planned_by_the_traffic_that_was_learnt_before_it_began() -> None:
    budgets, mean = Budgets(Market(), shop()), np.where(np.arange(24) < 12, 9.0, 1.0)
    budgets.pace(NOON_MS)
    even = budgets.standing()[0]  # nothing is spent: what the plan wants by noon
    budgets.learn(0, mean)
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.standing()[0] == pytest.approx(even, abs=1e-3)
    budgets.pace(NOON_MS + DAY_MS)
    assert budgets.standing()[0] == pytest.approx(float(planned(NOON_MS, day_curve([mean]))))
    assert budgets.standing()[0] > even + 0.2


def test_what_is_told_of_a_day_that_a_lane_has_yet_to_reach_is_planned_from_that_days_beginning() -> None:
    budgets = Budgets(Market(), shop())
    budgets.tell(1, "", spent(5, DAY + 1))
    budgets.pace(NOON_MS)  # of a lane that is behind
    assert budgets.spent_micros("one") == 5
    assert budgets.standing()[0] == pytest.approx(5 / 1_000_000)  # as of midnight the plan wants nothing


def test_a_lanes_new_owner_may_go_on_with_its_traffic_without_changing_what_was_told() -> None:
    budgets = Budgets(Market(), shop())
    budgets.learn(3, np.ones(24))
    budgets.traffic(3)[:] = 9.0
    assert budgets.traffic(3).tolist() == [1.0] * 24
    assert np.isnan(budgets.traffic(4)).all()


def test_a_campaign_that_is_given_a_budget_begins_as_any_other_whatever_it_spent_without_one() -> None:
    budgets = Budgets(Market(), shop())
    budgets.tell(0, "", spent(9_000_000, campaign="two"))
    for minute in range(3):
        budgets.pace(NOON_MS + 60_000 * minute)
    budgets.catalogue.upsert([entry("c", campaign_id="two", budget_micros=10**9)])
    budgets.pace(NOON_MS + 180_000)
    assert budgets.level("two") > 0.4


def test_a_campaign_that_has_stopped_lets_the_others_be_paced_no_oftener() -> None:
    budgets = Budgets(Market(), shop())
    budgets.catalogue.upsert([entry("c", campaign_id="two", budget_micros=1_000_000)])
    budgets.tell(0, "", spent(1_000_000))
    budgets.pace(NOON_MS)
    before = offered(budgets)
    budgets.tell(0, "", spent(600_000, campaign="two"))
    budgets.pace(NOON_MS + EVERY_MS - 1)
    assert offered(budgets) == before
    budgets.pace(NOON_MS + EVERY_MS)
    assert offered(budgets) != before


@pytest.mark.parametrize("behind_ms", [0, NOON_MS - DAY_MS // 4])
def test_a_lane_whose_time_is_behind_stops_what_is_spent_and_takes_nobodys_plan_back(behind_ms: int) -> None:
    budgets = Budgets(Market(), shop())
    budgets.catalogue.upsert([entry("c", campaign_id="two", budget_micros=1_000_000)])
    for micros, campaign in ((400_000, "one"), (500_000, "two")):
        budgets.tell(0, "", spent(micros, campaign=campaign))
    budgets.pace(NOON_MS)
    *_, offers = offered(budgets) or []
    budgets.tell(0, "", spent(1_000_000))
    budgets.pace(behind_ms)  # as a lane without traffic does
    assert offered(budgets) == [0, 0, offers]
    budgets.pace(NOON_MS + EVERY_MS // 2)
    assert offered(budgets) == [0, 0, offers]
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.level("two") == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("other", [None, 5_000])
def test_the_budget_of_a_campaign_stays_where_its_last_ad_has_become_anothers(other: int | None) -> None:
    budgets = Budgets(Market(), shop())
    budgets.tell(0, "", spent(1_400_000))
    budgets.pace(NOON_MS)
    budgets.catalogue.upsert([entry(ad, campaign_id="three", budget_micros=other) for ad in ("a", "b")])
    budgets.pace(NOON_MS + EVERY_MS)
    assert (budgets.budget_micros("one"), budgets.budget_micros("three")) == (1_000_000, other or 0)


def test_of_hundreds_of_campaigns_each_has_its_own_figures() -> None:
    budgets = Budgets(Market(), shop())
    for number in range(300):
        budgets.tell(0, "", spent(number, campaign=f"c{number}"))
    budgets.pace(NOON_MS)
    assert [budgets.spent_micros(f"c{number}") for number in range(300)] == list(range(300))


def test_a_worker_that_starts_paces_as_the_others_do() -> None:
    old, new = Budgets(Market(), shop()), Budgets(Market(), shop())
    for minute in range(60):
        old.tell(0, "", spent(500_000 + 9_000 * minute))
        old.pace(NOON_MS + 60_000 * minute)
    level = old.level("one")
    assert 0 < level < 0.5
    new.tell(0, "", spent(1_031_000 - 500_000))
    new.tell_level("one", level, NOON_MS + 3_540_000)
    new.pace(NOON_MS + 3_600_000)
    assert new.level("one") == level


def test_a_catalogue_that_changes_all_the_time_changes_nothing_of_how_a_campaign_is_paced() -> None:
    still, busy = Budgets(Market(), shop()), Budgets(Market(), shop())
    for minute in range(60):
        busy.catalogue.upsert([entry("c", campaign_id="two", bid_micros=1_000 + minute)])
        for budgets in (still, busy):
            budgets.tell(0, "", spent(500_000 + 9_000 * minute))
            budgets.pace(NOON_MS + 60_000 * minute)
    assert 0 < still.level("one") < 0.5
    assert busy.level("one") == pytest.approx(still.level("one"))


def test_what_campaigns_sell_moves_what_a_bid_for_purchases_is_worth() -> None:
    budgets = Budgets(Market(), shop(None, "cpa"))
    budgets.tell(0, "", spent(0, clicks=900, sold=90))
    budgets.pace(NOON_MS)
    offers = budgets.market.offers(budgets.catalogue, np.arange(3)[None])
    assert offers is not None
    usual = budgets.market.terms.conversion
    np.testing.assert_allclose(offers.conversion[0], [(90 + 100 * usual) / 1_000] * 2 + [usual], rtol=1e-6)
    budgets.tell(1, "", spent(0, clicks=1_000, sold=5_000))  # more than one with a click: no click is worth more
    budgets.pace(NOON_MS + EVERY_MS)
    offers = budgets.market.offers(budgets.catalogue, np.arange(3)[None])
    assert offers is not None
    np.testing.assert_allclose(offers.conversion[0], [1.0, 1.0, usual], rtol=1e-6)


def test_how_long_a_campaigns_ads_are_looked_at_moves_what_its_impressions_are_worth() -> None:
    budgets = Budgets(Market(), shop(None, "attention"))
    budgets.tell(0, "", Spending("one", DAY, 0, 3_000, 0, 0, 21_000.0))
    budgets.pace(NOON_MS)
    offers = budgets.market.offers(budgets.catalogue, np.arange(3)[None])
    assert offers is not None
    usual = budgets.market.terms.viewed_s
    np.testing.assert_allclose(offers.viewed_s[0], [(21_000 + 1_000 * usual) / 4_000] * 2 + [usual], rtol=1e-6)


@pytest.mark.parametrize("more", [{"sold": 7}, {"viewed_s": 90.0}, {"clicks": 150}, {"impressions": 4_000}])
def test_whatever_of_a_campaigns_figures_grows_alone_counts(more: dict[str, float]) -> None:
    def offers(*told: Spending) -> list[float]:
        budgets = Budgets(Market(), shop(None, "cpa"))
        for each in told:
            budgets.tell(0, "", each)
        budgets.pace(NOON_MS)
        offers = budgets.market.offers(budgets.catalogue, np.zeros((1, 1), dtype=np.int64))
        assert offers is not None
        return [*offers.conversion[0].tolist(), *offers.viewed_s[0].tolist()]

    before = Spending("one", DAY, 500, 1_000, 100, 3, 40.0)
    after = replace(before, **more)
    assert offers(before, after) == offers(after, before) == offers(after) != offers(before)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(DAY, DAY + 1), st.integers(0, 9)), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_what_is_told_late_twice_or_in_another_order_changes_nothing(told, chance) -> None:
    grown, news = {}, []
    for lane, day, more in sorted(told, key=lambda each: each[1]):
        grown[lane, day] = grown.get((lane, day), 0) + more
        news.append((lane, spent(grown[lane, day], day, clicks=len(news))))
    shuffled = [*news, *news]
    chance.shuffle(shuffled)
    one, other = Budgets(Market(), shop()), Budgets(Market(), shop())
    for budgets, order in ((one, news), (other, shuffled)):
        for lane, each in order:
            budgets.tell(lane, "", each)
    newest = max(day for _, day in grown)
    assert one.spent_micros("one") == sum(sum_ for (_, day), sum_ in grown.items() if day == newest)
    assert other.spent_micros("one") == one.spent_micros("one")


def test_it_tells_how_far_spending_is_from_the_plan_and_what_nobody_pays_for() -> None:
    assert Budgets(Market(), shop(None)).standing() == (0.0, 0.0)
    budgets = Budgets(Market(), shop())
    budgets.tell(0, "", spent(400_000))
    budgets.tell(0, "", spent(9_000_000, campaign="two"))  # which has no budget
    budgets.tell(1, "", spent(5, campaign="of ads that are not known here"))
    budgets.pace(NOON_MS)
    assert [budgets.budget_micros(name) for name in ("two", "of ads that are not known here", "nobody")] == [0, 0, 0]
    error, unbilled = budgets.standing()
    assert abs(error - (0.5 / 0.95 - 0.4)) < 1e-9  # the plan is to have spent all by 0.95 of the day
    assert unbilled == 0
    budgets.tell(1, "", spent(630_000))
    budgets.pace(NOON_MS + 1)
    assert abs(budgets.standing()[1] - 0.03) < 1e-9
    budgets.catalogue.upsert([entry("a", campaign_id="one")])
    budgets.pace(NOON_MS + 2 * EVERY_MS)
    assert budgets.standing() == (0.0, 0.0)


def test_a_campaign_beyond_its_budget_is_no_farther_from_the_plan_than_one_that_has_spent_it() -> None:
    budgets = Budgets(Market(), shop())
    budgets.catalogue.upsert([entry("c", campaign_id="two", budget_micros=1_000)])
    budgets.tell(0, "", spent(3_000_000))
    budgets.tell(0, "", spent(400, campaign="two"))
    budgets.pace(NOON_MS)
    plan = float(planned(NOON_MS, day_curve([])))
    assert budgets.standing()[0] == pytest.approx(((1 - plan) + (plan - 0.4)) / 2)


def test_who_asks_while_campaigns_are_paced_is_told_how_they_stood_before() -> None:
    seen = []

    class Watched(Market):
        """Asked, as from another thread, half-way."""

        def pace(self, *told: Any) -> None:
            seen.append(budgets.standing())
            super().pace(*told)

    budgets = Budgets(Watched(), shop())
    budgets.tell(0, "", spent(400_000))
    budgets.pace(NOON_MS)
    before = budgets.standing()
    budgets.catalogue.upsert([entry("d", campaign_id="three", budget_micros=5)])
    budgets.tell(0, "", spent(1_500_000))
    assert budgets.standing() == before
    budgets.pace(NOON_MS + EVERY_MS)
    assert seen == [(0.0, 0.0), before]
    assert budgets.standing() != before


def test_a_withdrawn_ads_budget_is_its_campaigns_no_longer_as_with_a_worker_that_starts() -> None:
    before, after = entry("a", campaign_id="one", budget_micros=9_000), entry("b", campaign_id="one", budget_micros=5)
    old, new = Catalogue(), Catalogue()
    old.upsert([before])
    old.withdraw(["a"])
    for stock in (old, new):
        stock.upsert([after])
    standing = []
    for stock in (old, new):
        budgets = Budgets(Market(), stock)
        budgets.tell(0, "", spent(10))
        budgets.pace(NOON_MS)
        offers = budgets.market.offers(stock, stock.eligible(NOON_MS))
        assert offers is not None
        standing.append((budgets.budget_micros("one"), offers.multiplier.tolist(), budgets.standing()))
    assert standing[0] == standing[1] == (5, [0.0], standing[1][2])


@pytest.mark.parametrize("other", [None, 5_000])
def test_what_was_delivered_beyond_a_budget_is_not_billed_once_the_campaigns_last_ad_is_withdrawn(
    other: int | None,
) -> None:
    stock = Catalogue()
    stock.upsert(
        [entry("a", campaign_id="one", budget_micros=1_000), entry("b", campaign_id="two", budget_micros=other)]
    )
    budgets = Budgets(Market(), stock)
    budgets.tell(0, "", spent(1_400))
    budgets.pace(NOON_MS)
    stock.withdraw(["a"])
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.budget_micros("one") == 1_000
    assert budgets.standing()[1] == pytest.approx(400 / (1_000 + (other or 0)))
    stock.upsert([entry("c", campaign_id="one", budget_micros=2_000)])
    budgets.pace(NOON_MS + 2 * EVERY_MS)
    assert budgets.budget_micros("one") == 2_000


@pytest.mark.parametrize("field", ["spent_micros", "impressions", "clicks", "value_micros"])
@pytest.mark.parametrize("number", [-1, 2**63, 2**64, 10**400])
def test_figures_that_no_lane_can_have_counted_are_refused_and_change_nothing(field: str, number: int) -> None:
    budgets = Budgets(Market(), shop())
    budgets.tell(0, "", spent(400_000))
    for period in ("today", "total"):
        told = {"lane": 0, "campaign_id": "one", "time_ms": NOON_MS, "day": DAY + 1, "today": {}, "total": {}}
        value = json.dumps(told | {period: {field: number}}).encode()
        assert tell(budgets, [Record("campaign-metrics", 0, 0, NOON_MS, b"0/one/", value)]) == 1
    assert budgets.spent_micros("one") == 400_000


def test_a_day_that_never_comes_is_refused() -> None:
    budgets = Budgets(Market(), shop())
    value = json.dumps({"lane": 0, "campaign_id": "one", "time_ms": 1, "day": 10**30, "today": {}, "total": {}})
    assert tell(budgets, [Record("campaign-metrics", 0, 0, NOON_MS, b"0/one/", value.encode())]) == 1


def test_the_largest_figures_a_lane_can_have_are_taken() -> None:
    budgets = Budgets(Market(), shop())
    figures = dict.fromkeys(("spent_micros", "impressions", "clicks"), 2**63 - 1)
    told = {"lane": 0, "campaign_id": "one", "time_ms": NOON_MS, "day": DAY, "today": figures, "total": figures}
    assert tell(budgets, [Record("campaign-metrics", 0, 0, NOON_MS, b"0/one/", json.dumps(told).encode())]) == 0
    budgets.pace(NOON_MS)
    assert budgets.spent_micros("one") == 2**63 - 1
