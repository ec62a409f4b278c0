"""The ring: the newest `RING_SIZE` items that a person was shown or attended to, and what came of each.

An entry's key is (time of the impression, or the event's own time where it answers none; item). It holds the strongest
`Kind` that happened, the strongest that named the impression, whether the impression itself has come, and the place
(the largest number, should they differ). Union, maximum and "newest 50" commute, so the ring is a join-semilattice: it
does not depend on how a stream is cut into batches, and a click joins its impression whichever comes second.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ids, Ints
from scoring.events import Events, Source
from scoring.rows import (
    ANSWER_MASK,
    ANSWER_SHIFT,
    KIND_MASK,
    PLACES,
    RING_SIZE,
    SHOWN_BIT,
    Rows,
    held,
    packed,
    place_of,
    places_of,
    ring_key,
)
from scoring.runs import begins, runs

_FEW = 4
"""Rows with at most this many new entries merge in narrow arrays; hot users in arrays twice the ring's size."""
PLACE_SHIFT = 8
"""In what an entry tells, its place stands above its ``ring_kind``, by this many bits."""
_FIELDS = (KIND_MASK, ANSWER_MASK, SHOWN_BIT, PLACES << PLACE_SHIFT)
"""The fields of what entries tell: entries are joined by the maximum of each field."""

Seconds = npt.NDArray[np.uint32]
Told = npt.NDArray[np.uint16]


def told_of(ring_kind: npt.NDArray[Any], place: npt.NDArray[np.uint8]) -> Told:
    """What entries tell: ``ring_kind`` and `scoring.rows.place_of` in one number; both of one shape."""
    told: Told = ring_kind.astype(np.uint16) + place * np.uint16(1 << PLACE_SHIFT)
    return told


@dataclass(frozen=True, slots=True)
class Entries:
    """What a turn of events puts into rings, ``[N]`` each: sorted by row, seconds and ad, none of which comes twice."""

    row: Ints
    ad: Ids
    seconds: Seconds
    told: Told  # as `told_of` gives it

    @classmethod
    def by_turn(cls, turn: Ints, row: Ints, ad: Ids, seconds: Seconds, told: Told) -> Iterator[Self]:
        """Each turn's, from entries ``[E]`` of which several may be of one row, second and ad; their order is free.

        ``turn [E]``: numbers from 0, none left out.
        """
        if not len(turn):
            return
        order = np.lexsort((ad, seconds, row, turn))
        turn, row, ad, seconds, told = turn[order], row[order], ad[order], seconds[order], told[order]
        first = np.flatnonzero(begins(turn, row, seconds, ad))
        told = reduce(or_, (np.maximum.reduceat(told & of, first) for of in _FIELDS))
        edges = np.flatnonzero(begins(turn[first]))[1:]
        yield from map(cls, *(np.split(each, edges) for each in (row[first], ad[first], seconds[first], told)))


def entries_of(events: Events, row: Ints, turn: Ints) -> Iterator[Entries]:
    """What ``events [E]`` that passed the rules put into the rings of ``row [E]``, for each ``turn [E]``."""
    answer = np.where(events["answers"], events["kind"] << ANSWER_SHIFT, 0)
    shown = np.where(events["source"] == Source.IMPRESSION, SHOWN_BIT, 0)
    told = told_of(events["kind"] | answer | shown, place_of(events["surface"]))
    return Entries.by_turn(turn, row, events["ad"], (events["shown_ms"] // 1000).astype(np.uint32), told)


def remember(rows: Rows, entries: Entries) -> None:
    """Put entries into the rings of their rows, in place."""
    row, ad, seconds, told = entries.row, entries.ad, entries.seconds, entries.told
    new = ~_join(rows, row, ad, seconds, told)
    _insert(rows, row[new], ad[new], seconds[new], told[new])


def _join(rows: Rows, row: Ints, ad: Ids, seconds: Seconds, told: Told) -> Bools:
    """Join entries with those that rings hold already; true where a ring held one."""
    same = held(rows, row, ad, seconds)
    place = same.argmax(axis=1)
    joined: Bools = same[np.arange(len(row)), place]
    if joined.any():
        users, user = np.unique(row[joined], return_inverse=True)
        tell, at = _told(rows, users), (user, place[joined])
        was, now = tell[at], told[joined]
        tell[at] = reduce(or_, (np.maximum(was & of, now & of) for of in _FIELDS))
        _tell(rows, users, tell)
    return joined


def _told(rows: Rows, users: Ints) -> Told:
    """What the entries of ``users [U]`` tell, ``[U, RING_SIZE]``."""
    return told_of(rows["ring_kind"][users], places_of(rows["ring_place"][users]))


def _tell(rows: Rows, users: Ints, told: Told) -> None:
    """Set what the entries of ``users [U]`` tell."""
    rows["ring_kind"][users] = told.astype(np.uint8)  # the lower byte
    rows["ring_place"][users] = packed((told >> PLACE_SHIFT).astype(np.uint8))


def _insert(rows: Rows, row: Ints, ad: Ids, seconds: Seconds, told: Told) -> None:
    """Merge new entries, sorted by (row, seconds, ad), into the rings."""
    if not len(row):
        return
    start, count = runs(row)
    from_end = np.repeat(start + count, count) - np.arange(len(row))  # 1 for a row's newest entry
    count = np.repeat(count, count)
    for chosen, width in (((count <= _FEW), _FEW), ((count > _FEW) & (from_end <= RING_SIZE), RING_SIZE)):
        if chosen.any():
            _merge(rows, row[chosen], width - from_end[chosen], width, ad[chosen], seconds[chosen], told[chosen])


def _merge(rows: Rows, row: Ints, column: Ints, width: int, ad: Ids, seconds: Seconds, told: Told) -> None:
    """Sort each ring with its new entries (put at ``column`` of ``width`` further places) and keep the newest."""
    first = begins(row)
    users, user = row[first], np.cumsum(first) - 1
    ads = np.zeros((len(users), RING_SIZE + width), dtype=np.uint64)
    times = np.zeros(ads.shape, dtype=np.uint32)
    tell = np.zeros(ads.shape, dtype=np.uint16)
    ads[:, :RING_SIZE], times[:, :RING_SIZE] = rows["ring_ad"][users], rows["ring_s"][users]
    tell[:, :RING_SIZE] = _told(rows, users)
    at = user, RING_SIZE + column
    ads[at], times[at], tell[at] = ad, seconds, told
    newest = np.arange(len(users))[:, None], np.argsort(ring_key(times, ads), axis=1, kind="stable")[:, width:]
    rows["ring_ad"][users], rows["ring_s"][users] = ads[newest], times[newest]
    _tell(rows, users, tell[newest])
