"""Which events answer an impression that never was.

A click, view, cart or purchase that names the time of the impression it answers makes a claim, and the ring holds
the impressions that prove one. A claim is *unproven* where the ring holds no such impression although it would hold
it: the claim is not older than the oldest entry of a full ring. A batch gives the same answer as its events one by one.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ints
from scoring.events import Events, Source
from scoring.ids import MISSING, mix64, places_in
from scoring.rows import RING_SIZE, SHOWN_BIT, Rows, held, ring_key
from scoring.runs import within

_NEVER = np.uint64(2**64 - 1)


def judge(rows: Rows, events: Events) -> tuple[Bools, Bools]:
    """Which of ``events [E]``, in order, are unproven, and which undecided; neither, if proven or without a claim.

    A claim is undecided near the old end of a ring, where this batch may have pushed its proof out: see `one_by_one`.
    """
    unproven, undecided = np.zeros(len(events), dtype=bool), np.zeros(len(events), dtype=bool)
    claims = np.flatnonzero(events["answers"])
    row, ad = events["row"][claims], events["ad"][claims]
    seconds = (events["shown_ms"][claims] // 1000).astype(np.uint32)
    proven = (held(rows, row, ad, seconds) & (rows["ring_kind"][row] >= SHOWN_BIT)).any(axis=1)
    if proven.all():
        return unproven, undecided
    proven |= _shown_before(events, claims)
    open_ = np.flatnonzero(~proven)
    claims, row, key = claims[open_], row[open_], ring_key(seconds[open_], ad[open_])
    before = _before(events["row"], claims)
    oldest = ring_key(rows["ring_s"][row, 0], rows["ring_ad"][row, 0])
    at = np.minimum(before, RING_SIZE - 1)
    # Each earlier event of the row may have pushed out one more of the ring's oldest, or none.
    pushed = np.where(before < RING_SIZE, ring_key(rows["ring_s"][row, at], rows["ring_ad"][row, at]), _NEVER)
    unproven[claims] = key >= pushed
    undecided[claims] = (key >= oldest) & (key < pushed)
    return unproven, undecided


def _shown_before(events: Events, claims: Ints) -> Bools:
    """Whether an earlier impression in the batch proves each claim."""
    user, seconds = events["row"].astype(np.uint64), (events["shown_ms"] // 1000).astype(np.uint64)
    what = mix64(user) ^ mix64(events["ad"] ^ mix64(seconds))
    shown = np.flatnonzero(events["source"] == Source.IMPRESSION)
    if not len(shown):
        return np.zeros(len(claims), dtype=bool)
    known, first = np.unique(what[shown], return_index=True)
    at = places_in(known, what[claims])
    before: Bools = (at != MISSING) & (shown[first[at]] < claims)
    return before


def _before(row: npt.NDArray[np.int32], chosen: Ints) -> Ints:
    """For each chosen event, how many events of its row come before it in the batch."""
    order = np.argsort(row, kind="stable")
    place = np.empty(len(row), dtype=np.int64)
    place[order] = within(np.arange(len(row)), row[order])
    return place[chosen]


def one_by_one(ring: Rows, events: Events, day: Ints, allowed: Ints) -> list[bool]:
    """Which events of one row, in order, are unproven; ``ring`` is the row before them.

    ``allowed [E]``: how many unproven ones may still pass on each event's ``day [E]``; the others do not enter the
    ring. Entries go by their rank among all that are in the ring or may enter it. Each that enters pushes out the
    oldest, so the ring holds what has entered from the rank of its oldest on, and that rank only rises.
    """
    key, rank = _ranked(ring, events)
    entered, proofs = bytearray(len(key)), bytearray(len(key))
    for at, kind in zip(rank[:RING_SIZE], ring["ring_kind"].tolist(), strict=True):
        entered[at], proofs[at] = True, kind >= SHOWN_BIT
    oldest = entered.index(True)
    columns = (events["answers"], events["source"] == Source.IMPRESSION, day, allowed)
    spent: Counter[int] = Counter()
    unproven = []
    for at, claims, shown, today, most in zip(rank[RING_SIZE:], *(column.tolist() for column in columns), strict=True):
        doubted = claims and not (proofs[at] and at >= oldest) and key[at] >= key[oldest]
        unproven.append(doubted)
        if doubted:
            spent[today] += 1
            if spent[today] > most:
                continue
        if at > oldest and not entered[at]:
            entered[at] = True
            oldest = entered.index(True, oldest + 1)
        if shown and at >= oldest:
            proofs[at] = True
    return unproven


def pushed_out(ring: Rows, events: Events) -> list[bool]:
    """Whether the ring is full of newer entries once each event of one row, in order, has come; all enter the ring.

    ``ring``: the row before them. As in `one_by_one`, the rank of the oldest only rises.
    """
    _, rank = _ranked(ring, events)
    entered = bytearray(max(rank) + 1)
    for at in rank[:RING_SIZE]:
        entered[at] = True
    oldest = entered.index(True)
    out = []
    for at in rank[RING_SIZE:]:
        if at > oldest and not entered[at]:
            entered[at] = True
            oldest = entered.index(True, oldest + 1)
        out.append(at < oldest)
    return out


def _ranked(ring: Rows, events: Events) -> tuple[list[int], list[int]]:
    """`ring_key` by rank, and the ranks of the ring's places and then of ``events [E]``; the oldest rank first.

    Equal entries share a rank, except places of the ring, which may be empty.
    """
    ad = np.concatenate([ring["ring_ad"], events["ad"]])
    key = ring_key(np.concatenate([ring["ring_s"], (events["shown_ms"] // 1000).astype(np.uint32)]), ad)
    order = np.lexsort((ad, key))  # stable: where an event is in the ring already, the ring's place comes first
    key, ad, first = key[order], ad[order], np.ones(len(order), dtype=bool)
    first[1:] = (order[1:] < RING_SIZE) | (key[1:] != key[:-1]) | (ad[1:] != ad[:-1])
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.cumsum(first) - 1
    return key[first].tolist(), rank.tolist()
