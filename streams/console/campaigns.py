"""What campaigns spend against their pace: from impressions and what they cost, and the ads topic. No I/O.

A day is a UTC day of the events' own time, as a budget is. The console reads the newest impressions alone: where it
began within the day, or has skipped records, the sums are a part, and ``since_ms`` says of which time.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from scoring.catalogue import Catalogue
from scoring.ids import MISSING, id64s
from scoring.pacing import DAY_MS

SHOWN = 30
"""Campaigns on the page: those that have spent most."""


class _Shown(msgspec.Struct, frozen=True, gc=False):
    """What is read of an impression."""

    ad_id: str
    time_ms: int
    price_micros: int = 0


_decode = msgspec.json.Decoder(_Shown).decode


class CampaignSpend(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign's day. ``budget_micros``: of what its ads say, the largest; None: no limit."""

    campaign: str
    impressions: int
    spent_micros: int
    budget_micros: int | None


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """``elapsed``: share of the day that has passed, the pace of an even spend. ``more``: campaigns not shown."""

    since_ms: int
    now_ms: int
    elapsed: float
    campaigns: list[CampaignSpend]
    more: int


class Campaigns:
    """Sums by ad of the day of the newest impression: 16 bytes for each slot of the catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._spent = np.zeros(0, dtype=np.int64)
        self._impressions = np.zeros(0, dtype=np.int64)
        self._day = self._since_ms = self._now_ms = 0

    def take(self, values: Sequence[bytes | None]) -> None:
        """Impressions as they came; those that cannot be read, or are of no known ad, are somebody else's matter."""
        shown = [one for value in values if (one := _read(value)) is not None]
        if not shown:
            return
        times = np.array([one.time_ms for one in shown], dtype=np.int64)
        if (newest := int(times.max())) // DAY_MS > self._day:
            self._begin(newest // DAY_MS)
        slots = self._catalogue.slots_of(id64s([one.ad_id for one in shown]))
        counts = (slots != MISSING) & (times // DAY_MS == self._day)
        if not counts.any():
            return
        self._since_ms = min(self._since_ms or newest, int(times[counts].min()))
        self._now_ms = max(self._now_ms, newest)
        self._reserve(len(self._catalogue))
        prices = np.array([one.price_micros for one in shown], dtype=np.int64)
        np.add.at(self._spent, slots[counts], prices[counts])
        np.add.at(self._impressions, slots[counts], 1)

    def _begin(self, day: int) -> None:
        self._day, self._since_ms = day, 0
        self._spent[:], self._impressions[:] = 0, 0

    def _reserve(self, ads: int) -> None:
        more = ads - len(self._spent)
        if more > 0:
            self._spent, self._impressions = np.pad(self._spent, (0, more)), np.pad(self._impressions, (0, more))

    def day(self) -> Day:
        """The day so far."""
        catalogue = self._catalogue
        seen = np.flatnonzero(self._impressions)
        codes, first, of = np.unique(catalogue.campaign[seen], return_index=True, return_inverse=True)
        spent, impressions = np.zeros(len(codes), dtype=np.int64), np.zeros(len(codes), dtype=np.int64)
        np.add.at(spent, of, self._spent[seen])
        np.add.at(impressions, of, self._impressions[seen])
        most = np.lexsort((-impressions, -spent))[:SHOWN].tolist()
        names = {int(codes[at]): catalogue.campaigns[seen[first[at]]] for at in most}
        budgets = self._budgets(list(names))
        return Day(
            since_ms=self._since_ms,
            now_ms=self._now_ms,
            elapsed=round(self._now_ms % DAY_MS / DAY_MS, 4),
            campaigns=[
                CampaignSpend(
                    campaign=names[int(codes[at])],
                    impressions=int(impressions[at]),
                    spent_micros=int(spent[at]),
                    budget_micros=budgets.get(int(codes[at])),
                )
                for at in most
            ],
            more=len(codes) - len(most),
        )

    def _budgets(self, codes: list[int]) -> dict[int, int]:
        """The largest budget that an ad of each campaign declares, of those that declare one."""
        found: dict[int, int] = {}
        ads = np.flatnonzero(np.isin(self._catalogue.campaign, np.array(codes, dtype=np.uint64)))
        for slot in ads.tolist():
            budget, code = self._catalogue.entries[slot].budget_micros, int(self._catalogue.campaign[slot])
            if budget is not None:
                found[code] = max(budget, found.get(code, 0))
        return found


def _read(value: bytes | None) -> _Shown | None:
    try:
        return _decode(value or b"")
    except msgspec.MsgspecError:
        return None
