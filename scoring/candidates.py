"""Which ads are worth scoring for a person: nearest to their interest, pinned, some of the newest, some at random."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ids, Ints
from scoring.catalogue import Catalogue
from scoring.ids import MISSING, mix64, places_in
from scoring.shelf import Shelf

Slots = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

PRODUCTS_TOGETHER = 1_280_000
"""Products of ads and people made per step, 5 MB: they are still in the processor's cache when they are searched, and
with many people each ad is read from memory once. Smaller steps need more numpy calls."""
_BLOCK_MAX, _BLOCKS_PER_PLACE = 32, 4
"""Most ads in a block, whose nearest is looked at before the others, and blocks per ad asked for, where there are ads
enough. Larger blocks make the first look shorter, and leave more to the second."""
_KEPT_MAX = 2
"""Ads that `_Search` keeps per ad asked for before it drops the surplus."""
_PRODUCT_MAX = 1_000_000
"""Multiplications up to which OpenBLAS does not first copy both matrices into its own layout; the copy of 20,000 ads
takes a third of the time of their product with 16 people (measured)."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How many candidates, and which shares of them are fresh and random rather than near.

    Where both shares together exceed 1, fewer are random.
    """

    count: int = 100
    fresh: float = 0.05
    random: float = 0.10


def choose(
    catalogue: Catalogue,
    interest: Vectors,
    seeds: Ids,
    now_ms: int,
    shares: Shares,
    control: Bools | None = None,
    pinned: Slots | None = None,
    barred: Bools | None = None,
) -> Slots:
    """Catalogue slots of the candidates of each person, ``[B, C]`` without repeats, in slot order.

    ``interest [B, K]``, ``seeds [B]``. C is ``shares.count`` or, where fewer are eligible, all of them. The nearest
    have the largest product of feature vector and interest; the newest have the latest start, and of those that started
    together each seed has its own; the random ones depend on the seed alone. People in ``control [B]`` (None: nobody)
    get random ads alone, each as likely, and pinned ones. ``pinned [P]`` (None: none), at most C, are catalogue slots
    of ads that everybody gets if they may be shown: the rules give them a slot of the placement, which only a candidate
    can take. Ads that are ``barred [len(catalogue)]`` (None: none; see `scoring.market.Market.barred`) take no place
    that another could have: they are candidates only where all others are, so that the receipt of a placement with
    empty slots tells what kept them empty.
    """
    shelf = catalogue.shelf(now_ms)
    count = min(shares.count, len(shelf.slots))
    if count == len(shelf.slots):
        return np.broadcast_to(shelf.slots, (len(interest), count))
    if barred is not None:
        left = catalogue.open_shelf(now_ms, barred)
        if len(left.slots) < count:
            pinned = left.slots
        else:
            shelf = left
    among = len(shelf.slots)
    one = np.ones((len(interest), 1), dtype=np.float32)
    sure = _on(shelf, pinned)
    newest = min(round(shares.fresh * count), count - len(sure))
    drawn = min(round(shares.random * count), count - len(sure) - newest)  # more would shut out the ads marked last
    alike = np.broadcast_to(sure, (len(interest), len(sure)))
    marked = np.hstack([alike, _newest(shelf, seeds, newest), _draws(seeds, drawn, among)])
    chosen = nearest(shelf.vectors, np.hstack([interest, one]), marked, count)
    if control is not None:
        for person in np.flatnonzero(control).tolist():
            chosen[person] = _sample(seeds[person : person + 1], count, among, sure)
    return shelf.slots[chosen]


def _on(shelf: Shelf, pinned: Slots | None) -> Slots:
    """Places of ``pinned`` catalogue slots on the shelf; those that it lacks are left out."""
    if pinned is None:
        return np.zeros(0, dtype=np.int64)
    places = places_in(shelf.slots, pinned)
    on: Slots = places[places != MISSING]
    return on


def _newest(shelf: Shelf, seeds: Ids, count: int) -> Slots:
    """Places ``[B, count]`` on the shelf, which has more, of the ads that started last, none twice.

    Where not all that started together find room, they are parted as evenly as can be, beginning with one that the
    seed draws, and one of each part is drawn: each ad is as likely. Else the same few of a season's launch would be
    everybody's candidates.
    """
    edge = len(shelf.slots) - count
    if not count or shelf.starts[edge - 1] < shelf.starts[edge]:
        return np.broadcast_to(shelf.by_start[edge:], (len(seeds), count))
    first, after = (int(np.searchsorted(shelf.starts, shelf.starts[edge], side)) for side in ("left", "right"))
    together, room = after - first, after - edge
    ends = np.arange(room + 1) * together // room
    drawn = mix64(_numbers(seeds, room + 1))  # not the numbers that draw the random ads
    turn, inside = drawn[:, :1] % np.uint64(together), drawn[:, 1:] % np.diff(ends).astype(np.uint64)
    of_edge = shelf.by_start[first + (ends[:-1] + (turn + inside).astype(np.int64)) % together]
    later = shelf.by_start[after:]
    return np.hstack([of_edge, np.broadcast_to(later, (len(seeds), len(later)))])


def nearest(ads: Vectors, people: Vectors, marked: Slots, count: int, *, together: int = PRODUCTS_TOGETHER) -> Slots:
    """Places ``[B, count]`` of the ``ads [N, K]`` that have the largest products with ``people [B, K]``.

    Places ascend; of equal products the first count. Places ``marked [B, M]`` come before all others; ``count`` is at
    most N. The search is exact. For many people and ads it takes half the time of partitioning all products, and its
    memory does not grow with the ads: it makes ``together`` products at a time, and keeps an ad only if it is nearer
    than the ``count``-th nearest before it.
    """
    search = _Search(people, marked, count)
    step = max(together // len(people), 1)
    for start in range(0, len(ads), step):
        search.look(ads[start : start + step], start)
    return search.found()


class _Search:
    """The ``count`` nearest to each of B people among the ads looked at so far, and perhaps some more."""

    def __init__(self, people: Vectors, marked: Slots, count: int) -> None:
        self._people, self._count = np.ascontiguousarray(people.T), count
        order = np.argsort(marked, axis=None)
        self._marked, self._marked_by = marked.ravel()[order], order // max(marked.shape[1], 1)
        self._least = np.full(len(people), np.finfo(np.float32).min)  # [B] what a later ad must reach
        self._kept: list[tuple[Slots, Slots, Vectors]] = []  # person, place, product: each person's in order of place

    def look(self, ads: Vectors, start: int) -> None:
        """Look at ``ads [S, K]``, whose places begin with ``start``."""
        deep = min(_BLOCK_MAX, max(len(ads) // (_BLOCKS_PER_PLACE * self._count), 1))
        values = _product(ads, self._people, deep)
        first, last = np.searchsorted(self._marked, (start, start + len(ads)))
        values[self._marked[first:last] - start, self._marked_by[first:last]] = np.inf
        person, place, value = self._passing(values, deep)
        self._kept.append((person, place + start, value))
        if sum(len(each) for each, _, _ in self._kept) > _KEPT_MAX * self._count * len(self._least):
            self._settle()

    def found(self) -> Slots:
        """Places of the nearest ads, ``[B, count]`` ascending."""
        self._settle()
        return self._kept[0][1].reshape(-1, self._count)

    def _passing(self, values: Vectors, deep: int) -> tuple[Slots, Slots, Vectors]:
        """Those of ``values [S, B]`` that may be among the largest: their people, places in order, and values.

        ``S`` is a multiple of ``deep``, a block's size. The largest value of each block is compared first. Where many
        more pass than can be chosen, as all of the first ads do, the threshold rises.
        """
        people, count = len(self._least), self._count
        layers = values.reshape(deep, -1)  # each column is a block of one person
        peaks, least = layers.max(axis=0).reshape(-1, people), self._least
        near = peaks >= least
        if near.sum(axis=0).max() > 2 * count:
            least = self._raise(values, peaks)
            near = peaks >= least
        column = np.flatnonzero(near)
        block = column // people
        person = column - block * people  # by 1 byte or 2 numpy sorts several times as fast as by 8
        inside = layers.take(column, axis=1)
        passed = np.flatnonzero(inside >= least[person])
        layer = passed // max(len(column), 1)
        at = passed - layer * len(column)
        return person.astype(np.min_scalar_type(people))[at], layer * len(peaks) + block[at], inside.ravel()[passed]

    def _raise(self, values: Vectors, peaks: Vectors) -> Vectors:
        """The threshold ``[B]`` of ``values [S, B]``, by their blocks' maxima; raises that of later values above it.

        ``count`` blocks have a maximum at or above the ``count``-th largest of the maxima, so no smaller value can be
        among the largest; of the values equal to it only the first ``count`` can. Many values are equal for a person
        about whom nothing is known, in a shop where all bids are equal: most of these are struck out.
        """
        blocks, count = len(peaks), self._count
        bound = np.partition(peaks.T, blocks - count, axis=1)[:, blocks - count]
        crowded = (peaks >= bound).sum(axis=0) > 2 * count - count // 2
        for person in np.flatnonzero(crowded).tolist():
            _strike(values.reshape(-1, *peaks.shape)[:, :, person], peaks[:, person], bound[person], count)
        least = np.maximum(self._least, bound)
        self._least = np.maximum(self._least, _next(bound))
        return least

    def _settle(self) -> None:
        """Keep only each person's ``count`` largest, of equals the first, and raise the threshold for later ads."""
        people, count = len(self._least), self._count
        person, place, value = (np.concatenate(each) for each in zip(*self._kept, strict=True))
        order = np.argsort(person, kind="stable")
        counts = np.bincount(person, minlength=people)
        held = np.arange(counts.max()) < counts[:, None]
        ragged = np.full(held.shape, -np.inf, dtype=np.float32)  # a line per person
        ragged[held] = value[order]
        least = np.partition(ragged, held.shape[1] - count, axis=1)[:, held.shape[1] - count, None]
        chosen = ragged >= least
        if np.count_nonzero(chosen) > people * count:
            above, equal = ragged > least, ragged == least
            chosen = above | (equal & (equal.cumsum(axis=1) <= count - above.sum(axis=1, keepdims=True)))
        largest = order[chosen[held]]
        self._kept, self._least = [(person[largest], place[largest], value[largest])], _next(least[:, 0])


