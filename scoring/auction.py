"""What the winners pay: generalised second price, or Vickrey-Clarke-Groves, in integer micros of what is billed.

Values are expected micros of one impression, weighed by the advertiser's quality; positions matter through the
chance that a slot is examined. Nobody pays more than the bid, nor less than the reserve.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

Rule = Literal["first", "gsp", "vcg"]


def examined(slots: int, weight: float = 0.06) -> Floats:
    """Chance that each slot is looked at, relative to the first, ``[slots]``: 1 / (1 + weight × slot)."""
    chances: Floats = 1 / (1 + weight * np.arange(slots))
    return chances


def best_left(value: Floats, chosen: Ints) -> Floats:
    """The best value ``[B, L]`` among candidates ``[B, C]`` that stand after each slot, or in none; 0 where none do.

    ``chosen [B, L]`` are places among the candidates, -1 an empty slot.
    """
    rest = value.copy()
    people = np.arange(len(value))[:, None]
    placed = np.where(chosen >= 0, chosen, 0)
    of_slot = np.where(chosen >= 0, value[people, placed], 0.0)
    rest[np.broadcast_to(people, chosen.shape)[chosen >= 0], chosen[chosen >= 0]] = 0.0
    unplaced = rest.max(axis=1, initial=0.0)[:, None]
    later = np.concatenate([of_slot[:, 1:], unplaced], axis=1)
    best: Floats = np.maximum.accumulate(later[:, ::-1], axis=1)[:, ::-1]
    return best


def second_prices(value: Floats, chosen: Ints) -> Floats:
    """GSP, ``[B, L]``: a slot pays the best value that it kept out (Edelman, Ostrovsky & Schwarz 2007)."""
    return best_left(value, chosen)


def externalities(value: Floats, chosen: Ints, examination: Floats) -> Floats:
    """VCG, ``[B, L]`` per impression: what the others lose because the slot's ad is there.

    Without it everyone after moves up by one, and the best that had no slot takes the last: slot k pays
    Σ_{j>k} (α_{j-1} - α_j) v_j / α_k, with v_{L+1} the best without a slot and α_{L+1} = 0 (Varian & Harris 2014).
    """
    slots = chosen.shape[1]
    people = np.arange(len(value))[:, None]
    of_slot = np.where(chosen >= 0, value[people, np.where(chosen >= 0, chosen, 0)], 0.0)
    after = np.concatenate([of_slot[:, 1:], best_left(value, chosen)[:, -1:]], axis=1)
    alpha = np.append(examination[:slots], 0.0)
    lost = after * (alpha[:-1] - alpha[1:])
    total: Floats = np.cumsum(lost[:, ::-1], axis=1)[:, ::-1] / alpha[:-1]
    return total


def prices(
    rule: Rule,
    value: Floats,
    chosen: Ints,
    chance: Floats,
    bids_micros: Ints,
    quality: Floats,
    reserve_micros: int = 0,
    examination: Floats | None = None,
) -> Ints:
    """Micros that each slot's ad pays for one paid event, ``[B, L]``; 0 for an empty slot.

    ``value [B, C]`` is what ranked them, quality included; ``chance [B, C]`` paid events per impression, ``quality
    [B, C]``. The price is what the bid would have had to be for the same place, rounded up, within
    [``reserve_micros``, bid]: an ad whose chance is 0 pays its bid for an event that will not come.
    """
    at = np.where(chosen >= 0, chosen, 0)
    people = np.arange(len(value))[:, None]
    bid = bids_micros[people, at]
    if rule == "first":
        return np.where(chosen >= 0, bid, 0)
    if rule == "gsp":
        owed = second_prices(value, chosen)
    else:
        owed = externalities(value, chosen, examined(chosen.shape[1]) if examination is None else examination)
    per_bid = chance[people, at] * quality[people, at]
    with np.errstate(divide="ignore", invalid="ignore"):
        # A hair less before rounding up: a price that is whole must not become the next one by a float's last bit.
        needed = np.where(per_bid > 0, np.ceil(owed / per_bid * (1 - 1e-12)), bid)
    paid: Ints = np.minimum(np.maximum(needed, reserve_micros), bid).astype(np.int64)
    return np.where(chosen >= 0, paid, 0)
