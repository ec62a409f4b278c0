"""The market of one decision: worth, rules, slots and prices, for B people with C candidates each.

Terms are what the shop declares; multipliers are what pacing makes of budgets. Both change between slices alone.
"""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from scoring.auction import Rule, prices
from scoring.catalogue import Catalogue
from scoring.ids import MISSING, IdMap
from scoring.slate import EMPTY_SLOT, Limits, fill
from scoring.value import paid_chance, value_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint64]

VALUE_MIN = 1e-12
"""Micros below which a value counts as this: an ad with no bid can still be ranked by whoever explores."""
SCOPES = ("ad", "campaign", "advertiser")


class Fate(IntEnum):
    """What became of a candidate; 100 + slot where it won."""

    OUTBID = 0
    BLOCKED = 1
    CAPPED = 2
    BUDGET_SPENT = 3
    BELOW_RESERVE = 4
    KEPT_APART = 5
    WON = 100


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``most`` impressions of one ad, campaign or advertiser to one person within ``window_ms``.

    Counted off the ring. Whose ring is full of the window's items may have seen more, and is shown nothing capped.
    """

    scope: str
    most: int
    window_ms: int

    def __post_init__(self) -> None:
        if self.scope not in SCOPES or self.most < 1 or self.window_ms < 1:
            raise ValueError(
                f"cap {self.most} per {self.scope} in {self.window_ms} ms; expected one of {SCOPES}, above 0"
            )


@dataclass(frozen=True, slots=True)
class Terms:
    """What the shop declares; ids are 64-bit. ``rivals``: brand → group; a placement shows one advertiser of it."""

    auction: Rule = "gsp"
    reserve_micros: int = 0
    caps: tuple[Cap, ...] = ()
    blocked_ads: frozenset[int] = frozenset()
    blocked_categories: frozenset[int] = frozenset()
    separate: str | None = None
    rivals: tuple[tuple[int, int], ...] = ()
    pinned: tuple[tuple[int, int], ...] = ()
    diversity: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether nothing but value ranks."""
        return self == Terms(auction=self.auction)


@dataclass(frozen=True, slots=True)
class Auctioned:
    """``chosen [B, L]`` places among the candidates, `EMPTY_SLOT` where none; ``fate [B, C]`` of `Fate`."""

    chosen: Ints
    propensity: Floats
    value: Floats  # [B, C] expected micros of an impression, paced
    prices_micros: Ints  # [B, L] of one paid event
    fate: npt.NDArray[np.uint8]


