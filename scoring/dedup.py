"""Which events a user's row has seen before: by event id, and impressions also by ad and time.

Each row remembers the last `SEEN_SIZE` ids per source, first in, first out, and for impressions a hash of (ad, time),
too. A batch gives the same answer as its events one by one: users without repeats are handled in arrays, the few with
repeats event by event.
"""

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ids, Ints
from scoring.events import Events, Outcome, Source, only
from scoring.ids import mix64
from scoring.rows import SEEN_SIZE, Rows
from scoring.runs import begins, runs

Outcomes = npt.NDArray[np.uint8]
_NO_SHOWING = 0


def mark_repeats(rows: Rows, events: Events) -> Outcomes:
    """`Outcome` of each event ``[E]``: `APPLIED` ones are new and are remembered, in place.

    `DUPLICATE`: its id is remembered. `RESHOWN`: an impression whose id is not, of an ad that the user was shown at
    the same millisecond: the same impression again, perhaps with another price. An id is new again once `SEEN_SIZE`
    newer ones of the same user and source have pushed it out: a retry may come that late at most.
    """
    group = events["row"].astype(np.int64) * 2 + events["source"]
    showing = _showings(events)
    known = (rows["seen"][events["row"], events["source"]] == events["event"][:, None]).any(axis=1)
    shown = np.flatnonzero(showing != _NO_SHOWING)
    known[shown] |= (rows["showings"][events["row"][shown]] == showing[shown, None]).any(axis=1)
    known |= _repeated(group, events["event"])
    known[shown] |= _repeated(group[shown], showing[shown].astype(np.uint64))
    suspect = np.isin(group, group[known]) if known.any() else known
    _remember(rows, only(events, ~suspect), showing[~suspect])
    outcome = np.full(len(events), Outcome.APPLIED, dtype=np.uint8)
    if suspect.any():
        places = np.flatnonzero(suspect)
        for of_group in _places_by(group[places]):
            outcome[places[of_group]] = _one_by_one(rows, events[places[of_group]], showing[places[of_group]])
    return outcome


def _showings(events: Events) -> npt.NDArray[np.uint32]:
    """Hashes of (ad, time) in 32 bits: two of twelve impressions collide for one in 65 million users."""
    mixed = mix64(events["ad"] ^ mix64(events["time_ms"].astype(np.uint64)))
    showing = np.maximum((mixed >> np.uint64(32)).astype(np.uint32), 1)
    return np.where(events["source"] == Source.IMPRESSION, showing, np.uint32(_NO_SHOWING))


def _repeated(group: Ints, what: Ids) -> Bools:
    """Marks all but one of the events with the same ``what`` and group; after a rare collision the exact path decides.

    Which one is left out does not matter: their whole group becomes suspect.
    """
    key = mix64(group.astype(np.uint64)) ^ what
    order = np.argsort(key)
    repeated = np.empty(len(key), dtype=bool)
    repeated[order] = ~begins(key[order])
    return repeated


def _places_by(group: Ints) -> list[Ints]:
    """Places of each group, in order of occurrence."""
    order = np.argsort(group, kind="stable")
    starts, _ = runs(group[order])
    return np.split(order, starts[1:])


def _remember(rows: Rows, events: Events, showing: npt.NDArray[np.uint32]) -> None:
    if not len(events):
        return
    group = events["row"].astype(np.int64) * 2 + events["source"]
    order = np.argsort(group, kind="stable")
    starts, counts = runs(group[order])
    row, source, ids = events["row"][order], events["source"][order], events["event"][order]
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    place = (rows["seen_next"][row, source] + rank) % SEEN_SIZE
    keep = rank >= np.repeat(counts, counts) - SEEN_SIZE  # of more than the memory holds, only the newest
    rows["seen"][row[keep], source[keep], place[keep]] = ids[keep]
    keep &= source == Source.IMPRESSION
    rows["showings"][row[keep], place[keep]] = showing[order][keep]
    row, source = row[starts], source[starts]
    rows["seen_next"][row, source] = (rows["seen_next"][row, source] + counts) % SEEN_SIZE


def _one_by_one(rows: Rows, events: Events, showing: npt.NDArray[np.uint32]) -> list[Outcome]:
    """`mark_repeats` for the events of one row and source, in order."""
    row, source = events["row"][0], events["source"][0]
    seen, showings = rows["seen"][row, source].tolist(), rows["showings"][row].tolist()
    place = int(rows["seen_next"][row, source])
    outcome = []
    for event, what in zip(events["event"].tolist(), showing.tolist(), strict=True):
        if event in seen:
            outcome.append(Outcome.DUPLICATE)
        elif what != _NO_SHOWING and what in showings:
            outcome.append(Outcome.RESHOWN)
        else:
            outcome.append(Outcome.APPLIED)
            seen[place] = event
            if what != _NO_SHOWING:
                showings[place] = what
            place = (place + 1) % SEEN_SIZE
    rows["seen"][row, source], rows["showings"][row] = seen, showings
    rows["seen_next"][row, source] = place
    return outcome
