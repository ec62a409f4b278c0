"""The market of one decision: worth, rules, slots and prices, for B people with C candidates each.

Terms are what the shop declares. Offers are what pacing, returns and fairness make of campaigns' bids at the moment;
every receipt holds them. Both change between slices alone.
"""

from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Floats, Ids, Ints, Singles
from scoring.auction import Rule, best_left, prices
from scoring.catalogue import Catalogue
from scoring.columns import Column
from scoring.examination import assumed, over
from scoring.exploration import Explore, spread_of
from scoring.ids import MISSING
from scoring.interleaving import picks
from scoring.offers import Offers, bid_for_clicks, bids_of
from scoring.ranking import EMPTY_SLOT, Ranked, rank, refuse_unknown
from scoring.seal import Seal
from scoring.slate import Limits, Slate, Turns, Wanted, fill
from scoring.value import of_clicks, paid_chance, value_of
from scoring.variety import Method, Variety

SCOPES = ("ad", "campaign", "advertiser")


class Fate(IntEnum):
    """What became of a candidate; 100 + slot where it won."""

    OUTBID = 0
    BLOCKED = 1
    CAPPED = 2
    BUDGET_SPENT = 3
    BELOW_RESERVE = 4
    KEPT_APART = 5  # by a rule, because of what stands in a slot above
    WON = 100


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``most`` impressions of one ad, campaign or advertiser to one person within ``window_ms``.

    Counted in the ring. A person whose ring is full of the window's items may have seen more: they get nothing capped.
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
    """What the shop declares; ids are 64-bit. ``rivals``: brand → group; a placement shows one advertiser of it.

    ``category_share``: the largest share of a placement's slots that one category may have, so that what a person likes
    best does not become all that they see. ``fairness``: how quickly the groups ``fair_among`` are given the exposure
    that their worth deserves (`scoring.fairness`); 0: not at all. ``conversion``, ``viewed_s``: default purchases per
    click and seconds of attention per impression. ``examination``: how likely each slot is looked at, relative to the
    first, for VCG prices; slots beyond are like the last; empty: as learned. ``version`` tells one set of terms from
    another in receipts.
    """

    auction: Rule = "gsp"
    reserve_micros: int = 0
    caps: tuple[Cap, ...] = ()
    blocked_ads: frozenset[int] = frozenset()
    blocked_categories: frozenset[int] = frozenset()
    blocked_advertisers: frozenset[int] = frozenset()
    separate: str | None = None
    rivals: tuple[tuple[int, int], ...] = ()
    pinned: tuple[tuple[int, int], ...] = ()
    diversity: float = 0.0
    diversify_by: Method = "mmr"
    category_share: float = 1.0
    fairness: float = 0.0
    fair_among: str = "advertiser"
    conversion: float = 0.02
    viewed_s: float = 2.0
    examination: tuple[float, ...] = ()
    version: str = "none"

    @property
    def ties_slots(self) -> bool:
        """Whether what stands in one slot may depend on the slots above."""
        tied = self.caps or self.separate or self.rivals or self.pinned
        return bool(tied) or self.diversity > 0 or self.category_share < 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A decision to be made. ``candidates, pctr [B, C]``; ``seeds, temperatures [B]`` as in `scoring.ranking.rank`.

    ``shown [B, H]``: catalogue slots of what each was shown, oldest first, `MISSING` where nothing or unknown, and
    ``shown_age_ms`` how long ago. ``offers`` None: everybody offers the whole bid, and all bids are for clicks.
    ``examined [K]``: how likely slots are looked at, as learned; None: as in `scoring.examination.assumed`.
    ``doubt [B, C]``: uncertainty of the pCTR (`scoring.exploration.doubt_of`), which ``explore`` explores.
    """

    candidates: Ints
    pctr: npt.NDArray[np.floating]
    seeds: Ids
    temperatures: Floats
    shown: Ints
    shown_age_ms: Ints
    offers: Offers | None = None
    examined: Floats | None = None
    explore: Explore = "plackett-luce"
    doubt: Floats | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """``chosen [B, L]`` places among the candidates, `EMPTY_SLOT` where none; ``fate [B, C]`` of `Fate`."""

    chosen: Ints
    propensity: Floats
    worth: Floats  # [B, C] what ranked them: value × quality
    value: Floats  # [B, C] expected micros of an impression, as models and campaigns have it
    bids_micros: Ints  # [B, C] as offered
    prices_micros: Ints  # [B, L] of one paid event
    fate: npt.NDArray[np.uint8]
    examined: Floats  # [L] how likely the slots are looked at, by which prices and fairness go
    second: Bools | None = None  # [B, L] whether the other ranking picked, where two took turns
    spread: Floats | None = None  # [B, C] standard deviation of the log worth, where Thompson sampling drew


@dataclass(frozen=True)
class _Stake:
    """What candidates are worth, ``[B, C]`` each: expected micros of an impression, by offered bid and chance."""

    bids: Ints
    chance: Floats
    value: Floats
    quality: Floats | None  # None: 1
    attention: Floats | None = None  # the part of the value that is owed beside the bid; None: 0
    spread: Floats | None = None  # of the log worth, for Thompson sampling

    @cached_property
    def worth(self) -> Floats:
        """What ranks them: value × quality."""
        return self.value if self.quality is None else self.value * self.quality

    def wanted(self, asked: Asked) -> Wanted:
        """What is to be ranked."""
        return Wanted(self.worth, asked.temperatures, self.spread)

    @classmethod
    def of(cls, catalogue: Catalogue, asked: Asked, seen_pctr: npt.NDArray[np.floating] | None = None) -> "_Stake":
        """By ``seen_pctr`` instead of the asked pCTR, where an ad stands in another slot than the first.

        Raises `ValueError` where one is not a finite number: else the best might be nobody, or an ad that is barred.
        """
        pctr = (asked.pctr if seen_pctr is None else seen_pctr).astype(np.float64)
        refuse_unknown(pctr)
        offers = asked.offers
        bids = bids_of(catalogue, asked.candidates, offers)
        if offers is None:
            return cls(bids, pctr, bids * pctr, None).explored(asked, 1.0)
        seconds = offers.viewed_s.astype(np.float64)
        paid_for = catalogue.bid_type.take(asked.candidates)
        chance = paid_chance(paid_for, pctr, offers.conversion.astype(float), seconds)
        beside = catalogue.attention_micros.take(asked.candidates)
        value = value_of(bids, chance, beside, seconds)
        stake = cls(bids, chance, value, offers.quality.astype(np.float64), beside * seconds)
        return stake.explored(asked, of_clicks(paid_for, bids * chance, value))

    def explored(self, asked: Asked, of_clicks: Floats | float) -> "_Stake":
        """The stake given doubt of click rates, which are a factor of the share ``of_clicks [B, C]`` of the value.

        LinUCB's bonus acts like quality: a price is the bid that would have been needed, so nobody pays for the bonus.
        """
        if asked.doubt is None:
            return self
        doubt = asked.doubt * of_clicks
        if asked.explore == "thompson":
            return replace(self, spread=spread_of(doubt))
        return replace(self, quality=(1.0 if self.quality is None else self.quality) * (1 + doubt))


@dataclass
class Market:
    """Terms, what campaigns offer now, and the seal of prices. A campaign that is not paced offers its whole bid."""

    terms: Terms = field(default_factory=Terms)
    seal: Seal = field(default_factory=Seal)
    _campaigns: Column = field(init=False)
    _favoured: Column = field(init=False)
    _table: Singles = field(init=False, repr=False)  # made of the first ads
    _version: int = -1
    _plain: bool = True
    _shut: Bools | None = field(default=None, repr=False)
    _block: Bools = field(init=False, repr=False)
    _block_version: int = -1

    def __post_init__(self) -> None:
        self._campaigns = Column("campaign", (1.0, self.terms.conversion, self.terms.viewed_s))
        self._favoured = Column(self.terms.fair_among, (1.0,))

    def pace(
        self, campaigns: Ids, multiplier: Floats, conversion: Floats | None = None, viewed_s: Floats | None = None
    ) -> None:
        """Set multipliers, purchases per click and seconds per impression ``[M]`` of ``campaigns [M]``.

        Multiplier 0 stops a campaign. Those left out offer their whole bid, and have the rates of the terms.
        """
        rates = np.full(len(campaigns), self.terms.conversion) if conversion is None else conversion
        seconds = np.full(len(campaigns), self.terms.viewed_s) if viewed_s is None else viewed_s
        self._campaigns.set(campaigns, np.column_stack([multiplier, rates, seconds]))
        self._version = -1

    def favour(self, groups: Ids, quality: Floats) -> None:
        """Set the weights ``[N]`` of ``groups [N]``, ids of `Terms.fair_among`; groups left out have 1."""
        self._favoured.set(groups, quality[:, None])
        self._version = -1

    def offers(self, catalogue: Catalogue, candidates: Ints) -> Offers | None:
        """What the candidates' campaigns offer now; None where every campaign offers the whole bid for a click."""
        if catalogue.version != self._version:
            self._lay_out(catalogue)
        return None if self._plain else Offers(self._table.take(candidates, axis=0))

    def barred(self, catalogue: Catalogue) -> Bools | None:
        """Which ads ``[N]`` may now be shown to nobody, as `decide` has it; None where there is none.

        The same array until the catalogue changes, or what it holds.
        """
        if catalogue.version != self._version:
            self._lay_out(catalogue)
        return self._shut

    def _lay_out(self, catalogue: Catalogue) -> None:
        """Lay out every ad's offers, ``[N, 4]``, and which are barred, after the catalogue or the offers changed."""
        self._version = catalogue.version
        self._plain = not len(self._campaigns) and not len(self._favoured) and bid_for_clicks(catalogue)
        if not self._plain:
            of_campaign, of_group = self._campaigns.of(catalogue), self._favoured.of(catalogue)
            self._table = np.column_stack([of_campaign[:, 0], of_group[:, 0], of_campaign[:, 1], of_campaign[:, 2]])
        ads, offers = np.arange(len(catalogue)), None if self._plain else Offers(self._table)
        shut = self._barred(catalogue, ads, offers, bids_of(catalogue, ads, offers)) != Fate.OUTBID
        if self._shut is None or not np.array_equal(shut, self._shut):
            self._shut = shut if shut.any() else None

    def decide(self, catalogue: Catalogue, asked: Asked, slots: int, other: Asked | None = None) -> Decided:
        """Rank, fill ``min(slots, C)`` slots, and price. Raises `ValueError` where a pCTR is not a finite number.

        ``other``: the same with other click rates and temperatures, whose ranking takes turns with the first.
        """
        stake, slots = _Stake.of(catalogue, asked), min(slots, asked.candidates.shape[1])
        rival = None if other is None else _Stake.of(catalogue, other)
        ads = catalogue.ad.take(asked.candidates)
        fate = self._barred(catalogue, asked.candidates, asked.offers, stake.bids)
        made: Slate | Ranked
        turns: Turns | None = None
        if self.terms.ties_slots or rival is not None or stake.spread is not None:
            limits = self._limits(catalogue, asked, ads, fate, slots)
            if rival is not None and other is not None:
                turns = Turns(rival.wanted(other), picks(asked.seeds, slots))
            variety = self._variety(catalogue, asked)
            made = fill(stake.wanted(asked), ads, asked.seeds, slots, limits, variety, turns)
            kept_out = made.kept_out
            fate[made.shut] = Fate.KEPT_APART
        else:
            allowed = fate == Fate.OUTBID if fate.any() else None
            made = rank(stake.worth, ads, asked.seeds, asked.temperatures, slots, allowed)
            vying = stake.worth if allowed is None else np.where(allowed, stake.worth, 0.0)
            kept_out = best_left(vying, made.chosen)[None]
        chosen = made.chosen
        alpha = self._examined(asked, chosen.shape[1])
        paid, second = self._prices(stake, chosen, kept_out[0], alpha), None
        if rival is not None and turns is not None:
            # A slot costs what it would cost if the ranking that picked for it had picked for all.
            second = turns.second
            paid = np.where(second, self._prices(rival, chosen, kept_out[1], alpha), paid)
        told, worth = _told(fate, chosen), (stake.worth, stake.value)
        return Decided(chosen, made.propensity, *worth, stake.bids, paid, told, alpha, second, stake.spread)

    def _examined(self, asked: Asked, slots: int) -> Floats:
        """How likely each of the slots is looked at: as declared, or learned, or assumed."""
        if self.terms.examination:
            return over(self.terms.examination, slots)
        return assumed(slots) if asked.examined is None else over(asked.examined, slots)

    def _prices(self, stake: _Stake, chosen: Ints, kept_out: Floats, alpha: Floats) -> Ints:
        rule, reserve = self.terms.auction, self.terms.reserve_micros
        told = stake.chance, stake.bids, stake.quality
        return prices(rule, stake.worth, chosen, kept_out, *told, reserve, alpha, stake.attention)

    def values(self, catalogue: Catalogue, asked: Asked, chosen: Ints, slot_pctr: npt.NDArray[np.floating]) -> Floats:
        """Expected micros of an impression of each slot's ad in its slot, ``[B, L]``; ``slot_pctr [B, L]``.

        Raises `ValueError` where one of those is not a finite number.
        """
        at = np.arange(len(chosen))[:, None], np.maximum(chosen, 0)
        offers = None if asked.offers is None else Offers(asked.offers.kept[at])
        of_slots = replace(asked, candidates=asked.candidates[at], offers=offers, doubt=None)
        return _Stake.of(catalogue, of_slots, slot_pctr).value

    def _variety(self, catalogue: Catalogue, asked: Asked) -> Variety | None:
        if not self.terms.diversity:
            return None
        features = catalogue.features.take(asked.candidates, axis=0)
        return Variety(self.terms.diversify_by, self.terms.diversity, features)

    def _barred(self, catalogue: Catalogue, ads: Ints, offers: Offers | None, bids: Ints) -> npt.NDArray[np.uint8]:
        """Fates of ``ads``, catalogue slots of any shape, that may not be shown, whatever else is and to whomever.

        `Fate.OUTBID` for all others. ``offers`` and ``bids`` of that shape are what they offer.
        """
        terms = self.terms
        fate = np.zeros(ads.shape, dtype=np.uint8)
        if terms.reserve_micros:  # for bids alone: an ad without a bid that pays for attention is exempt
            own, attention = (of.take(ads) for of in (catalogue.bid_micros, catalogue.attention_micros))
            fate[(bids < terms.reserve_micros) & ((own > 0) | (attention == 0))] = Fate.BELOW_RESERVE
        if offers is not None:
            fate[offers.multiplier == 0] = Fate.BUDGET_SPENT
        if (blocked := self._blocked(catalogue)) is not None:
            fate[blocked.take(ads)] = Fate.BLOCKED
        return fate

    def _blocked(self, catalogue: Catalogue) -> Bools | None:
        """Which ads ``[N]`` the rules block, looked up once until the catalogue changes; None where they block none."""
        columns = {
            "ad": self.terms.blocked_ads,
            "category": self.terms.blocked_categories,
            "advertiser": self.terms.blocked_advertisers,
        }
        if not any(columns.values()):
            return None
        if catalogue.version != self._block_version:
            self._block_version = catalogue.version
            ids = {name: np.fromiter(blocked, np.uint64, len(blocked)) for name, blocked in columns.items()}
            self._block = np.any([np.isin(getattr(catalogue, name), of) for name, of in ids.items()], axis=0)
        return self._block

    def _limits(self, catalogue: Catalogue, asked: Asked, ads: Ids, fate: npt.NDArray[np.uint8], slots: int) -> Limits:
        """How one slot limits another; marks in ``fate`` the candidates that a cap bars."""
        terms, candidates = self.terms, asked.candidates
        scopes = _capped(terms, catalogue, asked, fate)
        if terms.category_share < 1:
            most = max(int(terms.category_share * slots + 1e-9), 1)  # 0.58 of 50 is 29, by floats a hair less
            scopes.append((catalogue.groups("category", candidates), np.full(candidates.shape, most)))
        apart = None if terms.separate is None else catalogue.groups(terms.separate, candidates)
        rivals = owner = None
        if terms.rivals:
            rivals = _mapped(catalogue.brand.take(candidates), terms.rivals, 0).astype(np.uint64)
            owner = catalogue.advertiser.take(candidates)
        pinned = _mapped(ads, terms.pinned, EMPTY_SLOT) if terms.pinned else None
        return Limits(fate == Fate.OUTBID, tuple(scopes), apart, rivals, owner, pinned)


