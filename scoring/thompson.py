"""Thompson sampling of slots with exact chances: integrated, not sampled.

Each open candidate's worth is log-normal about its mean; a slot goes to each with the chance that its sample would be
the largest. These chances are computed first, and the slot is drawn from them, so that the logged propensity is the one
it was drawn by. Candidate c has the largest sample with the chance ∫ f_c(x) Π_{d≠c} F_d(x) dx.

The integral is a sum over a grid, one per person. F is the logistic approximation of the normal distribution function
by Bowling, Khasawneh, Kaewkuekool & Cho 2009, a distribution function itself, at most 0.00014 off: it takes a fifth of
the time of the exact one.

The grid begins at the highest point above which one candidate, or one of `_AMONG` so many, is sure to lie. A candidate
whose range ends below that point is never the largest; the ranges of all others begin at it or below. So at a distance
u above it there are only candidates whose standard deviation is at least u / (2 `REACH`), and steps that grow with the
distance are fine enough for each of them. They are fine enough for the largest of many alike, too: it varies less than
each of them, but lies near the beginning.
"""

import math
from statistics import NormalDist

import numpy as np

from scoring.arrays import Bools, Floats, Ints
from scoring.ranking import utility_of

NODES = 40
"""Points of a grid. More make no chance more exact, even of spreads that differ a thousandfold: the error left is F's.
"""
REACH = 4.0
"""Standard deviations from its mean at which a candidate's grid begins and ends; beyond either end lies 3e-5."""
DOUBLED = 1.0
"""Distance from its beginning, in smallest standard deviations, at which a grid's steps are twice the first."""
SPREAD_MIN, SPREAD_LEAST = 1e-6, 1e-3
"""Least spread, for candidates known exactly: as good as greedy, and values within a millionth of each other share a
slot; and least share of the person's largest spread, for which there are points enough."""
BELOW_MAX = 1e-3
"""A grid is laid anew where all samples fall below it with more than this chance: rules have shut out those above."""
_AMONG = [(count, NormalDist().inv_cdf(NormalDist().cdf(-REACH) ** (1 / count))) for count in (1, 4, 16, 64, 256)]
"""Numbers of candidates, and standard deviations: where a point is at most this far above the mean of each of so many,
one of them lies above it as surely as a single one whose mean is `REACH` above it."""
_EVEN = np.linspace(0.0, 1.0, NODES)
_CUBE, _LINE = 0.07056, 1.5976


class Thompson:
    """The chances of B people's candidates, of mean ``value [B, C]`` micros; asked slot after slot.

    ``spread [B, C]``: standard deviation of each log value. For people ``even [B]`` every candidate is equally likely.
    Each person's chances are computed alone, so they are the same in any batch. 640 bytes are held per candidate that
    may be the largest: at most 41 MB for 128 people with 500 each.
    """

    def __init__(self, value: Floats, spread: Floats, even: Bools) -> None:
        least = SPREAD_LEAST * spread.max(axis=1, initial=0.0, keepdims=True)
        spread = np.maximum(spread, np.maximum(least, SPREAD_MIN))
        mean = utility_of(value, np.array(1.0)) - spread**2 / 2
        self._contests = [None if at else _Contest(*of) for at, *of in zip(even.tolist(), mean, spread, strict=True)]

    def utilities(self, open_: Bools, cost: Floats | None) -> Floats:
        """Logarithms of the next slot's chances ``[B, C]``; 0 where all are equally likely, -inf where not ``open_``.

        ``cost [B, C]`` is subtracted from log values; where there is one it changes from slot to slot.
        """
        chance = open_.astype(np.float64)
        for person in np.flatnonzero(open_.any(axis=1)).tolist():
            contest = self._contests[person]
            if contest is not None:
                taken = None if cost is None else cost[person]
                chance[person] = contest.chances(open_[person], taken)
        with np.errstate(divide="ignore"):
            utility: Floats = np.log(chance)
        return utility


def chances_of_most(value: Floats, spread: Floats) -> Floats:
    """Chance of each candidate in the first slot, ``[C]``; ``value, spread [C]`` as of `Thompson`."""
    by = Thompson(value[None], spread[None], np.zeros(1, dtype=np.bool_))
    chances: Floats = np.exp(by.utilities(np.ones((1, len(value)), dtype=np.bool_), None)[0])
    return chances


class _Contest:
    """One person's candidates: normal log values of ``mean`` and ``spread [C]``, on a grid for several slots."""

    def __init__(self, mean: Floats, spread: Floats) -> None:
        self._mean, self._spread = mean, spread
        self._laid_for = np.zeros(len(mean), dtype=np.bool_)
        self._rivals: Ints
        """Candidates that may be the largest anywhere on the grid, K of them."""
        self._log_below: Floats
        """Log chance that each one's sample falls below each point, ``[K, NODES]``."""
        self._rise: Floats
        """Its slope; times the chance that all samples fall below the point, it is the density of being the largest."""
        self._step: Floats
        """Length of the grid's steps at each point, ``[NODES]``, up to a factor."""

    def chances(self, open_: Bools, cost: Floats | None) -> Floats:
        """Chance that each of the ``open_ [C]`` is the largest."""
        if cost is not None or (open_ & ~self._laid_for).any():
            self._lay(open_, cost)
        live, below = self._below(open_)
        if below[0] > BELOW_MAX:
            self._lay(open_, cost)
            live, below = self._below(open_)
        of_rivals = (self._rise @ (below * self._step)) * live
        chance = np.zeros(len(open_))
        chance[self._rivals] = of_rivals / of_rivals.sum()
        return chance

    def _below(self, open_: Bools) -> tuple[Floats, Floats]:
        """Which rivals are open, ``[K]``, and the chance that the samples of all fall below each point, ``[NODES]``."""
        live = open_[self._rivals].astype(np.float64)
        return live, np.exp(live @ self._log_below)

    def _lay(self, open_: Bools, cost: Floats | None) -> None:
        """Lay the grid from the point above which one open candidate is sure to lie to that above which none does."""
        mean = self._mean if cost is None else self._mean - cost
        low = _sure(mean[open_], self._spread[open_])
        top = np.where(open_, mean + REACH * self._spread, -np.inf)
        self._laid_for, self._rivals = open_, np.flatnonzero(top > low)
        spread = self._spread[self._rivals]
        doubled = DOUBLED * float(spread.min())
        self._step = np.exp(_EVEN * math.log1p((float(top.max()) - low) / doubled))
        scale = 1 / spread[:, None]
        z = doubled * (self._step - 1) * scale
        z -= (mean[self._rivals, None] - low) * scale  # -`REACH` at the least, so that no exponential is too large
        slope = z * z  # in place from here on: fresh arrays would take half as long again
        rest = slope * -_CUBE
        rest -= _LINE
        rest *= z
        np.exp(rest, out=rest)
        slope *= 3 * _CUBE
        slope += _LINE
        slope *= scale
        rest += 1
        self._log_below = np.negative(np.log(rest, out=z), out=z)
        np.reciprocal(rest, out=rest)
        slope -= slope * rest
        self._rise = slope


def _sure(mean: Floats, spread: Floats) -> float:
    """The highest point above which one of the candidates ``[C]`` is sure to lie."""
    points = ((len(mean) - count, mean + at * spread) for count, at in _AMONG)
    return max(float(np.partition(each, last)[last]) for last, each in points if last >= 0)
