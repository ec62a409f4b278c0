"""The ring: the newest `RING_SIZE` items that a person was shown or attended to, and what came of each.

An entry is (time of the impression, or the event's own time where it answers none; item), with the strongest `Kind`
that happened, the strongest that named the impression, and whether the impression itself was among it. Union, strongest
kind and "newest 50" commute, so the ring is a join-semilattice: it does not depend on how a stream is cut into batches,
and a click joins its impression whichever comes second.
"""

from functools import reduce
from operator import or_

import numpy as np
import numpy.typing as npt

from scoring.rows import ANSWER_MASK, KIND_MASK, RING_SIZE, SHOWN_BIT, Kinds, Rows

_FEW = 4
"""Rows with at most this many new entries merge in narrow arrays; hot users in arrays twice the ring's size."""
_FIELDS = (KIND_MASK, ANSWER_MASK, SHOWN_BIT)
"""Of ``ring_kind``: entries are joined by the maximum of each."""

Ids = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.uint32]


def remember(rows: Rows, row: Ints, ad: Ids, seconds: Seconds, kind: Kinds) -> None:
    """Put entries ``[E]`` in the rings of ``row [E]``, in place; order of the entries does not matter.

    ``kind`` is as in ``ring_kind``.
    """
    if not len(row):
        return
    order = np.lexsort((ad, seconds, row))
    row, ad, seconds = row[order], ad[order], seconds[order]
    fresh = np.ones(len(row), dtype=bool)
    fresh[1:] = (row[1:] != row[:-1]) | (seconds[1:] != seconds[:-1]) | (ad[1:] != ad[:-1])
    first = np.flatnonzero(fresh)
    kind = kind[order]
    kind = reduce(or_, (np.maximum.reduceat(kind & of, first) for of in _FIELDS))
    row, ad, seconds = row[first], ad[first], seconds[first]
    joined = _join(rows, row, ad, seconds, kind)
    _insert(rows, row[~joined], ad[~joined], seconds[~joined], kind[~joined])


def _join(rows: Rows, row: Ints, ad: Ids, seconds: Seconds, kind: Kinds) -> npt.NDArray[np.bool_]:
    """Raise the kind of entries that are there already; true where one was."""
    same = (rows["ring_ad"][row] == ad[:, None]) & (rows["ring_s"][row] == seconds[:, None])
    place = same.argmax(axis=1)
    joined: npt.NDArray[np.bool_] = same[np.arange(len(row)), place]
    at = row[joined], place[joined]
    was, now = rows["ring_kind"][at], kind[joined]
    rows["ring_kind"][at] = reduce(or_, (np.maximum(was & of, now & of) for of in _FIELDS))
    return joined


def _insert(rows: Rows, row: Ints, ad: Ids, seconds: Seconds, kind: Kinds) -> None:
    """Merge new entries, sorted by (row, seconds, ad), into the rings."""
    if not len(row):
        return
    _, start, count = np.unique(row, return_index=True, return_counts=True)
    from_end = np.repeat(start + count, count) - np.arange(len(row))  # 1 for a row's newest entry
    count = np.repeat(count, count)
    for chosen, width in (((count <= _FEW), _FEW), ((count > _FEW) & (from_end <= RING_SIZE), RING_SIZE)):
        if chosen.any():
            _merge(rows, row[chosen], width - from_end[chosen], width, ad[chosen], seconds[chosen], kind[chosen])


def _merge(rows: Rows, row: Ints, column: Ints, width: int, ad: Ids, seconds: Seconds, kind: Kinds) -> None:
    """Sort each ring with its new entries (put at ``column`` of ``width`` further places) and keep the newest."""
    users, user = np.unique(row, return_inverse=True)
    ads = np.zeros((len(users), RING_SIZE + width), dtype=np.uint64)
    times = np.zeros(ads.shape, dtype=np.uint32)
    kinds = np.zeros(ads.shape, dtype=np.uint8)
    for wide, name, new in ((ads, "ring_ad", ad), (times, "ring_s", seconds), (kinds, "ring_kind", kind)):
        wide[:, :RING_SIZE] = rows[name][users]
        wide[user, RING_SIZE + column] = new
    # Ties in seconds are ordered by the id's high half; empty places (0, 0) sort first and fall off.
    key = (times.astype(np.uint64) << np.uint64(32)) | (ads >> np.uint64(32))
    newest = np.argsort(key, axis=1, kind="stable")[:, width:]
    for wide, name in ((ads, "ring_ad"), (times, "ring_s"), (kinds, "ring_kind")):
        rows[name][users] = np.take_along_axis(wide, newest, axis=1)
