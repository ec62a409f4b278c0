"""The online click layer as a stream: impressions predicted, outcomes learned, in the order of events.

An impression is predicted with the weights as they stand, and waits (`scoring.pending`). After `WAIT_MS` it is learned,
as a click where one has come, else as a non-click. A later click takes the non-click back, until the layer's clock (the
lane's time) passes the end of the impression's window: then the outcome is known, and the prediction is judged
(`scoring.watch`). It is not judged earlier, since clicks are known before non-clicks, and would be too large a part.
For the same reason clicks wait before they are learned: else, whenever a lane, a model, an ad or a person begins,
everything would seem to be clicked. The layer predicts a click in the slot where the ad was shown, and learns what
would have come of it in the first slot (`scoring.examination`). What happens depends on the order of events alone, not
on how they are cut into calls; training, evaluation and the worker all run this.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Floats, Ids
from scoring.clicks import (
    LIFT,
    NUMBERS,
    PERSON_LIFT,
    AdLifts,
    ClickModel,
    Example,
    PersonLifts,
    example,
)
from scoring.events import Events, Kind
from scoring.examination import Examination, looked
from scoring.ids import uniform
from scoring.impressions import Impressions
from scoring.learner import Learner
from scoring.pending import (
    AD,
    CLOSENESS,
    CONTROL,
    DUE,
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
    SHADOW_PREDICTED,
    SHOWN,
    SLOT,
    SURFACE,
    Pending,
    Row,
    keys_of,
)
from scoring.watch import Alarm, Watch

WINDOW_MS = 600_000
"""How long after its impression a click counts. Of KuaiRand's clicks 99.98 % come within it. Five minutes miss 6 in a
thousand, and predict .993 of the actual clicks (this .998); a minute misses a quarter, predicts .77 and costs .04 of
log loss; an hour is no better. Learning does not wait for it."""
WAIT_MS = 10_000
"""How long an impression waits before it is learned, as a non-click if no click has come. It is short so that what is
learned serves seconds later; otherwise its length matters little. On KuaiRand (44 % clicked, 45 % of those later than
30 s) no wait, ten seconds, half a minute, two minutes, and the whole window are within .0001 of log loss, and in a log
of the demo's shoppers (5 % clicked, within 3 s) within .0002. With no wait at all, a person who has just been shown ten
ads seems to like none of them, the last ones least."""
PENDING_MAX = 200_000
"""Most impressions that wait for their outcome, per lane: 30 MB and their index. Beyond 333 a second windows end early.
"""


@dataclass(frozen=True, slots=True)
class Learning:
    """How the layer learns.

    ``wait_ms``: after which an impression is learned, without a click as a non-click; a later click, within
    ``window_ms``, takes that back. ``negatives``: the share of non-clicks that the weights learn from, weighted up to
    stand for all; a hash of the impression chooses them. ``examination``: how likely slots are looked at, where that is
    declared instead of learned.
    """

    window_ms: int = WINDOW_MS
    wait_ms: int = WAIT_MS
    pending_max: int = PENDING_MAX
    negatives: float = 1.0
    examination: tuple[float, ...] = ()


_TIMES = ("time_ms", "stream_ms")
OUTCOME = np.dtype(
    [
        ("time_ms", "<i8"),  # the layer's clock
        ("shown_ms", "<i8"),
        ("due_ms", "<i8"),  # the end of its window, by the layer's clock
        ("event", "<u8"),  # the id of the impression
        ("ad", "<u8"),
        ("predicted", "<f8"),
        ("logit", "<f8"),  # the attention model's own
        ("clicked", "u1"),
        ("control", "u1"),
        ("slot", "<u2"),
        ("model", "<u4"),
        ("shadow", "<u4"),  # 0 where there was none
        ("shadow_predicted", "<f8"),
    ]
)


JUDGED = np.dtype([("predicted", "<f8"), ("clicked", "u1")])


@dataclass(frozen=True, slots=True)
class Observed:
    """``predicted [N]``: the chance of a click on each of the impressions. ``outcomes``: of `OUTCOME`, as they came.

    ``judged``: of `JUDGED`, impressions whose window has ended, clicked or not, in the order in which they were shown.
    ``cut``: impressions whose window ended early, since too many were open.
    """

    predicted: Floats
    outcomes: npt.NDArray[Any]
    judged: npt.NDArray[Any]
    cut: int = 0


NOTHING_OBSERVED = Observed(np.zeros(0), np.zeros(0, dtype=OUTCOME), np.zeros(0, dtype=JUDGED))


class ClickLayer:
    """One lane's layer: what it has learned about attention models, ads, people and slots, and open impressions.

    ``live``: the number of the attention model whose weights are `model`.
    """

    def __init__(self, learning: Learning | None = None) -> None:
        self.learning = learning or Learning()
        self._ahead_ms = max(self.learning.window_ms - self.learning.wait_ms, 0)
        """How long before the end of its window an impression is learned."""
        self.live = 0
        self.learners: dict[int, Learner] = {}
        self.lifts = AdLifts()
        self.people = PersonLifts()
        self.examination = Examination(self.learning.examination)
        self.pending = Pending(self.learning.pending_max)
        self.clock_ms = 0
        self.learned = 0
        """Outcomes learned since the layer's first."""
        self.alarms: list[Alarm] = []
        """Drifts detected since this was last emptied."""
        self._judged: list[tuple[float, int]] = []
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
        """What was learned about the attention model of this number; a new learner for a new model."""
        found = self.learners.get(number)
        if found is None:
            found = self.learners[number] = Learner()
        return found

    def heed(self, live: int) -> None:
        """Make the model of this number live: shadows are compared with it, and earlier comparisons are forgotten."""
        if live != self.live:
            self.live = live
            for learner in self.learners.values():
                learner.evidence.apart()

    def keep(self, numbers: Collection[int]) -> None:
        """Keep what was learned about these attention models, and forget all others."""
        for number in self.learners.keys() - set(numbers):
            del self.learners[number]

    def reopen(self, head: int, rows: npt.NDArray[Any], asked: int) -> None:
        """Restore waiting impressions: ``rows`` of `PENDING`, numbered from ``head``, as they stood at ``clock_ms``.

        Those before ``asked`` have been learned. None waits longer than today's window.
        """
        rows["due_ms"] = np.minimum(rows["due_ms"], self.clock_ms + self.learning.window_ms)
        self.pending.restore(head, rows, asked)

    def observe(
        self,
        events: Events,
        users: Ids,
        control: Bools,
        impressions: Impressions,
    ) -> Observed:
        """Predict ``impressions`` and learn what ``events [E]`` tell of them and of earlier ones, in order.

        ``users [E]`` are the 64-bit ids of the events' users; ``control [E]``: whether they are in the control arm.
        Events other than the given impressions are read for clicks and time alone.
        """
        if not len(events):
            return NOTHING_OBSERVED
        outcomes: list[tuple[float, ...]] = []
        predicted: list[float] = []
        cut = 0
        shown = impressions.among(events, users, control)
        places = iter(impressions.place.tolist())
        following = next(places, -1)
        keys = keys_of(users, events["ad"], events["shown_ms"]).tolist()
        clicked = ((events["kind"] >= Kind.CLICKED) & events["answers"]).tolist()
        for place, (time_ms, stream_ms) in enumerate(zip(*(events[n].tolist() for n in _TIMES), strict=True)):
            if stream_ms > self.clock_ms:
                self.clock_ms = stream_ms
                if self.pending.asked_due_ms <= stream_ms + self._ahead_ms:
                    self._end_waits()
                if self.pending.due_ms <= stream_ms:
                    self._close_windows(outcomes)
            if place == following:
                numbers, surface, ad, event, person, in_control, slot, model, known, shadow, beside, near = next(shown)
                ids = (keys[place], ad, event, person, time_ms)
                examined = self.examination.examined(slot)
                numbers[LIFT], numbers[PERSON_LIFT] = self.lifts.lift(ad), self.people.lift(person)
                liked, expected = self.learner(model).model.chances(numbers, surface)
                chance = examined * liked
                predicted.append(chance)
                if not known and not self.pending.holds(keys[place]):
                    chances = (examined, chance, examined * expected)
                    other = examined * self._shadows(shadow, beside, numbers, surface) if shadow else math.nan
                    told = (shadow, beside, other, near)
                    while self.pending.full:  # after a restart more may wait than the bound allows
                        cut += 1
                        self._make_room(outcomes)
                    self._wait(ids, (*numbers, *chances, surface, in_control, 1, slot, model, *told))
                following = next(places, -1)
            elif clicked[place]:
                self._click(keys[place], outcomes)
        judged, self._judged = self._judged, []
        return Observed(np.array(predicted), np.array(outcomes, dtype=OUTCOME), np.array(judged, dtype=JUDGED), cut)

    def _shadows(self, shadow: int, logit: float, numbers: list[float], surface: int) -> float:
        """The shadow's chance of a click; NaN where nothing was learned about that shadow."""
        learner = self.learners.get(shadow)
        return learner.model.chances((logit, *numbers[1:]), surface)[0] if learner else math.nan

    def _wait(self, ids: tuple[int, int, int, int, int], told: tuple[float, ...]) -> None:
        """Queue an impression (key, ad, event, person, time), with what is known about it, until its outcome."""
        row = (*ids, self.clock_ms + self.learning.window_ms, *told)
        self.people.meet(ids[PERSON], self.pending.push(row))

    def _click(self, key: int, outcomes: list[tuple[float, ...]]) -> None:
        found = self.pending.answer(key)
        if found is None:
            return
        number, row = found
        self.answered.append(number)
        if number < self.pending.asked:  # it was learned as a non-click; else it waits with its impression
            for model, x, chance in self._scored(row):
                model.learn_one(x, True, 1 + self._taken_back(row, chance, model.chance(x)))
            self._count(number, row, 1.0, expected=0.0)
        self._tell(row, 1, outcomes)

    def _end_waits(self) -> None:
        """Learn the click, or non-click, of the impressions that have waited long enough."""
        pending = self.pending
        while pending.asked_due_ms <= self.clock_ms + self._ahead_ms:
            self._end_wait(*pending.ask())

    def _end_wait(self, number: int, row: Row) -> None:
        if math.isnan(row[PREDICTED]):  # it was lost
            return
        clicked = not row[OPEN]
        if share := 1.0 if clicked else self._weight(row):
            for model, x, chance in self._scored(row):
                model.learn_one(x, clicked, share if clicked else share * looked(row[EXAMINED], chance))
        self._count(number, row, float(clicked), expected=1.0)

    def _taken_back(self, row: Row, chance: float, liked: float) -> float:
        """The extra weight of a late click, whose step then cancels the one of the non-click learned before.

        ``chance``: what was predicted; ``liked``: what is predicted now for the first slot.
        """
        return self._weight(row) * looked(row[EXAMINED], chance) * liked / (1 - liked)

    def _close_windows(self, outcomes: list[tuple[float, ...]]) -> None:
        """Close the windows that have ended: report non-clicks, and judge all predictions."""
        while self.pending.due_ms <= self.clock_ms:
            self._close(outcomes)

    def _close(self, outcomes: list[tuple[float, ...]]) -> None:
        """Close the oldest impression's window."""
        row = self.pending.pop()
        if row[OPEN]:
            self._tell(row, 0, outcomes)
        self._judge(row)

    def _make_room(self, outcomes: list[tuple[float, ...]]) -> None:
        """Close the oldest impression's window before its time; first end its wait where that is not over."""
        if self.pending.head == self.pending.asked:
            self._end_wait(*self.pending.ask())
        self._close(outcomes)

    def _scored(self, row: Row) -> list[tuple[ClickModel, Example, float]]:
        """For each model that scored an impression: the weights over it, their example, and the chance they gave."""
        x, out = example(row[FIRST:LAST], int(row[SURFACE])), []
        if learner := self.learners.get(int(row[MODEL])):
            out.append((learner.model, x, row[PREDICTED]))
        if row[SHADOW] and _known(row) and (shadow := self.learners.get(int(row[SHADOW]))):
            out.append((shadow.model, x | {NUMBERS[0]: row[SHADOW_LOGIT]}, row[SHADOW_PREDICTED]))
        return out

    def _count(self, number: int, row: Row, clicks: float, expected: float) -> None:
        """Count an outcome for its ad, person and slot.

        The clicks expected of ad and person allow for the slot, those of the slot for ad and person. ``number``: of the
        impression in the queue. ``expected``: 1 where its expected clicks are counted with it, else 0.
        """
        self.lifts.learn(int(row[AD]), clicks, expected * row[EXPECTED])
        self.people.learn(int(row[PERSON]), number, clicks, expected * row[EXPECTED])
        self.examination.learn(int(row[SLOT]), clicks, expected * row[PREDICTED] / row[EXAMINED])

    def _weight(self, row: Row) -> float:
        """The weight of a non-click: 1 over the share that is learned, or 0 if it is not in that share."""
        share = self.learning.negatives
        if share >= 1:
            return 1.0
        kept = uniform(np.array([row[KEY]], dtype=np.uint64))[0] < share
        return 1 / share if kept else 0.0

    def _tell(self, row: Row, clicked: int, outcomes: list[tuple[float, ...]]) -> None:
        """Report an outcome, which is known now."""
        self.learned += 1
        shadow, chance = (row[SHADOW], row[SHADOW_PREDICTED]) if row[SHADOW] and _known(row) else (0, 0.0)
        outcome = (self.clock_ms, row[SHOWN], row[DUE], row[EVENT], row[AD], row[PREDICTED], row[FIRST], clicked)
        outcomes.append((*outcome, row[CONTROL], row[SLOT], row[MODEL], shadow, chance))

    def _judge(self, row: Row) -> None:
        """Judge what models predicted of an impression by its outcome; one that was lost is not judged."""
        if math.isnan(row[PREDICTED]):
            return
        clicked = 1 - int(row[OPEN])
        self._judged.append((row[PREDICTED], clicked))
        number = int(row[MODEL])
        if learner := self.learners.get(number):
            alarms = learner.outcome(clicked, row[PREDICTED], row[CLOSENESS])
            self.alarms += [replace(alarm, model=number) for alarm in alarms]
        if row[SHADOW] and _known(row) and (shadow := self.learners.get(int(row[SHADOW]))):
            live = row[PREDICTED] if number == self.live else None
            shadow.beside(clicked, row[SHADOW_PREDICTED], live, int(row[SHOWN]), self.clock_ms)


def _known(row: Row) -> bool:
    """Whether the shadow's prediction is known."""
    return not math.isnan(row[SHADOW_PREDICTED])
