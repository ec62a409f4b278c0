"""What the winners pay: generalised second price, or Vickrey-Clarke-Groves, in integer micros of what is billed.

Values are expected micros of one impression, weighted by the advertiser's quality; positions matter through the
chance that a slot is examined. Nobody pays more than the bid, nor less than the reserve. A price of attention is not a
bid: it is owed in full, and the bid only has to make up the rest. Ads of one advertiser bid against each other like any
two. An ad that a rule shut out of a slot before it was filled did not compete for that slot, and sets no price. A
pinned ad keeps its slot whatever it bids, and pays as if it had to win the slot from the ads that it keeps out.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from scoring.arrays import Floats, Ints
from scoring.examination import assumed

Rule = Literal["first", "gsp", "vcg"]
CHANCE_MIN = 1e-30
"""Below any chance: a value divided by it is above any bid."""


def _of_slots(values: npt.NDArray[Any], chosen: Ints) -> npt.NDArray[Any]:
    """``values [B, C]`` of the ad in each slot, ``[B, L]``; for an empty slot that of an arbitrary ad."""
    at = np.maximum(chosen, 0) + np.arange(len(chosen))[:, None] * values.shape[1]
    found: npt.NDArray[Any] = values.ravel().take(at)
    return found


def best_left(value: Floats, chosen: Ints) -> Floats:
    """The best value ``[B, L]`` among candidates ``[B, C]`` that stand after each slot, or in none; 0 where none do.

    ``chosen [B, L]`` are places among the candidates, -1 an empty slot.
    """
    empty = chosen < 0
    rest, best = value.copy(), np.empty(chosen.shape)
    at = chosen + np.arange(len(chosen))[:, None] * value.shape[1]
    rest.ravel()[at[~empty]] = 0.0
    best[:, -1] = rest.max(axis=1)
    best[:, :-1] = np.where(empty, 0.0, _of_slots(value, chosen))[:, 1:]
    np.maximum.accumulate(best[:, ::-1], axis=1, out=best[:, ::-1])
    return best


def externalities(value: Floats, chosen: Ints, kept_out: Floats, examination: Floats) -> Floats:
    """VCG, ``[B, L]`` per impression: what the others lose because the slot's ad is there.

    Without it every ad after moves up by one, whatever rules say of neighbours, and the best ad without a slot, which
    the last of ``kept_out [B, L]`` gives, takes the last slot: slot k pays
    Σ_{j>k} (α_{j-1} - α_j) v_j / α_k, with v_{L+1} the best without a slot and α_{L+1} = 0 (Varian & Harris 2014).
    Their slots are ordered by how often they are looked at. A learned curve may rise, by chance or in truth: an ad that
    moves others down would then be paid for it, and owe less than the best ad without a slot would have given. So α is
    the curve's running minimum.
    """
    slots = chosen.shape[1]
    people = np.arange(len(value))[:, None]
    of_slot = np.where(chosen >= 0, value[people, np.where(chosen >= 0, chosen, 0)], 0.0)
    after = np.concatenate([of_slot[:, 1:], kept_out[:, -1:]], axis=1)
    alpha = np.append(np.minimum.accumulate(examination[:slots]), 0.0)
    lost = after * (alpha[:-1] - alpha[1:])
    total: Floats = np.cumsum(lost[:, ::-1], axis=1)[:, ::-1] / alpha[:-1]
    return total


def prices(
    rule: Rule,
    value: Floats,
    chosen: Ints,
    kept_out: Floats,
    chance: Floats,
    bids_micros: Ints,
    quality: Floats | None = None,
    reserve_micros: int = 0,
    examination: Floats | None = None,
    attention: Floats | None = None,
) -> Ints:
    """Micros that each slot's ad pays for one paid event, ``[B, L]``; 0 for an empty slot.

    ``value [B, C]`` is what ranked them, quality included; ``kept_out [B, L]`` the best value that each slot's ad keeps
    out of it (`best_left`, where slots do not limit each other); ``chance [B, C]`` paid events per impression,
    ``quality [B, C]``, None for 1; ``attention [B, C]`` micros of an impression that are owed whatever the bid, None
    for 0. By GSP (Edelman, Ostrovsky & Schwarz 2007) the price is the lowest bid that wins the same place without a
    pin, rounded up, within [``reserve_micros``, bid]: an ad whose chance is 0 pays its bid for an event that will not
    come, if another ad was left.
    """
    bid, filled = _of_slots(bids_micros, chosen), chosen >= 0
    if rule == "first":
        return np.where(filled, bid, 0)
    if rule == "gsp":
        owed = kept_out
    else:
        alpha = assumed(chosen.shape[1]) if examination is None else examination
        owed = externalities(value, chosen, kept_out, alpha)
    per_bid = _of_slots(chance, chosen)
    weight = 1.0 if quality is None else _of_slots(quality, chosen)
    # A hair less before rounding up: a price that is whole must not become the next one by a float's last bit.
    owed = owed * (1 - 1e-12)
    if attention is not None:
        owed = owed - weight * _of_slots(attention, chosen)  # below 0 the reserve is needed
    needed = np.ceil(owed / np.maximum(per_bid * weight, CHANCE_MIN))
    paid: Ints = np.where(filled, np.minimum(np.maximum(needed, reserve_micros), bid), 0).astype(np.int64)
    return paid
