"""Slots filled one after the other under rules: caps, exclusions, separation, pins, and a taste for variety.

Each slot is drawn among what the rules still allow, by Plackett-Luce over utilities: those of worth and temperature,
or, where `scoring.thompson` explores, the logarithms of its chances. So its propensity is exact given the slots before
it. Candidates that are like those in the slots above lose utility (`scoring.variety`). Two rankings may take turns
(`scoring.interleaving`); then the propensity is also over the coins, which nobody sees in advance.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from scoring.arrays import Bools, Floats, Ids, Ints
from scoring.ids import mix64, uniform
from scoring.ranking import EMPTY_SLOT, TEMPERATURE_MIN, utility_of
from scoring.thompson import Thompson
from scoring.variety import Variety

_SLOT_SALT = np.uint64(0x736C6F74)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the rules say of the candidates of B people, ``[B, C]`` each; groups are 64-bit ids, 0 for none.

    ``allowed``: may be shown at all. ``scopes``: pairs of the group that a candidate counts for and how many more of
    it may be shown to this person. ``apart``: groups that must not stand in neighbouring slots. ``rivals``: groups of
    which only one ``owner`` may be in the slate. ``pinned``: the slot where a candidate must stand, else -1; one that
    is pinned beyond the slots that can be filled is like any other.
    """

    allowed: Bools
    scopes: tuple[tuple[Ids, Ints], ...] = ()
    apart: Ids | None = None
    rivals: Ids | None = None
    owner: Ids | None = None
    pinned: Ints | None = None


@dataclass(frozen=True, slots=True)
class Slate:
    """``chosen [B, L]`` places of each slot's candidate, `EMPTY_SLOT` where none may stand there, and its propensity.

    ``shut [B, C]``: candidates that were allowed, and that a slot above shut out by a rule. ``kept_out [R, B, L]``: by
    each of R rankings, what the slot's candidate had to be worth to beat the best of the others that might have stood
    there, given the slots above; 0 where there were none.
    """

    chosen: Ints
    propensity: Floats
    shut: Bools
    kept_out: Floats


class _Exploration(Protocol):
    """What a ranking draws its slots by."""

    def utilities(self, open_: Bools, cost: Floats | None) -> Floats:
        """Utilities ``[B, C]`` of candidates ``open_`` to a slot, less ``cost`` on log values; -inf for others."""


class _PlackettLuce:
    """By worth and temperature; at temperature 0 utilities are those of temperature 1, and the largest wins."""

    def __init__(self, value: Floats, temperatures: Floats) -> None:
        self._heat = np.where(temperatures != 0, np.maximum(temperatures, TEMPERATURE_MIN), 1.0)[:, None]
        self._utility = utility_of(value, self._heat)

    def utilities(self, open_: Bools, cost: Floats | None) -> Floats:
        """Log values over temperatures, less the cost over the same."""
        utility = self._utility if cost is None else self._utility - cost / self._heat
        return np.where(open_, utility, -np.inf)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be ranked: ``value [B, C]`` micros, at ``temperatures [B]`` as in `scoring.ranking.rank`.

    ``spread [B, C]``: standard deviations of log values, for Thompson sampling; it ignores temperatures except
    infinity, which still draws evenly.
    """

    value: Floats
    temperatures: Floats
    spread: Floats | None = None

    def exploration(self) -> tuple[_Exploration, Bools]:
        """What slots are drawn by, and for whom ``[B]`` they are drawn rather than given to the best."""
        if self.spread is None:
            return _PlackettLuce(self.value, self.temperatures), self.temperatures != 0
        by = Thompson(self.value, self.spread, np.isinf(self.temperatures))
        return by, np.ones(len(self.value), dtype=np.bool_)


class _Ranking:
    """One ranking: its pick of a slot, and the chance of it."""

    def __init__(self, wanted: Wanted, ads: Ids, seeds: Ids, variety: Variety | None) -> None:
        self._ads, self._seeds, self._variety = ads, seeds, variety
        self._value = wanted.value
        self._by, drawn = wanted.exploration()
        self._warm = np.flatnonzero(drawn)

    def pick(self, open_: Bools, slot: int) -> tuple[Ints, Floats]:
        """Place ``[B]`` of its pick among the candidates that may stand in ``slot``, and utilities ``[B, C]``."""
        cost = None if self._variety is None else self._variety.cost
        utility, warm = self._by.utilities(open_, cost), self._warm
        key = utility.copy() if len(warm) else utility
        key[warm] += _gumbel(self._ads[warm], self._seeds[warm], slot)
        return _best(key, self._ads), utility

    def kept_out(self, others: Bools, place: Ints) -> Floats:
        """What ``place [B]`` had to be worth to beat the best of the ``others [B, C]``; a draw's noise has no price."""
        at = np.arange(len(place)), place
        value = np.where(others, self._value, 0.0)
        if self._variety is not None:
            value *= np.exp(self._variety.cost[at][:, None] - self._variety.cost)
        value[at] = 0.0
        best: Floats = value.max(axis=1)
        return best

    def chance(self, utility: Floats, picked: Ints, place: Ints) -> Floats:
        """Chance that it picks ``place [B]``; without a draw, only what it ``picked [B]`` has one."""
        warm = self._warm
        chance: Floats = (picked == place).astype(np.float64)
        chance[warm] = _chance(utility[warm], place[warm])
        return chance


@dataclass(frozen=True, slots=True)
class Turns:
    """Another ranking, that picks where ``second [B, L]`` says so."""

    wanted: Wanted
    second: Bools