@dataclass
class Market:
    """Terms, and the pacing of campaigns. A campaign that is not paced offers its whole bid."""

    terms: Terms = field(default_factory=Terms)
    _places: IdMap = field(default_factory=IdMap)
    _multiplier: Floats = field(default_factory=lambda: np.ones(0))

    def pace(self, campaigns: Ids, multiplier: Floats) -> None:
        """Set the multipliers ``[M]`` of ``campaigns [M]``; 0 stops one. Those left out offer their whole bid."""
        self._places = IdMap(max(len(campaigns), 16))
        for place, campaign in enumerate(campaigns.tolist()):
            self._places.set(campaign, place)
        self._multiplier = multiplier.astype(float)

    def multiplier_of(self, campaigns: Ids) -> Floats:
        """Multipliers of campaigns, any shape."""
        if not len(self._multiplier):
            return np.ones(campaigns.shape)
        place = self._places.get(campaigns)
        return np.where(place == MISSING, 1.0, self._multiplier[place])

    def decide(
        self,
        catalogue: Catalogue,
        candidates: Ints,
        pctr: Floats,
        pcvr: Floats,
        seconds: Floats,
        shown: Ints,
        shown_age_ms: Ints,
        seeds: Ids,
        temperatures: Floats,
        slots: int,
        features: npt.NDArray[np.float32] | None = None,
    ) -> Auctioned:
        """Rank, fill and price. ``candidates, pctr, pcvr, seconds [B, C]``; ``shown [B, H]`` catalogue slots of what
        each was shown, `MISSING` where nothing, and how long ago; ``temperatures [B]`` as in `scoring.ranking.rank`.
        """
        ads = catalogue.ad[candidates]
        multiplier = self.multiplier_of(catalogue.campaign[candidates])
        bids = np.floor(catalogue.bid_micros[candidates] * multiplier).astype(np.int64)
        attention = catalogue.attention_micros[candidates]
        chance = paid_chance(catalogue.bid_type[candidates], pctr, pcvr, seconds)
        value = value_of(bids, chance, attention, seconds)
        limits, fate = self._limits(catalogue, candidates, ads, multiplier, bids, shown, shown_age_ms)
        warm = np.where(temperatures > 0, temperatures, 1.0)[:, None]
        utility = np.log(np.maximum(value, VALUE_MIN)) / warm
        chosen, propensity = fill(utility, ads, seeds, temperatures == 0, slots, limits, self.terms.diversity, features)
        paid = prices(
            self.terms.auction, np.where(limits.allowed, value, 0.0), chosen, chance, bids, np.ones_like(value),
            self.terms.reserve_micros,
        )  # fmt: skip
        return Auctioned(chosen, propensity, value, paid, _told(fate, chosen))

    def _limits(
        self, catalogue: Catalogue, candidates: Ints, ads: Ids, multiplier: Floats, bids: Ints, shown: Ints, age: Ints
    ) -> tuple[Limits, npt.NDArray[np.uint8]]:
        terms = self.terms
        fate = np.full(candidates.shape, Fate.OUTBID, dtype=np.uint8)
        fate[bids < terms.reserve_micros] = Fate.BELOW_RESERVE
        fate[multiplier == 0] = Fate.BUDGET_SPENT
        groups = {"ad": ads, "campaign": catalogue.campaign[candidates], "advertiser": catalogue.advertiser[candidates]}
        columns = {"ad": catalogue.ad, "campaign": catalogue.campaign, "advertiser": catalogue.advertiser}
        scopes = []
        for cap in terms.caps:
            seen = np.where((shown != MISSING) & (age < cap.window_ms), columns[cap.scope][shown], 0)
            room = cap.most - (groups[cap.scope][:, :, None] == seen[:, None, :]).sum(axis=2)
            room[(shown[:, 0] != MISSING) & (age[:, 0] < cap.window_ms)] = 0
            fate[room <= 0] = Fate.CAPPED
            scopes.append((groups[cap.scope], room))
        category = catalogue.category[candidates]
        fate[_among(ads, terms.blocked_ads) | _among(category, terms.blocked_categories)] = Fate.BLOCKED
        apart = None if terms.separate is None else getattr(catalogue, terms.separate)[candidates]
        rivals = _mapped(catalogue.brand[candidates], terms.rivals, 0).astype(np.uint64) if terms.rivals else None
        pinned = _mapped(ads, terms.pinned, EMPTY_SLOT) if terms.pinned else None
        allowed = fate == Fate.OUTBID
        return Limits(allowed, tuple(scopes), apart, rivals, groups["advertiser"], pinned), fate


def _among(ids: Ids, wanted: frozenset[int]) -> npt.NDArray[np.bool_]:
    if not wanted:
        return np.zeros(ids.shape, dtype=np.bool_)
    return np.isin(ids, np.fromiter(wanted, dtype=np.uint64, count=len(wanted)))


def _mapped(ids: Ids, pairs: tuple[tuple[int, int], ...], default: int) -> Ints:
    out = np.full(ids.shape, default, dtype=np.int64)
    for key, value in pairs:
        out[ids == np.uint64(key)] = value
    return out


def _told(fate: npt.NDArray[np.uint8], chosen: Ints) -> npt.NDArray[np.uint8]:
    """``fate [B, C]`` with the winners' slots."""
    people, slot = np.nonzero(chosen != EMPTY_SLOT)
    fate[people, chosen[people, slot]] = Fate.WON + slot
    return fate
