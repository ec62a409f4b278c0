"""The campaign-metrics topic as every worker's view of what other lanes have spent (`streams.feeds.topic`)."""

from collections.abc import Sequence

import msgspec
import numpy as np
import structlog
from msgspec import UNSET

from scoring.budgets import Budgets
from scoring.ledger import Spending
from scoring.settlement import MICROS_MAX
from scoring.units import DAY_MS
from streams.clock import wall_ms
from streams.control_wire import HourlyTraffic
from streams.decode import Record
from streams.lanes.ahead import AHEAD_MS
from streams.lanes.ledger import spending
from streams.wire import UNREADABLE, CampaignMetrics, Figures

log = structlog.get_logger()

RECORDS_PER_READ = 5_000
"""Records taken in one call: some 75 ms where each is of a cell of its own and tells of the day before, too."""
_DECODE = msgspec.json.Decoder(CampaignMetrics).decode


def tell(budgets: Budgets, records: Sequence[Record], tolerance_ms: int = 0) -> int:
    """Take ``records`` of the topic: of each cell's day the largest report, as if compaction had left it alone.

    A lane tells a cell after every slice that changes it, and until its segment ends the topic keeps all of that: a
    worker that starts reads each cell many times. Returns how many were unreadable: those change nothing. Nor do
    reports that are ahead of now by more than ``tolerance_ms`` and `AHEAD_MS`, of a lane whose worker's clock was
    ahead: they would begin a day in which no other lane spends, and until then no budget would stop a campaign.
    """
    refused, ahead, latest_ms = 0, 0, wall_ms() + tolerance_ms + AHEAD_MS
    largest: dict[tuple[bytes | None, int], tuple[Spending, CampaignMetrics]] = {}
    for record in records:
        if record.value is None:
            continue
        try:
            told = _DECODE(record.value)
        except UNREADABLE as error:
            refused += 1
            log.warning("campaign metrics refused", offset=record.offset, error=type(error).__name__)
            continue
        if max(told.time_ms, told.day * DAY_MS) > latest_ms:
            ahead += 1
            continue
        spent, cell = spending(told.campaign_id, told.day, told.today, told.total), (record.key, told.day)
        if (before := largest.get(cell)) is None or spent.age >= before[0].age:
            largest[cell] = spent, told
    for spent, told in largest.values():
        _tell(budgets, spent, told)
    if ahead:
        log.warning("campaign metrics not counted: they are ahead of this machine's clock", records=ahead)
    return refused


def _tell(budgets: Budgets, spent: Spending, told: CampaignMetrics) -> None:
    budgets.tell_level(told.campaign_id, told.level, told.time_ms)
    # A worker that has heard the cell tell of its day has heard all that it is to hear of the day before.
    if told.before is not None and budgets.told_day(told.lane, told.campaign_id, told.arm) < told.day:
        budgets.tell(told.lane, told.arm, _the_day_before(told, told.before, spent))
        budgets.tell_billed(told.campaign_id, told.before_day, told.before_billed_micros)
    budgets.tell(told.lane, told.arm, spent)
    for day, budget in _by_day(told):
        budgets.tell_budget(told.campaign_id, day, budget, told.time_ms)
    if told.starts_ms is not None:
        budgets.tell_start(told.campaign_id, told.starts_ms)
    if told.anew_ms is not None:
        budgets.tell_anew(told.campaign_id, told.anew_ms, told.anew_micros)
    budgets.tell_billed(told.campaign_id, told.day, told.billed_micros)


def _the_day_before(told: CampaignMetrics, before: Figures, spent: Spending) -> Spending:
    """The cell as it stood when its ``before_day`` had ended.

    The topic is compacted: to a worker that starts after midnight only this tells what the lane had spent on a day that
    other lanes may still be in, and must settle with it.
    """
    today = spending(told.campaign_id, told.day, told.today, told.today)
    earned = spent.impressions - today.impressions, spent.clicks - today.clicks, spent.sold - today.sold
    viewed_s = spent.viewed_s - today.viewed_s
    return Spending(told.campaign_id, told.before_day, before.spent_micros, *earned, viewed_s)


def _by_day(told: CampaignMetrics) -> tuple[tuple[int, int | None], ...]:
    """Days in order, each with its budget as `Budgets.tell_budget` takes it."""
    if told.yesterday_budget_micros is UNSET:
        return ((told.day, told.budget_micros),)
    # A record that tells yesterday's budget knows today's, too: null then means no limit.
    days = (told.day - 1, told.yesterday_budget_micros), (told.day, told.budget_micros)
    return tuple((day, MICROS_MAX if budget is None else budget) for day, budget in days)


def learn(budgets: Budgets, _name: str, told: HourlyTraffic | None) -> None:
    """Take a lane's traffic by the hour. A tombstone changes nothing: what is known stays until a newer record."""
    if told is not None:
        budgets.learn(told.lane, np.array(told.hours, dtype=np.float64))  # None is NaN
