"""Budgets that are changed while all lanes are behind: each day goes by what was told by its end, however late."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.budgets import EVERY_MS, Budgets
from scoring.catalogue import Catalogue
from scoring.ids import id64
from scoring.ledger import Spending
from scoring.market import Market
from scoring.settlement import DAYS, Settlement
from scoring.units import DAY_MS
from streams.feeds import catalogue as feed
from streams.feeds.campaigns import tell
from streams.feeds.catalogue import apply_ads
from streams.wire import encode_json
from tests.builders import Record, ad, entry
from tests.unit.test_settlement import MIDNIGHT_MS, NOON_MS, Shop, cell

HALF_PAST_MS = MIDNIGHT_MS + 1_800_000


def told(
    budget: int | None, time_ms: int, ad_id: str = "a", campaign: str = "one", bid: int = 1_000, **fields: object
) -> Record:
    """What an ad says, by a record of ``time_ms``."""
    value = encode_json(ad(ad_id, campaign_id=campaign, budget_micros=budget, bid_micros=bid, **fields))
    return Record("ads", 0, 0, time_ms, ad_id.encode(), value)


class Behind(Shop):
    """One campaign, all of whose lanes are in day 0 still; its ads are read from their topic."""

    def __init__(self, *records: Record) -> None:
        super().__init__(None)
        self.stock, self.now_ms = Catalogue(), NOON_MS
        self.read(*records)
        self.start()

    def read(self, *records: Record) -> None:
        for record in records:
            assert apply_ads(self.stock, [record]) == 0

    def limits(self, days: int = 3) -> list[int]:
        """By day; 0: none."""
        return [self.budgets.budget_micros("one", day) for day in range(days)]

    def offered(self) -> float:
        """The multiplier of what the first ad bids."""
        offers = self.budgets.market.offers(self.stock, np.zeros((1, 1), dtype=np.int64))
        return 1.0 if offers is None else float(offers.multiplier[0, 0])

    def goes_on(self, time_ms: int) -> None:
        """A lane without traffic."""
        self.now_ms = time_ms
        self.budgets.pace(time_ms)


CHANGES = pytest.mark.parametrize(("before", "after"), [(1_000, 50_000), (50_000, 1_000), (1_000, None), (None, 1_000)])


def due(limit: int | None, spent: int) -> int:
    return spent if limit is None else min(limit, spent)


@CHANGES
def test_what_is_changed_after_midnight_bills_nothing_of_the_day_that_all_lanes_are_still_in(
    before: int | None, after: int | None
) -> None:
    shop = Behind(told(before, NOON_MS))
    shop.spend(600)
    shop.read(told(after, HALF_PAST_MS))
    shop.spend(0)
    last = shop.spend(9_000)
    assert (last.day, last.budget_micros, last.billed_micros) == (0, before, due(before, 9_600))
    shop.spend(600, at_ms=MIDNIGHT_MS)
    late = shop.spend(9_000, lane=1, at_ms=MIDNIGHT_MS)
    assert (late.day, late.budget_micros, late.billed_micros) == (1, after, due(after, 9_600))
    assert shop.budgets.billed_micros(["one"], [0]) == due(before, 9_600)


def test_what_is_raised_after_midnight_is_offered_from_the_day_on_that_it_is_for() -> None:
    shop = Behind(told(1_000, NOON_MS))
    shop.spend(1_000)
    assert shop.offered() == 0
    shop.read(told(50_000, HALF_PAST_MS))
    shop.goes_on(MIDNIGHT_MS - 1)
    assert shop.offered() == 0
    shop.goes_on(MIDNIGHT_MS + EVERY_MS)
    assert 0 < shop.offered() < 1
    shop.spend(2_000)
    assert shop.offered() > 0


def test_what_is_lowered_after_midnight_stops_its_campaign_on_the_day_that_it_is_for() -> None:
    shop = Behind(told(50_000, NOON_MS))
    shop.spend(2_000)
    shop.read(told(1_000, HALF_PAST_MS))
    shop.goes_on(MIDNIGHT_MS - 1)
    assert shop.offered() > 0
    shop.spend(2_000, at_ms=MIDNIGHT_MS)
    assert shop.offered() == 0


def test_a_budget_that_others_have_spent_as_it_begins_with_a_day_tells_nothing_of_how_this_worker_has_bid() -> None:
    shop = Behind(told(50_000, NOON_MS))
    shop.spend(500)
    shop.read(told(1_000, HALF_PAST_MS))
    shop.spend(500)
    level = shop.budgets.level("one")
    shop.budgets.tell(9, "", Spending("one", 1, 2_000, 0, 0, 0, 0.0))
    shop.goes_on(MIDNIGHT_MS + EVERY_MS)
    assert (shop.offered(), shop.budgets.level("one")) == (0, level)


def test_a_limit_that_begins_with_a_day_paces_where_nobody_had_one_before() -> None:
    shop = Behind(told(None, NOON_MS))
    shop.read(told(1_000, HALF_PAST_MS))
    shop.goes_on(MIDNIGHT_MS - 1)
    assert shop.offered() == 1
    shop.goes_on(MIDNIGHT_MS + EVERY_MS)
    assert shop.offered() < 1


def test_the_budget_of_an_ad_that_ended_on_a_day_counts_for_that_day_and_for_none_after_it() -> None:
    shop = Behind(told(50_000, NOON_MS, end_ms=NOON_MS + 60_000), told(1_000, NOON_MS, "b"))
    shop.spend(2_000)
    shop.goes_on(MIDNIGHT_MS - 1)
    assert shop.limits(1) == [50_000]
    shop.goes_on(MIDNIGHT_MS)
    late = shop.spend(2_000)
    assert shop.limits(2) == [50_000, 1_000]
    assert (late.day, late.billed_micros, shop.offered()) == (1, 1_000, 0)


@pytest.mark.parametrize(("status", "limit"), [("ended", 1_000), ("paused", 50_000)])
def test_an_ad_that_is_said_to_have_ended_gives_its_campaign_no_budget_and_one_that_is_paused_does(
    status: str, limit: int
) -> None:
    shop = Behind(told(50_000, NOON_MS), told(1_000, NOON_MS, "b"))
    shop.read(told(50_000, NOON_MS + 1, status=status))
    shop.goes_on(NOON_MS + EVERY_MS)
    assert shop.limits(1) == [limit]
    shop.read(told(50_000, NOON_MS + 2, status="ended"))
    shop.goes_on(NOON_MS + 2 * EVERY_MS)
    assert shop.limits(1) == [1_000]


@pytest.mark.parametrize("other", [{"budget": None}, {"budget": 1_000, "status": "ended"}])
def test_where_no_ad_that_goes_on_states_a_budget_those_that_ended_still_limit_their_campaign(
    other: dict[str, Any],
) -> None:
    shop = Behind(told(50_000, NOON_MS, status="ended"), told(time_ms=NOON_MS, ad_id="b", **other))
    shop.goes_on(MIDNIGHT_MS)
    assert shop.limits(2) == [50_000, 50_000]


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize(("before", "after"), [(1_000, 50_000), (50_000, 1_000), (1_000, None)])
def test_a_worker_that_starts_after_a_change_goes_by_what_lanes_have_told_of_the_day_that_they_are_in(
    before: int, after: int | None, ready: bool
) -> None:
    shop = Behind(told(before, NOON_MS))
    shop.spend(600)
    shop.stock, shop.budgets = Catalogue(), Budgets(Market(), shop.stock)
    shop.read(told(after, HALF_PAST_MS))
    if ready:
        shop.start()
    else:
        shop.budgets = Budgets(Market(), shop.stock)
        tell(shop.budgets, list(shop.cells.values()))
    shop.spend(0)
    last = shop.spend(9_000)
    assert (last.budget_micros, last.billed_micros) == (before, due(before, 9_600))
    late = shop.spend(9_000, at_ms=MIDNIGHT_MS)
    assert (late.budget_micros, late.billed_micros) == (after, due(after, 9_000))


def test_of_days_whose_budgets_were_changed_one_by_one_each_goes_by_its_own() -> None:
    shop = Behind(told(1_000, NOON_MS))
    for day, budget in ((1, 2_000), (2, 3_000), (2, 3_500), (4, 5_000)):
        shop.read(told(budget, day * DAY_MS + NOON_MS))
        shop.spend(0)
    assert shop.limits(1) == [1_000]
    for day in range(1, 6):
        shop.spend(0, at_ms=day * DAY_MS)
    assert shop.limits(6) == [1_000, 2_000, 3_500, 3_500, 5_000, 5_000]


@pytest.mark.parametrize(("last", "expected"), [
    (2, [1_000, 2_000, 3_000]), (6, [3_000, 3_000, 5_000]), (DAYS + 5, [5_000] * 3), (5 * DAYS, [5_000] * 3),
])  # fmt: skip
def test_days_that_all_lanes_jump_over_go_by_their_own_budgets_too(last: int, expected: list[int]) -> None:
    shop = Behind(told(1_000, NOON_MS))
    for day, budget in ((1, 2_000), (2, 3_000), (6, 5_000)):
        shop.read(told(budget, day * DAY_MS + NOON_MS))
        shop.spend(0)
    shop.spend(0, at_ms=last * DAY_MS)
    assert shop.limits(last + 1)[-3:] == expected
    later = last + DAYS
    shop.spend(0, at_ms=later * DAY_MS)  # to days in the places of those that have begun
    assert shop.limits(later + 1)[-1] == 5_000


@pytest.mark.parametrize(("days", "expected"), [(1, 1_000), (DAYS - 1, 1_000), (DAYS, 50_000), (3_000, 50_000)])
def test_a_log_that_is_replayed_long_after_its_days_is_billed_by_what_is_told_now(days: int, expected: int) -> None:
    shop = Behind(told(1_000, NOON_MS))
    shop.read(told(50_000, days * DAY_MS))
    shop.spend(0)
    assert shop.limits(1) == [expected]


def test_an_ad_that_is_told_again_with_another_bid_keeps_the_budget_that_holds() -> None:
    shop = Behind(told(1_000, NOON_MS))
    shop.read(told(50_000, NOON_MS + 1), told(50_000, HALF_PAST_MS, bid=7))
    shop.spend(0)
    assert shop.limits(1) == [50_000]
    assert shop.stock.bid_micros.tolist() == [7]


def test_of_a_campaign_that_nobody_knew_the_first_budget_counts_at_once() -> None:
    shop = Behind(told(None, NOON_MS, campaign="two"))
    shop.read(told(1_000, HALF_PAST_MS, "b"))
    shop.spend(0)
    assert shop.limits(1) == [1_000]
    shop.read(told(5_000, HALF_PAST_MS + 1, "b"))
    shop.spend(0)
    assert shop.limits(1) == [1_000]
    shop.spend(0, at_ms=MIDNIGHT_MS)
    assert shop.limits(2) == [1_000, 5_000]


def test_an_ad_that_is_withdrawn_or_becomes_anothers_after_midnight_takes_its_budget_along_from_then_on() -> None:
    for change in (Record("ads", 0, 0, HALF_PAST_MS, b"b", None), told(9_000, HALF_PAST_MS, "b", "two")):
        shop = Behind(told(5, NOON_MS), told(9_000, NOON_MS, "b"))
        shop.read(change)
        shop.spend(0)
        assert shop.limits(1) == [9_000]
        shop.spend(0, at_ms=MIDNIGHT_MS)
        assert shop.limits(2) == [9_000, 5]


@pytest.mark.parametrize("first", [HALF_PAST_MS, HALF_PAST_MS + DAY_MS])
@pytest.mark.parametrize("then", [NOON_MS, -1])
def test_what_was_to_begin_does_not_where_another_budget_holds_already(first: int, then: int) -> None:
    shop = Behind(told(1_000, NOON_MS))
    shop.read(told(50_000, first))
    shop.spend(0)
    shop.read(told(2_000, then))
    shop.spend(0)
    shop.spend(0, at_ms=2 * DAY_MS)
    assert shop.limits() == [2_000] * 3


@pytest.mark.parametrize("time_ms", [-1, 0, 1, NOON_MS - 1, 3 * DAY_MS, 2**62])
def test_a_record_whose_time_is_missing_or_absurd_is_of_now(time_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "wall_ms", lambda: 2 * DAY_MS - 1)
    shop = Behind(told(1_000, time_ms))
    shop.read(told(50_000, time_ms))
    shop.spend(0)
    assert shop.limits(1) == [50_000]


def test_a_producer_whose_clock_is_a_day_ahead_or_less_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "wall_ms", lambda: 2 * DAY_MS)
    shop = Behind(told(1_000, NOON_MS))
    shop.read(told(50_000, 3 * DAY_MS))
    shop.spend(0, at_ms=2 * DAY_MS)
    shop.spend(0, at_ms=3 * DAY_MS)
    assert shop.limits(4)[2:] == [1_000, 50_000]


def test_what_a_lane_tells_late_of_the_day_before_changes_no_budget_that_has_begun_since() -> None:
    shop = Behind(told(1_000, HALF_PAST_MS))  # of the day before this worker knows nothing, and goes by this
    shop.spend(0, at_ms=MIDNIGHT_MS)
    tell(shop.budgets, [cell(7_000, NOON_MS, lane=1)])
    assert shop.limits(2) == [7_000, 1_000]


def test_an_ad_that_goes_on_after_midnight_without_a_budget_has_none_from_then_on() -> None:
    shop = Behind(told(1_000, NOON_MS))
    paused = encode_json(ad("a", campaign_id="one", budget_micros=None, status="paused"))
    shop.read(Record("ads", 0, 0, NOON_MS + 1, b"a", paused))
    shop.spend(0)
    shop.read(told(None, HALF_PAST_MS))
    shop.spend(0)
    assert shop.limits(1) == [1_000]
    shop.spend(0, at_ms=MIDNIGHT_MS)
    assert shop.limits(2) == [1_000, 0]


def test_each_ad_of_a_batch_counts_from_its_own_time() -> None:
    stock, ids = Catalogue(), [id64(campaign) for campaign in ("one", "two")]
    stock.upsert([entry(each, campaign_id=of) for each, of in (("a", "one"), ("b", "two"), ("a", "one"))], [1, 2, 3])
    assert [stock.budget_ms[each] for each in ids] == [3, 2]
    stock.withdraw(["unknown", "a", "b"], [7, 8, 9])
    assert [stock.budget_ms[each] for each in ids] == [8, 9]


def test_records_that_all_have_one_time_are_safe() -> None:
    shop = Behind(told(1_000, HALF_PAST_MS))
    for budget in (2_000, 3_000):
        shop.read(told(budget, HALF_PAST_MS))
        shop.spend(0)
    assert shop.limits(1) == [1_000]
    shop.spend(0, at_ms=MIDNIGHT_MS)
    shop.read(told(4_000, HALF_PAST_MS))
    shop.spend(0)
    assert shop.limits(2) == [1_000, 4_000]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, DAYS + 1), st.integers(1, 9)), max_size=20))
def test_each_day_goes_by_the_newest_limit_that_was_told_for_it_or_a_day_before_it(
    changes: list[tuple[int, int, int]],
) -> None:
    days, newest, expected = Settlement(), 100, dict[int, int]()
    days.grow(2)
    days.turn(newest)
    for turned, ahead, limit in changes:
        newest += turned * turned * turned
        days.turn(newest)
        begins = newest + (ahead if 0 < ahead < DAYS and expected else 0)
        expected |= dict.fromkeys(range(begins, 1_000), limit)
        days.limit(np.array([1]), np.array([limit]), np.array([newest + ahead]))
        known = [day for day in range(newest - DAYS + 1, newest + 1) if day in expected]
        assert [days.limit_of(1, day) for day in known] == [expected[day] for day in known]
    assert days.limit_of(0, newest) == 0
