"""The ads that may be shown between two moments, in the form in which candidates are looked for."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ints
from scoring.units import FOREVER_MS

Vectors = npt.NDArray[np.float32]

BID_TIE = 1e-3
"""Weight of the log bid beside the cosine: just enough to order ads for a person about whom nothing is known."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """N ads of a catalogue, which are on offer from ``since_ms`` to before ``until_ms``."""

    slots: Ints
    vectors: Vectors  # [N, FEATURE_DIM + 1]: feature vectors and, last, the weighted log bid
    by_start: Ints  # places in `slots`, oldest start first
    starts: Ints  # of `by_start`
    since_ms: int
    until_ms: int

    @classmethod
    def at(cls, now_ms: int, active: Bools, start: Ints, end: Ints, features: Vectors, bid_micros: Ints) -> Self:
        """What a catalogue of M ads offers at ``now_ms``; ``features [M, FEATURE_DIM]``, all others ``[M]``."""
        slots = np.flatnonzero(active & (start <= now_ms) & (now_ms < end))
        edges = np.concatenate([start[active], end[active]])
        by_start = np.argsort(start[slots], kind="stable")
        vectors = np.column_stack([features[slots], BID_TIE * np.log1p(bid_micros[slots])])
        return cls(
            slots=slots,
            vectors=vectors.astype(np.float32),
            by_start=by_start,
            starts=start[slots][by_start],
            since_ms=int(edges[edges <= now_ms].max(initial=0)),
            until_ms=int(edges[edges > now_ms].min(initial=FOREVER_MS)),
        )

    def without(self, barred: Bools) -> Self:
        """A copy without the ads of the catalogue that are ``barred [M]``."""
        left = ~barred[self.slots]
        in_order = left[self.by_start]
        return replace(
            self,
            slots=self.slots[left],
            vectors=self.vectors[left],
            by_start=(np.cumsum(left) - 1)[self.by_start[in_order]],
            starts=self.starts[in_order],
        )