class _Draft:
    """Two rankings that take turns; chances are over the coins: before a round, either may pick first."""

    def __init__(self, first: _Ranking, second: _Ranking, turns: Bools) -> None:
        self._sides, self._turns = (first, second), turns
        self._led: Floats
        """Chance that the first ranking picked first in this round, given what was picked in it."""

    def pick(self, open_: Bools, slot: int) -> tuple[Ints, Floats]:
        """Place ``[B]`` of the pick, and its chance given the slots before."""
        (mine, utility), (other, beside) = (side.pick(open_, slot) for side in self._sides)
        place = np.where(self._turns[:, slot], other, mine)
        first = self._sides[0].chance(utility, mine, place)
        second = self._sides[1].chance(beside, other, place)
        if slot % 2:
            chance = (1 - self._led) * first + self._led * second
        else:
            chance = (first + second) / 2
            self._led = first / np.maximum(first + second, np.finfo(float).tiny)
        return place, chance


def fill(
    wanted: Wanted,
    ads: Ids,
    seeds: Ids,
    slots: int,
    limits: Limits,
    variety: Variety | None = None,
    turns: Turns | None = None,
) -> Slate:
    """Fill ``slots`` from the candidates ``ads [B, C]``.

    Where nothing is drawn the best wins, ties by ad id. Candidates that must not be neighbours become neighbours only
    where nothing else is left.
    """
    people, count = np.arange(len(ads)), ads.shape[1]
    left, placed = limits.allowed.copy(), np.zeros(ads.shape, dtype=np.bool_)
    remaining = [room.copy() for _, room in limits.scopes]
    rankings = [_Ranking(each, ads, seeds, variety) for each in ([wanted] if turns is None else [wanted, turns.wanted])]
    ranking, draft = rankings[0], None if turns is None else _Draft(rankings[0], rankings[1], turns.second)
    chosen = np.full((len(ads), slots), EMPTY_SLOT, dtype=np.int64)
    propensity, kept_out = np.ones(chosen.shape), np.zeros((len(rankings), *chosen.shape))
    last = np.zeros(len(ads), dtype=np.uint64)
    slots = min(slots, count)
    if limits.pinned is not None:
        limits = replace(limits, pinned=np.where(limits.pinned < slots, limits.pinned, EMPTY_SLOT))
    for slot in range(slots):
        others = _unlike(left, limits, last)
        open_ = others if limits.pinned is None else _pinned(left, others, limits.pinned == slot)
        if draft is None:
            place, utility = ranking.pick(open_, slot)
            chance = ranking.chance(utility, place, place)
        else:
            place, chance = draft.pick(open_, slot)
        filled = np.asarray(open_.any(axis=1))
        chosen[filled, slot], propensity[filled, slot] = place[filled], chance[filled]
        for told, eyes in zip(kept_out, rankings, strict=True):
            told[filled, slot] = eyes.kept_out(others, place)[filled]
        at = (people[filled], place[filled])
        placed[at] = True
        left[at] = False
        for (group, _), room in zip(limits.scopes, remaining, strict=True):
            placed_of = group[at][:, None]
            room[filled] -= (group[filled] == placed_of) & (placed_of != 0)
            left &= room > 0
        if limits.rivals is not None and limits.owner is not None:
            left[filled] &= ~_rival(limits.rivals[filled], limits.owner[filled], limits.rivals[at], limits.owner[at])
        if limits.apart is not None:
            last[filled] = limits.apart[at]
        if variety is not None:
            variety.place(place, filled)
    return Slate(chosen, propensity, limits.allowed & ~left & ~placed, kept_out)


def _rival(groups: Ids, owners: Ids, group: Ids, owner: Ids) -> Bools:
    """Candidates ``[B, C]`` of another owner in the group that was just placed, ``[B]``; group 0 has no rivals."""
    rival: Bools = (groups == group[:, None]) & (group[:, None] != 0) & (owners != owner[:, None])
    return rival


def _gumbel(ads: Ids, seeds: Ids, slot: int) -> Floats:
    """Fresh noise for each slot: rules may change the chances between slots, and reused noise would bias a draw."""
    noise: Floats = -np.log(-np.log(uniform(ads ^ mix64(seeds ^ (_SLOT_SALT + np.uint64(slot)))[:, None])))
    return noise


def _unlike(left: Bools, limits: Limits, last: Ids) -> Bools:
    """Candidates that vie for the next slot: those not pinned, and not like its neighbour where there are others."""
    # A pinned ad waits for its own slot: whether others are left is asked without it, or the slot might stay empty.
    open_ = left if limits.pinned is None else left & (limits.pinned < 0)
    if limits.apart is not None:
        apart: Bools = open_ & ((limits.apart != last[:, None]) | (last[:, None] == 0))
        open_ = np.where(apart.any(axis=1, keepdims=True), apart, open_)
    return open_


def _pinned(left: Bools, others: Bools, here: Bools) -> Bools:
    """Only the candidates that are pinned ``here [B, C]``, where one is left, else the ``others``."""
    here = left & here
    return np.where(here.any(axis=1, keepdims=True), here, others)


def _best(key: Floats, ads: Ids) -> Ints:
    """Place of the largest of each row, ties by the smaller ad id."""
    most = key.max(axis=1, keepdims=True)
    tied = np.where(key == most, ads, np.uint64(2**64 - 1))
    best: Ints = tied.argmin(axis=1)
    return best


def _chance(utility: Floats, place: Ints) -> Floats:
    """Chance of ``place [B]`` among the utilities ``[B, C]`` that are not -inf."""
    most = utility.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weight = np.exp(utility - np.where(np.isfinite(most), most, 0.0))
    total = weight.sum(axis=1)
    here = weight[np.arange(len(weight)), place]
    chance: Floats = np.divide(here, total, out=np.ones_like(total), where=total > 0)
    return chance
