"""Events applied, and every impression among them scored as it was shown: from its user's row strictly before it.

Users do not depend on each other, so a batch is done in *waves*: the n-th wave holds, of every user, the n-th
impression and what follows up to the next; what comes before its first is applied before all waves. Before a wave is
applied its impressions are looked at; the attention model scores what all waves have gathered in few calls.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from scoring.attention import AttentionModel
from scoring.catalogue import Catalogue
from scoring.cleaning import Rules
from scoring.events import Events, Outcome, Source
from scoring.feedback import Impressions
from scoring.gathering import gather
from scoring.ids import MISSING
from scoring.inputs import CONTEXT_DIM, ModelInputs
from scoring.rows import RowStore
from scoring.update import Applied, apply

Ints = npt.NDArray[np.int64]

PEOPLE_PER_RUN = 64
"""Impressions scored in one run of the model: about 10 KiB of inputs each, so that they stay in the processor's
cache."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """What a batch did to the rows, and what the attention model says of its impressions."""

    applied: Applied
    impressions: Impressions


def apply_and_score(
    store: RowStore, events: Events, catalogue: Catalogue, model: AttentionModel, rules: Rules
) -> Exposed:
    """`scoring.update.apply`, and the scores of the impressions that it applied, of ads that the catalogue knows."""
    outcome = np.full(len(events), Outcome.REPLAYED, dtype=np.uint8)
    places: list[Ints] = []
    gathered: list[ModelInputs] = []
    unknown = 0
    for wave in _waves(events):
        of_wave = events[wave]
        shown = wave[(of_wave["source"] == Source.IMPRESSION)]
        slots = catalogue.slots_of(events["ad"][shown])
        shown, slots = shown[slots != MISSING], slots[slots != MISSING]
        inputs = _look(store, events[shown], slots, catalogue) if len(shown) else None
        applied = apply(store, of_wave, catalogue, rules)
        outcome[wave] = applied.outcome
        unknown += applied.unknown_ads
        if inputs is not None:
            places.append(shown)
            gathered.append(inputs)
    impressions = _scored(places, gathered, outcome, model)
    return Exposed(Applied.of(events, outcome, unknown), impressions)


def _waves(events: Events) -> Iterator[Ints]:
    """Places of the events of each wave, in order; before the first those that come before their user's impressions."""
    if not len(events):
        yield np.zeros(0, dtype=np.int64)
        return
    by_row = np.argsort(events["row"], kind="stable")
    row = events["row"][by_row]
    shown = np.cumsum(events["source"][by_row] == Source.IMPRESSION)
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    before = np.where(starts > 0, shown[starts - 1], 0)
    turn = np.empty(len(row), dtype=np.int64)
    turn[by_row] = shown - np.repeat(before, np.diff(starts, append=len(row)))
    in_turn = np.argsort(turn, kind="stable")
    edges = np.searchsorted(turn[in_turn], np.arange(1, turn.max() + 1))
    yield from np.split(in_turn, edges)


def _look(store: RowStore, shown: Events, slots: Ints, catalogue: Catalogue) -> ModelInputs:
    """The model's inputs for impressions ``[N]`` of one wave, with one candidate each."""
    inputs, _ = gather(catalogue, store.rows[shown["row"]], shown["time_ms"], slots[:, None], shown["surface"])
    return inputs


def _scored(
    places: list[Ints], gathered: list[ModelInputs], outcome: npt.NDArray[np.uint8], model: AttentionModel
) -> Impressions:
    """Scores of all that was gathered and applied, in the order of the events."""
    if not places:
        return Impressions(
            np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), np.zeros((0, CONTEXT_DIM), dtype=np.float32)
        )
    place = np.concatenate(places)
    order = np.argsort(place, kind="stable")
    order = order[outcome[place[order]] == Outcome.APPLIED]
    inputs = ModelInputs(
        *(np.concatenate([getattr(part, field.name) for part in gathered])[order] for field in fields(ModelInputs))
    )
    runs = (slice(start, start + PEOPLE_PER_RUN) for start in range(0, len(order), PEOPLE_PER_RUN))
    logits = [model.score(inputs.part(run))[0][:, 0] for run in runs]
    logit = np.concatenate(logits) if logits else np.zeros(0, np.float32)
    return Impressions(place[order], logit, inputs.context, _agreement(inputs.interest))


def _agreement(interest: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The cosine of the session's and the long interest, from their sum ``[N, K]``; NaN where one is missing."""
    squared = (interest * interest).sum(axis=1)  # of two unit vectors: 2 + 2 cos
    return np.where(squared > 1 + 1e-3, squared / 2 - 1, np.nan).astype(np.float32)
