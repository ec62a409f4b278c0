"""Which ads are worth scoring for a person: the nearest to their interest, some of the newest, some at random."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.catalogue import Catalogue
from scoring.ids import mix64

Slots = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_BLOCKS_PER_PLACE = 2
"""Blocks per place asked for, in `largest`: more make its first pass longer, fewer leave more to the second."""
_PRODUCT_MAX = 1_000_000
"""Multiplications that OpenBLAS does in one go without first copying both matrices into its own layout; the copy of
20,000 ads takes a third of the time of their product with 16 people (measured)."""


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
    one = np.ones((len(interest), 1), dtype=np.float32)
    nearness = _product(shelf.vectors, np.ascontiguousarray(np.hstack([interest, one]).T))
    if fresh := round(shares.fresh * count):
        nearness[shelf.by_start[-fresh:]] = np.inf
    drawn = _draws(seeds, round(shares.random * count), among)
    nearness[drawn, np.arange(len(seeds))[:, None]] = np.inf
    chosen = largest(nearness, count)
    if control is not None:
        for person in np.flatnonzero(control).tolist():
            chosen[person] = _sample(seeds[person : person + 1], count, among)
    return shelf.slots[chosen]


def _product(ads: Vectors, people: Vectors) -> Vectors:
    """``ads [N, K]`` times ``people [K, B]``, ``[N, B]``, some hundred ads at a time: see `_PRODUCT_MAX`."""
    among, width = ads.shape
    out = np.empty((among, people.shape[1]), dtype=np.float32)
    rows = max(_PRODUCT_MAX // people.size, 1)
    cut = among - among % rows
    np.matmul(ads[:cut].reshape(-1, rows, width), people, out=out[:cut].reshape(-1, rows, people.shape[1]))
    np.matmul(ads[cut:], people, out=out[cut:])
    return out


def largest(values: Vectors, count: int) -> Slots:
    """Places of the ``count`` largest of each column of ``values [N, B]``, ``[B, count]`` ascending.

    Of equal values the first. Exact, and many times as fast as a partition of whole columns: a column is cut into
    blocks, and as many blocks as are asked for have a maximum at or above the ``count``-th largest of the blocks'
    maxima, so no smaller value can be among the largest. A handful more than ``count`` pass; those alone are sorted
    out.
    """
    among, people = values.shape
    deep = max(among // (_BLOCKS_PER_PLACE * count), 1)
    blocks = among // deep
    peaks = values[: deep * blocks].reshape(deep, blocks, people).max(axis=0)
    bound = np.partition(peaks.T, blocks - count, axis=1)[:, blocks - count]
    crowded = (peaks >= bound).sum(axis=0) > 2 * count - count // 2
    if crowded.any():
        return _largest_of_some_crowded(values, count, crowded, bound)
    passes = np.empty(values.shape, dtype=np.bool_)
    cut = deep * blocks  # as rows of all blocks: a comparison of a few people at a time would be loop, not work
    np.greater_equal(values[:cut].reshape(deep, -1), np.tile(bound, blocks), out=passes[:cut].reshape(deep, -1))
    passes[cut:] = values[cut:] >= bound
    passed = np.flatnonzero(passes)
    place, person = np.divmod(passed, people)
    person = person.astype(np.min_scalar_type(people))
    order = np.argsort(person, kind="stable")
    counts = np.bincount(person, minlength=people)
    held = np.arange(counts.max()) < counts[:, None]
    ragged = np.full(held.shape, -np.inf, dtype=np.float32)  # person after person, each in order of place
    ragged[held] = values.ravel()[passed[order]]
    least = np.partition(ragged, held.shape[1] - count, axis=1)[:, held.shape[1] - count, None]
    above, equal = ragged > least, ragged == least
    chosen = above | (equal & (equal.cumsum(axis=1) <= count - above.sum(axis=1, keepdims=True)))
    kept: Slots = place[order][chosen[held]].reshape(people, count)
    return kept


def _largest_of_some_crowded(values: Vectors, count: int, crowded: npt.NDArray[np.bool_], bound: Vectors) -> Slots:
    """`largest`, where so many of the ``crowded [B]`` columns' values equal their ``bound [B]`` that all would pass it.

    So it is for a person of whom nothing is known, in a shop where all bids are equal.
    """
    chosen = np.empty((len(crowded), count), dtype=np.int64)
    if not crowded.all():
        chosen[~crowded] = largest(np.ascontiguousarray(values[:, ~crowded]), count)
    for person in np.flatnonzero(crowded).tolist():
        column, least = values[:, person].copy(), bound[person]
        kept = column > least
        if (above := int(kept.sum())) > count:
            least = np.partition(column, len(column) - count)[len(column) - count]
            kept = column > least
            above = int(kept.sum())
        kept[np.flatnonzero(column == least)[: count - above]] = True
        chosen[person] = np.flatnonzero(kept)
    return chosen


def _draws(seeds: npt.NDArray[np.uint64], count: int, among: int) -> npt.NDArray[np.int64]:
    """``[B, count]`` places below ``among``, from each seed's own sequence; a repeat leaves room for a near ad."""
    steps = np.arange(1, count + 1, dtype=np.uint64)
    return (mix64(mix64(seeds)[:, None] + steps) % np.uint64(among)).astype(np.int64)


def _sample(seed: npt.NDArray[np.uint64], count: int, among: int) -> Slots:
    """``count`` different places below ``among``, ascending, every set as likely: the first that ``seed [1]`` draws."""
    length = 2 * count
    while True:
        drawn = _draws(seed, length, among)[0]
        first = np.unique(drawn, return_index=True)[1]
        if len(first) >= count:
            return np.sort(drawn[np.sort(first)[:count]])
        length *= 2  # seldom: only where nearly all places are asked for
