"""What campaigns owe and earn, lane by lane: exact sums that survive a lane's move.

A lane adds what its own events charge, each exactly once, as its events are. How much of the lanes' sum is billed
`scoring.settlement` says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ints
from scoring.value import BidType

PARTS = 1_000
"""A charge is an integer of thousandths of a micro: an impression at a price per thousand is one such number."""
FIGURES = (
    "impressions", "clicks", "viewed_ms", "charged", "unpriced", "last", "last_micros", "spread", "spread_micros",
    "sold",
)  # fmt: skip
"""Figures of a period; ``charged`` in `PARTS` of a micro, ``last`` and ``spread`` in thousandths of a purchase.

``sold``: purchases that complete an impression, each once; who bids for purchases is charged these, whoever is credited
with how many."""
FIGURE_MAX = np.iinfo(np.int64).max
CELLS_MAX = 200_000
"""Cells (campaign, arm) of a lane, 0.6 KB each, from which on new arms count in their campaign's cell without an arm.
Campaigns are let in beyond it, since each must be charged."""
KEPT_DAYS = 400
"""Days for which a lane keeps a campaign that has no events: one that comes back each year goes on where it was."""
FORGOTTEN_MAX = 1_000
"""Cells that are forgotten at once, each with two tombstones in a slice's transaction."""


class Period(IntEnum):
    """Periods of a cell: the UTC day of its last event, the day before it that had events, and all days."""

    TODAY = 0
    BEFORE = 1
    TOTAL = 2


@dataclass(frozen=True, slots=True)
class Spending:
    """What one cell of a lane's ledger reports: micros spent on ``day``, and of all time what came of it."""

    campaign: str
    day: int
    spent_micros: int
    impressions: int
    clicks: int
    sold: int
    viewed_s: float

    @property
    def age(self) -> tuple[int, int, int, int, int, float]:
        """All figures of a cell, which only grow: of two reports the one with the larger tuple is newer."""
        return self.day, self.spent_micros, self.clicks, self.impressions, self.sold, self.viewed_s


_LAYOUTS = {8 * (2 + len(Period) * figures): figures for figures in (len(FIGURES) - 1, len(FIGURES))}
"""Figures of a period, by the bytes of a kept cell: before them stand two days. The first layout lacks ``sold``."""


def charges(
    bid_type: npt.NDArray[np.uint8],
    price_micros: Ints,
    shown: Bools,
    clicked: Bools,
    purchased: Bools,
    viewed_ms: Ints,
    attention_micros: Ints,
) -> Ints:
    """What each event charges, ``[E]`` thousandths of a micro, by what its ad's bid pays for.

    ``attention_micros``: the ad's price of a viewed second, charged beside the bid's price.
    """
    owed: Ints = np.select(
        [bid_type == BidType.CPM, bid_type == BidType.CPC, bid_type == BidType.CPA],
        [price_micros * shown, price_micros * PARTS * clicked, price_micros * PARTS * purchased],
        price_micros * viewed_ms,
    )
    return owed + attention_micros * viewed_ms


