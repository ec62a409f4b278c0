"""Whether the click layer still fits the world: drift by ADWIN, and what is done about it.

Three detectors (A. Bifet and R. Gavaldà, "Learning from time-changing data with adaptive windowing", SDM 2007; River's)
watch numbers whose mean does not move while all is well:

- *calibration*: clicked minus predicted;
- *surprise*: the log loss of a prediction minus its expectation under that prediction, 0 on average for a calibrated
  one however sharp: it shows outcomes that turn against the predictions both ways, so that the mean stays;
- *interest*: how close a clicked ad is to the person's interest before: the cosine with the long interest.

And one that tells when these are calm again, since the layer soon no longer believes a model that is wrong:

- *gain*: what predictions tell beyond the click rate, in nats an outcome: the rate's entropy less their log loss. An
  alarm where over `GOOD_EVERY` outcomes it surely is less than half of what it once surely was.

An alarm of calibration or surprise is answered at once, always in the same order: learn faster; on an alarm soon after,
go back to the weights that were last seen to be good; on a third, ask for a new attention model. An alarm of gain asks
for a new model at once, and so does one of interest: predictions may well be right, but people want other things than
those the model has learned from, and what it has learned about interest is worth less. On KuaiRand the mean of interest
stays between .572 and .579, over five days of half-days. The ads on offer move it as well: another mix of them, or more
shown at random.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
import river
import xxhash
from river import drift

from scoring.arrays import Floats
from scoring.clicks import ClickModel
from scoring.evidence import log_loss

KEPT_BY = f"river {river.__version__}, checked\n".encode()
"""What a kept detector begins with. The XXH3 of the state comes next, and then the state. River's Rust code ends the
process, or hangs, on a state that is incomplete or of another version's layout, so it must never be given one."""
_CHECK = 8
"""Bytes of the XXH3."""
CONFIDENCE = 1e-5
"""ADWIN's delta: the chance of a false alarm at a cut. Cuts are many, and clicks vary with the hour: at 1e-4 a week of
KuaiRand raises one false alarm."""
QUICKER = 8.0
"""How much faster the layer learns after an alarm: what it has learned counts a sixty-fourth."""
SOON = 5_000
"""Outcomes within which a further alarm means that the last answer was not enough."""
LOOK_EVERY = 500
"""Outcomes between two notes of the means, which alarms report as the mean before; a mean is noted over this many at
least."""
GOOD_EVERY = 5_000
"""Fewest outcomes over which weights prove good: calibrated within `GOOD_WITHIN`, and without an alarm."""
GOOD_WITHIN = 0.05
NEWEST = 2_000
"""Values that a detector remembers, 16 KB, to tell how far a mean has gone. They are not kept: of an alarm soon after a
lane's move less than that is known."""
LEAST_CHANGED = 32
"""Fewest of them that a change is told from: ADWIN looks for one every 32 values."""
GAIN_ERRORS = 3
"""Standard errors within which a gain is not sure: of few clicks, or small gains, nothing is."""


class Detector(StrEnum):
    """What is watched."""

    CALIBRATION = "calibration"
    SURPRISE = "surprise"
    INTEREST = "interest"
    GAIN = "gain"

    def worse(self, was: float, now: float) -> bool:
        """Whether a change is for the worse: predictions less accurate, or clicks further from interest.

        ADWIN also detects the change that a successful answer makes.
        """
        if self is Detector.INTEREST:
            return now < was
        return abs(now) > abs(was) if self is Detector.CALIBRATION else now > was


BY_ADWIN = (Detector.CALIBRATION, Detector.SURPRISE, Detector.INTEREST)
"""What ADWIN watches, outcome by outcome."""


class Answer(StrEnum):
    """What an alarm is answered by."""

    QUICKEN = "quicken"
    FALL_BACK = "fall-back"
    RETRAIN = "retrain"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A drift: the watched mean before and since, the outcomes learned until then, and the answer.

    ``model``: the number of the attention model beneath, which the layer knows (`scoring.feedback.ClickLayer`).
    """

    detector: Detector
    answer: Answer
    learned: int
    was: float
    now: float
    model: int = 0


class KeptError(ValueError):
    """Bytes that are not a complete detector kept by this version of River."""


class Adwin(drift.ADWIN):
    """River's ADWIN, with a state that can be kept as bytes, and the newest values."""

    _drift_detected: bool

    def __init__(self) -> None:
        super().__init__(delta=CONFIDENCE)
        self._newest, self._seen = np.zeros(NEWEST), 0

    def drifts(self, value: float) -> bool:
        """River's ``update``; whether it detects a drift."""
        self._newest[self._seen % NEWEST] = value
        self._seen += 1
        if self._drift_detected:
            self._reset()
        self._drift_detected = bool(self._helper.update(value))
        return self._drift_detected

    def gone_to(self, was: float) -> float:
        """The mean since the values left the mean ``was``, at the likeliest point (a cumulative sum's) of the newest.

        ``estimation`` is less far from ``was``: when a drift is detected, most of the window is from before it.
        """
        count = np.arange(LEAST_CHANGED, min(self._seen, NEWEST) + 1)
        if not len(count):
            return float(self.estimation)
        newest_first = np.roll(self._newest, -self._seen)[::-1]
        means = newest_first.cumsum()[count - 1] / count
        away = (means - was) * math.copysign(1.0, self.estimation - was)
        return float(means[np.argmax(away * np.sqrt(count))])

    def kept(self) -> bytes:
        """What it detects by, about 1.4 KB."""
        state: bytes = bytes([self.drift_detected]) + self._helper.__getstate__()
        return KEPT_BY + xxhash.xxh3_64_digest(state) + state

    @classmethod
    def of(cls, kept: bytes) -> Self:
        """The detector that was kept. Raises `KeptError` for other bytes."""
        if not kept.startswith(KEPT_BY):
            raise KeptError(f"kept by {kept[: len(KEPT_BY)]!r}; expected {KEPT_BY!r}")
        check, state = kept[len(KEPT_BY) :][:_CHECK], kept[len(KEPT_BY) + _CHECK :]
        if not state or check != xxhash.xxh3_64_digest(state):
            raise KeptError(f"{len(kept)} bytes, cut short or changed; expected all that was kept, unchanged")
        out = cls()
        out._drift_detected = bool(state[0])
        out._helper.__setstate__(state[1:])
        return out


