"""What campaigns have spent on each of the newest days, and what of it is billed, which within a day never falls.

So it may be told by several workers and in any order: the larger counts. A day is settled by its own limits, which are
those of its end: lanes pass midnight one after another, and a limit that changes after it is none of the day before,
even where all of them are still in that.
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

DAYS = 8
"""Kept: lanes pass midnight one after another, and one that makes up for an outage is days behind the others. Limits
are known ahead for one day less."""
MICROS_MAX = np.iinfo(np.int64).max
"""Where the sum of what lanes have spent ends: each of them may have as much. As a limit it is none."""
_KNOWN_MS = np.iinfo(np.int64).max
"""Beside a limit that nobody had to tell: newer than whatever is told."""


class Settlement:
    """The days of M campaigns, by their places, at 320 bytes each; day d stands in row d modulo `DAYS`, ``[DAYS, M]``.

    A limit is in micros of a day, and 0 where none is known, and neither that there is none: then what was told as
    billed is billed. It holds until another does. Of a day of which none is known, as one before this worker had begun
    of which nobody has told any, or one that is not kept any more, today's counts.
    """

    def __init__(self) -> None:
        self.newest = 0
        """Days since the epoch. What is older than `DAYS` is not known any more."""
        self._spent, self._owed, self._limits, self._limit_ms, self._coming = np.zeros((5, DAYS, 0), dtype=np.int64)
        """The last are the limits that days to come begin with; 0 where one goes by that of the day before it."""

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

    def turn(self, day: int) -> bool:
        """A newer day begins, by the limits that were to begin with it, and else by those of the newest until now; so
        did those in between. Returns whether any limit of today is another now.
        """
        last, days = self.newest % DAYS, range(self.newest + 1, day + 1)
        before = self._limits[last].copy()
        for each in sorted({*days[:DAYS], *days[-DAYS:]}):  # with which limits may begin, and which are kept
            now = each % DAYS
            begins = self._coming[now] > 0
            self._limits[now] = np.where(begins, self._coming[now], self._limits[last])
            self._limit_ms[now] = np.where(begins, _KNOWN_MS, self._limit_ms[last])
            self._spent[now] = self._owed[now] = self._coming[now] = 0
            last = now
        self.newest = day
        return bool((self._limits[last] != before).any())

    def spend(self, at: int, day: int, micros: int) -> None:
        """Add what the campaign at ``at`` has spent more of ``day``."""
        if self._kept(day):
            self._spent[day % DAYS, at] = min(int(self._spent[day % DAYS, at]) + micros, MICROS_MAX)

    def hear(self, at: int, day: int, billed_micros: int) -> None:
        """Take what was told as billed of ``day``."""
        if self._kept(day):
            self._owed[day % DAYS, at] = max(int(self._owed[day % DAYS, at]), billed_micros)

    def hear_limit(self, at: int, day: int, limit: int, time_ms: int) -> bool:
        """Take what was told at ``time_ms`` as a limit from ``day`` on; of two the newest counts, and none that is told
        where this worker knew one itself. Returns whether today's is another now.
        """
        before = self._limits[self.newest % DAYS, at]
        for each in range(max(day, self.newest - DAYS + 1), self.newest + 1):
            if time_ms < self._limit_ms[each % DAYS, at]:
                break  # what a later day goes by is as new at least
            self._limits[each % DAYS, at], self._limit_ms[each % DAYS, at] = limit, time_ms
        return bool(self._limits[self.newest % DAYS, at] != before)

    def limit(self, at: Ints, limits: Ints, since: Ints) -> None:
        """Go by ``limits [N]`` of campaigns ``at [N]`` from days ``since [N]`` on; what is billed by now is held fast.

        That is from today on where the day has begun, or is `DAYS` away: then today is of a log that is replayed. Where
        none is known of today, a limit of a day to come is today's as well, until one is told.
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
        """What `limits` has of one campaign and day, a tenth of its cost."""
        return self.known(at, day) or self.known(at, self.newest)

    def known(self, at: int, day: int) -> int:
        """What is known of the limit of one campaign and ``day`` alone."""
        return int(self._limits[day % DAYS, at]) if self._kept(day) else 0

    def billed(self, at: Ints, days: Ints | int) -> Ints:
        """Micros billed of ``days``, ``[N]`` or one, to campaigns ``at [N]``; 0 for a day that is not kept."""
        cells = days % DAYS, at
        billed = np.maximum(np.minimum(self._spent[cells], self.limits(at, days)), self._owed[cells])
        return np.where(self._kept(days), billed, 0)

    def unbilled(self, at: Ints, since: int) -> npt.NDArray[np.float64]:
        """Micros ``[N]`` beyond what is billed to campaigns ``at [N]``, of the kept day ``since`` and later ones."""
        days = np.arange(since, self.newest + 1)[:, None]
        beyond = np.maximum(self._spent[days % DAYS, at] - self.billed(at, days), 0)
        total: npt.NDArray[np.float64] = beyond.sum(axis=0, dtype=np.float64)  # of integers two days may pass 64 bits
        return total

    def _kept(self, days: Ints | int) -> npt.NDArray[np.bool_] | bool:
        return (days > self.newest - DAYS) & (days <= self.newest)
