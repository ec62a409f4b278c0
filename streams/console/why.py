"""Why this ad? A receipt in words and numbers: the person, what they looked at, what won, what lost and why. No I/O.

Every number behind the decision is the receipt's own. Recomputing it (`streams.explain`) tells whether the placement
still comes out byte for byte, and adds each past item's share of the attention.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.arrays import Floats, Ids, Ints
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.events import Kind
from scoring.ids import MISSING, id64
from scoring.market import Fate
from scoring.policies import CONTROL_ARM
from scoring.ranking import first_chances
from scoring.rows import KIND_MASK, ROW, SHOWN_BIT
from scoring.thompson import chances_of_most
from streams.console.tastes import Taste, Vocabulary
from streams.explain import Recomputed, recompute
from streams.receipts import fates_of, may_be_shown, worth_of
from streams.wire import Decision, Placement, Slot

LOST_SHOWN = 20
"""Candidates without a slot that are shown: those worth most."""
_decode_placement = msgspec.json.Decoder(Placement).decode

Reason = Literal[
    "random", "draw", "ecpm", "tie", "arranged", "blocked", "capped", "budget_spent", "below_reserve", "kept_apart"
]  # fmt: skip
"""``random``: the control arm draws at random. ``draw``: worth at least as much as a winner, but lost the draw.
``ecpm``: worth less than every winner. ``tie``: worth as much as the least winner, whose id comes first. ``arranged``:
worth more than the least winner without a draw: a pinned ad, the variety of the list or the other ranking of an
interleaved experiment got the slot. The others are `scoring.market.Fate`'s: it must not be shown, whatever it is
worth."""


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """An ad in words; "" where the catalogue lacks it."""

    ad_id: str
    title: str
    category: str


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """An item of the history. ``kind``: the strongest action on it; ``shown``: as an ad, not found by oneself."""

    ad: Named
    kind: str
    shown: bool
    time_s: int


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """A past item's share of the attention that a slot's ad got."""

    ad: Named
    weight: float


class Won(msgspec.Struct, frozen=True, kw_only=True):
    """A slot, as placed. ``by_item``: attention to each item of the history, in its order; None where not computed."""

    slot: int
    ad: Named
    campaign_id: str
    pctr: float
    ecpm_micros: int
    price_micros: int
    propensity: float
    attention: list[Attention]
    by_item: list[float] | None


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate without a slot. ``worth_micros``: what ranked it, of a thousand impressions in the first slot: its
    eCPM times what fairness and exploration make of it. ``place``: rank by worth, from 1. ``chance``: probability of
    the first slot before the draw; 0 if it must not be shown at all.
    """

    ad: Named
    place: int
    pctr: float
    bid_micros: int
    worth_micros: int
    chance: float
    why: Reason


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The whole explanation. ``identical``: None without a model to compute it again. ``lost_by``: number of candidates
    without a slot, by reason. ``needed_worth_micros``: that of the least winner.
    """

    user: str
    placement_id: str
    time_ms: int
    arm: str
    model: str
    lane: int
    temperature: float
    candidates: int
    identical: bool | None
    differences: list[str]
    session: list[Taste]
    long: list[Taste]
    history: list[Past]
    slots: list[Won]
    lost: list[Lost]
    lost_by: dict[str, int]
    needed_worth_micros: int


class Explainer:
    """Explains receipts with the catalogue as it is now, and with the model of ``engine``, if there is one."""

    def __init__(self, catalogue: Catalogue, engine: Engine | None) -> None:
        self._catalogue, self._engine = catalogue, engine
        self._vocabulary = Vocabulary(catalogue)

    def why(self, decision: Decision) -> Why:
        """Explain ``decision``. Raises `msgspec.MsgspecError` or `ValueError` if it is no receipt of this version."""
        placement = _decode_placement(decision.placement)
        row = np.frombuffer(decision.row, dtype=ROW)[0]
        again = recompute(decision, self._engine) if self._engine is not None else None
        held = np.flatnonzero(row["ring_ad"])[::-1]  # newest first
        judged = Judged.of(decision)
        return Why(
            user=decision.user_id,
            placement_id=decision.placement_id,
            time_ms=decision.time_ms,
            arm=decision.arm,
            model=decision.versions.get("model", ""),
            lane=decision.lane,
            temperature=decision.policy["temperature"],
            candidates=len(judged.worth),
            identical=None if again is None else again.identical,
            differences=[] if again is None else again.differences,
            session=self._vocabulary.tastes(row["interest"][0]),
            long=self._vocabulary.tastes(row["interest"][1]),
            history=self._history(row, held),
            slots=[self._won(slot, again, held) for slot in placement.slots],
            lost=self._lost(decision, judged),
            lost_by=dict(Counter(judged.reason(at) for at in judged.lost())),
            needed_worth_micros=round(1000 * judged.least),
        )

    def _history(self, row: np.void, held: Ints) -> list[Past]:
        return [
            Past(
                ad=ad,
                kind=Kind(int(row["ring_kind"][at]) & KIND_MASK).name.lower(),
                shown=bool(row["ring_kind"][at] & SHOWN_BIT),
                time_s=int(row["ring_s"][at]),
            )
            for ad, at in zip(self._named(row["ring_ad"][held]), held.tolist(), strict=True)
        ]

    def _won(self, slot: Slot, again: Recomputed | None, held: Ints) -> Won:
        scored = again.scored if again is not None and again.identical else None
        return Won(
            slot=slot.slot,
            ad=self._by_name(slot.ad_id),
            campaign_id=slot.campaign_id,
            pctr=slot.pctr,
            ecpm_micros=slot.ecpm_micros,
            price_micros=slot.price_micros,
            propensity=slot.propensity,
            attention=[Attention(ad=self._by_name(each.ad_id), weight=each.weight) for each in slot.attention],
            by_item=None if scored is None else scored.attention[0, slot.slot, held].round(4).tolist(),
        )

    def _lost(self, decision: Decision, judged: "Judged") -> list[Lost]:
        ads = np.frombuffer(decision.candidates, dtype=np.uint64)
        pctr = np.frombuffer(decision.pctr, dtype=np.float32)
        bids = np.frombuffer(decision.bids_micros, dtype=np.int64)
        places = {at: place for place, at in enumerate(judged.order(), start=1)}
        nearest = judged.lost()[:LOST_SHOWN]
        chances = judged.chances()
        return [
            Lost(
                ad=ad,
                place=places[at],
                pctr=round(float(pctr[at]), 6),
                bid_micros=int(bids[at]),
                worth_micros=round(1000 * float(judged.worth[at])),
                chance=float(chances[at]),
                why=judged.reason(at),
            )
            for ad, at in zip(self._named(ads[nearest]), nearest, strict=True)
        ]

    def _named(self, ads: Ids) -> list[Named]:
        return [
            self._at(slot) if slot != MISSING else Named(ad_id=f"{ad:016x}", title="", category="")
            for slot, ad in zip(self._catalogue.slots_of(ads).tolist(), ads.tolist(), strict=True)
        ]

    def _by_name(self, ad_id: str) -> Named:
        (slot,) = self._catalogue.slots_of(np.array([id64(ad_id)], dtype=np.uint64)).tolist()
        return self._at(slot) if slot != MISSING else Named(ad_id=ad_id, title="", category="")

    def _at(self, slot: int) -> Named:
        content = self._catalogue.entries[slot].content
        return Named(ad_id=content.item_id, title=content.title, category=content.category)


@dataclass(frozen=True, slots=True)
class Judged:
    """What C candidates were worth, ``worth [C]`` micros of an impression, and what became of them, ``fates [C]``."""

    worth: Floats
    fates: npt.NDArray[np.uint8]
    ads: Ids
    least: float
    control: bool
    temperature: float
    spread: Floats | None = None
    """Standard deviation of the log worth, ``[C]``, where Thompson sampling drew."""

    @classmethod
    def of(cls, decision: Decision) -> Self:
        """From a receipt."""
        worth = worth_of(decision)
        return cls(
            worth,
            fates_of(decision),
            np.frombuffer(decision.candidates, dtype=np.uint64),
            float(worth[list(decision.chosen)].min()) if decision.chosen else 0.0,
            decision.arm == CONTROL_ARM,
            decision.policy["temperature"],
            np.frombuffer(decision.spreads, dtype=np.float32).astype(np.float64) if decision.spreads else None,
        )

    def order(self) -> list[int]:
        """Places of all candidates, by descending worth."""
        order: list[int] = np.lexsort((self.ads, -self.worth)).tolist()
        return order

    def lost(self) -> list[int]:
        """Places of the candidates without a slot, by descending worth."""
        return [at for at in self.order() if self.fates[at] < Fate.WON]

    def chances(self) -> Floats:
        """Probability of the first slot before the draw; 0 for candidates that must not be shown."""
        may = may_be_shown(self.fates)
        chances = np.zeros(len(self.worth))
        if not may.any():
            return chances
        if self.control:
            chances[may] = 1 / may.sum()
        elif self.spread is not None:
            chances[may] = chances_of_most(self.worth[may], self.spread[may])
        else:
            chances[may] = first_chances(self.worth[may], self.temperature)
        return chances

    def reason(self, at: int) -> Reason:
        """Why the candidate at this place got no slot."""
        fate = Fate(int(self.fates[at]))
        if fate is not Fate.OUTBID:
            return _BARRED[fate]
        if self.control:
            return "random"
        if self.worth[at] < self.least:
            return "ecpm"
        if self.temperature > 0 or self.spread is not None:
            return "draw"
        return "tie" if self.worth[at] == self.least else "arranged"


_BARRED: dict[Fate, Reason] = {
    Fate.BLOCKED: "blocked",
    Fate.CAPPED: "capped",
    Fate.BUDGET_SPENT: "budget_spent",
    Fate.BELOW_RESERVE: "below_reserve",
    Fate.KEPT_APART: "kept_apart",
}
