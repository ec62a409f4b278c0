"""Events applied, and every impression among them scored as it was shown: from its user's row strictly before it.

Users do not depend on each other, so a batch is done in *waves*: a user's events are cut before every screen, which is
impressions of one moment, and the n-th wave holds the n-th piece of everybody. Most batches in which hardly anyone acts
twice are one wave, and what the rules keep from interest is in none. Before a wave changes rows its impressions are
looked at; the attention model scores what all waves have gathered in few calls. What stands on one screen is no past of
each other (`scoring.inputs.SCREEN_S`), so that it makes no difference where a batch ends, but for what a cut screen has
pushed out of a full ring.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from scoring.cleaning import Rules, clean
from scoring.events import Events, Outcome, Source, only
from scoring.feedback import Impressions
from scoring.gathering import gather
from scoring.ids import MISSING
from scoring.inputs import CONTEXT_DIM, RATED, STATS_DIM, ModelInputs, closeness_of
from scoring.models import ModelFailure, Models, Served
from scoring.rates import Counts, RateTable, counts_of
from scoring.rows import RowStore
from scoring.update import Applied, take

Ints = npt.NDArray[np.int64]

PEOPLE_PER_RUN = 64
"""Impressions scored in one run of the model: about 10 KiB of inputs each, so that they stay in the processor's
cache."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """What a batch did to the rows, what the attention model says of its impressions, what each event counts [E, 2]."""

    applied: Applied
    impressions: Impressions
    counts: Counts


Ids = npt.NDArray[np.uint64]
Scorers = Callable[[Ids], list[tuple[Served, Ints]]]
"""Who of people ``[B]`` is scored by which model: models and places, nobody left out."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Impressions of one wave as one model is to see them: their places, and its inputs, one candidate each."""

    served: Served
    place: Ints
    inputs: ModelInputs


def apply_and_score(
    store: RowStore, events: Events, users: Ids, models: Models, rules: Rules, scorers: Scorers, rates: RateTable
) -> Exposed:
    """`scoring.update.apply`, and the scores of the impressions that it applied, of ads that the catalogue knows.

    ``users [E]``: the 64-bit ids of whoever did what, of whom ``scorers`` say whose model is whose. The events count
    in ``rates``, which follow the catalogue.
    """
    catalogue = models.base.catalogue
    outcome = clean(store.rows, events, rules)
    applied = np.flatnonzero(outcome == Outcome.APPLIED)
    looks: list[_Look] = []
    unknown = 0
    for turn in _waves(only(events, outcome == Outcome.APPLIED)):
        wave = applied[turn]
        of_wave = events[wave]
        shown = wave[(of_wave["source"] == Source.IMPRESSION)]
        slots = catalogue.slots_of(events["ad"][shown])
        shown, slots = shown[slots != MISSING], slots[slots != MISSING]
        looks += _looks(store, events, shown, slots, users, models, scorers)
        unknown += take(store.rows, of_wave, catalogue)
    slots = catalogue.slots_of(events["ad"])
    counts = counts_of(events, outcome) * (slots != MISSING)[:, None]
    told = rates.running(slots, counts)
    for look in looks:
        look.inputs.candidate_stats[:, 0, RATED:] = told[look.place]
    return Exposed(Applied.of(events, outcome, unknown), _impressions(looks, events, models), counts)


def _waves(events: Events) -> Iterator[Ints]:
    """Places of the events of each wave, in order."""
    if not len(events):
        return
    by_row = np.argsort(events["row"], kind="stable")
    row = events["row"][by_row]
    impression, time_ms = events["source"][by_row] == Source.IMPRESSION, events["time_ms"][by_row]
    same = impression[1:] & impression[:-1] & (time_ms[1:] == time_ms[:-1]) & (row[1:] == row[:-1])
    shown = np.cumsum(impression & ~np.append(False, same))
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    turn = np.empty(len(row), dtype=np.int64)
    turn[by_row] = shown - np.repeat(shown[starts], np.diff(starts, append=len(row)))
    in_turn = np.argsort(turn, kind="stable")
    edges = np.searchsorted(turn[in_turn], np.arange(1, turn.max() + 1))
    yield from np.split(in_turn, edges)


