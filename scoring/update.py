"""Events applied to rows: the one place where state changes.

Every effect is a union, a maximum or a sum, so a stream gives the same rows however it is cut into batches (sums of
floats up to rounding). What depends on order (duplicates, the place where the user acted last) follows the order of
the batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from scoring.answers import Firsts, firsts
from scoring.arrays import Bools, Ints, Singles
from scoring.catalogue import Catalogue
from scoring.cleaning import Rules, clean
from scoring.events import FILTERED, VIEWED_LONG_MS, Events, Kind, Outcome, only
from scoring.ids import MISSING
from scoring.interest import VIEWED_MS_MAX, DecayedInterest, weight_of
from scoring.ring import Entries, entries_of, remember
from scoring.rows import Rows, RowStore
from scoring.runs import begins

_NOBODY = np.isin(list(Outcome), [*FILTERED, Outcome.LATE])
"""By `Outcome`: whether it asks for no placement, being no person's act now. Duplicates and replays do ask for one:
theirs may be missing."""

_COUNTERS = {
    Kind.SHOWN: "impressions",
    Kind.VIEWED: "views",
    Kind.VIEWED_LONG: "views",
    Kind.CLICKED: "clicks",
    Kind.CARTED: "carts",
    Kind.PURCHASED: "purchases",
}
_VIEWED_CS_MAX = np.iinfo(np.uint32).max
"""Where a row's viewing time stops instead of wrapping: a row with less than before would be taken for a new one, and
both would count."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch did: `Outcome` per event ``[E]``, rows it touched, events whose ad the catalogue lacks.

    ``clicked [E]``: which events are the first click, or more, on the impression that they answer. ``acted``: which
    touched rows had at least one event that was neither filtered nor late.
    """

    outcome: npt.NDArray[np.uint8]
    clicked: Bools
    touched: Ints
    acted: Bools
    unknown_ads: int

    @classmethod
    def of(cls, events: Events, outcome: npt.NDArray[np.uint8], clicked: Bools, unknown_ads: int) -> Self:
        """From what came of each event ``[E]``."""
        touched, of = np.unique(events["row"], return_inverse=True)
        acted = np.zeros(len(touched), dtype=bool)
        acted[of[~_NOBODY[outcome]]] = True
        return cls(outcome, clicked, touched.astype(np.int64), acted, unknown_ads)


def apply(store: RowStore, events: Events, catalogue: Catalogue, rules: Rules = Rules()) -> Applied:
    """Apply ``events`` to their rows, in place.

    Only what passes all of ``rules`` (`scoring.cleaning`) touches interest, ring and counters; the rest moves the
    row's offset and what the rules remember. An event for an unknown ad counts, keeps its id in the ring, and adds
    nothing to interest.
    """
    outcome = clean(store.rows, events, rules)
    places = np.flatnonzero(outcome == Outcome.APPLIED)
    applied, clicked = only(events, outcome == Outcome.APPLIED), np.zeros(len(events), dtype=bool)
    slots = catalogue.slots_of(applied["ad"])
    for turn in turns(applied, slots, np.zeros(len(applied), dtype=np.int64)):
        clicked[places[take(store.rows, turn, catalogue)]] = True
    return Applied.of(events, outcome, clicked, int((slots == MISSING).sum()))


@dataclass(frozen=True, slots=True)
class Turn:
    """Events ``[E]`` that change rows together, each row's in order, with all that follows from the events alone."""

    place: Ints  # among the events that were cut into turns
    events: Events
    row: Ints
    slots: Ints  # of their ads in the catalogue
    weight: Singles  # what they teach of interest, 0 where nothing
    entries: Entries


def turns(events: Events, slots: Ints, turn: Ints) -> Iterator[Turn]:
    """Cut ``events [E]`` that passed the rules, of ads in ``slots [E]``, into turns; ``turn [E]`` as in `Entries`.

    What does not depend on rows is computed here, for all turns together: many turns have but an event or two.
    """
    place = np.argsort(turn, kind="stable")
    events, slots, turn = events[place], slots[place], turn[place]
    row = events["row"].astype(np.int64)
    weight = np.where(slots == MISSING, np.float32(0), weight_of(events["kind"], events["viewed_ms"]))
    edges = np.flatnonzero(begins(turn))[1:]
    columns = (np.split(each, edges) for each in (place, events, row, slots, weight))
    yield from map(Turn, *columns, entries_of(events, row, turn))


def take(rows: Rows, turn: Turn, catalogue: Catalogue) -> Ints:
    """Let a turn's events change rows, in place; returns the places of those that are first to click an impression."""
    first = firsts(rows, turn.events)  # of what the rings knew before
    remember(rows, turn.entries)
    _count(rows, turn.row, turn.events, first)
    _learn(rows, turn, catalogue)
    return turn.place[first.clicked]


def _count(rows: Rows, row: Ints, events: Events, first: Firsts) -> None:
    for kind in _COUNTERS.keys() & set(events["kind"].tolist()):
        np.add.at(rows[_COUNTERS[kind]], row[events["kind"] == kind], 1)
    # A click may carry a viewing time, too: a long view counts as one whatever else happened.
    long = (events["kind"] == Kind.VIEWED_LONG) | (events["viewed_ms"] >= VIEWED_LONG_MS)
    np.add.at(rows["long_views"], row[long], 1)
    np.add.at(rows["viewed_ms"], row, events["viewed_ms"])
    np.add.at(rows["value_micros"], row, events["value_micros"])
    _count_answers(rows, row, events, first)
    np.maximum.at(rows["time_ms"], row, events["time_ms"])
    placed = events["surface"] > 0
    rows["surface"][row[placed]] = events["surface"][placed]  # of several, the last in order stays


def _count_answers(rows: Rows, row: Ints, events: Events, first: Firsts) -> None:
    """Count answers to impressions separately: experiments are judged by them. A person's own counts have all alike.

    Of clicks and purchases the impressions count that led to one; value and viewing time count event by event.
    """
    answers = np.flatnonzero(events["answers"])
    if not len(answers):
        return
    np.add.at(rows["answered_clicks"], row[first.clicked], 1)
    np.add.at(rows["answered_purchases"], row[first.bought], 1)
    row = row[answers]
    whose, of = np.unique(row, return_inverse=True)
    viewed_cs = rows["answered_viewed_cs"][whose].astype(np.int64)
    np.add.at(viewed_cs, of, np.minimum(events["viewed_ms"][answers], VIEWED_MS_MAX) // 10)
    rows["answered_viewed_cs"][whose] = np.minimum(viewed_cs, _VIEWED_CS_MAX)
    np.add.at(rows["answered_value_micros"], row, events["value_micros"][answers])


def _learn(rows: Rows, turn: Turn, catalogue: Catalogue) -> None:
    """Add the attended items to their users' interest."""
    learns = np.flatnonzero(turn.weight)
    if len(learns):
        interest = DecayedInterest.over(rows["interest"], rows["interest_ms"])
        content = catalogue.features[turn.slots[learns]]
        interest.learn_arrays(turn.row[learns], turn.events["time_ms"][learns], turn.weight[learns], content)
