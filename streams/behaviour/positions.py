"""How likely each slot is looked at, from the control group, whose placements are random except for pinned ads."""

import numpy as np
from msgspec import Struct

from scoring.ids import MISSING
from scoring.positions import Position, examination
from streams.behaviour.joined import Behaviour, places


class Positions(Struct, frozen=True):
    """Slots from the first on; ``people``: those of the control group whose impressions say their slot."""

    people: int
    slots: list[Position]


def positions(behaviour: Behaviour) -> Positions | None:
    """Estimated from impressions that have a slot and whose receipt names the control group; None where there are none.

    Slots that were not drawn, as of pinned ads, are left out: the ads there may be liked more than others.
    """
    decisions, impressions = behaviour.gathered.decisions, behaviour.impressions
    decided = places(decisions["placement"], impressions["placement"])
    known = (decided != MISSING) & (impressions["placement"] != 0) & (impressions["slot"] >= 0)
    chosen = np.flatnonzero(known)
    made, slot = decisions[decided[chosen]], np.clip(impressions["slot"][chosen], 0, 64).astype(np.uint64)
    drawn = (slot > 63) | ((made["fixed"] >> np.minimum(slot, np.uint64(63))) & np.uint64(1) == 0)
    chosen = chosen[(made["control"] == 1) & drawn]
    if not len(chosen):
        return None
    person = behaviour.impression_user[chosen]
    found = examination(impressions["slot"][chosen].astype(np.int64), behaviour.clicked[chosen], person)
    return Positions(len(np.unique(person)), found)
