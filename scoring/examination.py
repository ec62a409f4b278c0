"""How likely each slot is looked at, learned from all traffic: the position-based model, by regression EM.

A click needs a look at the slot and a liking for the ad: P(click) = examination of the slot × P(click | looked at). The
second factor is the click layer's, which weights a non-click by how likely the slot was looked at nevertheless
(`looked`): the expectation step of Wang, Golbandi, Bendersky, Metzler & Najork (2018), whose gradient is that of the
likelihood itself. The first factor is kept here, like an ad's lift (`scoring.clicks.AdLifts`): clicks in a slot over
the clicks expected there, had the same ads stood in the first slot. Expected clicks allow for the ad and the person, so
a slot gains nothing by holding good ads. Ads shown in several slots make the two factors identifiable (Agarwal et al.
2019); exploration provides them.
"""

from collections.abc import Sequence

import numpy as np

from scoring.arrays import Floats

SLOTS_MAX = 100
"""Slots that are told apart; those beyond count as the last."""
NOWHERE = SLOTS_MAX
"""The slot of an impression that names none."""
PRIOR = 20.0
"""Expected clicks that the assumed curve counts for in each slot."""
MEMORY = 5_000.0
"""Most expected clicks of a slot's record, for errors of 2 %; beyond them, older outcomes count ever less."""


def assumed(slots: int, weight: float = 0.06) -> Floats:
    """Assumed chance that each slot is looked at, relative to the first, ``[slots]``: 1 / (1 + weight × slot)."""
    chances: Floats = 1 / (1 + weight * np.arange(slots))
    return chances


def over(curve: Sequence[float] | Floats, slots: int) -> Floats:
    """``curve [K]``, K > 0, for ``[slots]`` slots: those beyond the curve are like its last."""
    chances: Floats = np.asarray(curve, dtype=np.float64)[np.minimum(np.arange(slots), len(curve) - 1)]
    return chances


def curve_of(record: Floats) -> Floats:
    """The `Examination.curve` of one that has this ``record [2, K]`` and declares nothing, ``[SLOTS_MAX]``."""
    return _relative(_ratios(_whole(record)))


def _whole(record: Floats) -> Floats:
    """A record ``[2, K]`` with zeros for the slots that it lacks, ``[2, SLOTS_MAX]``."""
    whole = np.zeros((2, SLOTS_MAX))
    whole[:, : record.shape[1]] = record
    return whole


def _ratios(record: Floats) -> Floats:
    """Clicks over expected clicks of all slots, ``[SLOTS_MAX]``, those of the prior among them."""
    clicks, expected = record
    ratios: Floats = (clicks + PRIOR * assumed(SLOTS_MAX)) / (expected + PRIOR)
    return ratios


def _relative(ratios: Floats) -> Floats:
    """``ratios [SLOTS_MAX]`` to the first slot's, at most 1."""
    curve: Floats = np.minimum(ratios / ratios[0], 1.0)
    return curve


def looked(examined: float, chance: float) -> float:
    """How likely an unclicked slot was looked at: ``examined`` a priori, with ``chance`` of a click there.

    A chance kept in single precision may have been rounded up to 1.
    """
    return (examined - chance) / (1 - chance) if chance < examined else 0.0


class Examination:
    """Clicks and expected clicks of each slot, and the chances that follow: 1 for the first slot, at most 1 for others.

    A slot's ratio of the two is divided by the first slot's. So an error that expected clicks have in all slots, as
    while click rates drift, cancels. ``declared``: a curve that holds whatever is seen.
    """

    def __init__(self, declared: Sequence[float] = ()) -> None:
        self.declared: list[float] = over(declared, SLOTS_MAX).tolist() if declared else []
        self._assumed = assumed(SLOTS_MAX).tolist()
        self.restore(np.zeros((2, 0)))

    def examined(self, slot: int) -> float:
        """How likely ``slot`` is looked at, relative to the first; 1 for `NOWHERE`."""
        if slot == NOWHERE:
            return 1.0
        return self.declared[slot] if self.declared else min(self._ratio[slot] / self._ratio[0], 1.0)

    def learn(self, slot: int, clicks: float, expected: float) -> None:
        """Add an outcome, or a part of one; ``expected``: its expected clicks in the first slot."""
        if slot == NOWHERE:
            return
        clicks += self._clicks[slot]
        expected += self._expected[slot]
        if expected > MEMORY:
            clicks, expected = clicks * MEMORY / expected, MEMORY
        self._clicks[slot], self._expected[slot] = clicks, expected
        self._ratio[slot] = (clicks + PRIOR * self._assumed[slot]) / (expected + PRIOR)

    @property
    def curve(self) -> Floats:
        """How likely each slot is looked at, relative to the first, ``[SLOTS_MAX]``."""
        return np.array(self.declared) if self.declared else _relative(np.array(self._ratio))

    @property
    def record(self) -> Floats:
        """Clicks, and clicks expected, of each slot up to the last that has any, ``[2, K]``, a copy."""
        expected = np.array(self._expected)
        return np.array([self._clicks, expected])[:, : expected.nonzero()[0].max(initial=-1) + 1]

    def restore(self, record: Floats) -> None:
        """Take this record, ``[2, K]``."""
        whole = _whole(record)
        self._clicks, self._expected = whole.tolist()
        self._ratio: list[float] = _ratios(whole).tolist()
