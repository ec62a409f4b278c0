"""Events applied to rows: the one place where state changes.

Every effect is a union, a maximum or a sum, so a stream gives the same rows however it is cut into batches (sums of
floats up to rounding). What depends on order (duplicates, the place where the user acted last) follows the order of
the batch.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from scoring.answers import Firsts, firsts
from scoring.arrays import Bools, Ints
from scoring.catalogue import Catalogue
from scoring.cleaning import Rules, clean
from scoring.events import FILTERED, VIEWED_LONG_MS, Events, Kind, Outcome, only
from scoring.ids import MISSING
from scoring.interest import VIEWED_MS_MAX, DecayedInterest, weight_of
from scoring.ring import meet
from scoring.rows import Rows, RowStore

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

    ``acted``: which touched rows had at least one event that was neither filtered nor late.
    """

    outcome: npt.NDArray[np.uint8]
    touched: Ints
    acted: Bools
    unknown_ads: int

    @classmethod
    def of(cls, events: Events, outcome: npt.NDArray[np.uint8], unknown_ads: int) -> Self:
        """From the outcome of each event ``[E]``."""
        touched, of = np.unique(events["row"], return_inverse=True)
        acted = np.zeros(len(touched), dtype=bool)
        acted[of[~_NOBODY[outcome]]] = True
        return cls(outcome, touched.astype(np.int64), acted, unknown_ads)


def apply(store: RowStore, events: Events, catalogue: Catalogue, rules: Rules = Rules()) -> Applied:  # noqa: B008 - frozen
    """Apply ``events`` to their rows, in place.

    Only what passes all of ``rules`` (`scoring.cleaning`) touches interest, ring and counters; the rest moves the
    row's offset and what the rules remember. An event for an unknown ad counts, keeps its id in the ring, and adds
    nothing to interest.
    """
    outcome = clean(store.rows, events, rules)
    applied = only(events, outcome == Outcome.APPLIED)
    slots = catalogue.slots_of(applied["ad"])
    take(store.rows, applied, slots, catalogue)
    return Applied.of(events, outcome, int((slots == MISSING).sum()))


def take(rows: Rows, events: Events, slots: Ints, catalogue: Catalogue) -> None:
    """Let ``events [E]`` that passed the rules change rows, in place; ``slots [E]``: their ads' catalogue slots."""
    row = events["row"].astype(np.int64)
    first = firsts(rows, events)  # of what the rings knew before
    meet(rows, row, events)
    _count(rows, row, events, first)
    _learn(rows, row, events, slots, catalogue)


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
    """Count answers to impressions separately: experiments are judged by them. The model's inputs count all alike.

    Of clicks and purchases the impressions count that led to one; value and viewing time count event by event.
    """
    answers = np.flatnonzero(events["answers"])
    if not len(answers):
        return
    row = row[answers]
    np.add.at(rows["answered_clicks"], first.clicked, 1)
    np.add.at(rows["answered_purchases"], first.bought, 1)
    whose, of = np.unique(row, return_inverse=True)
    viewed_cs = rows["answered_viewed_cs"][whose].astype(np.int64)
    np.add.at(viewed_cs, of, np.minimum(events["viewed_ms"][answers], VIEWED_MS_MAX) // 10)
    rows["answered_viewed_cs"][whose] = np.minimum(viewed_cs, _VIEWED_CS_MAX)
    np.add.at(rows["answered_value_micros"], row, events["value_micros"][answers])


def _learn(rows: Rows, row: Ints, events: Events, slots: Ints, catalogue: Catalogue) -> None:
    """Add the attended items to their users' interest; unknown ads add nothing."""
    weight = weight_of(events["kind"], events["viewed_ms"])
    learns = np.flatnonzero((weight > 0) & (slots != MISSING))
    if len(learns):
        interest = DecayedInterest.over(rows["interest"], rows["interest_ms"])
        content = catalogue.features[slots[learns]]
        interest.learn_arrays(row[learns], events["time_ms"][learns], weight[learns], content)
