"""Days that several lanes settle: what is billed of one never falls, whichever lane has passed its midnight."""

import msgspec
import numpy as np
import pytest

from scoring.budgets import EVERY_MS, Budgets
from scoring.catalogue import Catalogue
from scoring.ledger import FIGURES, PARTS
from scoring.market import Market
from scoring.pacing import DAY_MS
from scoring.settlement import DAYS
from streams.campaigns import campaigns
from streams.feeds.campaigns import tell
from streams.lanes.ledger import LaneLedger
from streams.wire import CampaignMetrics
from tests.builders import Record, entry

NOON_MS, MIDNIGHT_MS = DAY_MS // 2, DAY_MS


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
        ledger.tell(lane, self.budgets)
        self.budgets.pace(time_ms)
        _, (told,) = ledger.commit(lane, self.budgets, time_ms)
        self.cells[told.key] = Record("campaign-metrics", 0, 0, time_ms, told.key, told.value)
        return msgspec.json.decode(told.value or b"", type=CampaignMetrics)

    def of_day(self, day: int) -> tuple[int | None, int | None]:
        """Billed and unbilled, by the cells that are still of ``day``."""
        cells = [msgspec.json.decode(cell.value or b"", type=CampaignMetrics) for cell in self.cells.values()]
        (one,) = campaigns(cell for cell in cells if cell.day == day)
        return one.billed_micros, one.unbilled_micros


@pytest.mark.parametrize("restarted", [False, True])
def test_the_last_a_lane_tells_of_a_day_bills_it_as_before_though_another_lane_has_passed_midnight(
    restarted: bool,
) -> None:
    shop = Shop(1_000_000)
    shop.spend(600_000, lane=1)
    shop.limit(1_000)
    shop.spend(500, lane=0, at_ms=MIDNIGHT_MS)
    if restarted:
        shop.start()
    last = shop.spend(20, lane=1, at_ms=MIDNIGHT_MS - 1)
    assert (last.day, last.today.spent_micros, last.billed_micros) == (0, 600_020, 600_000)
    assert shop.of_day(0) == (600_000, 20)
    assert shop.of_day(1) == (500, 0)


def test_a_lane_that_is_days_behind_tells_what_is_billed_of_its_own_day() -> None:
    shop = Shop(1_000)
    shop.spend(900, lane=0)
    shop.spend(7, lane=1, at_ms=5 * DAY_MS)
    assert shop.spend(300, lane=0, at_ms=NOON_MS).billed_micros == 1_000
    assert shop.of_day(5) == (7, 0)


def test_a_budget_that_is_lowered_after_midnight_takes_nothing_of_the_day_before() -> None:
    shop = Shop(1_000_000)
    shop.spend(600_000, lane=1)
    shop.spend(500, lane=0, at_ms=MIDNIGHT_MS)
    shop.limit(1_000)
    shop.spend(0, lane=0, at_ms=MIDNIGHT_MS + EVERY_MS)
    shop.spend(20, lane=1, at_ms=MIDNIGHT_MS - 1)
    assert shop.of_day(0) == (600_000, 20)


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
