"""A shadow model's scores beside those that decided: both chances of a click of each ad placed, and how they differ."""

from dataclasses import dataclass

import numpy as np

from scoring.engine import Scored
from scoring.ids import id64
from scoring.ranking import EMPTY_SLOT
from streams.wire import Placement, ShadowScore, ShadowSlot

DIGITS = 6
"""Decimal digits of a chance, as in placements."""


@dataclass(frozen=True, slots=True)
class Said:
    """For one person: both chances of the ads placed, and the mean and largest difference over all candidates."""

    shadow: str
    pctr: list[float]
    shadow_pctr: list[float]
    candidates: int
    mean: float
    largest: float

    def of(self, placement: Placement) -> ShadowScore:
        """The record beside ``placement``."""
        slots = zip(placement.slots, self.pctr, self.shadow_pctr, strict=True)
        return ShadowScore(
            decision=f"{id64(placement.placement_id):016x}",
            time_ms=placement.time_ms,
            model=placement.model,
            shadow=self.shadow,
            slots=tuple(
                ShadowSlot(ad_id=slot.ad_id, pctr=live, shadow_pctr=beside, difference=round(beside - live, DIGITS))
                for slot, live, beside in slots
            ),
            candidates=self.candidates,
            mean_difference=self.mean,
            largest_difference=self.largest,
        )


def beside_of(scored: Scored) -> dict[int, Said]:
    """What the shadow says, by each person's place in ``scored``; only of people whom it was asked about."""
    beside = scored.beside
    if beside is None:
        return {}
    live = scored.asked.pctr[beside.people]
    apart = np.abs(beside.pctr - live)
    mean = apart.mean(axis=1, dtype=np.float64).round(DIGITS).tolist()
    largest = apart.max(axis=1).astype(np.float64).round(DIGITS).tolist()
    out = {}
    for at, place in enumerate(beside.people.tolist()):
        chosen = scored.decided.chosen[place]
        chosen = chosen[chosen != EMPTY_SLOT]
        pctr, shadow_pctr = (
            [round(chance, DIGITS) for chance in of[at, chosen].tolist()] for of in (live, beside.pctr)
        )
        out[place] = Said(beside.model, pctr, shadow_pctr, live.shape[1], mean[at], largest[at])
    return out