def _strike(layers: Vectors, peaks: Vectors, bound: np.float32, count: int) -> None:
    """Strike out all but the first ``count`` of the values equal to ``bound`` in one person's ``layers [·, blocks]``.

    In ``peaks [blocks]`` whole blocks are struck out; in the blocks of those first values, the other values one by one.
    """
    layer, block = np.divmod(np.flatnonzero(layers == bound)[:count], len(peaks))
    inside = layers[:, block]
    layers[:, block] = np.where(inside == bound, np.float32(-np.inf), inside)
    layers[layer, block] = bound
    peaks[peaks == bound] = -np.inf
    peaks[block] = np.maximum(peaks[block], bound)


def _product(ads: Vectors, people: Vectors, deep: int) -> Vectors:
    """``ads [N, K]`` times ``people [K, B]``, some hundred ads at a time: see `_PRODUCT_MAX`.

    Gives ``[S, B]``, where S is the next multiple of ``deep``; the rows below the products are -inf.
    """
    among, width = ads.shape
    out = np.empty((-(-among // deep) * deep, people.shape[1]), dtype=np.float32)
    out[among:] = -np.inf
    rows = max(_PRODUCT_MAX // people.size, 1)
    cut = among - among % rows
    np.matmul(ads[:cut].reshape(-1, rows, width), people, out=out[:cut].reshape(-1, rows, people.shape[1]))
    np.matmul(ads[cut:], people, out=out[cut:among])
    return out


def _next(values: Vectors) -> Vectors:
    """The least number above each of ``values``."""
    above: Vectors = np.nextafter(values, np.float32(np.inf))
    return above


def _draws(seeds: Ids, count: int, among: int) -> Ints:
    """``[B, count]`` places below ``among``, from each seed's own sequence; a repeat leaves room for a near ad."""
    return (_numbers(seeds, count) % np.uint64(among)).astype(np.int64)


def _numbers(seeds: Ids, count: int) -> Ids:
    """The first ``count`` numbers of each seed's own sequence, ``[B, count]``."""
    steps = np.arange(1, count + 1, dtype=np.uint64)
    return mix64(mix64(seeds)[:, None] + steps)


def _sample(seed: Ids, count: int, among: int, sure: Slots) -> Slots:
    """``count`` different places below ``among``, ascending: the ``sure`` ones and the first others ``seed [1]`` draws.

    Every set of others is equally likely.
    """
    length = 2 * count
    while True:
        drawn = np.concatenate([sure, _draws(seed, length, among)[0]])
        first = np.unique(drawn, return_index=True)[1]
        if len(first) >= count:
            return np.sort(drawn[np.sort(first)[:count]])
        length *= 2  # seldom: only where nearly all places are asked for
