"""What campaigns have spent on each of the newest days, and what of it is billed, which within a day never falls.

So it may be told by several workers and in any order: the larger counts.
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

DAYS = 8
"""Kept: lanes pass midnight one after another, and one that makes up for an outage is days behind the others."""
MICROS_MAX = np.iinfo(np.int64).max
"""Where the sum of what lanes have spent ends: each of them may have as much. As a limit it is none."""


class Settlement:
    """The days of M campaigns, by their places; day d stands in row d modulo `DAYS`, ``[DAYS, M]``.

    A limit is in micros of a day, and 0 where none is known, and neither that there is none: then what was told as
    billed is billed.
    """

    def __init__(self) -> None:
        self.newest = 0
        """Days since the epoch. What is older than `DAYS` is not known any more."""
        self._spent, self._owed = np.zeros((2, DAYS, 0), dtype=np.int64)

    @property
    def spent(self) -> Ints:
        """Micros spent on the newest day, ``[M]``."""
        today: Ints = self._spent[self.newest % DAYS]
        return today

    def grow(self, more: int) -> None:
        """Make room for so many more campaigns."""
        self._spent, self._owed = (np.pad(kept, ((0, 0), (0, more))) for kept in (self._spent, self._owed))

    def turn(self, day: int) -> None:
        """A newer day begins."""
        rows = np.arange(max(self.newest, day - DAYS) + 1, day + 1) % DAYS
        self._spent[rows] = self._owed[rows] = 0
        self.newest = day

    def spend(self, at: int, day: int, micros: int) -> None:
        """Add what the campaign at ``at`` has spent more of ``day``."""
        if self._kept(day):
            self._spent[day % DAYS, at] = min(int(self._spent[day % DAYS, at]) + micros, MICROS_MAX)

    def hear(self, at: int, day: int, billed_micros: int) -> None:
        """Take what was told as billed of ``day``."""
        if self._kept(day):
            self._owed[day % DAYS, at] = max(int(self._owed[day % DAYS, at]), billed_micros)

    def keep(self, at: Ints, limits: Ints) -> None:
        """Hold fast to what is billed of all days to campaigns ``at [N]``, whose ``limits [N]`` are about to change."""
        self._owed[:, at] = _billed(self._spent[:, at], self._owed[:, at], limits)

    def billed(self, at: Ints, days: Ints, limits: Ints) -> Ints:
        """Micros billed of ``days``, ``[N]`` or one, to campaigns ``at [N]``; 0 of a day that is not kept."""
        cells = days % DAYS, at
        kept = (days > self.newest - DAYS) & (days <= self.newest)
        return np.where(kept, _billed(self._spent[cells], self._owed[cells], limits), 0)

    def _kept(self, day: int) -> bool:
        return self.newest - DAYS < day <= self.newest


def _billed(spent: Ints, owed: Ints, limits: Ints) -> Ints:
    billed: Ints = np.maximum(np.minimum(spent, limits), owed)
    return billed
