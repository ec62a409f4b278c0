"""How likely each slot is looked at: position bias from a ranking drawn at random.

In the examination model a click needs a look at the slot and a liking for the ad (Richardson, Dominowska & Ragno 2007;
Craswell, Zoeter, Taylor & Ramsey 2008). Where the ranking is random, ads of every slot are liked alike, so the click
rates of slots are proportional to how often they are looked at. Nothing has to be assumed about ads or people, as it
must where good ads always stand in good slots (Joachims, Swaminathan & Schnabel 2017).
"""

from dataclasses import dataclass

import numpy as np

from scoring.arrays import Bools, Ints
from scoring.confidence import Z_95

CLICKS_MIN = 20
"""Fewest clicks in a slot, and in the first: with fewer the interval, which is asymptotic, says nothing."""
PEOPLE_MIN = 20
"""Fewest people who were shown a slot, and the first, before it has an interval: with one it is a point, and with the
demo shop's (150 placements each) it covers 70 % with 2, 87 with 5, 91 with 10, and 94 to 96 with 20 and more. They are
effective people (Kish), since 20 people, few of whom do most, count as these few: 81 to 88 % where activity is
lognormal with 1.5."""


ROUNDING = 1e-12
"""Relative rounding error of their effective number."""


@dataclass(frozen=True, slots=True)
class Position:
    """A slot of random placements. ``examined``: how likely it is looked at, relative to the first; its 95 % interval
    is ``low`` to ``high``. All are None with too few clicks, the interval also with too few people.
    """

    slot: int
    impressions: int
    clicks: int
    examined: float | None
    low: float | None
    high: float | None


def examination(slot: Ints, clicked: Bools, person: Ints) -> list[Position]:
    """The positions of impressions ``[N]`` of randomly ranked placements, from the first slot to the last shown.

    The interval is of the logarithm of the ratio, by the delta method; the unit is the person: their clicks correlate.
    """
    if not len(slot):
        return []
    slots, (of, people) = int(slot.max()) + 1, np.unique(person, return_inverse=True)
    # What a person did in a slot, where they were shown it: few are shown the last ones.
    pairs, pair = np.unique(people * slots + slot, return_inverse=True)
    shown, clicks = np.bincount(pair), np.bincount(pair, weights=clicked)
    owner, place = np.divmod(pairs, slots)
    impressions, total = (np.bincount(place, weights=each, minlength=slots) for each in (shown, clicks))
    rate = total / np.maximum(impressions, 1)
    # What each person adds to the logarithm of each slot's rate, and the squares of how far that is from the first's.
    share = (clicks - rate[place] * shown) / np.maximum(total[place], 1)
    of_first = np.zeros(len(of))
    of_first[owner[place == 0]] = share[place == 0]
    beyond = (share - of_first[owner]) ** 2 - of_first[owner] ** 2
    squares = np.maximum(np.bincount(place, weights=beyond, minlength=slots) + (of_first**2).sum(), 0)
    errors = np.sqrt(squares * len(of) / max(len(of) - 1, 1))
    errors[0] = 0.0  # relative to itself
    people_of = impressions**2 / np.maximum(np.bincount(place, weights=shown**2, minlength=slots), 1)
    found = []
    for at in range(slots):
        told = min(total[at], total[0]) >= CLICKS_MIN
        ratio = float(rate[at] / rate[0]) if told else None
        low = high = None
        if ratio is not None and min(people_of[at], people_of[0]) >= PEOPLE_MIN * (1 - ROUNDING):
            reach = float(np.exp(Z_95 * errors[at]))
            low, high = ratio / reach, ratio * reach
        found.append(Position(at, int(impressions[at]), int(total[at]), ratio, low, high))
    return found
