"""How likely each slot is looked at: position bias from a ranking drawn at random.

In the examination model a click needs a look at the slot and a liking for the ad (Richardson, Dominowska & Ragno 2007;
Craswell, Zoeter, Taylor & Ramsey 2008). Where the ranking is random, ads of every slot are liked alike, so that the
click rates of slots stand to each other as the looks do: nothing has to be assumed of ads or people, as it must where a
good ranking and a good slot always come together (Joachims, Swaminathan & Schnabel 2017).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.confidence import Z_95

Ints = npt.NDArray[np.int64]

CLICKS_MIN = 20
"""Of a slot, and of the first: with fewer the interval, which is asymptotic, says nothing."""


@dataclass(frozen=True, slots=True)
class Position:
    """A slot of random placements. ``examined``: how likely it is looked at, by the first; its 95 % interval is
    ``low`` to ``high``. None where too few clicks tell.
    """

    slot: int
    impressions: int
    clicks: int
    examined: float | None
    low: float | None
    high: float | None


def examination(slot: Ints, clicked: npt.NDArray[np.bool_], person: Ints) -> list[Position]:
    """Of impressions ``[N]`` of randomly ranked placements, by slot from the first to the last that was shown.

    The interval is of the logarithm of the ratio, by the delta method; the unit is the person, whose clicks are alike.
    """
    slots = int(slot.max(initial=-1)) + 1
    of, people = np.unique(person, return_inverse=True)
    shown, clicks = np.zeros((len(of), slots)), np.zeros((len(of), slots))
    np.add.at(shown, (people, slot), 1)
    np.add.at(clicks, (people, slot), clicked)
    impressions, total = shown.sum(axis=0), clicks.sum(axis=0)
    rate = total / np.maximum(impressions, 1)
    # What each person adds to the logarithm of each slot's rate.
    share = (clicks - rate * shown) / np.maximum(total, 1)
    spread = len(of) / max(len(of) - 1, 1)
    found = []
    for at in range(slots):
        told = min(total[at], total[0]) >= CLICKS_MIN
        ratio = float(rate[at] / rate[0]) if told else None
        error = float(np.sqrt(((share[:, at] - share[:, 0]) ** 2).sum() * spread))
        low, high = (None, None) if ratio is None else (ratio * np.exp(-Z_95 * error), ratio * np.exp(Z_95 * error))
        found.append(
            Position(
                at,
                int(impressions[at]),
                int(total[at]),
                ratio,
                None if low is None else float(low),
                None if high is None else float(high),
            )
        )
    return found
