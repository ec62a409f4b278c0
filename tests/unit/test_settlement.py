"""Days that several lanes settle: what is billed of one never falls, whichever lane has passed its midnight."""

import msgspec
import numpy as np
import pytest
from msgspec import UNSET

from scoring.budgets import EVERY_MS, Budgets
from scoring.catalogue import Catalogue
from scoring.ledger import FIGURES, PARTS, Spending
from scoring.market import Market
from scoring.settlement import DAYS, MICROS_MAX, Settlement
from scoring.units import DAY_MS
from streams.campaigns import campaigns
from streams.feeds.campaigns import tell
from streams.lanes.ledger import LaneLedger
from streams.wire import CampaignMetrics, Figures, encode_json
from tests.builders import Record, entry

NOON_MS, MIDNIGHT_MS = DAY_MS // 2, DAY_MS


def cell(budget: int | None, time_ms: int, lane: int = 0, spent: int = 0) -> Record:
    """What a lane has told of a campaign, of which it knows nothing as billed."""
    told = CampaignMetrics(
        lane=lane, campaign_id="one", time_ms=time_ms, day=time_ms // DAY_MS, today=Figures(spent_micros=spent),
        total=Figures(), budget_micros=budget,
    )  # fmt: skip
    return Record("campaign-metrics", 0, 0, time_ms, f"{lane}/one/".encode(), encode_json(told))


