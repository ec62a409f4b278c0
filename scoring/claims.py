"""Which events answer an impression that never was.

A click, view, cart or purchase that names the time of the impression it answers makes a claim, and the ring holds
the impressions that prove one. A claim is *unproven* where the ring holds no such impression although it would: the
claim is not older than the oldest of a full ring. Within a batch the answer is that of one event after another.
"""

from bisect import insort
from collections import Counter

import numpy as np
import numpy.typing as npt

from scoring.events import Events, Source
from scoring.ids import IdArray, mix64
from scoring.rows import RING_SIZE, SHOWN_BIT, Rows

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
_NEVER = np.uint64(2**64 - 1)


def ring_key(seconds: npt.NDArray[np.uint32], ad: IdArray) -> IdArray:
    """What a ring is sorted by: seconds, then the id's high half. Any shape."""
    return (seconds.astype(np.uint64) << np.uint64(32)) | (ad >> np.uint64(32))


def judge(rows: Rows, events: Events) -> tuple[Bools, Bools]:
    """Unproven, and undecided, of ``events [E]``, in order; both are false of what is proven or claims nothing.

    Undecided is a claim near the old end of a ring, which this very batch may have pushed out: `one_by_one` tells.
    """
    unproven, undecided = np.zeros(len(events), dtype=bool), np.zeros(len(events), dtype=bool)
    claims = np.flatnonzero(events["answers"])
    row, ad = events["row"][claims], events["ad"][claims]
    seconds = (events["shown_ms"][claims] // 1000).astype(np.uint32)
    same = (rows["ring_ad"][row] == ad[:, None]) & (rows["ring_s"][row] == seconds[:, None])
    proven = (same & (rows["ring_kind"][row] >= SHOWN_BIT)).any(axis=1)
    if proven.all():
        return unproven, undecided
    proven |= _shown_before(events, claims)
    open_ = np.flatnonzero(~proven)
    claims, row, key = claims[open_], row[open_], ring_key(seconds[open_], ad[open_])
    before = _before(events["row"], claims)
    oldest = ring_key(rows["ring_s"][row, 0], rows["ring_ad"][row, 0])
    at = np.minimum(before, RING_SIZE - 1)
    # Each event before it may have pushed out one more of the ring's oldest, or none.
    pushed = np.where(before < RING_SIZE, ring_key(rows["ring_s"][row, at], rows["ring_ad"][row, at]), _NEVER)
    unproven[claims] = key >= pushed
    undecided[claims] = (key >= oldest) & (key < pushed)
    return unproven, undecided


def _shown_before(events: Events, claims: Ints) -> Bools:
    """Whether an impression before it in the batch proves each claim."""
    user, seconds = events["row"].astype(np.uint64), (events["shown_ms"] // 1000).astype(np.uint64)
    what = mix64(user) ^ mix64(events["ad"] ^ mix64(seconds))
    shown = np.flatnonzero(events["source"] == Source.IMPRESSION)
    if not len(shown):
        return np.zeros(len(claims), dtype=bool)
    known, first = np.unique(what[shown], return_index=True)
    at = np.minimum(np.searchsorted(known, what[claims]), len(known) - 1)
    before: Bools = (known[at] == what[claims]) & (shown[first[at]] < claims)
    return before


def _before(row: npt.NDArray[np.int32], chosen: Ints) -> Ints:
    """How many events of its row come before each chosen one in the batch."""
    order = np.argsort(row, kind="stable")
    place = np.empty(len(row), dtype=np.int64)
    place[order] = np.arange(len(row)) - np.searchsorted(row[order], row[order])
    return place[chosen]


def one_by_one(ring: Rows, events: Events, day: Ints, allowed: Ints) -> list[bool]:
    """Unproven of the events of one row, in order; ``ring`` is the row before them.

    ``allowed [E]``: how many unproven ones may still pass on each event's ``day [E]``; those that do not enter no ring.
    """
    ads = ring["ring_ad"]
    ring_entries = list(zip(ring_key(ring["ring_s"], ads).tolist(), ads.tolist(), strict=True))
    proofs = {entry for entry, kind in zip(ring_entries, ring["ring_kind"].tolist(), strict=True) if kind >= SHOWN_BIT}
    held = set(ring_entries)  # a list of pairs takes a microsecond to look through
    keys = ring_key((events["shown_ms"] // 1000).astype(np.uint32), events["ad"])
    columns = (keys, events["ad"], events["answers"], events["source"] == Source.IMPRESSION, day, allowed)
    spent: Counter[int] = Counter()
    unproven = []
    for key, ad, claims, shown, today, most in zip(*(column.tolist() for column in columns), strict=True):
        entry = (key, ad)
        unproven.append(claims and entry not in proofs and key >= ring_entries[0][0])
        spent[today] += unproven[-1]
        if unproven[-1] and spent[today] > most:
            continue
        if entry not in held:
            insort(ring_entries, entry)
            held.add(entry)
            pushed = ring_entries.pop(0)
            held.discard(pushed)
            proofs.discard(pushed)
        if shown and entry in held:
            proofs.add(entry)
    return unproven
