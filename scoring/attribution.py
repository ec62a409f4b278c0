"""Which campaigns get the credit for a purchase: those clicked before it, and shown within each campaign's window.

Touches are impressions in the person's ring that a click named, of ads by the bought item's advertiser. Last touch
gives all credit to the newest. A second figure spreads it over all touches: by position, 40 % to the first, 40 % to the
last and the rest to those between (of two, each has half); by time, where a touch one half-life earlier counts half as
much; or as learned (`scoring.touches`), and by position while too little is known or no touch earns anything. Credits
of a purchase sum to it exactly. What comes after a purchase in the stream does not change its credits, so they are the
same wherever the stream is cut (`scoring.moments`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Floats, Ids, Ints
from scoring.catalogue import Catalogue
from scoring.events import Events, Kind
from scoring.ids import MISSING, places_in
from scoring.moments import Moments
from scoring.rows import SHOWN_BIT, Rows, answered
from scoring.touches import TouchWeights
from scoring.units import DAY_MS

Spread = Literal["position", "time", "learned"]
ENDS = 0.4
"""Share of a purchase that the first touch gets, and the last."""
MILLI = 1_000
"""Credits are thousandths of a purchase."""

_Table = tuple[Ids, npt.NDArray[Any]]
"""Sorted ids ``[R]``, and each one's value: rules may name ten thousand, and every slice with a purchase looks up."""


@dataclass(frozen=True)
class Attribution:
    """How long before a purchase a clicked ad may have been shown to get credit, and how much each gets.

    ``campaigns``: that time by campaign (64-bit id), ``usual_ms`` for others. ``spread``: how purchases are spread over
    touches, except for the campaigns of bought items that are in ``spreads``; ``half_life_ms``: for spreading by time.
    """

    usual_ms: int = 7 * DAY_MS
    campaigns: Mapping[int, int] = field(default_factory=dict)
    spread: Spread = "position"
    spreads: Mapping[int, Spread] = field(default_factory=dict)
    half_life_ms: int = 2 * DAY_MS

    @property
    def longest_ms(self) -> int:
        """The longest time between an ad that was shown and a purchase that is owed to it."""
        return max(self.usual_ms, *self.campaigns.values(), 0)

    @property
    def learns(self) -> bool:
        """Whether any purchases are spread as learned."""
        return "learned" in (self.spread, *self.spreads.values())

    def asks(self, kind: npt.NDArray[np.uint8]) -> Bools:
        """Which events of ``kind [E]`` need the ring that preceded them."""
        bought: Bools = kind == Kind.PURCHASED
        return bought | (kind == Kind.CLICKED) if self.learns else bought

    def by(self, asked: Spread, campaigns: Ids) -> Bools:
        """Whether purchases of ads of ``campaigns [P]`` are spread as ``asked``."""
        told, own = _found(self._spreads, campaigns)
        return np.where(own, told == asked, self.spread == asked)

    def of(self, campaigns: Ids) -> Ints:
        """Windows of campaigns, any shape."""
        told, own = _found(self._windows, campaigns)
        return np.where(own, told, self.usual_ms).astype(np.int64)

    @cached_property
    def _windows(self) -> _Table:
        return _table(self.campaigns)

    @cached_property
    def _spreads(self) -> _Table:
        return _table(self.spreads)


def _table(told: Mapping[int, Any]) -> _Table:
    rows = sorted(told.items())
    return np.array([key for key, _ in rows], dtype=np.uint64), np.array([value for _, value in rows])


def _found(table: _Table, asked: Ids) -> tuple[npt.NDArray[Any], Bools]:
    """The values of ids ``asked``, any shape, and whether each has one."""
    ids, told = table
    if not len(ids):
        return np.zeros(asked.shape), np.zeros(asked.shape, dtype=np.bool_)
    at = places_in(ids, asked)
    return told[at], at != MISSING


@dataclass(frozen=True, slots=True)
class Credits:
    """N credits: the purchase's place among the events asked about, the slot of the ad whose click earned it, and the
    arms that the purchase names.

    ``last``, ``spread``: thousandths of a purchase by last touch, and spread over all; ``*_micros``: of its value.
    """

    place: Ints
    slot: Ints
    arms: Ids
    last: Ints
    last_micros: Ints
    spread: Ints
    spread_micros: Ints

    @classmethod
    def none(cls) -> "Credits":
        """Nothing was bought."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(nothing, nothing, nothing.astype(np.uint64), nothing, nothing, nothing, nothing)

    def among(self, places: Ints) -> "Credits":
        """The same, of events whose ``places`` are among others."""
        return replace(self, place=places[self.place])


@dataclass(frozen=True, slots=True)
class _Paths:
    """What lies before N events: the ring's items, oldest first, which of them are touches, their ages ``[N, H]``."""

    slot: Ints  # of the catalogue
    touch: Bools
    age_ms: Ints
    item: Ints  # [N] catalogue slot of what the event was with

    @classmethod
    def of(cls, rings: Rows, events: Events, catalogue: Catalogue, owed: Attribution) -> "_Paths":
        """The paths before ``events [N]``, from the ``rings [N]`` after each."""
        item = catalogue.slots_of(events["ad"])
        slot = catalogue.slots_of(rings["ring_ad"])
        kind = rings["ring_kind"]
        clicked = (kind >= SHOWN_BIT) & (answered(kind) >= Kind.CLICKED)
        known = (slot != MISSING) & (item != MISSING)[:, None]
        ours = catalogue.advertiser.take(slot) == catalogue.advertiser.take(item)[:, None]
        age_ms = events["time_ms"][:, None] - 1_000 * rings["ring_s"].astype(np.int64)
        within = (age_ms >= 0) & (age_ms <= owed.of(catalogue.campaign.take(slot)))
        return cls(slot, clicked & known & ours & within, age_ms, item)

    def only(self, chosen: slice | Bools) -> "_Paths":
        """The paths of the chosen events."""
        return _Paths(*(getattr(self, name)[chosen] for name in self.__slots__))


