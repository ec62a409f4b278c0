"""Events applied, and every impression among them scored as it was shown: from its user's row strictly before it.

Users do not depend on each other, so a batch is applied in *waves*. A screen is the impressions of one user at one
moment. Every user's events are cut before each screen, and the n-th wave holds everybody's n-th piece: a batch in which
nobody acts twice is one wave. Events that the rules keep from interest are in none. Before a wave changes rows, those
of its impressions are copied. From all copies together the models' inputs are made, and scored in few calls.
Impressions of one screen are not part of each other's past (`scoring.inputs.SCREEN_S`), so that it makes no difference
where a batch ends, but for what the first part of a cut screen has pushed out of a full ring.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scoring.arrays import Ids, Ints, Singles
from scoring.cleaning import Rules, clean
from scoring.events import Events, Outcome, Source, only
from scoring.gathering import gather
from scoring.ids import MISSING
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM, STATS_DIM, ModelInputs, closeness_of
from scoring.models import ModelFailure, Models, Served
from scoring.rates import Counts, RateTable, counts_of
from scoring.rows import Rows, RowStore
from scoring.runs import begins, within
from scoring.update import Applied, take, turns

PEOPLE_PER_RUN = 64
"""Impressions scored in one run of the model: the inputs, about 10 KiB each, stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """What a batch did to the rows, the models' scores of its impressions, and what each event counts, ``[E, 2]``."""

    applied: Applied
    impressions: Impressions
    counts: Counts


Scorers = Callable[[Ids], list[tuple[Served, Ints]]]
"""Each model with the places of those of people ``[B]`` whom it scores; each has one."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Impressions for one model: their places, ascending, and its inputs, run by run."""

    served: Served
    place: Ints
    runs: list[ModelInputs]  # one candidate each


def apply_and_score(
    store: RowStore, events: Events, users: Ids, models: Models, rules: Rules, scorers: Scorers, rates: RateTable
) -> Exposed:
    """`scoring.update.apply`, and the scores of the impressions that it applied, of ads that the catalogue knows.

    ``users [E]``: the 64-bit id of each event's user, by which ``scorers`` choose the model. The events count in
    ``rates``, which follow the catalogue.
    """
    catalogue = models.base.catalogue
    outcome = clean(store.rows, events, rules)
    slots = catalogue.slots_of(events["ad"])
    applied = outcome == Outcome.APPLIED
    seen = applied & (events["source"] == Source.IMPRESSION) & (slots != MISSING)
    shown, to_copy = np.flatnonzero(seen), np.cumsum(seen) - 1
    clicked = np.zeros(len(events), dtype=bool)
    before = np.empty(len(shown), dtype=store.rows.dtype)
    places = np.flatnonzero(applied)
    in_waves = only(events, applied)
    for turn in turns(in_waves, slots[places], _waves(in_waves)):
        wave = places[turn.place]
        copied = seen[wave]
        before[to_copy[wave[copied]]] = store.rows[turn.row[copied]]
        clicked[places[take(store.rows, turn, catalogue)]] = True
    counts = counts_of(events, applied, clicked) * (slots != MISSING)[:, None]
    told = rates.running(slots, counts)
    looks = _looks(before, events[shown], slots[shown], told[shown], users[shown], models, scorers)
    unknown = int((applied & (slots == MISSING)).sum())
    return Exposed(Applied.of(events, outcome, clicked, unknown), _impressions(looks, events, shown, models), counts)


def _waves(events: Events) -> Ints:
    """The wave of each of ``events [E]``, from 0."""
    by_row = np.argsort(events["row"], kind="stable")
    row = events["row"][by_row]
    impression, time_ms = events["source"][by_row] == Source.IMPRESSION, events["time_ms"][by_row]
    shown = np.cumsum(impression & begins(row, time_ms, impression))  # screens so far
    wave = np.empty(len(row), dtype=np.int64)
    wave[by_row] = within(shown, row)
    return wave


def _looks(
    before: Rows, events: Events, slots: Ints, rates: Singles, users: Ids, models: Models, scorers: Scorers
) -> list[_Look]:
    """The impressions ``events [N]`` of ads in ``slots [N]`` for each model that is to score some of them.

    ``before [N]``: their users' rows, and ``rates [N, RATES_DIM]`` their ads' rates, both just before them. Places are
    among the N.
    """
    asked = [*scorers(users)] if len(users) else []
    if models.shadow is not None:
        asked.append((models.shadow, models.shadowed(users)))
    return [_look(served, np.sort(part), before, events, slots, rates) for served, part in asked if len(part)]


def _look(served: Served, place: Ints, before: Rows, events: Events, slots: Ints, rates: Singles) -> _Look:
    """Those at ``place``, as inputs for one model."""
    moment, candidates, surface = events["time_ms"], slots[:, None], events["surface"]
    runs = []
    for start in range(0, len(place), PEOPLE_PER_RUN):
        run = place[start : start + PEOPLE_PER_RUN]
        of_run = before[run], moment[run], candidates[run], surface[run], served.learned, rates[run, None]
        runs.append(gather(served.catalogue, *of_run)[0])
    return _Look(served, place, runs)


def _impressions(looks: list[_Look], events: Events, shown: Ints, models: Models) -> Impressions:
    """Scores of the impressions at the places ``shown [N]`` of the events; each is in one of ``looks``."""
    count, time_ms = len(shown), events["time_ms"][shown]
    logit, model = np.zeros(count, np.float32), np.zeros(count, np.uint32)
    known = np.zeros(count, np.bool_)
    context, stats = np.zeros((count, CONTEXT_DIM), np.float32), np.zeros((count, STATS_DIM), np.float32)
    shadow = models.shadow
    for look in looks:
        if look.served is shadow:
            continue
        at = look.place
        context[at] = np.concatenate([inputs.context for inputs in look.runs])
        stats[at] = np.concatenate([inputs.candidate_stats[:, 0] for inputs in look.runs])
        logit[at], by = _scored(look, models)
        model[at], known[at] = by.number, by.knows(time_ms[at]) | (by is not look.served)
    # None where the shadow has come to answer for a model that failed: then it is no shadow.
    beside = _beside(next((look for look in looks if look.served is models.shadow), None), time_ms, models)
    return Impressions(shown, logit, context, model, known, *beside, closeness_of(stats))


def _beside(look: _Look | None, time_ms: Ints, models: Models) -> tuple[Singles | None, int]:
    """What the shadow says of impressions of ``time_ms [N]``, and its number.

    NaN where it was not asked, and where its training data include the outcome, which is no evidence then.
    """
    if look is None:
        return None, 0
    try:
        logits = _run(look)
    except ModelFailure as why:
        models.after(why)
        return None, 0
    logit = np.full(len(time_ms), np.nan, dtype=np.float32)
    logit[look.place] = np.where(look.served.knows(time_ms[look.place]), np.nan, logits)
    return logit, look.served.number


def _scored(look: _Look, models: Models) -> tuple[Singles, Served]:
    """Log-odds and the model that gave them; where it fails 0, under the model that answers next, to learn nothing."""
    try:
        return _run(look), look.served
    except ModelFailure as why:
        return np.zeros(len(look.place), np.float32), models.after(why)


def _run(look: _Look) -> Singles:
    """The model's log-odds of what was looked at. Raises `ModelFailure`."""
    return np.concatenate([look.served.score(inputs)[0][:, 0] for inputs in look.runs])
