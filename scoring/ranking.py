"""From values to ranked slots, where no rule ties one slot to another: Plackett-Luce, with exact propensities.

Plackett-Luce fills the slots one after the other: each is drawn in proportion to exp(u), u the utilities of the
candidates that are left (Plackett 1975; Luce 1959). Sorting by u + Gumbel noise has the same distribution (Yellott
1977). Utilities are log(value) / temperature, so a slot is drawn in proportion to value^(1/temperature). Temperature 0
is greedy.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Floats, Ids, Ints
from scoring.ids import mix64, uniform

EMPTY_SLOT = -1
"""Stands for a candidate where none is left that may be shown."""
_VALUE_MIN = 1e-12
"""Micros; lower values count as this, so that exploration can draw an ad without a bid, too."""
TEMPERATURE_MIN = 1e-9
"""Lower temperatures above 0 count as this. Utilities then stay below 1e11: none is infinite, and the Gumbel noise that
is added is not lost to rounding. If it were, equal values would have equal propensities, but one would always win."""
_LOWEST = -1e300
"""Below every utility, and finite."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """``chosen [B, L]``: places among the candidates, best first, `EMPTY_SLOT` where none is left.

    ``propensity [B, L]``: the probability of each slot's ad given the slots before it, 1 for an empty slot.
    """

    chosen: Ints
    propensity: Floats


def rank(
    value: Floats,
    ads: Ids,
    seeds: Ids,
    temperatures: Floats,
    slots: int,
    allowed: Bools | None = None,
) -> Ranked:
    """Rank the candidates of each person, worth ``value [B, C]`` micros an impression, into ``min(slots, C)`` slots.

    ``temperatures [B]``: 0 is greedy (ties by ad id), infinity ranks at random. A draw depends on seed and ad alone,
    not on the order of the candidates. ``allowed [B, C]``: which may be shown; None: all. Raises `ValueError` where a
    value is not finite.
    """
    refuse_unknown(value)
    key, slots = value.copy(), min(slots, value.shape[1])
    propensity = np.ones((len(value), slots))
    drawn = np.flatnonzero(temperatures != 0)
    if len(drawn):
        utility = utility_of(value[drawn], temperatures[drawn, None])
        key[drawn] = utility - np.log(-np.log(uniform(ads[drawn] ^ mix64(seeds[drawn])[:, None])))
    if allowed is not None:
        key[~allowed] = -np.inf
    chosen = _first(key, ads, slots)
    if len(drawn):
        if allowed is not None:
            utility[~allowed[drawn]] = -np.inf
        propensity[drawn] = _propensity(utility, chosen[drawn])
    if allowed is not None:
        empty = ~np.take_along_axis(allowed, chosen, axis=1)
        chosen[empty], propensity[empty] = EMPTY_SLOT, 1.0
    return Ranked(chosen, propensity)


def refuse_unknown(told: npt.NDArray[np.floating]) -> None:
    """Raise `ValueError` where one of ``told`` is not finite: click rates, or values made of them, of any shape."""
    if not np.isfinite(told).all():
        raise ValueError("a predicted click rate is not a number; check the model with: salience verify")


def utility_of(value: Floats, temperature: Floats) -> Floats:
    """Utilities of values in micros, for temperatures above 0; at infinity all are equal."""
    utility: Floats = np.log(np.maximum(value, _VALUE_MIN)) / np.maximum(temperature, TEMPERATURE_MIN)
    return utility


def first_chances(value: Floats, temperature: float) -> Floats:
    """Probability of each candidate in the first slot, ``[C]``, for values ``[C]`` in micros.

    At temperature 0 equal best values share the slot; `rank` breaks such a tie by ad id.
    """
    if temperature == 0:
        weight: Floats = (value == value.max()).astype(float)
    else:
        utility = utility_of(value, np.array(temperature))
        weight = np.exp(utility - utility.max())
    chances: Floats = weight / weight.sum()
    return chances


def slot_chances(value: Floats, chosen: Ints, temperature: float) -> Floats:
    """Probability of each slot's ad given the slots before it, ``[L]``: what `rank` logs for ``chosen [L]``."""
    if temperature > 0:
        drawn: Floats = _propensity(utility_of(value, np.array(temperature))[None], chosen[None])[0]
        return drawn
    left, chances = value.copy(), np.empty(len(chosen))
    for slot, place in enumerate(chosen.tolist()):
        chances[slot] = first_chances(left, 0)[place]
        left[place] = -np.inf
    return chances


def _first(key: Floats, ads: Ids, count: int) -> Ints:
    """Places of the ``count`` largest of ``key [B, C]``, largest first, ties by ad id. Sorts only those."""
    people, among = key.shape
    bound = np.partition(key, among - count, axis=1)[:, among - count, None]
    passed = np.flatnonzero(key >= bound)
    person, place = np.divmod(passed, among)
    order = np.lexsort((ads.ravel()[passed], -key.ravel()[passed], person))
    starts = np.searchsorted(person, np.arange(people))
    first: Ints = place[order[starts[:, None] + np.arange(count)]]
    return first


def _propensity(utility: Floats, chosen: Ints) -> Floats:
    """Probability of each slot's ad among the candidates that the slots before it have left, ``[B, L]``.

    The sum of their weights is built from the last slot to the first, beginning with the candidates that fill none.
    In logarithms, since weights underflow at low temperatures.
    """
    of_chosen = np.take_along_axis(utility, chosen, axis=1)
    rest = utility.copy()
    np.put_along_axis(rest, chosen, -np.inf, axis=1)
    most = rest.max(axis=1, keepdims=True, initial=_LOWEST)
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0 where all are chosen; `rank` overwrites empty slots
        beyond = most + np.log(np.exp(rest - most).sum(axis=1, keepdims=True))
        left = np.logaddexp.accumulate(np.concatenate([beyond, of_chosen[:, ::-1]], axis=1), axis=1)
        propensity: Floats = np.exp(of_chosen - left[:, :0:-1])
    return propensity
