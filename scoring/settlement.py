"""What campaigns have spent on each of the newest days, and how much of it is billed, which for a day never falls.

So several workers may report it in any order: the larger counts. A day is settled by its own limits, those at its end.
Lanes pass midnight one after another: a limit that changes after midnight is not for the day before, even while all
lanes are still in that day.
"""

import numpy as np

from scoring.arrays import Bools, Floats, Ints

DAYS = 8
"""Days kept: lanes pass midnight one after another, and a lane that catches up after an outage is days behind the
others. Limits of days to come are kept for one day less."""
MICROS_MAX = np.iinfo(np.int64).max
"""Where the sum of lanes' spending stops, since each lane may report as much. As a limit it means: no limit."""
_KNOWN_MS = np.iinfo(np.int64).max
"""Time of a limit that this worker knows by itself: newer than any report."""


class Settlement:
    """The days of M campaigns, by their places, at 320 bytes each; day d stands in row d modulo `DAYS`, ``[DAYS, M]``.

    A limit is in micros per day, and holds until another does; 0: it is unknown, even whether there is one. Where a
    day's limit is unknown, such as before this worker began and nobody reported one, or on a day that is not kept,
    today's limit counts. Where that is unknown, too, what was reported as billed is billed.
    """

    def __init__(self) -> None:
        self.newest = 0
        """The newest day, since the epoch. Days that lie `DAYS` or more before it are forgotten."""
        self._spent, self._owed, self._limits, self._limit_ms, self._coming = np.zeros((5, DAYS, 0), dtype=np.int64)
        """The last are the limits that days to come begin with; 0 where a day keeps the limit of the day before."""

    @property
    def spent(self) -> Ints:
        """Micros spent on the newest day, ``[M]``."""
        today: Ints = self._spent[self.newest % DAYS]
        return today

    def grow(self, more: int) -> None:
        """Make room for so many more campaigns."""
        self._spent, self._owed, self._limits, self._limit_ms, self._coming = (
            np.pad(kept, ((0, 0), (0, more)))
            for kept in (self._spent, self._owed, self._limits, self._limit_ms, self._coming)
        )

    def turn(self, day: int) -> None:
        """Begin a newer day and those in between, each by the limits that were to begin with it, else by those of the
        day before.
        """
        last, days = self.newest % DAYS, range(self.newest + 1, day + 1)
        for each in sorted({*days[:DAYS], *days[-DAYS:]}):  # days that limits may begin with, and days that are kept
            now = each % DAYS
            begins = self._coming[now] > 0
            self._limits[now] = np.where(begins, self._coming[now], self._limits[last])
            self._limit_ms[now] = np.where(begins, _KNOWN_MS, self._limit_ms[last])
            self._spent[now] = self._owed[now] = self._coming[now] = 0
            last = now
        self.newest = day

    def set_back(self, day: int) -> None:
        """Go back to an older day, with nothing spent on the days that are kept from then on.

        Their limits and bills stay as they were. Those that were kept no more take the limits of the oldest that was.
        """
        days = np.arange(day - DAYS + 1, day + 1)
        known = np.maximum(days, self.newest - DAYS + 1)
        for kept in (self._limits, self._limit_ms, self._owed):
            kept[days % DAYS] = kept[known % DAYS]
        self._owed[days[days < known] % DAYS] = self._spent[:] = self._coming[:] = 0
        self.newest = day

    def spend(self, at: int, day: int, micros: int) -> None:
        """Add ``micros`` that the campaign at ``at`` has further spent on ``day``."""
        if self._kept(day):
            self._spent[day % DAYS, at] = min(int(self._spent[day % DAYS, at]) + micros, MICROS_MAX)

    def hear(self, at: int, day: int, billed_micros: int) -> None:
        """Take what was reported as billed for ``day``; the largest counts."""
        if self._kept(day):
            self._owed[day % DAYS, at] = max(int(self._owed[day % DAYS, at]), billed_micros)

    def hear_limit(self, at: int, day: int, limit: int, time_ms: int) -> bool:
        """Take a limit from ``day`` on that was reported at ``time_ms``. The newest report counts, and none where this
        worker knew the limit itself. Returns whether today's limit has changed.
        """
        before = self._limits[self.newest % DAYS, at]
        for each in range(max(day, self.newest - DAYS + 1), self.newest + 1):
            if time_ms < self._limit_ms[each % DAYS, at]:
                break  # limits of later days are at least as new
            self._limits[each % DAYS, at], self._limit_ms[each % DAYS, at] = limit, time_ms
        return bool(self._limits[self.newest % DAYS, at] != before)

    def limit(self, at: Ints, limits: Ints, since: Ints) -> None:
        """Set ``limits [N]`` of campaigns ``at [N]`` from days ``since [N]`` on; what is billed by now stays billed.

        A limit counts from today on where its day has begun, or is `DAYS` or more away: then today belongs to a log
        that is replayed. Where today's limit is unknown, that of a day to come counts today, too, until one is told.
        """
        today, days = self.newest % DAYS, np.arange(self.newest - DAYS + 1, self.newest + 1)[:, None]
        known = self._limits[today, at]
        ahead = np.where(since < self.newest + DAYS, np.maximum(since - self.newest, 0), 0)
        begun = (ahead == 0) | (known == 0)
        changed = at[begun & (known != limits)]
        self._owed[days % DAYS, changed] = self.billed(changed, days)
        self._limits[today, at[begun]] = limits[begun]
        self._limit_ms[today, at[begun]] = np.where(ahead[begun], 0, _KNOWN_MS)
        told = (ahead > 0) | (self._coming.max(axis=0)[at] > 0)
        at, limits, ahead, further = at[told], limits[told], ahead[told], np.arange(1, DAYS)[:, None]
        coming = np.where(further == ahead, limits, self._coming[(self.newest + further) % DAYS, at])
        self._coming[(self.newest + further) % DAYS, at] = np.where(further <= ahead, coming, 0)

    def limits(self, at: Ints, days: Ints | int) -> Ints:
        """What campaigns ``at [N]`` may spend on ``days``, ``[N]`` or one."""
        limits = np.where(self._kept(days), self._limits[days % DAYS, at], 0)
        return np.where(limits > 0, limits, self._limits[self.newest % DAYS, at])

    def limit_of(self, at: int, day: int) -> int:
        """As `limits`, for one campaign and day, at a tenth of the cost."""
        return self.known(at, day) or self.known(at, self.newest)

    def known(self, at: int, day: int) -> int:
        """What is known of the limit of one campaign and ``day`` alone."""
        return int(self._limits[day % DAYS, at]) if self._kept(day) else 0

    def billed(self, at: Ints, days: Ints | int) -> Ints:
        """Micros billed for ``days``, ``[N]`` or one, to campaigns ``at [N]``; 0 for a day that is not kept."""
        cells = days % DAYS, at
        billed = np.maximum(np.minimum(self._spent[cells], self.limits(at, days)), self._owed[cells])
        return np.where(self._kept(days), billed, 0)

    def unbilled(self, at: Ints, since: int) -> Floats:
        """Micros ``[N]`` that campaigns ``at [N]`` spent beyond what is billed, from the kept day ``since`` on."""
        days = np.arange(since, self.newest + 1)[:, None]
        beyond = np.maximum(self._spent[days % DAYS, at] - self.billed(at, days), 0)
        total: Floats = beyond.sum(axis=0, dtype=np.float64)  # of integers two days may pass 64 bits
        return total

    def _kept(self, days: Ints | int) -> Bools | bool:
        return (days > self.newest - DAYS) & (days <= self.newest)