class Shop:
    """One campaign, lanes of one worker, and the cells that stand on the topic."""

    def __init__(self, budget: int | None) -> None:
        self.stock, self.ledgers = Catalogue(), [LaneLedger(), LaneLedger()]
        self.cells: dict[bytes | None, Record] = {}
        self.now_ms = NOON_MS
        self.limit(budget)
        self.start()

    def start(self) -> None:
        """A worker whose day has begun when it reads what the topic tells."""
        self.budgets = Budgets(Market(), self.stock)
        self.budgets.pace(self.now_ms)
        tell(self.budgets, list(self.cells.values()))

    def limit(self, budget: int | None) -> None:
        self.stock.upsert([entry("a", campaign_id="one", budget_micros=budget)])

    def spend(self, micros: int, lane: int = 0, *, at_ms: int | None = None) -> CampaignMetrics:
        """What a lane tells of a slice that has spent so much; its time goes on by a second where none is given."""
        self.now_ms = time_ms = self.now_ms + EVERY_MS if at_ms is None else at_ms
        figures = np.zeros((1, len(FIGURES)), dtype=np.int64)
        figures[0, FIGURES.index("charged")] = micros * PARTS
        ledger = self.ledgers[lane]
        ledger.ledger.add(time_ms // DAY_MS, [("one", "")], figures)
        ledger.tell(lane, self.budgets, time_ms // DAY_MS)
        self.budgets.pace(time_ms)
        _, (told,) = ledger.commit(lane, self.budgets, time_ms)
        self.cells[told.key] = Record("campaign-metrics", 0, 0, time_ms, told.key, told.value)
        return msgspec.json.decode(told.value or b"", type=CampaignMetrics)

    def of_day(self, day: int) -> tuple[int | None, int | None]:
        """Billed and unbilled, by the cells that are still of ``day``."""
        cells = [msgspec.json.decode(cell.value or b"", type=CampaignMetrics) for cell in self.cells.values()]
        (one,) = campaigns(cell for cell in cells if cell.day == day)
        return one.billed_micros, one.unbilled_micros


def test_a_limit_that_was_known_before_its_day_began_gives_way_to_no_report():
    days, one = Settlement(), np.array([0])
    days.grow(1)
    days.turn(10)
    days.limit(one, np.array([200]), np.array([11]))
    days.turn(11)
    assert not days.hear_limit(0, 11, 70, time_ms=5)
    assert days.limits(one, 11).tolist() == [200]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("yesterday", "today", "first", "late", "billed"),
    [
        (1_000, 1_000_000, 600_000, 20, 1_000),
        (1_000, None, 600_000, 20, 1_000),
        (1_000_000, 1_000, 100_000, 500_000, 600_000),
        (1_000_000, 1_000, 600_000, 20, 600_020),
        (1_000_000, 1_000, 600_000, 600_000, 1_000_000),
    ],
)
def test_a_lane_that_is_still_in_yesterday_is_billed_by_the_budget_of_yesterday(
    yesterday: int, today: int | None, first: int, late: int, billed: int, restarted: bool
) -> None:
    shop = Shop(yesterday)
    shop.spend(first, lane=1)
    shop.limit(today)
    shop.spend(500, lane=0, at_ms=MIDNIGHT_MS)
    if restarted:
        shop.start()
    last = shop.spend(late, lane=1, at_ms=MIDNIGHT_MS - 1)
    assert (last.day, last.today.spent_micros) == (0, first + late)
    assert (last.budget_micros, last.billed_micros) == (yesterday, billed)
    assert shop.of_day(0) == (billed, first + late - billed)
    assert shop.of_day(1) == (500, 0)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_budget_that_is_raised_today_pays_for_nothing_of_a_lane_that_is_three_days_behind(restarted: bool) -> None:
    shop = Shop(1_000)
    shop.spend(900, lane=1)
    shop.spend(7, lane=0, at_ms=3 * DAY_MS)
    shop.limit(50_000)
    shop.spend(5_000, lane=0, at_ms=3 * DAY_MS + EVERY_MS)
    if restarted:
        shop.start()
    assert shop.spend(9_000, lane=1, at_ms=NOON_MS).billed_micros == 1_000
    assert shop.of_day(0) == (1_000, 8_900)
    assert shop.of_day(3) == (5_007, 0)


def test_a_lane_that_is_further_behind_than_days_are_kept_is_billed_by_todays_budget_and_not_without_any() -> None:
    shop = Shop(1_000)
    shop.spend(900, lane=1)
    shop.spend(7, lane=0, at_ms=DAYS * DAY_MS)
    late = shop.spend(9_000, lane=1, at_ms=MIDNIGHT_MS - 1)
    assert (late.day, late.budget_micros) == (0, 1_000)
    assert shop.of_day(0) == (1_000, 8_900)


@pytest.mark.parametrize(("yesterday", "today", "billed"), [
    (1_000, 50_000, 1_000), (1_000, None, 1_000), (50_000, 1_000, 9_000), (None, 1_000, 9_000),
])  # fmt: skip
def test_a_worker_that_starts_knows_yesterdays_budget_by_lanes_that_have_all_left_the_day(
    yesterday: int | None, today: int | None, billed: int
) -> None:
    shop = Shop(yesterday)
    shop.spend(600)
    shop.spend(0, at_ms=MIDNIGHT_MS)
    shop.limit(today)
    assert shop.spend(500).yesterday_budget_micros == yesterday
    shop.start()
    late = shop.spend(9_000, lane=1, at_ms=MIDNIGHT_MS - 1)  # which has told of the campaign for the first time
    assert (late.day, late.budget_micros, late.billed_micros) == (0, yesterday, billed)
    assert shop.budgets.budget_micros("one", 1) == (today or 0)


def test_of_yesterday_a_worker_tells_nothing_that_it_does_not_know_and_the_limit_that_there_is_none() -> None:
    shop = Shop(None)
    shop.now_ms = MIDNIGHT_MS
    shop.start()
    assert shop.spend(5).yesterday_budget_micros is UNSET
    shop.spend(5, at_ms=2 * MIDNIGHT_MS)
    (told,) = shop.cells.values()
    assert b'"yesterday_budget_micros":null' in (told.value or b"")


def test_a_budget_that_was_lowered_on_a_day_pays_for_nothing_more_of_it_once_the_day_is_over() -> None:
    shop = Shop(1_000_000)
    shop.spend(600_000, lane=1)
    shop.limit(1_000)
    shop.spend(0, lane=0)
    shop.spend(500, lane=0, at_ms=MIDNIGHT_MS)
    shop.spend(20, lane=1, at_ms=MIDNIGHT_MS - 1)
    assert shop.of_day(0) == (600_000, 20)


def test_a_day_that_all_lanes_but_one_have_jumped_over_is_billed_by_the_budget_of_then() -> None:
    shop = Shop(1_000)
    shop.spend(900, lane=1)
    shop.spend(7, lane=0, at_ms=3 * DAY_MS)
    shop.limit(50_000)
    shop.spend(0, lane=0, at_ms=3 * DAY_MS + EVERY_MS)
    assert shop.spend(9_000, lane=1, at_ms=DAY_MS + NOON_MS).billed_micros == 1_000


def started(budget: int) -> Budgets:
    """Those of a worker that has read nothing yet but the catalogue's ``budget``."""
    stock = Catalogue()
    stock.upsert([entry("a", campaign_id="one", budget_micros=budget)])
    return Budgets(Market(), stock)


@pytest.mark.parametrize(("today", "expected"), [
    (5, [50_000, 3_000, 3_000, 9_000, 9_000, 50_000]),  # of the first nothing is known, so that today's counts
    (9, [50_000, 50_000, 3_000, *[9_000] * 6, 50_000]),  # the first two are not kept any more
])  # fmt: skip
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2, 0, 1)])
@pytest.mark.parametrize("ready", [False, True])
def test_a_worker_that_starts_knows_each_days_budget_by_the_newest_that_was_told_up_to_it(
    today: int, expected: list[int], order: tuple[int, ...], ready: bool
) -> None:
    told = [cell(7_000, DAY_MS + NOON_MS), cell(3_000, DAY_MS + NOON_MS + 1, lane=1), cell(9_000, 3 * DAY_MS, lane=2)]
    budgets = started(50_000)
    if ready:
        budgets.pace(today * DAY_MS)
    tell(budgets, [told[at] for at in order])
    budgets.pace(today * DAY_MS + EVERY_MS)
    assert [budgets.budget_micros("one", day) for day in range(today + 1)] == expected


