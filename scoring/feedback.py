"""The online click layer as a stream: impressions predicted, outcomes learned, in the order of events.

An impression is predicted with the weights as they stand and waits (`scoring.pending`); it is learned when a click
answers it, or as a non-click when the layer's clock, the lane's time, passes the end of its window. Predicted is a
click in the slot where it was shown, learned what would have come of it in the first (`scoring.examination`). What
happens depends on the order of events alone, not on how they are cut into calls; training, evaluation and the worker
all run this.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from scoring.clicks import (
    LIFT,
    NUMBERS,
    PERSON_LIFT,
    AdLifts,
    ClickModel,
    Example,
    PersonLifts,
    example,
    person_numbers,
)
from scoring.events import Events, Kind
from scoring.examination import NOWHERE, SLOTS_MAX, Examination, looked
from scoring.ids import uniform
from scoring.learner import Learner
from scoring.pending import (
    AD,
    CLOSENESS,
    CONTROL,
    EVENT,
    EXAMINED,
    EXPECTED,
    FIRST,
    KEY,
    LAST,
    MODEL,
    OPEN,
    PERSON,
    PREDICTED,
    SHADOW,
    SHADOW_LOGIT,
    SHOWN,
    SLOT,
    SURFACE,
    Pending,
    Row,
    keys_of,
)
from scoring.watch import Alarm, Watch

Feedback = Literal["window", "immediate"]

WINDOW_MS = 300_000
"""How long a click may take to count. Of KuaiRand's 99.4 % come within it; a window of 60 s loses a quarter of them,
predicts 0.77 of the clicks there are and costs .04 of log loss; one of an hour learns late, and costs .006."""
PENDING_MAX = 100_000
"""Impressions that wait for their outcome, per lane: 14 MB and their index."""


@dataclass(frozen=True, slots=True)
class Learning:
    """How the layer learns.

    ``feedback``: "window" waits for the outcome. "immediate" learns a non-click at once and, when a click comes after
    all, the click, both with the weights that make the expectation right again (the fake-negative weighted loss of
    Ktena et al., 2019): on KuaiRand within .0002 of log loss of the other. ``negatives``: the share of non-clicks that
    the weights learn from, each counted the more; which ones is a function of the impression. ``examination``: how
    likely slots are looked at, where that is declared and not to be learned.
    """

    window_ms: int = WINDOW_MS
    pending_max: int = PENDING_MAX
    feedback: Feedback = "window"
    negatives: float = 1.0
    examination: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Impressions:
    """What attention models say of some impressions of a batch of events: ``logit [N]``, ``context [N, X]``.

    ``place [N]``: their places among the events, ascending. ``model [N]``: the number of the model that scored, None
    for 0. ``known [N]``: it was trained on what came of them, None for nothing; such impressions are predicted and not
    learned from. ``shadow_logit [N]``: what the model ``shadow`` says beside, NaN or None where it was not asked.
    ``closeness [N]``: the cosine of each ad with the person's long interest, NaN or None where there is none.
    """

    place: npt.NDArray[np.int64]
    logit: npt.NDArray[np.float32]
    context: npt.NDArray[np.float32]
    model: npt.NDArray[np.uint32] | None = None
    known: npt.NDArray[np.bool_] | None = None
    shadow_logit: npt.NDArray[np.float32] | None = None
    shadow: int = 0
    closeness: npt.NDArray[np.float32] | None = None


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
        ("slot", "<u2"),
        ("model", "<u4"),
        ("shadow", "<u4"),  # 0 where there was none
        ("shadow_predicted", "<f8"),
    ]
)


@dataclass(frozen=True, slots=True)
class Observed:
    """``predicted [N]``: the chance of a click on each of the impressions. ``outcomes``: of `OUTCOME`, as they came."""

    predicted: npt.NDArray[np.float64]
    outcomes: npt.NDArray[Any]


class ClickLayer:
    """One lane's layer: what it has learned of each attention model, of ads, people and slots, and what is open.

    ``live``: the number of the attention model whose weights are `model`.
    """

    def __init__(self, learning: Learning | None = None) -> None:
        self.learning = learning or Learning()
        self.live = 0
        self.learners: dict[int, Learner] = {}
        self.lifts = AdLifts()
        self.people = PersonLifts()
        self.examination = Examination(self.learning.examination)
        self.pending = Pending(self.learning.pending_max)
        self.clock_ms = 0
        self.learned = 0
        """Outcomes learned since the layer's first."""
        self.dropped = 0
        """Impressions whose outcome was not learned, since too many were open."""
        self.alarms: list[Alarm] = []
        """Drifts detected since this was last emptied."""
        self.answered: list[int] = []
        """Numbers of the pending records that clicks have closed since this was last emptied."""

    @property
    def model(self) -> ClickModel:
        """The weights over the live attention model's log-odds."""
        return self.learner(self.live).model

    @property
    def watch(self) -> Watch:
        """The watch over `model`."""
        return self.learner(self.live).watch

    def learner(self, number: int) -> Learner:
        """What was learned of the attention model of this number; nothing yet of one that is new."""
        found = self.learners.get(number)
        if found is None:
            found = self.learners[number] = Learner()
        return found

    def keep(self, numbers: Collection[int]) -> None:
        """Forget what was learned of all other attention models."""
        for number in self.learners.keys() - set(numbers):
            del self.learners[number]

    def observe(
        self,
        events: Events,
        users: npt.NDArray[np.uint64],
        control: npt.NDArray[np.bool_],
        impressions: Impressions,
    ) -> Observed:
        """Predict ``impressions`` and learn the outcomes that ``events [E]`` bring, in order.

        ``users [E]`` are the 64-bit ids of whoever did what; ``control [E]`` whether that user is in the control arm.
        Events that are no impressions among those given are read for clicks and time alone.
        """
        if not len(events):
            return Observed(np.zeros(0), np.zeros(0, dtype=OUTCOME))
        outcomes: list[tuple[float, ...]] = []
        predicted: list[float] = []
        shown = _shown(events, users, control, impressions)
        places = iter(impressions.place.tolist())
        following = next(places, -1)
        keys = keys_of(users, events["ad"], events["shown_ms"]).tolist()
        clicked = ((events["kind"] >= Kind.CLICKED) & events["answers"]).tolist()
        for place, (time_ms, stream_ms) in enumerate(zip(*(events[n].tolist() for n in _TIMES), strict=True)):
            if stream_ms > self.clock_ms:
                self.clock_ms = stream_ms
                self._close_windows(outcomes)
            if place == following:
                numbers, surface, ad, event, person, in_control, slot, model, known, *beside = next(shown)
                ids = (keys[place], ad, event, person, time_ms)
                examined = self.examination.examined(slot)
                numbers[LIFT], numbers[PERSON_LIFT] = self.lifts.lift(ad), self.people.lift(person)
                liked, expected = self.learner(model).model.chances(numbers, surface)
                chance = examined * liked
                predicted.append(chance)
                if not known and not self.pending.holds(keys[place]):
                    chances = (examined, chance, examined * expected)
                    self._wait(ids, (*numbers, *chances, surface, in_control, 1, slot, model, *beside))
                following = next(places, -1)
            elif clicked[place]:
                self._click(keys[place], outcomes)
        return Observed(np.array(predicted), np.array(outcomes, dtype=OUTCOME))

    def _wait(self, ids: tuple[int, int, int, int, int], told: tuple[float, ...]) -> None:
        """Let an impression (key, ad, event, person, time) with what is known of it wait for its outcome."""
        if self.pending.full:
            self.dropped += bool(self.pending.pop()[OPEN])
        row = (*ids, self.clock_ms + self.learning.window_ms, *told)
        number = self.pending.push(row)
        self.people.meet(ids[PERSON], number)
        if self.learning.feedback == "immediate":
            weight = (1 - row[PREDICTED]) * (1 + row[PREDICTED])
            self.learner(int(row[MODEL])).model.learn_one(_example(row), False, weight * _looked(row))
            self._count(number, row, 0.0, expected=1.0)

    def _click(self, key: int, outcomes: list[tuple[float, ...]]) -> None:
        found = self.pending.answer(key)
        if found is None:
            return
        number, row = found
        self.answered.append(number)
        immediate = self.learning.feedback == "immediate"
        if learner := self.learners.get(int(row[MODEL])):
            x = _example(row)
            learner.model.learn_one(x, True, 1 + row[EXAMINED] * learner.model.chance(x) if immediate else 1.0)
        self._count(number, row, 1.0, expected=0.0 if immediate else 1.0)
        self._learned(row, 1, outcomes)

    def _close_windows(self, outcomes: list[tuple[float, ...]]) -> None:
        """Learn the non-clicks whose window has ended."""
        while self.pending.due_ms <= self.clock_ms:
            number, row = self.pending.head, self.pending.pop()
            if not row[OPEN]:
                continue
            if self.learning.feedback == "window":
                learner = self.learners.get(int(row[MODEL]))
                if learner and (weight := self._weight(row)):
                    learner.model.learn_one(_example(row), False, weight * _looked(row))
                self._count(number, row, 0.0, expected=1.0)
            self._learned(row, 0, outcomes)

    def _count(self, number: int, row: Row, clicks: float, expected: float) -> None:
        """Count an outcome for its ad and person, whose records know the slot, and its slot, whose record knows them.

        ``number``: of the impression in the queue. ``expected``: 1 where the clicks expected of it are counted with it,
        else 0.
        """
        self.lifts.learn(int(row[AD]), clicks, expected * row[EXPECTED])
        self.people.learn(int(row[PERSON]), number, clicks, expected * row[EXPECTED])
        self.examination.learn(int(row[SLOT]), clicks, expected * row[PREDICTED] / row[EXAMINED])

    def _weight(self, row: Row) -> float:
        """What a non-click counts: 1 over the share that is learned, or 0 for one that is not among them."""
        share = self.learning.negatives
        if share >= 1:
            return 1.0
        kept = uniform(np.array([row[KEY]], dtype=np.uint64))[0] < share
        return 1 / share if kept else 0.0

    def _learned(self, row: Row, clicked: int, outcomes: list[tuple[float, ...]]) -> None:
        self.learned += 1
        beside = self._beside(row, clicked)
        outcome = (self.clock_ms, row[SHOWN], row[EVENT], row[AD], row[PREDICTED], row[FIRST], clicked)
        outcomes.append((*outcome, row[CONTROL], row[SLOT], row[MODEL], *beside))
        if learner := self.learners.get(int(row[MODEL])):
            self.alarms += learner.outcome(clicked, row[PREDICTED], row[CLOSENESS])

    def _beside(self, row: Row, clicked: int) -> tuple[int, float]:
        """Let the shadow that scored an impression learn what came of it: its number, and the chance that it gave.

        As it would have been served: by the weights of now, which have not learned this.
        """
        shadow = self.learners.get(int(row[SHADOW])) if row[SHADOW] else None
        if shadow is None:
            return 0, 0.0
        x = _example(row) | {NUMBERS[0]: row[SHADOW_LOGIT]}
        weight = 1.0 if clicked else self._weight(row)
        return int(row[SHADOW]), shadow.beside(x, clicked, row[PREDICTED], weight, row[EXAMINED])


