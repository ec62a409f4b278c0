"""What a worker's placements are like, counted as they are made: variety, breadth, fairness, and why ads lost."""

from dataclasses import dataclass, field

import numpy as np

from scoring.arrays import Floats, Ids, Ints
from scoring.catalogue import Catalogue
from scoring.fairness import ADJUST_EVERY, Division
from scoring.ids import MISSING
from scoring.market import Asked, Decided, Fate
from scoring.ranking import EMPTY_SLOT
from scoring.variety import intra_list_distance

SAMPLED, EVERY = 4, 8
"""Figures that take time look at this many people, in one part of so many; at all, always, if fairness is asked for."""
FADES = 0.999
"""Decay of the means, per part that is looked at: they cover the last few thousand placements."""
_LOSERS = [fate for fate in Fate if fate is not Fate.WON]


@dataclass
class Shown:
    """Figures of one worker; changed on the compute thread, read anywhere."""

    fairness: float = 0.0
    """Strength of the constraint; 0: exposure is measured, and left alone."""
    among: str = "advertiser"
    placements: int = 0
    empty_slots: int = 0
    filled_slots: int = 0
    fates: Ints = field(default_factory=lambda: np.zeros(len(_LOSERS), dtype=np.int64))
    """Candidates that lost, by `Fate`."""
    advertisers: Division = field(default_factory=lambda: Division("advertiser"))
    categories: Division = field(default_factory=lambda: Division("category"))
    _distance: Floats = field(default_factory=lambda: np.zeros(2))
    _entropy: Floats = field(default_factory=lambda: np.zeros(2))
    _due: int = 0
    _parts: int = 0

    def observe(self, catalogue: Catalogue, asked: Asked, decided: Decided, past: Ints) -> None:
        """Count placements; ``past [B, H]``: catalogue slots of what people attended to, `MISSING` where nothing."""
        self.placements += len(decided.chosen)
        empty = int((decided.chosen == EMPTY_SLOT).sum())
        self.empty_slots += empty
        self.filled_slots += decided.chosen.size - empty
        self.fates += np.bincount(decided.fate.ravel(), minlength=Fate.WON)[: len(_LOSERS)]
        self._parts += 1
        if self._parts % EVERY == 1 or self.fairness:
            self._look(catalogue, asked, decided, past)

    def _look(self, catalogue: Catalogue, asked: Asked, decided: Decided, past: Ints) -> None:
        some = slice(None if self.fairness else SAMPLED)
        chosen, candidates = decided.chosen[some], asked.candidates[some]
        fate = decided.fate[some]
        barred = (fate != Fate.OUTBID) & (fate != Fate.KEPT_APART) & (fate < Fate.WON)
        worth = np.where(barred, 0.0, decided.value[some])  # what fairness and exploration add is no merit
        for division in (self.advertisers, self.categories):
            division.observe(catalogue, candidates, worth, chosen, decided.examined)
        self._distance = FADES * self._distance + _distance(catalogue, candidates[:SAMPLED], chosen[:SAMPLED])
        self._entropy = FADES * self._entropy + _entropy(catalogue, past[:SAMPLED])

    def adjusted(self) -> tuple[Ids, Floats] | None:
        """Groups and their new weights, if fairness is asked for and enough was placed since the last; else None."""
        if not self.fairness or self.placements < self._due:
            return None
        self._due = self.placements + ADJUST_EVERY
        division = self.advertisers if self.among == "advertiser" else self.categories
        return division.adjust(self.fairness)

    @property
    def list_distance(self) -> float:
        """Mean cosine distance between the ads of a placement, of late."""
        return float(self._distance[0] / max(self._distance[1], 1e-12))

    @property
    def interest_entropy_bits(self) -> float:
        """Mean entropy of the categories that people have attended to, of late."""
        return float(self._entropy[0] / max(self._entropy[1], 1e-12))

    def losers(self) -> dict[str, int]:
        """Candidates that lost, by the reason's name."""
        return {fate.name.lower(): int(self.fates[fate]) for fate in _LOSERS}


def _distance(catalogue: Catalogue, candidates: Ints, chosen: Ints) -> Floats:
    """Sum and number of the distances within whole placements."""
    whole = (chosen != EMPTY_SLOT).all(axis=1)
    slots = np.take_along_axis(candidates, np.maximum(chosen, 0), axis=1)[whole]
    distances = intra_list_distance(catalogue.features.take(slots, axis=0))
    return np.array([distances.sum(), len(distances)])


def _entropy(catalogue: Catalogue, past: Ints) -> Floats:
    """Sum and number of people's entropies, in bits; people without a past are left out."""
    known = past != MISSING
    category = np.where(known, catalogue.category.take(past), 0)
    same = (category[:, :, None] == category[:, None, :]) & known[:, None, :]
    count = known.sum(axis=1)
    share = same.sum(axis=2) / np.maximum(count, 1)[:, None]
    bits = -(np.log2(np.where(known, share, 1.0))).sum(axis=1) / np.maximum(count, 1)
    return np.array([bits[count > 0].sum(), (count > 0).sum()])
