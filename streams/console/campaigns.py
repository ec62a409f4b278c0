"""Campaigns' spend against their pace, from the lanes' ledgers (`streams.lanes.ledger`). No I/O.

The topic holds a cell for each lane, campaign and arm; a campaign's day is the sum of its cells. Sums are updated as
cells change, so the cost of each second's snapshot depends only on the campaigns shown.
"""

from collections.abc import Mapping, Sequence
from heapq import nlargest

import msgspec

from scoring.arrays import Floats
from scoring.events import TIME_MS_MAX
from scoring.pacing import planned
from scoring.traffic import day_curve
from scoring.units import DAY_MS
from streams.decode import Record
from streams.wire import UNREADABLE, Count, Micros, Share, TimeMs
from streams.wire import Day as DayNumber

CELLS_MAX = 200_000
"""Some 400 bytes each. Of more, those of days past are dropped, the oldest first: campaigns that have ended stay on the
topic for over a year. Where all are of the newest day, cells beyond it are counted, but not held."""
SHOWN = 30
"""Campaigns on the page: those with the highest spend."""


class _Today(msgspec.Struct, frozen=True, gc=False):
    impressions: Count = 0
    clicks: Count = 0
    spent_micros: Count = 0
    unpriced: Count = 0


class _Terms(msgspec.Struct, kw_only=True):
    """What the newest cell of a campaign tells of all its cells."""

    budget_micros: Micros | None = None
    level: Share = 0.0
    starts_ms: TimeMs | None = None
    ends_ms: TimeMs | None = None
    anew_ms: TimeMs | None = None
    anew_micros: Count = 0


class _Cell(_Terms, kw_only=True):
    """The fields that are read of `streams.wire.CampaignMetrics`, in its bounds: no plan is made for other times."""

    campaign_id: str
    time_ms: TimeMs
    day: DayNumber
    today: _Today


_decode = msgspec.json.Decoder(_Cell).decode


class CampaignSpend(_Terms, kw_only=True):
    """A campaign's day. ``budget_micros`` None: no limit. ``level``: multiplier of its bid; 0 if it is not paced.

    ``unpriced``: events that would have been charged, but had no price. ``planned``: share of the budget that should be
    spent by now, by the shop's traffic between ``starts_ms`` and ``ends_ms``, as workers pace it, who may have planned
    anew at ``anew_ms``, with ``anew_micros`` planned by then.
    """

    campaign: str
    impressions: int = 0
    clicks: int = 0
    spent_micros: int = 0
    unpriced: int = 0
    planned: float = 0.0

    def plan(self, now_ms: int, curve: Floats) -> None:
        """Set ``planned``, by the traffic's ``curve [24]``."""
        starts_ms, spent = max(self.starts_ms or 0, self.anew_ms or 0), 0.0
        if self.anew_ms is not None and self.budget_micros:
            spent = min(self.anew_micros / self.budget_micros, 1.0)
        ends_ms = TIME_MS_MAX if self.ends_ms is None else self.ends_ms
        self.planned = round(float(planned(now_ms, curve, starts_ms, ends_ms, spent)), 4)

    def add(self, today: _Today, sign: int) -> None:
        """Add a cell's figures, or subtract them (``sign`` -1)."""
        self.impressions += sign * today.impressions
        self.clicks += sign * today.clicks
        self.spent_micros += sign * today.spent_micros
        self.unpriced += sign * today.unpriced


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A UTC day of event time, until ``now_ms``. ``elapsed``: share of the day that has passed; ``more``: campaigns not
    shown; ``untold``: cells of that day not held.
    """

    now_ms: int
    elapsed: float
    campaigns: list[CampaignSpend]
    more: int
    untold: int


class Campaigns:
    """Cells by their key, and sums over the newest day of any cell."""

    def __init__(self) -> None:
        self._cells: dict[bytes, _Cell] = {}
        self._sums: dict[str, CampaignSpend] = {}
        self._told_ms: dict[str, int] = {}
        """Time of the newest cell of each campaign of the sums: its budget, level and hours hold."""
        self._untold: set[bytes] = set()
        """Keys of cells that found no room, `CELLS_MAX` at most."""
        self._traffic: dict[int, Floats] = {}
        self._curve = day_curve([])
        self._day = self._now_ms = 0
        self._of_day = 0
        """Number of cells of the newest day. When the last is removed, the newest day of the remaining cells counts."""
        self.malformed = 0

    def learn(self, lanes: Mapping[int, Floats]) -> None:
        """Take the traffic of lanes, each ``[24]`` as in `scoring.traffic.Traffic`."""
        if lanes:
            self._traffic |= lanes
            self._curve = day_curve(self._traffic.values())

    def take(self, records: Sequence[Record]) -> None:
        """Take records of cells; each replaces the one under its key, and a tombstone removes it."""
        for record in records:
            key = record.key or b""
            try:
                cell = None if record.value is None else _decode(record.value)
            except UNREADABLE:
                self.malformed += 1
                continue
            before = self._cells.pop(key, None)
            self._untold.discard(key)
            if before is not None and before.day == self._day:
                self._sums[before.campaign_id].add(before.today, -1)
                self._of_day -= 1
            if cell is not None:
                self._put(key, cell)
        if not self._of_day:
            self._go_back()

    def _go_back(self) -> None:
        """Go back to the newest day of the remaining cells, for example after a cell dated a day ahead is removed."""
        cells, self._cells = self._cells, {}
        self._sums, self._told_ms, self._day, self._now_ms = {}, {}, 0, 0
        for key, cell in cells.items():
            self._put(key, cell)

    def _put(self, key: bytes, cell: _Cell) -> None:
        if len(self._cells) >= CELLS_MAX:
            if cell.day <= self._day and self._of_day == len(self._cells):
                if len(self._untold) < CELLS_MAX:
                    self._untold.add(key)
                return
            self._make_room(max(cell.day, self._day))
        self._cells[key] = cell
        self._now_ms = max(self._now_ms, cell.time_ms)
        if cell.day > self._day:  # all cells held are of earlier days
            self._day, self._sums, self._told_ms, self._of_day, self._untold = cell.day, {}, {}, 0, set()
        if cell.day == self._day:
            self._of_day += 1
            campaign = self._sums.setdefault(cell.campaign_id, CampaignSpend(campaign=cell.campaign_id))
            campaign.add(cell.today, 1)
            if cell.time_ms >= self._told_ms.get(cell.campaign_id, 0):  # partitions are read in any order
                self._told_ms[cell.campaign_id] = cell.time_ms
                for name in _Terms.__struct_fields__:
                    setattr(campaign, name, getattr(cell, name))

    def _make_room(self, day: int) -> None:
        """Drop cells of days before ``day``, the oldest first: an eighth of the bound, as that looks at all of them."""
        past = sorted((cell.day, key) for key, cell in self._cells.items() if cell.day < day)
        for _, key in past[: 1 + CELLS_MAX // 8]:
            del self._cells[key]

    def day(self) -> Day:
        """The day so far."""
        most = nlargest(SHOWN, self._sums.values(), key=lambda one: (one.spent_micros, one.impressions, one.campaign))
        for campaign in most:
            campaign.plan(self._now_ms, self._curve)
        return Day(
            now_ms=self._now_ms,
            elapsed=round(self._now_ms % DAY_MS / DAY_MS, 4),
            campaigns=most,
            more=len(self._sums) - len(most),
            untold=len(self._untold),
        )