def _capped(terms: Terms, catalogue: Catalogue, asked: Asked, fate: npt.NDArray[np.uint8]) -> list[tuple[Ids, Ints]]:
    """Groups and the room left in them, per cap; marks in ``fate`` the candidates without room."""
    scopes = []
    for cap in terms.caps:
        column = getattr(catalogue, cap.scope)
        within = asked.shown_age_ms < cap.window_ms
        seen = np.where((asked.shown != MISSING) & within, column.take(asked.shown), 0)
        group = column.take(asked.candidates)
        room = cap.most - (group[:, :, None] == seen[:, None, :]).sum(axis=2)
        room[within[:, 0]] = 0
        fate[(room <= 0) & (fate == Fate.OUTBID)] = Fate.CAPPED
        scopes.append((group, room))
    return scopes


def _mapped(ids: Ids, pairs: tuple[tuple[int, int], ...], default: int) -> Ints:
    out = np.full(ids.shape, default, dtype=np.int64)
    for key, value in pairs:
        out[ids == np.uint64(key)] = value
    return out


def _told(fate: npt.NDArray[np.uint8], chosen: Ints) -> npt.NDArray[np.uint8]:
    """``fate [B, C]`` with the winners' slots."""
    won = np.broadcast_to(np.arange(chosen.shape[1], dtype=np.uint8) + np.uint8(Fate.WON), chosen.shape)
    place, filled = chosen + np.arange(len(chosen))[:, None] * fate.shape[1], chosen != EMPTY_SLOT
    fate.ravel()[place[filled]] = won[filled]
    return fate
