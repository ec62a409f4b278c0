"""Exposure fairness: who gets the impressions, beside who earns the clicks and the money.

A share of exposure in proportion to what it earns is the merit-based notion of Singh & Joachims (2018), "Fairness of
exposure in rankings"; Gini (1912) and Lorenz (1905) say how unequal a division is.
"""

import numpy as np
from msgspec import Struct

from scoring.arrays import Bools, Floats
from streams.behaviour.joined import Behaviour, Names

TOLD_MAX = 20
"""Advertisers or categories reported one by one: those most shown."""
CURVE_POINTS = 101


class Shares(Struct, frozen=True):
    """One party's share of all impressions, clicks and money. ``ratio``: exposure over clicks; 1 is in proportion."""

    name: str
    exposure: float
    clicks: float
    value: float
    ratio: float | None


class Division(Struct, frozen=True):
    """How exposure is divided among ``parties``: those who had ads on offer while the events happened, or were shown.

    ``gini_*``: 0 where all have the same, 1 where one has all; null where there is nothing to divide. ``misplaced``:
    the share of exposure that would have to move to be in proportion to clicks. ``curve``: the joint share of exposure
    of the least shown parties, from none to all of them, in steps of a hundredth.
    """

    parties: int
    gini_exposure: float | None
    gini_clicks: float | None
    gini_value: float | None
    misplaced: float | None
    curve: list[float]
    largest: list[Shares]


class Fairness(Struct, frozen=True):
    """Among advertisers, and among categories."""

    advertisers: Division
    categories: Division


def fairness(behaviour: Behaviour) -> Fairness:
    """Both divisions of the same exposure."""
    return Fairness(_division(behaviour, behaviour.advertisers), _division(behaviour, behaviour.categories))


def _division(behaviour: Behaviour, of: Names) -> Division:
    party = of.of_ad[behaviour.impression_ad]
    columns = (np.ones(len(party)), behaviour.clicked, behaviour.bought_micros)
    sums: list[Floats] = [np.bincount(party, weights=each, minlength=len(of.names)).astype(float) for each in columns]
    exposure, clicks, value = sums
    there = np.bincount(of.of_ad[:-1][_on_offer(behaviour)], minlength=len(of.names)) + exposure > 0
    of_exposure, of_clicks, of_value = (_shares(each).tolist() for each in sums)
    largest = [at for at in np.argsort(-exposure, kind="stable").tolist() if there[at]][:TOLD_MAX]
    told = [
        Shares(of.names[at], of_exposure[at], of_clicks[at], of_value[at], _ratio(of_exposure[at], of_clicks[at]))
        for at in largest
    ]
    return Division(
        parties=int(there.sum()),
        gini_exposure=gini(exposure[there]),
        gini_clicks=gini(clicks[there]),
        gini_value=gini(value[there]),
        misplaced=float(np.abs(_shares(exposure) - _shares(clicks)).sum() / 2) if clicks.sum() else None,
        curve=lorenz(exposure[there]).tolist(),
        largest=told,
    )


def _on_offer(behaviour: Behaviour) -> Bools:
    """The ads that could be shown while the events happened. Ads ended, paused or withdrawn since are left out:
    nothing tells when that was, and compaction leaves nothing of a withdrawn ad.
    """
    shop, (from_ms, to_ms) = behaviour.shop, behaviour.gathered.span_ms
    on_offer: Bools = shop.active & (shop.start_ms < to_ms) & (from_ms < shop.end_ms)
    return on_offer


def _shares(values: Floats) -> Floats:
    return values / max(float(values.sum()), 1.0)


def _ratio(exposure: float, clicks: float) -> float | None:
    return exposure / clicks if clicks else None


def gini(values: Floats) -> float | None:
    """The Gini coefficient of ``values [N]``, which are not negative; None where there are none, or all are 0."""
    total = float(values.sum())
    if not total:
        return None
    rank = np.arange(1, len(values) + 1)
    return float(2 * (rank @ np.sort(values)) / (len(values) * total) - (len(values) + 1) / len(values))


def lorenz(values: Floats) -> Floats:
    """The Lorenz curve of ``values [N]`` at `CURVE_POINTS` even places from 0 to 1; empty where none is above 0."""
    total = float(values.sum())
    if not total:
        return np.zeros(0)
    sums = np.concatenate([[0.0], np.cumsum(np.sort(values))]) / total
    curve: Floats = np.interp(np.linspace(0, 1, CURVE_POINTS), np.linspace(0, 1, len(sums)), sums)
    return curve