def test_what_others_tell_changes_no_day_of_which_the_worker_has_known_the_budget_itself() -> None:
    budgets = started(1_000)
    budgets.pace(NOON_MS)
    budgets.pace(3 * DAY_MS)
    tell(budgets, [cell(9_000, day * DAY_MS + NOON_MS, lane=day) for day in range(4)])
    budgets.pace(3 * DAY_MS + EVERY_MS)
    assert [budgets.budget_micros("one", day) for day in range(4)] == [1_000] * 4


def test_what_is_billed_of_a_day_by_todays_budget_stays_so_when_that_is_lowered() -> None:
    budgets = started(1_000)
    budgets.pace(DAY_MS)
    tell(budgets, [cell(None, NOON_MS, spent=900)])
    assert budgets.billed_micros(["one"], [0]) == 900
    budgets.catalogue.upsert([entry("a", campaign_id="one", budget_micros=10)])
    budgets.pace(DAY_MS + EVERY_MS)
    assert budgets.billed_micros(["one"], [0]) == 900


def test_a_worker_that_starts_after_midnight_bills_nothing_of_yesterday_today() -> None:
    shop = Shop(1_000_000)
    shop.spend(600_000)
    shop.now_ms = MIDNIGHT_MS + 60_000
    shop.start()
    assert shop.spend(5, lane=1).billed_micros == 5


def test_what_is_told_of_a_day_that_has_long_passed_changes_nothing_of_a_newer_one() -> None:
    shop = Shop(1_000_000)
    shop.spend(600_000)
    shop.now_ms = DAYS * DAY_MS + NOON_MS  # whose row was that of the day that the cell is of
    shop.start()
    assert shop.spend(5, lane=1).billed_micros == 5
    assert shop.budgets.billed_micros(["one", "one"], [0, DAYS + 1]).tolist() == [0, 0]