def _shown(
    events: Events, users: npt.NDArray[np.uint64], control: npt.NDArray[np.bool_], impressions: Impressions
) -> Iterator[tuple[list[float], int, int, int, int, int, int, int, bool, int, float, float]]:
    """Numbers (lifts still 0), surface, ad, event, person, arm, slot, model, whether known, shadow, its log-odds,
    closeness.

    Of each impression, built in arrays.
    """
    of = events[impressions.place]
    person, surface = person_numbers(impressions.context)
    of_control = control[impressions.place]
    placed = of["slot"] >= 0
    numbers = np.column_stack([impressions.logit, np.zeros((len(of), 2)), person, placed & ~of_control])
    none = np.full(len(of), np.nan)
    beside = none if impressions.shadow_logit is None else impressions.shadow_logit
    asked = ~np.isnan(beside)
    columns = (
        numbers,
        surface,
        of["ad"],
        of["event"],
        users[impressions.place],
        of_control.astype(int),
        np.where(placed, np.minimum(of["slot"], SLOTS_MAX - 1), NOWHERE),
        np.zeros(len(of), dtype=np.uint32) if impressions.model is None else impressions.model,
        np.zeros(len(of), dtype=np.bool_) if impressions.known is None else impressions.known,
        np.where(asked, impressions.shadow, 0),
        np.where(asked, beside, 0),
        none if impressions.closeness is None else impressions.closeness,
    )
    return zip(*(column.tolist() for column in columns), strict=True)


def _looked(row: Row) -> float:
    """How likely the slot of an impression was looked at that was not clicked."""
    return looked(row[EXAMINED], row[PREDICTED])


def _example(row: Row) -> Example:
    return example(row[FIRST:LAST], int(row[SURFACE]))