class Ledger:
    """One lane's sums, a cell for each campaign and arm; `add` changes them, `changes` tells a caller what to store."""

    def __init__(self) -> None:
        self.names: list[tuple[str, str]] = []
        """Campaign and arm of each cell."""
        self._cells: dict[tuple[str, str], int] = {}
        self._days = np.zeros((0, 2), dtype=np.int64)
        self._figures = np.zeros((0, len(Period), len(FIGURES)), dtype=np.int64)
        self._changed: set[int] = set()
        self._looked_through = -1
        """The day on which all was forgotten that was to be."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def full_share(self) -> float:
        """How full it is; from 1 on, new arms are not told apart."""
        return len(self) / CELLS_MAX

    def __contains__(self, name: tuple[str, str]) -> bool:
        return name in self._cells

    def add(self, day: int, names: Sequence[tuple[str, str]], figures: Ints) -> None:
        """Add ``figures [N, FIGURES]`` to the cells ``names [N]`` (campaign, arm), on a day since the epoch.

        A day before a cell's own, which a lane's time never gives, counts as the cell's. A sum stops at what 64 bits
        hold: a negative one would make the cell unreadable.
        """
        cells = np.fromiter(map(self._cell, names), dtype=np.int64, count=len(names))
        turned = np.unique(cells[self._days[cells, Period.TODAY] < day])
        self._figures[turned, Period.BEFORE] = self._figures[turned, Period.TODAY]
        self._days[turned, Period.BEFORE] = self._days[turned, Period.TODAY]
        self._figures[turned, Period.TODAY] = 0
        self._days[turned, Period.TODAY] = day
        changed, of = np.unique(cells, return_inverse=True)
        more = np.zeros((len(changed), len(FIGURES)), dtype=np.int64)
        np.add.at(more, of, figures)  # no slice has enough events to pass it by itself
        for period in (Period.TODAY, Period.TOTAL):
            before = self._figures[changed, period]
            self._figures[changed, period] = before + np.minimum(more, FIGURE_MAX - before)
        self._changed.update(cells.tolist())

    def set_back(self, day: int) -> None:
        """Let what was counted on days after ``day`` count on that day: the lane's time was ahead."""
        ahead = np.flatnonzero(self._days[: len(self), Period.TODAY] > day)
        both = ahead[self._days[ahead, Period.BEFORE] >= day]
        before = self._figures[both, Period.TODAY]
        self._figures[both, Period.TODAY] = before + np.minimum(self._figures[both, Period.BEFORE], FIGURE_MAX - before)
        self._figures[both, Period.BEFORE], self._days[both, Period.BEFORE] = 0, 0
        self._days[ahead, Period.TODAY] = day
        self._changed.update(ahead.tolist())

    def _cell(self, name: tuple[str, str]) -> int:
        cell = self._cells.get(name)
        if cell is None and name[1] and len(self) >= CELLS_MAX:
            return self._cell((name[0], ""))
        return self._new(name) if cell is None else cell

    def _new(self, name: tuple[str, str]) -> int:
        cell = self._cells[name] = len(self.names)
        self.names.append(name)
        if cell >= len(self._days):
            more = max(cell, 64)
            self._days = np.concatenate([self._days, np.zeros((more, 2), dtype=np.int64)])
            grown = np.zeros((more, *self._figures.shape[1:]), dtype=np.int64)
            self._figures = np.concatenate([self._figures, grown])
        return cell

    def of(self, cell: int) -> tuple[tuple[int, int], Ints]:
        """A cell's day, the day before it that had any figures, and the figures ``[Period, FIGURES]``."""
        today, before = self._days[cell].tolist()
        return (today, before), self._figures[cell]

    def changes(self) -> list[int]:
        """The cells that have changed since the last call."""
        changed, self._changed = sorted(self._changed), set()
        return changed

    def forget(self, day: int) -> list[tuple[str, str]]:
        """Forget campaigns that had no event for `KEPT_DAYS` before ``day``, with all their arms; names of the cells.

        A day's first call looks at all cells; `FORGOTTEN_MAX` go at once, the others with the next calls. Call it when
        the `changes` are stored: cells move.
        """
        if day == self._looked_through:
            return []
        old = self._days[: len(self), Period.TODAY] < day - KEPT_DAYS
        going_on = {self.names[cell][0] for cell in np.flatnonzero(~old).tolist()}
        gone = [cell for cell in np.flatnonzero(old).tolist() if self.names[cell][0] not in going_on][-FORGOTTEN_MAX:]
        if len(gone) < FORGOTTEN_MAX:
            self._looked_through = day
        names = [self.names[cell] for cell in gone]
        for cell in reversed(gone):  # each leaves its place to the last cell, which is none of these any more
            self._leave(cell)
        return names

    def _leave(self, cell: int) -> None:
        last = len(self) - 1
        del self._cells[self.names[cell]]
        if cell != last:
            self.names[cell] = self.names[last]
            self._cells[self.names[cell]] = cell
            self._days[cell], self._figures[cell] = self._days[last], self._figures[last]
        self._days[last], self._figures[last] = 0, 0
        self.names.pop()

    def kept(self, cell: int) -> bytes:
        """A cell as bytes: its days and its figures, little-endian int64."""
        return bytes(self._days[cell].tobytes() + self._figures[cell].tobytes())

    def restore(self, name: tuple[str, str], kept: bytes) -> None:
        """Set a cell to what `kept` gave, here or before there was ``sold``. Raises `ValueError` for other bytes.

        The bound is for new arms alone: stored ones are all let in, in whatever order the cells come.
        """
        if len(kept) not in _LAYOUTS:
            known = " and ".join(map(str, _LAYOUTS))
            raise ValueError(f"a ledger's cell has {len(kept)} bytes; the layouts that this version reads have {known}")
        numbers = np.frombuffer(kept, dtype="<i8")
        figures = numbers[2:].reshape(len(Period), _LAYOUTS[len(kept)])
        cell = self._cells.get(name)
        cell = self._new(name) if cell is None else cell
        self._days[cell] = numbers[:2]
        self._figures[cell] = figures if figures.shape[1] == len(FIGURES) else _with_sold(figures)


def _with_sold(figures: Ints) -> Ints:
    """The figures ``[Period, FIGURES]`` of a cell without ``sold``: as many as were credited, at most one a click.

    By these its campaign was ranked before; 0 would take it out of the auction until as much is sold again.
    """
    clicks, last = (figures[:, FIGURES.index(name)] for name in ("clicks", "last"))
    return np.column_stack([figures, np.minimum(last // 1_000, clicks)])
