"""Which ads are worth scoring for a person: the nearest to their interest, some of the newest, some at random."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.catalogue import Catalogue
from scoring.ids import mix64, uniform

Slots = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_BID_TIE = np.float32(1e-3)
"""Weight of the log bid beside the cosine: it orders ads for a person of whom nothing is known, no more."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How many candidates, and which shares of them are fresh and random rather than near."""

    count: int = 100
    fresh: float = 0.05
    random: float = 0.10


def choose(
    catalogue: Catalogue,
    interest: Vectors,
    seeds: npt.NDArray[np.uint64],
    now_ms: int,
    shares: Shares,
    control: npt.NDArray[np.bool_] | None = None,
) -> Slots:
    """Catalogue slots of the candidates of each person, ``[B, C]`` without repeats, in slot order.

    ``interest [B, K]``, ``seeds [B]``. C is ``shares.count`` or, where fewer are eligible, all of them.
    The nearest have the largest product of feature vector and interest; newest is by start time; random ones
    are a function of the seed alone. People in ``control [B]`` (None: nobody) have
    only random ones, each ad as likely.
    """
    shelf = catalogue.shelf(now_ms)
    among = len(shelf.slots)
    count = min(shares.count, among)
    if count == among:
        return np.broadcast_to(shelf.slots, (len(interest), count))
    nearness = interest @ shelf.features
    nearness += _BID_TIE * np.log1p(shelf.bids_micros).astype(np.float32)
    if fresh := round(shares.fresh * count):
        nearness[:, shelf.by_start[-fresh:]] = np.inf
    drawn = _draws(seeds, round(shares.random * count), among)
    np.put_along_axis(nearness, drawn, np.float32(np.inf), axis=1)
    if control is not None and control.any():
        nearness[control] = uniform(shelf.ads ^ mix64(mix64(seeds[control]))[:, None])
    chosen = np.argpartition(nearness, among - count, axis=1)[:, -count:]
    return shelf.slots[np.sort(chosen, axis=1)]


def _draws(seeds: npt.NDArray[np.uint64], count: int, among: int) -> npt.NDArray[np.int64]:
    """``[B, count]`` places below ``among``, from each seed's own sequence; a repeat leaves room for a near ad."""
    steps = np.arange(1, count + 1, dtype=np.uint64)
    return (mix64(mix64(seeds)[:, None] + steps) % np.uint64(among)).astype(np.int64)
