"""Which events a user's row has seen before, by event id.

Each row remembers the last `SEEN_SIZE` ids per source, first in, first out. Within a batch the answer is that
of one event after another: users with no repeated id are done in arrays, the few with one event by event.
"""

import numpy as np
import numpy.typing as npt

from scoring.events import Events
from scoring.ids import mix64
from scoring.rows import SEEN_SIZE, Rows


def mark_duplicates(rows: Rows, events: Events) -> npt.NDArray[np.bool_]:
    """True for each event ``[E]`` that its row has seen; the others are remembered, in place.

    An id pushed out by `SEEN_SIZE` newer ones of the same user and source is new again: the bound of what a
    producer's retry may overtake.
    """
    group = events["row"].astype(np.int64) * 2 + events["source"]
    known = (rows["seen"][events["row"], events["source"]] == events["event"][:, None]).any(axis=1)
    suspect = np.isin(group, group[known | _repeated(group, events["event"])])
    _remember(rows, events[~suspect])
    duplicate = np.zeros(len(events), dtype=bool)
    if suspect.any():
        places = np.flatnonzero(suspect)
        for of_group in _runs(group[places]):
            duplicate[places[of_group]] = _one_by_one(rows, events[places[of_group]])
    return duplicate


def _repeated(group: npt.NDArray[np.int64], event: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Events whose id occurs more than once in its group (or, rarely, looks so: the exact path then decides)."""
    key = mix64(group.astype(np.uint64)) ^ event
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    repeated: npt.NDArray[np.bool_] = counts[inverse] > 1
    return repeated


def _runs(group: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Places of each group, in order of occurrence."""
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _remember(rows: Rows, events: Events) -> None:
    if not len(events):
        return
    group = events["row"].astype(np.int64) * 2 + events["source"]
    order = np.argsort(group, kind="stable")
    _, starts, counts = np.unique(group[order], return_index=True, return_counts=True)
    row, source, ids = events["row"][order], events["source"][order], events["event"][order]
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    place = (rows["seen_next"][row, source] + rank) % SEEN_SIZE
    keep = rank >= np.repeat(counts, counts) - SEEN_SIZE  # of more than the memory holds, only the newest
    rows["seen"][row[keep], source[keep], place[keep]] = ids[keep]
    row, source = row[starts], source[starts]
    rows["seen_next"][row, source] = (rows["seen_next"][row, source] + counts) % SEEN_SIZE


def _one_by_one(rows: Rows, events: Events) -> list[bool]:
    """The same for the events of one row and source, in order."""
    row, source = events["row"][0], events["source"][0]
    seen = rows["seen"][row, source].tolist()
    place = int(rows["seen_next"][row, source])
    duplicate = []
    for event in events["event"].tolist():
        duplicate.append(event in seen)
        if not duplicate[-1]:
            seen[place] = event
            place = (place + 1) % SEEN_SIZE
    rows["seen"][row, source] = seen
    rows["seen_next"][row, source] = place
    return duplicate