def test_days_that_turn_one_by_one_or_at_once_begin_with_nothing() -> None:
    shop = Shop(None)
    for day in (0, 1, 5, 5 + DAYS, 7 + 3 * DAYS):
        assert shop.spend(day + 1, at_ms=day * DAY_MS + NOON_MS).billed_micros == day + 1


def test_what_was_owed_of_a_day_is_nobodys_of_the_day_that_takes_its_place() -> None:
    shop = Shop(1_000_000)
    shop.spend(600_000)
    shop.limit(1_000)
    assert shop.spend(0).billed_micros == 600_000
    assert shop.spend(5, at_ms=DAYS * DAY_MS + NOON_MS).billed_micros == 5


def test_a_lane_on_a_day_that_another_has_jumped_over_begins_it_with_nothing() -> None:
    shop = Shop(1_000_000)
    shop.spend(600_000, lane=1, at_ms=DAY_MS + NOON_MS)
    shop.spend(7, lane=0, at_ms=(DAYS + 3) * DAY_MS)
    late = shop.spend(20, lane=1, at_ms=(DAYS + 1) * DAY_MS + NOON_MS)  # a day in the place of the first
    assert (late.day, late.billed_micros) == (DAYS + 1, 20)


def test_what_a_lane_that_is_behind_delivers_beyond_its_days_budget_is_told_until_it_has_left_the_day() -> None:
    shop = Shop(1_000)
    shop.spend(1_020, lane=1)
    assert shop.budgets.standing()[1] == pytest.approx(0.02)
    shop.spend(500, lane=0, at_ms=MIDNIGHT_MS)
    assert shop.budgets.standing()[1] == pytest.approx(0.02)
    shop.spend(5_000, lane=1, at_ms=MIDNIGHT_MS - 1)
    shop.spend(510, lane=0, at_ms=MIDNIGHT_MS + EVERY_MS)
    assert shop.budgets.standing()[1] == pytest.approx(5.03)
    shop.spend(0, lane=1, at_ms=MIDNIGHT_MS)
    shop.spend(0, lane=0, at_ms=MIDNIGHT_MS + 2 * EVERY_MS)
    assert shop.budgets.standing()[1] == pytest.approx(0.01)


@pytest.mark.parametrize("day", [2, DAYS + 1])
def test_of_a_lane_that_has_long_been_silent_nothing_is_told(day: int) -> None:
    shop = Shop(1_000)
    shop.spend(1_020, lane=1)
    shop.spend(500, lane=0, at_ms=day * DAY_MS)
    assert shop.budgets.standing()[1] == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_lane_is_in_the_newest_day_that_any_of_its_campaigns_tells_of(order: tuple[int, ...]) -> None:
    told = [Spending("one", 0, 1_020, 0, 0, 0, 0.0), Spending("two", 1, 7, 0, 0, 0, 0.0)]
    budgets = started(1_000)
    for at in order:
        budgets.tell(0, "", told[at])
    budgets.pace(DAY_MS)
    assert budgets.standing()[1] == 0


def test_a_lane_that_is_long_gone_does_not_keep_the_day_before_in_what_is_told() -> None:
    budgets = started(1_000)
    for lane, day, spent in ((7, 0, 5), (0, 5, 1_020), (0, 6, 10)):
        budgets.tell(lane, "", Spending("one", day, spent, 0, 0, 0, 0.0))
    budgets.pace(6 * DAY_MS)
    assert budgets.standing()[1] == 0


def test_days_of_as_much_as_lanes_can_have_spent_add_up_beyond_what_one_can() -> None:
    budgets = started(1_000)
    for day in (0, 1):
        budgets.tell(day, "", Spending("one", day, MICROS_MAX, 0, 0, 0, 0.0))
    budgets.pace(DAY_MS)
    assert budgets.standing()[1] == pytest.approx(2 * MICROS_MAX / 1_000)


