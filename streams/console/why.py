"""Why this ad? A receipt in words and numbers: the person, what they looked at, what won, what lost and why. No I/O.

Every number that decided is the receipt's own. What is computed again (`streams.explain`) says whether it still comes
out byte for byte, and adds each past item's share of the attention.
"""

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.events import Kind
from scoring.ids import MISSING, id64
from scoring.policies import CONTROL_ARM
from scoring.ranking import first_chances
from scoring.rows import KIND_MASK, ROW, SHOWN_BIT
from streams.console.tastes import Taste, Vocabulary
from streams.explain import Recomputed, recompute
from streams.wire import Decision, Placement, Slot

LOST_SHOWN = 20
"""Of the candidates that got no slot, those that came nearest."""

Reason = Literal["random", "draw", "ecpm", "tie"]
"""``random``: the control arm draws without looking. ``draw``: worth as much as one that got a slot, and lost the
draw. ``ecpm``: worth less than all that did. ``tie``: worth the same as the last, which comes first by its id."""


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """An ad as people know it; "" where the catalogue no longer has it."""

    ad_id: str
    title: str
    category: str


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """An item of the history. ``kind``: the most that happened; ``shown``: as an ad, not come upon."""

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
    """A candidate without a slot. ``place``: by eCPM, from 1. ``chance``: of the first slot, before the draw."""

    ad: Named
    place: int
    pctr: float
    bid_micros: int
    ecpm_micros: int
    chance: float
    why: Reason


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``identical``: None where there is no model to compute it again with."""

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
    needed_ecpm_micros: int


class Explainer:
    """Explains receipts with the catalogue as it is now, and with ``engine``'s model where there is one."""

    def __init__(self, catalogue: Catalogue, engine: Engine | None) -> None:
        self._catalogue, self._engine = catalogue, engine
        self._vocabulary = Vocabulary(catalogue)

    def why(self, decision: Decision) -> Why:
        """Explain it. Raises `msgspec.MsgspecError` or `ValueError` for what is no receipt of this version."""
        placement = msgspec.json.decode(decision.placement, type=Placement)
        row = np.frombuffer(decision.row, dtype=ROW)[0]
        again = recompute(decision, self._engine) if self._engine is not None else None
        held = np.flatnonzero(row["ring_ad"])[::-1]  # newest first
        worth = _worth(decision)
        return Why(
            user=decision.user_id,
            placement_id=decision.placement_id,
            time_ms=decision.time_ms,
            arm=decision.arm,
            model=decision.versions.get("model", ""),
            lane=decision.lane,
            temperature=decision.policy["temperature"],
            candidates=len(worth),
            identical=None if again is None else again.identical,
            differences=[] if again is None else again.differences,
            session=self._vocabulary.tastes(row["interest"][0]),
            long=self._vocabulary.tastes(row["interest"][1]),
            history=self._history(row, held),
            slots=[self._won(slot, again, held) for slot in placement.slots],
            lost=self._lost(decision, worth),
            needed_ecpm_micros=round(1000 * float(worth[list(decision.chosen)].min(initial=np.inf))),
        )

    def _history(self, row: np.void, held: npt.NDArray[np.int64]) -> list[Past]:
        return [
            Past(
                ad=ad,
                kind=Kind(int(row["ring_kind"][at]) & KIND_MASK).name.lower(),
                shown=bool(row["ring_kind"][at] & SHOWN_BIT),
                time_s=int(row["ring_s"][at]),
            )
            for ad, at in zip(self._named(row["ring_ad"][held]), held.tolist(), strict=True)
        ]

    def _won(self, slot: Slot, again: Recomputed | None, held: npt.NDArray[np.int64]) -> Won:
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

    def _lost(self, decision: Decision, worth: npt.NDArray[np.float64]) -> list[Lost]:
        ads = np.frombuffer(decision.candidates, dtype=np.uint64)
        pctr = np.frombuffer(decision.pctr, dtype=np.float32)
        bids = np.frombuffer(decision.bids_micros, dtype=np.int64)
        order = np.lexsort((ads, -worth))
        places = {at: place for place, at in enumerate(order.tolist(), start=1)}
        nearest = [at for at in order.tolist() if at not in set(decision.chosen)][:LOST_SHOWN]
        chances = _chances(decision, worth)
        least = float(worth[list(decision.chosen)].min(initial=np.inf))
        return [
            Lost(
                ad=ad,
                place=places[at],
                pctr=round(float(pctr[at]), 6),
                bid_micros=int(bids[at]),
                ecpm_micros=round(1000 * float(worth[at])),
                chance=float(chances[at]),
                why=_reason(decision, float(worth[at]), least),
            )
            for ad, at in zip(self._named(ads[nearest]), nearest, strict=True)
        ]

    def _named(self, ads: npt.NDArray[np.uint64]) -> list[Named]:
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


def _worth(decision: Decision) -> npt.NDArray[np.float64]:
    """Micros that a showing of each candidate is worth in the first slot, ``[C]``: bid × pCTR, as it was ranked by."""
    worth: npt.NDArray[np.float64] = np.frombuffer(decision.bids_micros, dtype=np.int64).astype(
        np.float64
    ) * np.frombuffer(decision.pctr, dtype=np.float32)
    return worth


def _chances(decision: Decision, worth: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if decision.arm == CONTROL_ARM:
        return np.full(len(worth), 1 / max(len(worth), 1))
    return first_chances(worth, decision.policy["temperature"])


def _reason(decision: Decision, worth: float, least: float) -> Reason:
    if decision.arm == CONTROL_ARM:
        return "random"
    if worth < least:
        return "ecpm"
    return "draw" if decision.policy["temperature"] > 0 else "tie"
