"""Rings as they were right after single events of a batch, without what comes later in the batch.

Rows show the state after the whole batch. But a click after a purchase did not contribute to it, and impressions after
it push out earlier ones. So the rings of the users asked for are copied before the batch, and the applied events are
put into the copies again, piece by piece, all users at once: a piece ends with an event that is asked for. A ring is
the same wherever a stream is cut (`scoring.ring`), and so is what is found here.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ints
from scoring.events import Events
from scoring.ring import entries_of, remember
from scoring.rows import ROW, Rows
from scoring.runs import within

RING = np.dtype([each for each in ROW.descr if each[0].startswith("ring_")])
"""The part of a row that is its ring."""


@dataclass(frozen=True, slots=True)
class Moments:
    """The ``rings [U]`` of the rows ``row [U]``, ascending, before a batch."""

    row: Ints
    rings: Rows

    @classmethod
    def of(cls, rows: Rows, events: Events, asked: Bools) -> "Moments":
        """The rings of ``rows`` with an event that is ``asked [E]`` for among ``events [E]``, yet to be applied."""
        row = np.unique(events["row"][asked]).astype(np.int64)
        rings = np.zeros(len(row), dtype=RING)
        for name in RING.names or ():
            rings[name] = rows[name][row]
        return cls(row, rings)

    def at(self, applied: Events, asked: Bools) -> Rows:
        """The rings ``[P]``, of `RING`, right after each event that is ``asked [E]`` for among ``applied [E]``.

        ``applied``: the events of the batch that changed rows, in order. Those asked for were so in `of`.
        """
        found = np.zeros(np.count_nonzero(asked), dtype=RING)
        if not len(found):
            return found
        nth = np.cumsum(asked) - 1
        theirs = np.flatnonzero(np.isin(applied["row"], applied["row"][asked]))
        events, asked, nth = applied[theirs], asked[theirs], nth[theirs]
        rings, of = self.rings.copy(), np.searchsorted(self.row, events["row"])
        turn = _pieces(events["row"], asked)
        pieces = np.split(np.argsort(turn, kind="stable"), np.cumsum(np.bincount(turn))[:-1])
        for piece, entries in zip(pieces, entries_of(events, of, turn), strict=True):
            remember(rings, entries)
            last = piece[asked[piece]]
            found[nth[last]] = rings[of[last]]
        return found


def _pieces(row: npt.NDArray[np.int32], asked: Bools) -> Ints:
    """Which of its row's pieces each event is in, from 0, by ``row [E]``; an event asked for ends one."""
    by_row = np.argsort(row, kind="stable")
    before: Ints = np.cumsum(asked[by_row]) - asked[by_row]
    piece = np.empty(len(row), dtype=np.int64)
    piece[by_row] = within(before, row[by_row])
    return piece
