"""Exposure and merit of groups, summed over many placements, and the weights that bring exposure in line with merit.

Amortised fairness (Biega, Gummadi & Weikum 2018): a group's exposure, the sum of the chances that its slots are looked
at, is to be in proportion to its merit, its share of what the candidates are worth; not in every placement, which has
few slots, but over time. The logarithms of the weights are under proportional-integral control. Sums fade, and so does
the past.
"""

from dataclasses import dataclass, field

import numpy as np

from scoring.arrays import Floats, Ids, Ints
from scoring.catalogue import Catalogue
from scoring.ranking import EMPTY_SLOT

ADJUST_EVERY = 64
"""Placements between two moves of the weights."""
KEPT = 0.999
"""Decay of the sums per `ADJUST_EVERY` placements: after a thousand times as many, a third is left."""
PROPORTIONAL, INTEGRAL = 3.0, 0.02
"""Gains on the logarithm of a weight, per share of its merit that a group lacks, at strength 1: now, and each update.
The lack is itself a sum over time, so the first alone removes all but a remainder, and the second removes that."""
WEIGHT_MAX = 8.0
"""A group is favoured or held back by no more: a bound on what fairness may cost anyone."""
MERIT_MIN = 0.01
"""Groups with a smaller share of all merit are too small to be judged."""


@dataclass
class Division:
    """How exposure is divided among the groups in a ``column`` of the catalogue: advertisers, or categories."""

    column: str
    _version: int = -1
    _codes: dict[int, int] = field(default_factory=dict)
    _of_slot: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _sums: Floats = field(default_factory=lambda: np.zeros((2, 0)))
    _base: Floats = field(default_factory=lambda: np.zeros(0))

    def observe(self, catalogue: Catalogue, candidates: Ints, worth: Floats, chosen: Ints, examined: Floats) -> None:
        """Count placements, and let earlier ones fade.

        ``candidates, worth [B, C]``, worth 0 if it could not be shown; ``chosen [B, L]``; ``examined [L]``: how likely
        the slots are looked at.
        """
        if catalogue.version != self._version:
            self._read(catalogue)
        of, size = self._of_slot.take(candidates), len(self._codes)
        exposed = np.where(chosen != EMPTY_SLOT, examined, 0.0)
        total = worth.sum(axis=1, keepdims=True)
        deserved = worth / np.maximum(total, 1e-300) * exposed.sum(axis=1, keepdims=True)
        self._sums *= KEPT ** (len(chosen) / ADJUST_EVERY)
        shown = np.take_along_axis(of, np.maximum(chosen, 0), axis=1)
        self._sums[0] += np.bincount(shown.ravel(), weights=exposed.ravel(), minlength=size)
        self._sums[1] += np.bincount(of.ravel(), weights=deserved.ravel(), minlength=size)

    def _read(self, catalogue: Catalogue) -> None:
        """Number the groups of the catalogue's ads; what is known of a group stays.

        At most as many groups without ads are kept as with ads: advertisers may make up as many as they like.
        """
        ids, of = np.unique(getattr(catalogue, self.column), return_inverse=True)
        codes = np.array([self._codes.setdefault(number, len(self._codes)) for number in ids.tolist()], dtype=np.int64)
        more = len(self._codes) - self._sums.shape[1]
        self._sums = np.pad(self._sums, ((0, 0), (0, more)))
        self._base = np.pad(self._base, (0, more))
        if len(self._codes) > 2 * len(ids):
            self._sums, self._base = self._sums[:, codes], self._base[codes]
            codes = np.arange(len(ids))
            self._codes = dict(zip(ids.tolist(), codes.tolist(), strict=True))
        self._of_slot, self._version = codes[of], catalogue.version

    def adjust(self, strength: float) -> tuple[Ids, Floats]:
        """Move the weights by what each group lacks; ids and weights ``[G]``."""
        exposure, merit = self._sums
        lacks = np.maximum((merit - exposure) / np.maximum(merit, 1e-12), -1.0) * (merit > 0)
        bound = np.log(WEIGHT_MAX)
        self._base = np.clip(self._base + INTEGRAL * strength * lacks, -bound, bound)
        weight = np.exp(np.clip(self._base + PROPORTIONAL * strength * lacks, -bound, bound))
        return np.fromiter(self._codes, dtype=np.uint64, count=len(self._codes)), weight

    @property
    def ratio(self) -> float:
        """The lowest ratio of exposure to merit among groups that are not too small; 1 is fair."""
        exposure, merit = self._sums
        judged = merit >= MERIT_MIN * max(float(merit.sum()), 1e-12)
        if not judged.any():
            return 1.0
        scale = exposure.sum() / merit.sum()  # above 0: merit is a share of what was exposed
        return float((exposure[judged] / merit[judged]).min() / scale)