def earn(before: Moments, applied: Events, catalogue: Catalogue, owed: Attribution, weights: TouchWeights) -> Credits:
    """Credits of the purchases among ``applied [E]``, the events of a batch that changed rows, in order.

    ``before``: the rings before the batch of those with an event that ``owed.asks`` for. Where ``owed.learns``,
    ``weights`` learn from visits and purchases, and a purchase is credited by what was learned from the events before.
    """
    told = owed.asks(applied["kind"])
    if told.any():
        told &= catalogue.slots_of(applied["ad"]) != MISSING
    if not told.any():  # as in most slices; the calls below would take as long for nobody as for a few
        return Credits.none()
    rings, events = before.at(applied, told), applied[told]
    bought = events["kind"] == Kind.PURCHASED
    paths = _Paths.of(rings, events, catalogue, owed)
    learned = np.zeros(paths.touch.shape)
    if owed.learns:
        for start, end in pairwise([0, *np.flatnonzero(bought).tolist(), len(events)]):
            learned[start : start + 1] = _learned(paths.only(slice(start, start + 1)), weights)
            part = slice(start, end)  # up to the next purchase
            weights.learn(paths.touch[part], paths.age_ms[part], bought[part])
    found = _credits(paths.only(bought), events[bought], catalogue, owed, learned[bought])
    return found.among(np.flatnonzero(told)[bought])


def _credits(paths: _Paths, purchases: Events, catalogue: Catalogue, owed: Attribution, learned: Floats) -> Credits:
    """Credits of ``purchases [P]``; ``learned [P, H]``: their shares as of `_learned`."""
    slot, touch = paths.slot, paths.touch
    weight = _spread(paths, catalogue.campaign.take(paths.item), owed, learned)
    last = np.zeros(touch.shape)
    led = np.flatnonzero(touch.any(axis=1))
    last[led, touch.shape[1] - 1 - touch[led, ::-1].argmax(axis=1)] = 1.0
    value = purchases["value_micros"]
    whole = np.full(len(value), MILLI, dtype=np.int64)
    at = np.nonzero(touch)
    parts = (_shared(each, of)[at] for each, of in ((last, whole), (last, value), (weight, whole), (weight, value)))
    return Credits(at[0], slot[at], purchases["arms"][at[0]], *parts)


def _learned(paths: _Paths, weights: TouchWeights) -> Floats:
    """The shares of touches ``[P, H]`` as they have been learned by now; all 0 where nothing is known."""
    return weights.shares(paths.touch, paths.age_ms) if weights.known else np.zeros(paths.touch.shape)


def _spread(paths: _Paths, campaigns: Ids, owed: Attribution, learned: Floats) -> Floats:
    """Weights ``[P, H]`` of touches before purchases of ads of ``campaigns [P]``; they sum to 1 where there are any."""
    weight = by_position(paths.touch)
    if len(by_time := np.flatnonzero(owed.by("time", campaigns))):
        weight[by_time] = _by_time(paths.touch[by_time], paths.age_ms[by_time], owed.half_life_ms)
    told = owed.by("learned", campaigns) & learned.any(axis=1)
    weight[told] = learned[told]
    return weight


def _by_time(touch: Bools, age_ms: Ints, half_life_ms: int) -> Floats:
    """Weights ``[P, H]`` that halve with every half-life by which a touch is older than the newest."""
    newest = np.where(touch, age_ms, np.iinfo(np.int64).max).min(axis=1, keepdims=True)
    weight: Floats = np.exp2((newest - age_ms) / half_life_ms, where=touch, out=np.zeros(touch.shape))
    total = weight.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(weight, total, out=weight, where=total > 0)
    return shares


def by_position(touch: Bools) -> Floats:
    """Position weights ``[P, H]`` of the touches ``[P, H]`` of each purchase; they sum to 1 where there are any."""
    count = touch.sum(axis=1)
    nth = np.cumsum(touch, axis=1)
    ends = np.select([count == 1, count == 2], [1.0, 0.5], ENDS)[:, None]
    between = ((1 - 2 * ENDS) / np.maximum(count - 2, 1))[:, None]
    weight: Floats = np.where((nth == 1) | (nth == count[:, None]), ends, between) * touch
    return weight


def _shared(weight: Floats, total: Ints) -> Ints:
    """``total [P]`` divided by ``weight [P, H]`` into whole numbers that sum to it; the last one gets the remainder."""
    upto = np.cumsum(weight, axis=1)
    whole = np.where(upto >= 1 - 1e-9, total[:, None], np.floor(upto * total[:, None]).astype(np.int64))
    return np.diff(whole, axis=1, prepend=0)
