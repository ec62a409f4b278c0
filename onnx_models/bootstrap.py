"""How sure a difference between two models is: the paired bootstrap, by users (Efron & Tibshirani, 1993, ch. 16).

A user's impressions are correlated, so users are drawn, not impressions. The same draw weights both models.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_models.metrics import CLIP, rounded
from scoring.arrays import Floats, Ints
from scoring.confidence import Z_95, student_95

DRAWS = 200
"""Draws of users with replacement: five of them lie beyond a 95 % interval on either side."""
LEVEL = 0.95
USERS_FEWEST = 10
"""With fewer users nothing is drawn: draws of one are all the same, and draws of a few tell only of these few."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference and its interval at `LEVEL`: NaN to NaN if no draw tells anything about it."""

    value: float
    low: float
    high: float

    def named(self) -> dict[str, float | None]:
        """As numbers to print."""
        return {"value": rounded(self.value), "low": rounded(self.low), "high": rounded(self.high)}


class Draws:
    """The same draws of users for every pair of models; none from fewer than `USERS_FEWEST` users."""

    def __init__(self, labels: Floats, users: npt.NDArray[np.integer], seed: int, draws: int = DRAWS) -> None:
        self.labels = labels.astype(np.float64)
        _, self._user = np.unique(users, return_inverse=True)
        rng, count = np.random.default_rng(seed), int(self._user.max(initial=-1)) + 1
        self.people = count
        draws = draws if count >= USERS_FEWEST else 0
        chosen = (rng.multinomial(count, np.full(count, 1 / count)) for _ in range(draws))
        self._times = [np.ones(count, dtype=np.int64), *chosen]  # by user: by example they need more memory than those

    def auc(self, predicted: Floats) -> Floats:
        """AUC of all users first, then of each draw; NaN of a draw with one kind of label, 0.5 if all have only one."""
        if not 0 < self.labels.mean() < 1:
            return np.full(len(self._times), 0.5)
        values, place = np.unique(predicted, return_inverse=True)
        return np.array([self._auc(place, len(values), weight) for weight in self._weights()])

    def _weights(self) -> Iterator[Floats]:
        """Weights of the examples: for all users first, then for each draw."""
        return (times[self._user].astype(np.float64) for times in self._times)

    def _auc(self, place: Ints, count: int, weight: Floats) -> float:
        positive = np.bincount(place, weights=weight * self.labels, minlength=count)
        negative = np.bincount(place, weights=weight * (1 - self.labels), minlength=count)
        below = np.cumsum(negative) - negative / 2
        pairs = positive.sum() * negative.sum()
        return float(positive @ below / pairs) if pairs else np.nan

    def log_loss(self, predicted: Floats) -> Floats:
        """Log loss of all users first, then of each draw."""
        p = np.clip(predicted, CLIP, 1 - CLIP)
        return self.mean(-(self.labels * np.log(p) + (1 - self.labels) * np.log1p(-p)))

    def mean(self, values: Floats) -> Floats:
        """Mean of ``values [E]`` of all users first, then of each draw."""
        return np.array([np.average(values, weights=weight) for weight in self._weights()])


def interval(one: Floats, other: Floats, people: int) -> Interval:
    """``one`` − ``other``, over all users first, then over each draw, as `Draws` of ``people`` gives them.

    Percentiles of draws are as wide as a normal interval with the population's variance. They are widened for Student's
    t and the sample's variance, but not beyond all draws, where a share could exceed 1. With 10 to 20 people of 30
    impressions each, the interval of a difference then covers 92 to 94 %, instead of 86 to 92 %.
    """
    difference = one - other
    value = float(difference[0])
    if len(difference) == 1:
        return Interval(value, np.nan, np.nan)
    least, low, high, most = np.nanquantile(difference[1:], [0, (1 - LEVEL) / 2, (1 + LEVEL) / 2, 1])
    wider = student_95(people - 1) / Z_95 * math.sqrt(people / (people - 1))
    low, high = (value + wider * (end - value) for end in (low, high))
    return Interval(value, float(max(least, low)), float(min(most, high)))