def _looks(
    store: RowStore, events: Events, shown: Ints, slots: Ints, users: Ids, models: Models, scorers: Scorers
) -> list[_Look]:
    """What impressions ``shown [N]`` of one wave, of ads in ``slots [N]``, are to each model that is asked of them."""
    asked = [*scorers(users[shown])] if len(shown) else []
    if models.shadow is not None and len(beside := models.shadowed(users[shown])):
        asked.append((models.shadow, beside))
    out = []
    for served, part in asked:
        of = events[shown[part]]
        catalogue = served.catalogue
        rows, moment, candidates = store.rows[of["row"]], of["time_ms"], slots[part][:, None]
        inputs, _ = gather(catalogue, rows, moment, candidates, of["surface"], served.learned)
        out.append(_Look(served, shown[part], inputs))
    return out


def _impressions(looks: list[_Look], events: Events, models: Models) -> Impressions:
    """Scores of all that was looked at, in the order of the events."""
    shadow = models.shadow
    heeded = [look for look in looks if look.served is not shadow]
    place = np.concatenate([np.zeros(0, dtype=np.int64), *(look.place for look in heeded)])
    order = np.argsort(place)
    logit, model = np.zeros(len(events), np.float32), np.zeros(len(events), np.uint32)
    known = np.zeros(len(events), np.bool_)
    for served in {look.served.version: look.served for look in heeded}.values():
        of = [look for look in heeded if look.served is served]
        places, logits, by = _scored(of, models)
        logit[places], model[places] = logits, by.number
        known[places] = by.knows(events["time_ms"][places]) | (by is not served)
    context = np.concatenate([np.zeros((0, CONTEXT_DIM), np.float32), *(look.inputs.context for look in heeded)])
    stats = [look.inputs.candidate_stats[:, 0] for look in heeded]
    at = place[order]
    return Impressions(
        at,
        logit[at],
        context[order],
        model[at],
        known[at],
        *_beside([look for look in looks if look.served is shadow], at, events, models),
        closeness_of(np.concatenate([np.zeros((0, STATS_DIM), np.float32), *stats])[order]),
    )


def _beside(looks: list[_Look], at: Ints, events: Events, models: Models) -> tuple[npt.NDArray[np.float32] | None, int]:
    """What the shadow says of the impressions ``at [N]`` of the events, and its number.

    NaN where it was not asked, and where it was trained on what came of them: that is no evidence of it.
    """
    shadow = models.shadow
    if shadow is None or not looks:
        return None, 0
    logit = np.full(len(events), np.nan, dtype=np.float32)
    try:
        places, logits = _run(looks, shadow)
    except ModelFailure as why:
        models.after(why)
        return None, 0
    logit[places] = np.where(shadow.knows(events["time_ms"][places]), np.nan, logits)
    return logit[at], shadow.number


def _scored(looks: list[_Look], models: Models) -> tuple[Ints, npt.NDArray[np.float32], Served]:
    """Places, log-odds and who gave them; where the model fails, 0 in the name of the next, to learn nothing."""
    served = looks[0].served
    try:
        return (*_run(looks, served), served)
    except ModelFailure as why:
        heir = models.after(why)
        places = np.concatenate([look.place for look in looks])
        return places, np.zeros(len(places), np.float32), heir


def _run(looks: list[_Look], served: Served) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Places of what was looked at, and the model's log-odds. Raises `ModelFailure`."""
    place = np.concatenate([look.place for look in looks])
    order = np.argsort(place)
    inputs = ModelInputs(
        *(np.concatenate([getattr(look.inputs, field.name) for look in looks])[order] for field in fields(ModelInputs))
    )
    runs = (slice(start, start + PEOPLE_PER_RUN) for start in range(0, len(order), PEOPLE_PER_RUN))
    logits = [served.score(inputs.part(run))[0][:, 0] for run in runs]
    return place[order], np.concatenate(logits) if logits else np.zeros(0, np.float32)
