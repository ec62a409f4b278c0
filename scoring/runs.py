"""Runs of equal values in arrays sorted by them: what is done for each user or ad of a batch without a loop."""

from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ints

Keys = npt.NDArray[np.number]


def begins(*keys: Keys) -> Bools:
    """Whether a run begins at each place of ``keys [N]``: the first, and wherever one of them is another than before.

    ``np.diff(key, prepend=…) != 0`` takes three times as long, since it copies the array, and needs a value that no key
    has.
    """
    first, *others = keys
    out = np.ones(len(first), dtype=np.bool_)
    np.not_equal(first[1:], first[:-1], out=out[1:])
    for key in others:
        out[1:] |= key[1:] != key[:-1]
    return out


def runs(*keys: Keys) -> tuple[Ints, Ints]:
    """Where each run begins, and how many places it has, ``[R]`` each."""
    start = begins(*keys).nonzero()[0]
    count = np.empty_like(start)
    count[:-1] = start[1:] - start[:-1]
    count[-1:] = len(keys[0]) - start[-1:]
    return start, count


def within(running: npt.NDArray[Any], *keys: Keys) -> npt.NDArray[Any]:
    """``running [N, …]`` less what it is where each place's run of ``keys [N]`` begins."""
    start, count = runs(*keys)
    since: npt.NDArray[Any] = running - np.repeat(running[start], count, axis=0)
    return since