class Watch:
    """The detectors of one lane, and what has been done of late."""

    def __init__(self) -> None:
        self.detectors = {each: Adwin() for each in BY_ADWIN}
        self.means: dict[Detector, float] = {}
        self.good: tuple[Floats, Floats] | None = None
        """Weights and AdaGrad's sums that were last seen to be good."""
        self.last_alarm = -SOON
        self.alarms_soon = 0
        self.clicked = self.predicted = self.loss = self.loss_squared = 0.0
        """Sums since weights were last judged."""
        self.unjudged = 0
        """Outcomes since then, without those that a model learned as a shadow."""
        self.gained = 0.0
        """The largest gain of which was sure that it was no less."""
        self.dull = False
        """Whether a new model was asked for since the gain was last as it should be."""

    def outcome(
        self, model: ClickModel, learned: int, clicked: int, predicted: float, closeness: float = math.nan
    ) -> list[Alarm]:
        """Take an outcome, the ``learned``-th, and return the alarms it raises; an answer may change ``model``.

        ``closeness``: of the shown ad to the person's interest, NaN where there is none.
        """
        self.unjudged += 1
        self.clicked += clicked
        self.predicted += predicted
        loss = log_loss(clicked, predicted)
        self.loss += loss
        self.loss_squared += loss**2
        residual = clicked - predicted
        # -log p(y) - H(p) = -(y - p) log(p / (1 - p))
        surprise = -residual * math.log(predicted / (1 - predicted))
        watched = [(Detector.CALIBRATION, residual), (Detector.SURPRISE, surprise)]
        if clicked and not math.isnan(closeness):
            watched.append((Detector.INTEREST, closeness))
        alarms = []
        for detector, value in watched:
            if self.detectors[detector].drifts(value) and (alarm := self._alarm(detector, model, learned)):
                alarms.append(alarm)
        if learned % LOOK_EVERY == 0:
            alarms += self._look(model, learned)
        return alarms

    def _alarm(self, detector: Detector, model: ClickModel, learned: int) -> Alarm | None:
        """The alarm and its answer; None where nothing was known before, or where predictions got better."""
        was, now = self.means.pop(detector, None), self.detectors[detector].estimation
        if was is None or not detector.worse(was, now):
            return None
        answer = Answer.RETRAIN if detector is Detector.INTEREST else self._answer(model, learned)
        return Alarm(detector, answer, learned, was, self.detectors[detector].gone_to(was))

    def _answer(self, model: ClickModel, learned: int) -> Answer:
        self.alarms_soon = self.alarms_soon + 1 if learned - self.last_alarm < SOON else 1
        self.last_alarm = learned
        if self.alarms_soon == 1:
            model.quicken(QUICKER)
            return Answer.QUICKEN
        if self.alarms_soon == 2 and self.good is not None:
            model.restore(*self.good)
            model.quicken(QUICKER)
            return Answer.FALL_BACK
        return Answer.RETRAIN

    def _look(self, model: ClickModel, learned: int) -> list[Alarm]:
        """Note the means, keep the weights that outcomes have shown to be good, and see what predictions tell."""
        self.means = {each: adwin.estimation for each, adwin in self.detectors.items() if adwin.width >= LOOK_EVERY}
        if self.unjudged < GOOD_EVERY:
            return []
        calm = learned - self.last_alarm >= GOOD_EVERY
        if calm and self.clicked and abs(self.predicted / self.clicked - 1) <= GOOD_WITHIN:
            self.good = model.array, model.caution
        alarm = self._dulled(learned)
        self.clicked = self.predicted = self.loss = self.loss_squared = 0.0
        self.unjudged = 0
        return [] if alarm is None else [alarm]

    def _dulled(self, learned: int) -> Alarm | None:
        """The alarm where predictions surely tell less than half of what they did; one, until they tell more again."""
        rate, loss = self.clicked / self.unjudged, self.loss / self.unjudged
        variance = max(self.loss_squared / self.unjudged - loss**2, 0.0)
        gain, error = _entropy(rate) - loss, GAIN_ERRORS * math.sqrt(variance / self.unjudged)
        dull, told = gain + error < self.gained / 2, self.dull
        self.gained, self.dull = max(self.gained, gain - error), dull
        return Alarm(Detector.GAIN, Answer.RETRAIN, learned, self.gained, gain) if dull and not told else None


def _entropy(rate: float) -> float:
    """Of an outcome with this chance, in nats: the log loss of who knows the click rate and nothing else."""
    return -sum(chance * math.log(chance) for chance in (rate, 1 - rate) if chance > 0)
