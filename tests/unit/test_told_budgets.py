"""Budgets as lanes told them: what a worker goes by that was not there when a campaign was still on offer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from scoring.budgets import EVERY_MS, Budgets
from scoring.catalogue import Catalogue
from scoring.market import Market
from scoring.pacing import FINISH
from scoring.units import DAY_MS
from streams.feeds.campaigns import tell
from streams.wire import CampaignMetrics, Figures, encode_json
from tests.builders import Record, entry
from tests.unit.test_budgets import DAY, NOON_MS, offered, shop, spent


def cell(
    budget: int | None, time_ms: int = NOON_MS, lane: int = 0, campaign: str = "one", level: float = 0.0
) -> Record:
    """What a lane has told of a campaign that spent 1.4 units."""
    figures = Figures(spent_micros=1_400_000)
    told = CampaignMetrics(
        lane=lane, campaign_id=campaign, time_ms=time_ms, day=DAY, today=figures, total=figures, budget_micros=budget,
        level=level,
    )  # fmt: skip
    return Record("campaign-metrics", 0, 0, NOON_MS, f"{lane}/{campaign}/".encode(), encode_json(told))


def replace_told(record: Record, **changes: object) -> Record:
    """The same, but for ``changes`` of what it tells."""
    told = msgspec.json.decode(record.value or b"", type=CampaignMetrics)
    return replace(record, value=encode_json(msgspec.structs.replace(told, **changes)))


def _stopped() -> Catalogue:
    stock = shop(0)
    stock.upsert([entry("b", campaign_id="one", budget_micros=0)])
    return stock


def _withdrawn() -> Catalogue:
    stock = shop()
    stock.withdraw(["a", "b"])
    return stock


def _compacted_away() -> Catalogue:
    stock = Catalogue()
    stock.upsert([entry("c", campaign_id="two")])
    return stock


@pytest.mark.parametrize("stock", [_stopped, _withdrawn, _compacted_away])
@pytest.mark.parametrize("lanes", [(0, 1), (1, 0)])
@pytest.mark.parametrize("ready", [False, True])
def test_a_worker_that_starts_bills_a_stopped_campaign_up_to_the_budget_that_was_told_last(
    stock: Callable[[], Catalogue], lanes: tuple[int, int], ready: bool
) -> None:
    told = {0: cell(900_000, NOON_MS - 1), 1: cell(1_000_000, lane=1)}
    budgets = Budgets(Market(), stock())
    if ready:
        budgets.pace(NOON_MS)
    tell(budgets, [told[lane] for lane in lanes])
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.budget_micros("one") == 1_000_000


def test_a_budget_that_is_told_when_the_catalogue_has_been_read_is_paced_by() -> None:
    budgets = Budgets(Market(), _stopped())
    budgets.pace(NOON_MS)
    tell(budgets, [cell(1_000_000)])
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.standing()[1] == pytest.approx(0.4)


def test_a_worker_that_starts_plans_a_campaign_from_the_start_that_was_told_before_its_first_ad_was_withdrawn() -> None:
    stock = Catalogue()
    stock.upsert([entry("b", campaign_id="one", budget_micros=2_800_000, start_ms=NOON_MS)])
    budgets = Budgets(Market(), stock)
    budgets.pace(NOON_MS)
    tell(budgets, [cell(2_800_000), replace_told(cell(2_800_000, lane=1), starts_ms=NOON_MS - DAY_MS // 4)])
    assert budgets.hours_ms("one") == (NOON_MS - DAY_MS // 4, None)
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.standing()[0] == pytest.approx(1 - 1 / 3 / FINISH, abs=1e-4)  # two lanes have spent all of it


def test_a_worker_that_knows_of_no_budget_takes_none_away_that_another_told() -> None:
    budgets = Budgets(Market(), _withdrawn())
    tell(budgets, [cell(1_000_000), cell(None, NOON_MS + 1, lane=1)])
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.budget_micros("one") == 1_000_000


def test_what_others_tell_of_a_budget_changes_none_that_the_worker_knows_itself() -> None:
    free, limited = Budgets(Market(), shop(None)), Budgets(Market(), shop(2_000_000))
    for budgets in (free, limited):
        tell(budgets, [cell(1_000_000)])
        budgets.pace(NOON_MS)
    assert (free.budget_micros("one"), limited.budget_micros("one")) == (0, 2_000_000)
    limited.catalogue.withdraw(["a", "b"])
    limited.pace(NOON_MS + EVERY_MS)
    tell(limited, [cell(1_000_000, NOON_MS + EVERY_MS)])  # of a lane that had not read the larger one yet
    limited.pace(NOON_MS + 2 * EVERY_MS)
    assert limited.budget_micros("one") == 2_000_000


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_worker_that_starts_paces_by_the_level_that_was_told_last_and_then_by_its_own(
    order: tuple[int, ...],
) -> None:
    told = [  # of a lane that has long been silent; of a worker that does not pace the campaign; and of one that does
        cell(1_000_000, NOON_MS - 14 * DAY_MS, level=0.9), cell(None, NOON_MS + 1, lane=1),
        cell(1_000_000, NOON_MS, lane=2, level=0.2),
    ]  # fmt: skip
    budgets = Budgets(Market(), shop())
    tell(budgets, [told[lane] for lane in order])
    budgets.pace(NOON_MS)
    assert budgets.level("one") == pytest.approx(0.2)
    tell(budgets, [cell(1_000_000, NOON_MS + EVERY_MS, lane=3, level=0.9)])
    budgets.catalogue.upsert([entry("c", campaign_id="two", budget_micros=5)])
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.level("one") == pytest.approx(0.2, rel=0.05)


def test_a_lane_of_a_version_that_does_not_count_what_is_sold_moves_the_worth_of_a_bid_for_purchases_as_before() -> (
    None
):
    budgets = Budgets(Market(), shop())
    figures = Figures(clicks=900, purchases=90.0)
    tell(budgets, [replace_told(cell(1_000_000), today=figures, total=figures)])
    budgets.pace(NOON_MS)
    offers = budgets.market.offers(budgets.catalogue, np.arange(1)[None])
    assert offers is not None
    usual = budgets.market.terms.conversion
    assert offers.conversion.item() == pytest.approx((90 + 100 * usual) / 1_000)


NO_FIGURES: list[dict[str, Any]] = [
    {period: {name: number}}
    for period in ("today", "total", "before")
    for name in ("viewed_s", "purchases", "spread_purchases")
    for number in (1e308, -1e9)
]


@pytest.mark.parametrize("wrong", [*NO_FIGURES, {"level": -0.1}, {"level": 1.1}])
def test_sums_and_levels_that_no_lane_can_have_are_refused_and_change_nothing(wrong: dict[str, Any]) -> None:
    budgets = Budgets(Market(), shop())
    value = msgspec.json.encode(msgspec.json.decode(cell(None).value or b"") | wrong)
    assert tell(budgets, [cell(None, lane=1), replace(cell(None), value=value)]) == 1
    assert budgets.spent_micros("one") == 1_400_000


def test_the_largest_sums_that_lanes_can_have_stop_their_campaigns_and_all_offers_are_numbers() -> None:
    stock = shop()
    stock.upsert([entry("c", campaign_id="two", budget_micros=5)])
    budgets = Budgets(Market(), stock)
    most = Figures(spent_micros=2**63 - 1, viewed_s=(2**63 - 1) / 1_000, purchases=(2**63 - 1) / 1_000)
    for lane, campaign in ((0, "one"), (1, "one"), (0, "two")):
        assert tell(budgets, [replace_told(cell(None, lane=lane, campaign=campaign), today=most, total=most)]) == 0
    budgets.pace(NOON_MS)
    offers = budgets.market.offers(stock, np.arange(3)[None])
    assert offers is not None
    assert np.isfinite([offers.conversion, offers.viewed_s]).all()
    assert offers.multiplier.tolist() == [[0, 0, 0]]
    assert budgets.spent_micros("one") == 2**63 - 1
    assert budgets.standing()[1] > 2**63 / 1_000_010


@pytest.mark.parametrize("budget", [-1, 10**15 + 1, 2**64])
def test_a_budget_that_no_campaign_can_have_is_refused(budget: int) -> None:
    budgets = Budgets(Market(), Catalogue())
    assert tell(budgets, [cell(1_000), replace(cell(1), value=(cell(7).value or b"").replace(b":7", b":%d" % budget))])
    assert budgets.budget_micros("one") == 1_000


def test_a_campaign_whose_budget_is_cut_below_what_it_has_spent_keeps_its_level_for_the_next_day() -> None:
    stock = shop()
    budgets = Budgets(Market(), stock)
    for minute in range(60):
        budgets.tell(0, "", spent(530_000 + 730 * minute))
        budgets.pace(NOON_MS + 60_000 * minute)
    level = budgets.level("one")
    assert 0.1 < level < 0.9
    stock.upsert([entry(ad, campaign_id="one", budget_micros=100_000) for ad in "ab"])
    for minute in range(60, 600):
        stock.upsert([entry("c", campaign_id="two", bid_micros=1_000 + minute)])
        budgets.pace(NOON_MS + 60_000 * minute)
    assert offered(budgets) == [0, 0, 1]
    assert budgets.level("one") == pytest.approx(level, abs=1e-3)  # the last minute before the cut was still planned


@pytest.mark.parametrize("lower", [1, 900_000])
def test_what_was_spent_within_a_budget_stays_owed_when_it_is_lowered_and_nothing_beyond(lower: int) -> None:
    stock = shop(1_500_000)
    budgets = Budgets(Market(), stock)
    for lane in (0, 1):
        budgets.tell(lane, "", spent(600_000))
    budgets.pace(NOON_MS)
    stock.upsert([entry("a", campaign_id="one", budget_micros=lower)])
    budgets.pace(NOON_MS + EVERY_MS)
    assert (budgets.billed_micros(["one"], [DAY]), budgets.standing()[1]) == (1_200_000, 0.0)
    budgets.tell(1, "1-0", spent(70_000))  # clicks that were on their way
    budgets.pace(NOON_MS + 2 * EVERY_MS)
    assert budgets.billed_micros(["one"], [DAY]) == 1_200_000
    assert budgets.standing()[1] == pytest.approx(70_000 / lower)
    stock.upsert([entry("a", campaign_id="one", budget_micros=1_250_000)])
    budgets.pace(NOON_MS + 3 * EVERY_MS)
    assert budgets.billed_micros(["one"], [DAY]) == 1_250_000
    budgets.tell(1, "", spent(5, DAY + 1))
    assert budgets.billed_micros(["one", "one"], [DAY, DAY + 1]).tolist() == [1_250_000, 5]


def test_what_was_spent_before_a_limit_was_set_stays_owed() -> None:
    stock = shop(None)
    budgets = Budgets(Market(), stock)
    budgets.tell(0, "", spent(600_000))
    budgets.pace(NOON_MS)
    stock.upsert([entry("a", campaign_id="one", budget_micros=1_000)])
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.billed_micros(["one"], [DAY]) == 600_000


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("ready", [False, True])
def test_a_worker_that_starts_after_a_budget_was_lowered_owes_what_was_told_before(
    order: tuple[int, int], ready: bool
) -> None:
    told = [replace_told(cell(1_500_000, NOON_MS - 1), billed_micros=1_390_000), cell(1, lane=1)]
    budgets = Budgets(Market(), shop(1))
    if ready:
        budgets.pace(NOON_MS)
    tell(budgets, [told[at] for at in order])
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.billed_micros(["one"], [DAY]) == 1_390_000
    tell(budgets, [replace_told(cell(1, lane=2), day=DAY + 1)])
    assert budgets.billed_micros(["one"], [DAY + 1]) == 1
