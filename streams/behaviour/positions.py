"""How likely each slot is looked at, by the control group, whose placements are drawn at random."""

import numpy as np
from msgspec import Struct

from scoring.ids import MISSING
from scoring.positions import Position, examination
from streams.behaviour.joined import Behaviour, places


class Positions(Struct, frozen=True):
    """Slots from the first on; ``people`` of the control group, whose impressions say their slot."""

    people: int
    slots: list[Position]


def positions(behaviour: Behaviour) -> Positions | None:
    """Of impressions with a slot, of placements that a receipt gives to the control group; None where none is."""
    decisions, impressions = behaviour.gathered.decisions, behaviour.impressions
    decided = places(decisions["placement"], impressions["placement"])
    known = (decided != MISSING) & (impressions["placement"] != 0) & (impressions["slot"] >= 0)
    chosen = np.flatnonzero(known)
    chosen = chosen[decisions["control"][decided[chosen]] == 1]
    if not len(chosen):
        return None
    person = behaviour.impression_user[chosen]
    found = examination(impressions["slot"][chosen].astype(np.int64), behaviour.clicked[chosen], person)
    return Positions(len(np.unique(person)), found)
