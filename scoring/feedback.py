"""The online click layer as a stream: impressions predicted, outcomes learned, in the order of events.

An impression is predicted with the weights as they stand and waits (`scoring.pending`); it is learned when a click
answers it, or as a non-click when the layer's clock, the newest event time seen, passes the end of its window. What
happens depends on the order of events alone, not on how they are cut into calls; training, evaluation and the worker
all run this.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from scoring.clicks import AdLifts, ClickModel, Example, Weights, example, person_numbers
from scoring.events import Events, Kind, Source
from scoring.ids import uniform
from scoring.pending import (
    AD,
    CONTROL,
    DUE,
    EXPECTED,
    FIRST,
    KEY,
    LAST,
    MODEL,
    OPEN,
    PREDICTED,
    SURFACE,
    Pending,
    Row,
    keys_of,
)

Feedback = Literal["window", "immediate"]

WINDOW_MS = 300_000
"""How long a click may take to count. On KuaiRand 99 of 100 come within 155 s; a window of 60 s loses a quarter of
them and predicts 0.77 of the clicks there are."""
PENDING_MAX = 100_000
"""Impressions that wait for their outcome, per lane: 11 MB and their index."""


@dataclass(frozen=True, slots=True)
class Learning:
    """How the layer learns.

    ``feedback``: "window" waits for the outcome. "immediate" learns a non-click at once and, when a click comes after
    all, the click, both with the weights that make the expectation right again (the fake-negative weighted loss of
    Ktena et al., 2019): quicker, and noisier. ``negatives``: the share of non-clicks that the weights learn from, each
    counted the more; which ones is a function of the impression. ``after_ms``: impressions up to this time are
    predicted but not learned from, since the attention model was trained on them and knows their outcomes.
    """

    window_ms: int = WINDOW_MS
    pending_max: int = PENDING_MAX
    feedback: Feedback = "window"
    negatives: float = 1.0
    after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Impressions:
    """What the attention model says of some impressions of a batch of events: ``logit [N]``, ``context [N, X]``.

    ``place [N]``: their places among the events, ascending.
    """

    place: npt.NDArray[np.int64]
    logit: npt.NDArray[np.float32]
    context: npt.NDArray[np.float32]


OUTCOME = np.dtype(
    [
        ("time_ms", "<i8"),  # the layer's clock
        ("ad", "<u8"),
        ("predicted", "<f8"),
        ("clicked", "u1"),
        ("control", "u1"),
        ("free", "<u2"),
        ("model", "<u4"),
    ]
)


@dataclass(frozen=True, slots=True)
class Observed:
    """``predicted [N]``: the chance of a click on each of the impressions. ``outcomes``: of `OUTCOME`, as they came."""

    predicted: npt.NDArray[np.float64]
    outcomes: npt.NDArray[Any]


class ClickLayer:
    """One lane's layer: its model, the lifts of ads, and the impressions whose outcome is open."""

    def __init__(self, learning: Learning | None = None) -> None:
        self.learning = learning or Learning()
        self.model = ClickModel()
        self.lifts = AdLifts()
        self.pending = Pending(self.learning.pending_max)
        self.clock_ms = 0
        self.learned = 0
        """Outcomes learned since the layer's first."""
        self.dropped = 0
        """Impressions whose outcome was not learned, since too many were open."""
        self.answered: list[int] = []
        """Numbers of the pending records that clicks have closed since this was last emptied."""

    @property
    def weights(self) -> Weights:
        """The layer as serving reads it."""
        return Weights(self.model.array)

    def observe(
        self,
        events: Events,
        users: npt.NDArray[np.uint64],
        control: npt.NDArray[np.bool_],
        impressions: Impressions,
        model: int = 0,
    ) -> Observed:
        """Predict ``impressions`` and learn the outcomes that ``events [E]`` bring, in order.

        ``users [E]`` are the 64-bit ids of whoever did what; ``control [E]`` whether that user is in the control arm;
        ``model`` the number of the attention model that scored. Events that are no impressions among those given are
        read for clicks and time alone.
        """
        if not len(events):
            return Observed(np.zeros(0), np.zeros(0, dtype=OUTCOME))
        outcomes: list[tuple[float, ...]] = []
        predicted: list[float] = []
        shown = _shown(events, control, impressions)
        places = iter(impressions.place.tolist())
        following = next(places, -1)
        keys = keys_of(users, events["ad"], events["shown_ms"]).tolist()
        clicked = ((events["kind"] >= Kind.CLICKED) & (events["source"] == Source.CLICK)).tolist()
        for place, time_ms in enumerate(events["time_ms"].tolist()):
            if time_ms > self.clock_ms:
                self.clock_ms = time_ms
                self._close_windows(outcomes)
            if place == following:
                numbers, surface, ad, in_control = next(shown)
                learns = time_ms > self.learning.after_ms
                predicted.append(self._show(keys[place], ad, numbers, surface, in_control, model, learns=learns))
                following = next(places, -1)
            elif clicked[place]:
                self._click(keys[place], outcomes)
        return Observed(np.array(predicted), np.array(outcomes, dtype=OUTCOME))

    def _show(
        self, key: int, ad: int, numbers: list[float], surface: int, control: int, model: int, *, learns: bool
    ) -> float:
        """Predict an impression and have it wait; its chance of a click."""
        numbers[1] = lift = self.lifts.lift(ad)
        x = example(numbers, surface)
        chance = self.model.chance(x)
        if not learns or self.pending.holds(key):
            return chance
        if self.pending.full:
            self.dropped += bool(self.pending.pop()[OPEN])
        x["lift"] = 0.0
        expected = self.model.chance(x) if lift else chance
        x["lift"] = lift
        due_ms = self.clock_ms + self.learning.window_ms
        self.pending.push((key, ad, due_ms, *numbers, chance, expected, surface, control, 1, 0, model))
        if self.learning.feedback == "immediate":
            self.model.learn_one(x, False, (1 - chance) * (1 + chance))
            self.lifts.learn(ad, 0.0, expected)
        return chance

    def _click(self, key: int, outcomes: list[tuple[float, ...]]) -> None:
        found = self.pending.answer(key)
        if found is None:
            return
        number, row = found
        self.answered.append(number)
        x = _example(row)
        immediate = self.learning.feedback == "immediate"
        self.model.learn_one(x, True, 1 + self.model.chance(x) if immediate else 1.0)
        self.lifts.learn(int(row[AD]), 1.0, 0.0 if immediate else row[EXPECTED])
        self._learned(row, 1, outcomes)

    def _close_windows(self, outcomes: list[tuple[float, ...]]) -> None:
        """Learn the non-clicks whose window has ended."""
        while len(self.pending) and self.pending.oldest()[DUE] <= self.clock_ms:
            row = self.pending.pop()
            if not row[OPEN]:
                continue
            if self.learning.feedback == "window":
                if weight := self._weight(row):
                    self.model.learn_one(_example(row), False, weight)
                self.lifts.learn(int(row[AD]), 0.0, row[EXPECTED])
            self._learned(row, 0, outcomes)

    def _weight(self, row: Row) -> float:
        """What a non-click counts: 1 over the share that is learned, or 0 for one that is not among them."""
        share = self.learning.negatives
        if share >= 1:
            return 1.0
        kept = uniform(np.array([row[KEY]], dtype=np.uint64))[0] < share
        return 1 / share if kept else 0.0

    def _learned(self, row: Row, clicked: int, outcomes: list[tuple[float, ...]]) -> None:
        self.learned += 1
        outcomes.append((self.clock_ms, row[AD], row[PREDICTED], clicked, row[CONTROL], 0, row[MODEL]))


def _shown(
    events: Events, control: npt.NDArray[np.bool_], impressions: Impressions
) -> Iterator[tuple[list[float], int, int, int]]:
    """Numbers (the lift still 0), surface, ad and arm of each impression, from arrays built in one go."""
    of = events[impressions.place]
    person, surface = person_numbers(impressions.context)
    placed = of["slot"] >= 0
    numbers = np.column_stack(
        [impressions.logit, np.zeros(len(of)), person, placed, np.log1p(np.where(placed, of["slot"], 0))]
    )
    arms = control[impressions.place].astype(int)
    return zip(numbers.tolist(), surface.tolist(), of["ad"].tolist(), arms.tolist(), strict=True)


def _example(row: Row) -> Example:
    return example(row[FIRST:LAST], int(row[SURFACE]))
