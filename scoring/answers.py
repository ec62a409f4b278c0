"""Which events are the first to click an impression, or to buy from it: click rates count impressions, not events.

One click sent twice under two ids, or made twice by an impatient person, is one click: else an arm whose pages are slow
would be clicked more, and an ad whose clients send two would seem liked. Whoever puts into the cart or buys has
clicked. The ring says how far an impression has come. It forgets: what is older than all of a full ring counts for as
much as the event itself says, each time. That depends on the order of a row's events, not on where a batch ends.
"""

from typing import NamedTuple

import numpy as np

from scoring.arrays import Bools, Ids, Ints
from scoring.claims import pushed_out
from scoring.events import Events, Kind
from scoring.rows import RING_SIZE, Rows, answered, held, ring_key
from scoring.runs import begins


class Firsts(NamedTuple):
    """Places of events: one for each impression that is clicked for the first time, and that is bought from."""

    clicked: Ints
    bought: Ints


def firsts(rows: Rows, events: Events) -> Firsts:
    """What ``events [E]``, in order, are the first of; ``rows`` and their rings are as they were before all of them."""
    place = np.flatnonzero(events["answers"] & (events["kind"] >= Kind.CLICKED))
    if not len(place):
        return Firsts(place, place)
    row, ad, kind = events["row"][place].astype(np.int64), events["ad"][place], events["kind"][place]
    seconds = (events["shown_ms"][place] // 1000).astype(np.uint32)
    was = np.where(held(rows, row, ad, seconds), answered(rows["ring_kind"][row]), 0).max(axis=1)
    gone = _gone(rows, events, place, ring_key(seconds, ad))
    order = np.lexsort((ad, seconds, row))  # stable: the events of one impression stay in order
    left = order[~gone[order]]

    def first(least: Kind) -> Ints:
        """The events that take an impression to ``least``, or that are as much themselves where it is gone."""
        does = left[(kind[left] >= least) & (was[left] < least)]
        told: Ints = does[begins(row[does], seconds[does], ad[does])] if len(does) else does
        return np.concatenate([place[told], place[gone & (kind == least)]])

    return Firsts(first(Kind.CLICKED), first(Kind.PURCHASED))


def _gone(rows: Rows, events: Events, place: Ints, key: Ids) -> Bools:
    """Whether the ring is full of entries newer than ``key [A]`` once the event at ``place [A]`` has come.

    Only of a row with as many events as may push such an entry out of its ring are the events gone through in turn.
    """
    all_rows, row = np.sort(events["row"]), events["row"][place]
    gone: Bools = key < ring_key(rows["ring_s"][row, 0], rows["ring_ad"][row, 0])
    left, right = (np.searchsorted(all_rows, row, side=side) for side in ("left", "right"))
    most = right - left  # each of its events may push out one more of the ring's oldest
    at = np.minimum(most, RING_SIZE - 1)
    safe = (most < RING_SIZE) & (key >= ring_key(rows["ring_s"][row, at], rows["ring_ad"][row, at]))
    for doubtful in np.unique(row[~gone & ~safe]).tolist():
        of_row = np.flatnonzero(events["row"] == doubtful)
        out = pushed_out(rows[doubtful], events[of_row])
        mine = row == doubtful
        gone[mine] = np.array(out)[np.searchsorted(of_row, place[mine])]
    return gone
