"""The online click layer as a stream: impressions predicted, outcomes learned, in the order of events.

An impression is predicted with the weights as they stand and waits (`scoring.pending`); it is learned when a click
answers it, or as a non-click when the layer's clock, the lane's time, passes the end of its window. What
happens depends on the order of events alone, not on how they are cut into calls; training, evaluation and the worker
all run this.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from scoring.clicks import AdLifts, ClickModel, Example, example, person_numbers
from scoring.events import Events, Kind, Source
from scoring.ids import uniform
from scoring.pending import (
    AD,
    CONTROL,
    EVENT,
    EXPECTED,
    FIRST,
    KEY,
    LAST,
    MODEL,
    OPEN,
    PREDICTED,
    SHOWN,
    SURFACE,
    Pending,
    Row,
    keys_of,
)
from scoring.watch import Alarm, Watch

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
    counted the more; which ones is a function of the impression.
    """

    window_ms: int = WINDOW_MS
    pending_max: int = PENDING_MAX
    feedback: Feedback = "window"
    negatives: float = 1.0


@dataclass(frozen=True, slots=True)
class Impressions:
    """What the attention model says of some impressions of a batch of events: ``logit [N]``, ``context [N, X]``.

    ``place [N]``: their places among the events, ascending. ``agreement [N]``: how alike the person's two interests
    are, the cosine; NaN, or None for all, where it is not known.
    """

    place: npt.NDArray[np.int64]
    logit: npt.NDArray[np.float32]
    context: npt.NDArray[np.float32]
    agreement: npt.NDArray[np.float32] | None = None


_TIMES = ("time_ms", "stream_ms")
OUTCOME = np.dtype(
    [
        ("time_ms", "<i8"),  # the layer's clock
        ("shown_ms", "<i8"),
        ("event", "<u8"),  # the id of the impression
        ("ad", "<u8"),
        ("predicted", "<f8"),
        ("logit", "<f8"),  # the attention model's alone
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
        self.watch = Watch()
        self.alarms: list[Alarm] = []
        """Drifts detected since this was last emptied."""
        self.answered: list[int] = []
        """Numbers of the pending records that clicks have closed since this was last emptied."""

    def observe(
        self,
        events: Events,
        users: npt.NDArray[np.uint64],
        control: npt.NDArray[np.bool_],
        impressions: Impressions,
        model: int = 0,
        trained_ms: tuple[int, int] = (0, -1),
    ) -> Observed:
        """Predict ``impressions`` and learn the outcomes that ``events [E]`` bring, in order.

        ``users [E]`` are the 64-bit ids of whoever did what; ``control [E]`` whether that user is in the control arm;
        ``model`` the number of the attention model that scored, which was trained on what was shown from the first to
        the second of ``trained_ms``: such impressions are predicted and not learned from, since it knows their
        outcomes. Events that are no impressions among those given are read for clicks and time alone.
        """
        if not len(events):
            return Observed(np.zeros(0), np.zeros(0, dtype=OUTCOME))
        outcomes: list[tuple[float, ...]] = []
        predicted: list[float] = []
        first_ms, last_ms = trained_ms
        shown = _shown(events, control, impressions)
        places = iter(impressions.place.tolist())
        following = next(places, -1)
        keys = keys_of(users, events["ad"], events["shown_ms"]).tolist()
        clicked = ((events["kind"] >= Kind.CLICKED) & (events["source"] == Source.CLICK)).tolist()
        for place, (time_ms, stream_ms) in enumerate(zip(*(events[n].tolist() for n in _TIMES), strict=True)):
            if stream_ms > self.clock_ms:
                self.clock_ms = stream_ms
                self._close_windows(outcomes)
            if place == following:
                numbers, surface, ad, event, in_control, agreement = next(shown)
                ids = (keys[place], ad, event, time_ms)
                chance, expected = self._predict(ad, numbers, surface)
                predicted.append(chance)
                if not first_ms <= time_ms <= last_ms and not self.pending.holds(keys[place]):
                    self._wait(ids, (*numbers, chance, expected, surface, in_control, 1, 0, model))
                if agreement == agreement:  # noqa: PLR0124 - NaN is not known
                    self.alarms += self.watch.interest(self.model, self.learned, agreement)
                following = next(places, -1)
            elif clicked[place]:
                self._click(keys[place], outcomes)
        return Observed(np.array(predicted), np.array(outcomes, dtype=OUTCOME))

    def _predict(self, ad: int, numbers: list[float], surface: int) -> tuple[float, float]:
        """The chance of a click, and the same without the ad's lift, which is filled in."""
        x = example(numbers, surface)
        expected = self.model.chance(x)
        numbers[1] = lift = self.lifts.lift(ad)
        if not lift:
            return expected, expected
        x["lift"] = lift
        return self.model.chance(x), expected

    def _wait(self, ids: tuple[int, int, int, int], told: tuple[float, ...]) -> None:
        """Let an impression (key, ad, event, time) with what is known of it wait for its outcome."""
        if self.pending.full:
            self.dropped += bool(self.pending.pop()[OPEN])
        row = (*ids, self.clock_ms + self.learning.window_ms, *told)
        self.pending.push(row)
        if self.learning.feedback == "immediate":
            chance = row[PREDICTED]
            self.model.learn_one(_example(row), False, (1 - chance) * (1 + chance))
            self.lifts.learn(int(row[AD]), 0.0, row[EXPECTED])

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
        while self.pending.due_ms <= self.clock_ms:
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
        outcome = (self.clock_ms, row[SHOWN], row[EVENT], row[AD], row[PREDICTED], row[FIRST], clicked)
        outcomes.append((*outcome, row[CONTROL], 0, row[MODEL]))
        self.alarms += self.watch.outcome(self.model, self.learned, clicked, row[PREDICTED])


def _shown(
    events: Events, control: npt.NDArray[np.bool_], impressions: Impressions
) -> Iterator[tuple[list[float], int, int, int, int, float]]:
    """Numbers (the lift still 0), surface, ad, event, arm and agreement of each impression, built in arrays."""
    of = events[impressions.place]
    person, surface = person_numbers(impressions.context)
    of_control = control[impressions.place]
    placed = of["slot"] >= 0
    slot = np.log1p(np.where(placed, of["slot"], 0))
    numbers = np.column_stack([impressions.logit, np.zeros(len(of)), person, placed & ~of_control, slot])
    agreement = np.full(len(of), np.nan) if impressions.agreement is None else impressions.agreement
    columns = (numbers, surface, of["ad"], of["event"], of_control.astype(int), agreement)
    return zip(*(column.tolist() for column in columns), strict=True)


def _example(row: Row) -> Example:
    return example(row[FIRST:LAST], int(row[SURFACE]))
