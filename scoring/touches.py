"""How much each click before a purchase contributed to it, learned from purchases and from visits without a purchase.

A visit is a click on an item, through an ad or unprompted. Before it lie the person's touches: the clicks on ads of the
item's advertiser, including the visit's own. A logistic regression of purchases against visits learns which touches are
more frequent before purchases, by their age and whether they are the first or the last. Every purchase has its visit,
so the odds are the chance that a visit ends in a purchase. Touches add up in the log-odds, and a touch's Shapley value
is its weight there: what it adds to the others (Shao & Li 2011; Dalessandro, Perlich, Stitelman & Provost 2012, who
also compare with those who did not buy). A touch that is no more frequent before purchases than before visits earns 0.

Learning takes one example at a time, by the second-order update of a normal posterior (Spiegelhalter & Lauritzen 1990).
Features of touches are correlated: steps along each one alone, as River's optimisers take them, need many more
purchases, and end at a place that depends on the start.
"""

import math

import numpy as np

from scoring.arrays import Bools, Floats, Ints
from scoring.units import HOUR_MS

AGES_MS = (HOUR_MS, 6 * HOUR_MS, 24 * HOUR_MS, 72 * HOUR_MS)
"""Bounds of the classes of age: up to the first, between two, beyond the last."""
FEATURES = 4 + len(AGES_MS)
"""F: 1; whether there is a first touch; whether another one is the last; how many touches there are of each age."""
_FIRST, _LAST, _AGE = 1, 2, 3
COUNT_MAX = 5
"""Most touches of one age that count: a person who clicks all day is one person."""
PURCHASES_MIN = 200
"""Purchases with a touch before them that a lane needs before its weights are used."""
START = -3.9
"""Log-odds of a purchase before the first: one visit in fifty."""
VARIANCE = np.array([4.0] + [1.0] * (FEATURES - 1))
"""Prior variance of the weights: how far off the start may be."""
DRIFT = 1e-7
"""Variance added with each example, so that old evidence fades: about forty thousand visits count at a time."""
MARGIN = 30.0
"""Log-odds beyond this, either way, are as good as certain."""


class TouchWeights:
    """What one lane has learned: ``weights [F]``, their ``covariance [F, F]``, and from how many ``purchases``."""

    def __init__(self) -> None:
        self.weights: Floats = np.append(START, np.zeros(FEATURES - 1))
        self.covariance: Floats = np.diag(VARIANCE)
        self.purchases = 0
        self.changed = False
        """Whether anything was learned since this was last set to false."""

    @property
    def known(self) -> bool:
        """Whether there is enough evidence for `shares`."""
        return self.purchases >= PURCHASES_MIN

    def learn(self, touch: Bools, age_ms: Ints, bought: Bools) -> None:
        """Learn from visits and purchases ``[N]``: the touches before each and their ages ``[N, H]``, oldest first."""
        for x, purchase in zip(_examples(touch, age_ms), bought.tolist(), strict=True):
            self._update(x, purchase)
        self.purchases += int((bought & touch.any(axis=1)).sum())
        self.changed |= len(bought) > 0

    def _update(self, x: Floats, purchase: bool) -> None:
        log_odds = float(self.weights @ x)
        chance = 1 / (1 + math.exp(-min(max(log_odds, -MARGIN), MARGIN)))
        told = chance * (1 - chance)
        spread = self.covariance @ x
        self.covariance -= np.outer(spread, spread) * (told / (1 + told * float(spread @ x)))
        self.weights = self.weights + self.covariance @ x * (purchase - chance)
        known = self.covariance.diagonal()
        self.covariance += np.diag(DRIFT * (known < VARIANCE))

    def shares(self, touch: Bools, age_ms: Ints) -> Floats:
        """Share of each purchase that each of its touches earns, ``[P, H]``; all 0 where no touch earns anything."""
        nth = np.cumsum(touch, axis=1)
        count = nth[:, -1:]
        value = self.weights[_AGE:][_age(age_ms)]
        value = value + self.weights[_FIRST] * (nth == 1) + self.weights[_LAST] * ((nth == count) & (count > 1))
        value = np.where(touch, np.maximum(value, 0.0), 0.0)
        total = value.sum(axis=1, keepdims=True)
        shares: Floats = np.divide(value, total, out=np.zeros(value.shape), where=total > 0)
        return shares

    @property
    def learned(self) -> bool:
        """Whether it has learned anything."""
        return bool(self.weights[0] != START)

    @property
    def kept(self) -> bytes:
        """The whole state, as little-endian float64."""
        return np.concatenate([self.weights, self.covariance.ravel(), [self.purchases]]).tobytes()

    @classmethod
    def restore(cls, kept: bytes) -> "TouchWeights":
        """The weights that `kept` gave; new ones for bytes of another layout."""
        out = cls()
        if len(kept) == 8 * (FEATURES + FEATURES**2 + 1):
            numbers = np.frombuffer(kept, dtype="<f8")
            out.weights = numbers[:FEATURES].copy()
            out.covariance = numbers[FEATURES:-1].reshape(FEATURES, FEATURES).copy()
            out.purchases = int(numbers[-1])
        return out


def _age(age_ms: Ints) -> Ints:
    at: Ints = np.searchsorted(np.array(AGES_MS), age_ms)
    return at


def _examples(touch: Bools, age_ms: Ints) -> Floats:
    """The features of ``touch [N, H]``, ``[N, F]``."""
    out = np.zeros((len(touch), FEATURES))
    count, at = touch.sum(axis=1), np.nonzero(touch)
    out[:, 0], out[:, _FIRST], out[:, _LAST] = 1.0, count > 0, count > 1
    np.add.at(out, (at[0], _AGE + _age(age_ms[at])), 1.0)
    out[:, _AGE:] = np.minimum(out[:, _AGE:], COUNT_MAX)
    return out
