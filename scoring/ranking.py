"""From scores to ranked slots: eCPM = bid × pCTR, drawn by Plackett-Luce, every slot's propensity exact.

Plackett-Luce over utilities u draws the slots one after the other, each in proportion to exp(u) among what is
left (Plackett 1975; Luce 1959). Sorting u + Gumbel noise draws the same (Yellott 1977). Utilities are
log(eCPM) / temperature, so a slot is drawn in proportion to eCPM^(1/temperature); temperature 0 is greedy.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.ids import mix64, uniform

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.uint64]

_VALUE_MIN = 1e-12
"""Micros below which an eCPM counts as this: an ad with no bid can still be ranked by whoever explores."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """``chosen [B, L]``: places among the candidates, best first; ``propensity [B, L]``: the chance of each slot's
    ad in its slot given the slots before it; ``value [B, C]``: bid × pCTR in micros.
    """

    chosen: npt.NDArray[np.int64]
    propensity: Floats
    value: Floats


def rank(
    pctr: npt.NDArray[np.float32],
    bids_micros: npt.NDArray[np.int64],
    ads: Ids,
    seeds: Ids,
    temperatures: Floats,
    slots: int,
) -> Ranked:
    """Rank the candidates ``[B, C]`` of each person into ``min(slots, C)`` slots.

    ``temperatures [B]``: 0 is greedy (ties by ad id), infinity ranks at random. A draw depends on (seed, ad)
    alone, not on where the candidate stands.
    """
    value = bids_micros.astype(np.float64) * pctr
    greedy = temperatures == 0
    with np.errstate(divide="ignore"):
        utility = np.log(np.maximum(value, _VALUE_MIN)) / np.where(greedy, 1.0, temperatures)[:, None]
    noise = -np.log(-np.log(uniform(ads ^ mix64(seeds)[:, None])))
    order: npt.NDArray[np.int64] = np.lexsort((ads, -np.where(greedy[:, None], value, utility + noise)), axis=-1)
    utility = np.take_along_axis(utility, order, axis=1)
    # From the end, what stands at or below each place; in logarithms, since at low temperatures weights underflow.
    left = np.logaddexp.accumulate(utility[:, ::-1], axis=1)[:, ::-1]
    propensity = np.where(greedy[:, None], 1.0, np.exp(utility - left))
    return Ranked(order[:, :slots], propensity[:, :slots], value)
