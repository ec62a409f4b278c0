"""Stable 64-bit ids, and a vectorised map from them to array slots.

Python's own ``hash`` of a string changes with every process; state and models outlive processes, so ids are
XXH3 (https://xxhash.com), which is the same on every machine.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from scoring.arrays import Floats, Ids, Ints

EMPTY = np.uint64(0)
"""The id that no thing has: it marks a free place in rings and maps."""

MISSING = -1
"""The slot of an id that a map does not hold."""


def id64(text: str | bytes) -> int:
    """The 64-bit id of ``text``; never `EMPTY`."""
    return xxhash.xxh3_64_intdigest(text.encode() if isinstance(text, str) else text) or 1


def id64s(texts: Sequence[str]) -> Ids:
    """`id64` of each text, ``[N]``."""
    ids = np.fromiter(map(xxhash.xxh3_64_intdigest, map(str.encode, texts)), dtype=np.uint64, count=len(texts))
    ids[ids == EMPTY] = 1
    return ids


def mix64(values: Ids) -> Ids:
    """The finaliser of SplitMix64 (Steele, Lea & Flood, 2014): a bijection whose outputs look independent.

    A draw that is a pure function of (seed, id) needs no generator object, does not depend on the order in
    which candidates stand, and is repeated exactly by whoever holds the receipt.
    """
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(values: Ids) -> Floats:
    """Uniform draws in (0, 1), one for each 64-bit value: its 52 high bits after `mix64`.

    With 53 the half that keeps 0 out would round the largest draw up to 1.
    """
    return ((mix64(values) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def places_in(ids: npt.NDArray[np.integer], asked: npt.NDArray[np.integer]) -> Ints:
    """Places of ``asked``, any shape, in ``ids [N]``, which ascend; `MISSING` where it is not among them."""
    if not len(ids):
        return np.full(asked.shape, MISSING, dtype=np.int64)
    at = np.minimum(np.searchsorted(ids, asked), len(ids) - 1)
    return np.where(ids[at] == asked, at, MISSING)


class IdMap:
    """Open addressing with linear probing from 64-bit id to slot, looked up in arrays.

    Ids are already hashes, so an id's low bits are its home. At most half full, so a look-up of n ids is a handful of
    passes over n elements, and no Python object. The place of a dropped id stays taken until the map is laid out anew,
    so it grows with the ids that it holds, not with those that it ever held.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._clear(1 << max(4, (2 * capacity - 1).bit_length()))

    def _clear(self, size: int) -> None:
        self._ids = np.zeros(size, dtype=np.uint64)
        self._slots = np.full(size, MISSING, dtype=np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of the two arrays."""
        return self._ids.nbytes + self._slots.nbytes

    def set(self, key: int, slot: int) -> None:
        """Map ``key`` (not `EMPTY`) to ``slot``, replacing what it mapped to."""
        if 2 * (self._count + 1) > len(self._ids):
            held = self._slots != MISSING
            ids, slots = self._ids[held], self._slots[held]
            self._clear(len(self._ids) * (2 if 4 * len(ids) > len(self._ids) else 1))
            for old_key, old_slot in zip(ids.tolist(), slots.tolist(), strict=True):
                self._place(old_key, old_slot)
        self._place(key, slot)

    def _place(self, key: int, slot: int) -> None:
        mask = len(self._ids) - 1
        at = key & mask
        while self._ids[at] != EMPTY and self._ids[at] != key:
            at = (at + 1) & mask
        self._count += int(self._ids[at] == EMPTY)
        self._ids[at] = key
        self._slots[at] = slot

    def drop(self, keys: Ids) -> None:
        """Forget ``keys [N]``, which the map holds."""
        for key in keys.tolist():
            self._place(key, MISSING)

    def get(self, keys: Ids) -> Ints:
        """Slots of ``keys`` (any shape); `MISSING` where the map does not hold the key."""
        flat = keys.ravel()
        mask = np.uint64(len(self._ids) - 1)
        at = (flat & mask).astype(np.int64)
        found = np.where(flat == EMPTY, EMPTY, self._ids[at])
        slots = np.where(found == flat, self._slots[at], MISSING)
        open_ = np.flatnonzero((found != flat) & (found != EMPTY))
        while len(open_):  # ends: the map is at most half full, so every probe meets an empty place
            at[open_] = (at[open_] + 1) & int(mask)
            found_open = self._ids[at[open_]]
            hit = found_open == flat[open_]
            slots[open_[hit]] = self._slots[at[open_[hit]]]
            open_ = open_[~hit & (found_open != EMPTY)]
        slots[flat == EMPTY] = MISSING
        return slots.reshape(keys.shape)
