"""Yesterday's final bill: on the topic, whichever day its lanes are in, until the day after it is over."""

from typing import Any

import msgspec
import pytest

from scoring.budgets import EVERY_MS
from scoring.units import DAY_MS
from streams.campaigns import Campaign, campaigns
from streams.wire import CampaignMetrics, Figures
from tests.unit.test_campaigns import told
from tests.unit.test_settlement import MIDNIGHT_MS, NOON_MS, Shop

FIRST_MS = DAY_MS  # day 1, since day 0 is no day before


def begun(budget: int | None) -> Shop:
    """A shop at noon of day 1."""
    shop = Shop(budget)
    shop.now_ms = FIRST_MS + NOON_MS
    shop.start()
    return shop


def read(shop: Shop) -> Campaign:
    """The campaign, by what stands on the topic."""
    cells = [msgspec.json.decode(cell.value or b"", type=CampaignMetrics) for cell in shop.cells.values()]
    (one,) = campaigns(cells)
    return one


def bill(one: Campaign) -> tuple[int, int | None, int | None, int | None]:
    """What was spent yesterday, of which budget, what of it is billed, and what is not."""
    return (
        one.yesterday.spent_micros, one.yesterday_budget_micros, one.yesterday_billed_micros,
        one.yesterday_unbilled_micros,
    )  # fmt: skip


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("yesterday", "today", "billed"),
    [(1_000, 1_000, 1_000), (1_000, 50_000, 1_000), (50_000, 1_000, 1_300), (1_000, None, 1_000), (None, 1_000, 1_300)],
)
def test_when_all_lanes_have_passed_midnight_the_day_before_is_billed_as_it_was_at_its_end(
    yesterday: int | None, today: int | None, billed: int, restarted: bool
) -> None:
    shop = begun(yesterday)
    shop.spend(600, lane=0)
    shop.spend(700, lane=1)
    shop.limit(today)
    if restarted:
        shop.now_ms = FIRST_MS + MIDNIGHT_MS
        shop.start()
    for lane in (0, 1):
        shop.spend(5, lane=lane, at_ms=FIRST_MS + MIDNIGHT_MS + lane)
    one = read(shop)
    spent, budget, *settled = bill(one)
    assert (spent, settled) == (1_300, [billed, 1_300 - billed])
    assert restarted or budget == yesterday  # a worker that starts cannot tell no limit from none that is known
    assert (one.today.spent_micros, one.billed_micros) == (10, 10)


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_billed_before_the_budget_was_lowered_is_billed_of_the_day_before_though_all_lanes_have_left_it(
    restarted: bool,
) -> None:
    shop = begun(1_000_000)
    shop.spend(600_000, lane=1)
    shop.limit(1_000)
    shop.spend(0, lane=0)
    shop.spend(20, lane=1)
    for lane in (0, 1):
        shop.spend(5, lane=lane, at_ms=FIRST_MS + MIDNIGHT_MS + lane)
        if restarted:
            shop.start()
    assert bill(read(shop)) == (600_020, 1_000, 600_000, 20)


def test_a_worker_that_starts_after_midnight_settles_yesterday_by_what_lanes_beyond_it_had_billed() -> None:
    shop = begun(1_000_000)
    shop.spend(600_000, lane=0)
    shop.limit(1_000)
    shop.spend(0, lane=0)
    shop.spend(5, lane=0, at_ms=FIRST_MS + MIDNIGHT_MS)
    shop.start()
    late = shop.spend(20, lane=1, at_ms=FIRST_MS + MIDNIGHT_MS - 1)
    assert (late.day, late.billed_micros) == (1, 600_000)
    assert bill(read(shop)) == (600_020, 1_000, 600_000, 20)


def test_a_lane_that_is_still_in_yesterday_is_part_of_its_bill() -> None:
    shop = begun(1_000)
    shop.spend(600, lane=0)
    shop.spend(5, lane=0, at_ms=FIRST_MS + MIDNIGHT_MS)
    shop.spend(300, lane=1, at_ms=FIRST_MS + MIDNIGHT_MS - EVERY_MS)
    assert bill(read(shop)) == (900, 1_000, 900, 0)
    shop.spend(300, lane=1, at_ms=FIRST_MS + MIDNIGHT_MS - 1)
    assert bill(read(shop)) == (1_200, 1_000, 1_000, 200)


def test_a_campaign_without_events_yesterday_has_no_bill_of_it_whatever_it_had_before() -> None:
    shop = begun(1_000)
    shop.spend(600)
    shop.spend(5, at_ms=FIRST_MS + 2 * DAY_MS)
    one = read(shop)
    assert (one.day, bill(one)) == (3, (0, 1_000, 0, 0))
    (two,) = campaigns([told(0, day=7), told(1, "two", day=9)])[1:]
    assert (two.campaign_id, two.day, two.yesterday.impressions) == ("two", 9, 0)


def former(lane: int, **fields: Any) -> CampaignMetrics:
    """What a version told that knew no bill of the day before."""
    given: dict[str, Any] = {"before_day": 6, "before": Figures(spent_micros=700), "budget_micros": 50}
    return told(lane, **(given | fields))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"yesterday_budget_micros": 1_000}, (1_400, 1_000, 1_000, 400)),
        ({"yesterday_budget_micros": None}, (1_400, None, 1_400, 0)),
        ({}, (1_400, 50, 50, 1_350)),  # that of today, as workers settle a day of whose budget nothing is known
    ],
)
def test_lanes_of_a_version_that_told_no_bill_of_the_day_before_are_billed_up_to_its_budget(
    fields: dict[str, Any], expected: tuple[int, int | None, int | None, int | None]
) -> None:
    (one,) = campaigns([former(0), former(1, **fields)])
    assert bill(one) == expected


def test_yesterdays_budget_is_that_which_was_told_last_by_lanes_that_know_it() -> None:
    cells = [
        told(0, day=6, time_ms=3, budget_micros=300),
        told(1, day=6, time_ms=4, budget_micros=400, spent=900),
        told(2, day=7, time_ms=5, budget_micros=500),
        told(3, day=5, time_ms=9, budget_micros=900),
    ]
    for order in (cells, cells[::-1]):
        (one,) = campaigns(order)
        assert bill(one) == (900, 400, 400, 500)
    (one,) = campaigns([*cells, told(4, day=7, time_ms=6, yesterday_budget_micros=600)])
    assert bill(one) == (900, 600, 600, 300)


def test_a_bill_and_a_budget_of_another_day_before_are_not_yesterdays() -> None:
    cells = [
        told(0, day=6, time_ms=3, budget_micros=300, spent=900),
        told(1, day=5, time_ms=4, yesterday_budget_micros=700, before_day=4, before_billed_micros=800),
    ]
    (one, _) = campaigns([*cells, told(0, "two", day=7)])
    assert bill(one) == (900, 300, 300, 600)


def test_an_arms_figures_of_yesterday_are_told_and_no_bill() -> None:
    (one,) = campaigns([former(0, arm="1-0", before_billed_micros=9)], by_arm=True)
    assert bill(one) == (700, None, None, None)