def test_a_limit_that_is_told_again_is_no_news() -> None:
    days = Settlement()
    days.grow(1)
    assert [days.hear_limit(0, 0, limit, time_ms) for time_ms, limit in enumerate((5, 5, 7))] == [True, False, True]


def test_the_limit_of_one_campaign_and_day_is_that_of_many_at_once() -> None:
    days = Settlement()
    days.grow(3)
    for day in (3, 4, 20, 22):
        days.turn(day)
        days.hear_limit(day % 3, day, day, time_ms=day)
    days.limit(np.array([1]), np.array([MICROS_MAX]), np.array([0]))
    at, wanted = np.arange(3), range(10, 25)  # those not kept, too, and days to come
    found = [[days.limit_of(campaign, day) for campaign in at.tolist()] for day in wanted]
    assert found == [days.limits(at, day).tolist() for day in wanted]
    assert {limit for each in found for limit in each} == {3, 4, 20, MICROS_MAX}
    others = [each for day, each in zip(wanted, found, strict=True) if not 22 - DAYS < day <= 22]
    assert others == 7 * [[3, MICROS_MAX, 20]]  # today's


@pytest.mark.parametrize("day", range(20 - DAYS + 1, 21))
def test_what_is_billed_of_any_day_that_is_kept_by_todays_limit_stays_so_when_that_is_lowered(day: int) -> None:
    days, one = Settlement(), np.zeros(1, dtype=np.int64)
    days.grow(1)
    days.turn(20)
    days.spend(0, day, 9_000)
    for limit in (50_000, 1_000):
        days.limit(one, np.array([limit]), np.array([0]))
        assert [days.billed(one, each).tolist() for each in range(20 - DAYS, 22)] == [
            [9_000 * (each == day)] for each in range(20 - DAYS, 22)
        ]


def test_what_was_delivered_unbilled_is_of_the_days_asked_for_alone_and_never_less_than_nothing() -> None:
    days, one = Settlement(), np.zeros(1, dtype=np.int64)
    days.grow(1)
    days.turn(20)
    days.limit(one, np.array([1_000]), np.array([0]))
    for day, spent in ((20 - DAYS + 1, 9_000), (18, 1_500), (19, 1_070), (20, 400)):
        days.spend(0, day, spent)
    days.hear(0, 20, 450)  # another worker has billed what this one has not heard of yet
    assert [days.unbilled(one, since).tolist() for since in (20, 19, 18)] == [[0], [70], [570]]


def test_a_worker_that_starts_after_midnight_settles_yesterday_by_what_lanes_beyond_it_had_spent():
    shop = Shop(1_000)
    shop.spend(600, lane=0, at_ms=DAY_MS + NOON_MS)
    shop.spend(5, lane=0, at_ms=DAY_MS + MIDNIGHT_MS)
    shop.start()
    assert shop.spend(700, lane=1, at_ms=DAY_MS + MIDNIGHT_MS - 1).billed_micros == 1_000
    assert shop.budgets.billed_micros(["one", "one"], [1, 2]).tolist() == [1_000, 5]
    shop.budgets.pace(2 * DAY_MS + EVERY_MS)
    _, unbilled = shop.budgets.standing()
    assert unbilled == pytest.approx(0.3)


def test_what_a_lane_earned_counts_once_whether_its_days_were_heard_one_by_one_or_together():
    shop = Shop(1_000)
    shop.spend(600, at_ms=DAY_MS + NOON_MS)
    cells = [*shop.cells.values()]
    shop.spend(5, at_ms=DAY_MS + MIDNIGHT_MS)
    cells += shop.cells.values()
    for heard in (cells, cells[1:], cells[::-1], [*cells, *cells]):
        budgets = Budgets(Market(), shop.stock)
        for record in heard:
            tell(budgets, [record])
        assert budgets.billed_micros(["one", "one"], [1, 2]).tolist() == [600, 5]
