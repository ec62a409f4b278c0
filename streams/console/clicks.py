"""Click rates by arm, and how good each model's predictions were, from the outcomes of impressions. No I/O."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.arrays import Floats
from scoring.confidence import wilson
from scoring.units import HOUR_MS
from streams.control_wire import Drift
from streams.outcomes import columns
from streams.quality import KEPT, Quality, Settled
from streams.wire import Outcome

ARMS_MAX, MODELS_MAX = 16, 8
"""Arms and models kept, those with the newest outcomes; a model takes two arrays of `KEPT` outcomes."""
SERVES_MS = 600_000
"""A model counts as serving (live, canary or an arm's own) while its last outcome is no further behind the newest of
all models: if two serve, each has the newest outcome by turns."""
HOURS = 24
"""Hours for which clicks' ranks are kept: with few clicks, a random ranking takes so long to show."""
POINTS = 120
"""Points of an interval over time."""
DRIFTS_MAX = 20


class ArmRate(msgspec.Struct, frozen=True, kw_only=True):
    """Clicks over impressions whose outcome is known, with Wilson's 95 % interval, valid for a single look.

    Its unit is the impression, since outcomes name no person. A person's impressions are correlated, so the interval is
    narrower than one by people. ``lows``, ``highs``: past intervals, oldest first, at most `POINTS`, evenly spaced in
    known outcomes.
    """

    arm: str
    impressions: int
    clicks: int
    rate: float
    low: float
    high: float
    lows: list[float]
    highs: list[float]


class Arm:
    """Counts of an arm, and its interval over time."""

    def __init__(self) -> None:
        self.impressions = self.clicks = 0
        self._points: list[tuple[float, float]] = []
        self._stride = self._due = 1

    def add(self, *, clicked: bool) -> None:
        """Count one more outcome."""
        self.impressions += 1
        self.clicks += clicked
        if self.impressions >= self._due:
            self._points.append(wilson(self.clicks, self.impressions))
            if len(self._points) == POINTS:  # keep every second point: the whole history in bounded space
                self._points, self._stride = self._points[1::2], 2 * self._stride
            self._due += self._stride

    def told(self, name: str) -> ArmRate:
        """What is known now."""
        low, high = wilson(self.clicks, self.impressions)
        points = [*self._points, (low, high)]
        return ArmRate(
            arm=name,
            impressions=self.impressions,
            clicks=self.clicks,
            rate=self.clicks / self.impressions if self.impressions else 0.0,
            low=low,
            high=high,
            lows=[round(point[0], 6) for point in points],
            highs=[round(point[1], 6) for point in points],
        )


class ModelQuality(msgspec.Struct, frozen=True, kw_only=True):
    """How good a model's predictions were, over its newest outcomes; None where too few are known.

    ``layer``: with the online click layer; ``alone``: by the attention model without it.
    """

    model: str
    outcomes: int
    newest_ms: int
    layer: "Accuracy"
    alone: "Accuracy"


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """``calibration``: clicks over ``expected``. ``drifts``: how often ADWIN found the residual's mean changed.

    ``day_auc``: over the ``day_clicks`` read within a day; only for the click layer.
    """

    calibration: float | None
    log_loss: float | None
    auc: float | None
    drifts: int
    clicks: int
    expected: float
    day_auc: float | None = None
    day_clicks: int = 0


def _accuracy(quality: Quality) -> Accuracy:
    calibration, log_loss, auc = (None if math.isnan(each) else round(each, 4) for each in quality.figures())
    clicks, expected = quality.clicks()
    return Accuracy(
        calibration=calibration,
        log_loss=log_loss,
        auc=auc,
        drifts=quality.drifts,
        clicks=clicks,
        expected=round(expected, 1),
    )


class DayRanks:
    """Ranks of clicks among non-clicks (`Quality.ranks`) by the hour in which they were read: a day's mean is its AUC.

    Hours go by the reader's clock, since an outcome may be dated far ahead. The last 24 begun hours are kept.
    """

    def __init__(self) -> None:
        self._hours: dict[int, tuple[int, float]] = {}

    def add(self, ranks: Floats, now_ms: int) -> None:
        """Add ``ranks``, and drop those older than a day."""
        hour = now_ms // HOUR_MS
        clicks, total = self._hours.get(hour, (0, 0.0))
        self._hours[hour] = clicks + len(ranks), total + float(ranks.sum())
        self._hours = {at: sums for at, sums in self._hours.items() if at > hour - HOURS}

    def figures(self) -> tuple[float | None, int]:
        """The AUC, None without a click, and the number of clicks behind it."""
        clicks, total = (sum(each) for each in zip(*self._hours.values(), strict=True))
        return round(total / clicks, 4) if clicks else None, int(clicks)


class Model:
    """The outcomes of a model."""

    def __init__(self) -> None:
        self.outcomes = self.newest_ms = 0
        self._layer, self._alone = Quality(), Quality()
        self._day = DayRanks()

    def take(self, outcomes: Sequence[Outcome]) -> None:
        """Take more outcomes, oldest first."""
        for quality, rows in self._judged(outcomes):
            quality.observe(rows)
        self.outcomes += len(outcomes)
        self.newest_ms = max(self.newest_ms, *(outcome.known_ms for outcome in outcomes))

    def watch(self, outcomes: Sequence[Outcome]) -> None:
        """Look for drift in outcomes of moments that have been heard whole."""
        for quality, rows in self._judged(outcomes):
            quality.watch(rows)

    def _judged(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[Quality, npt.NDArray[Any]]]:
        rows = np.empty(len(outcomes), dtype=[("predicted", "<f8"), ("clicked", "u1")])
        rows["clicked"] = [outcome.clicked for outcome in outcomes]
        for quality, chances in (
            (self._layer, [outcome.predicted for outcome in outcomes]),
            (self._alone, [outcome.attention for outcome in outcomes]),
        ):
            rows["predicted"] = chances
            yield quality, rows

    def told(self, name: str, now_ms: int) -> ModelQuality:
        """What is known now."""
        self._day.add(self._layer.ranks(), now_ms)
        day_auc, day_clicks = self._day.figures()
        return ModelQuality(
            model=name,
            outcomes=self.outcomes,
            newest_ms=self.newest_ms,
            layer=msgspec.structs.replace(_accuracy(self._layer), day_auc=day_auc, day_clicks=day_clicks),
            alone=_accuracy(self._alone),
        )


def _by_model(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes by the model that predicted them, in order."""
    out: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        out.setdefault(outcome.model, []).append(outcome)
    return out


class Clicks:
    """Arms, models and drift."""

    def __init__(self) -> None:
        self._arms: dict[str, Arm] = {}
        self._models: dict[str, Model] = {}
        self.drifts: deque[Drift] = deque(maxlen=DRIFTS_MAX)
        self._wanted: dict[str, Drift] = {}
        self._settled, self._whole = Settled(), Settled(cut=True)

    def take(self, lane: int, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes of ``lane``, oldest first. Each is counted once others shown at its time are known, too."""
        rows = columns(outcomes)
        settled = self._settled.take(lane, rows)["outcome"]
        for outcome in settled:
            if (arm := self._arms.get(outcome.arm)) is None:
                arm = self._arms[outcome.arm] = Arm()
            arm.add(clicked=outcome.clicked)
        for name in dict.fromkeys(outcome.arm for outcome in settled):
            self._arms[name] = self._arms.pop(name)  # the one that was silent for longest comes first
        for name, told in _by_model(settled).items():
            self._models.setdefault(name, Model()).take(told)
        for name, told in _by_model(self._whole.take(lane, rows)["outcome"]).items():
            if (model := self._models.get(name)) is not None:
                model.watch(told)
        while len(self._arms) > ARMS_MAX:
            del self._arms[next(iter(self._arms))]
        while len(self._models) > MODELS_MAX:
            del self._models[min(self._models, key=lambda name: self._models[name].newest_ms)]

    def jumped(self, lane: int) -> None:
        """Note that outcomes of ``lane`` were skipped."""
        self._settled.begin_anew(lane)
        self._whole.begin_anew(lane)

    def drifted(self, drift: Drift) -> None:
        """Note a lane's report of drift: its click layer no longer fits the world."""
        self.drifts.appendleft(drift)
        if drift.answer == "retrain":
            self._wanted.pop(drift.model, None)
            self._wanted[drift.model] = drift
        while len(self._wanted) > MODELS_MAX:
            del self._wanted[next(iter(self._wanted))]

    def wanted(self) -> list[Drift]:
        """The latest wish for another model in place of each, the newest first, however many others drift after it."""
        return list(reversed(self._wanted.values()))

    def arms(self) -> list[ArmRate]:
        """Every arm's click rate."""
        return [arm.told(name) for name, arm in sorted(self._arms.items())]

    def models(self, now_ms: int) -> list[ModelQuality]:
        """Every model's quality: serving models by name, so that they keep their places; then others, latest first."""
        told = [model.told(name, now_ms) for name, model in self._models.items()]
        since_ms = max((model.newest_ms for model in told), default=0) - SERVES_MS
        return sorted(told, key=lambda model: (max(since_ms - model.newest_ms, 0), model.model))


OUTCOMES_READ = KEPT
"""Newest outcomes of each partition read at the start: as many as a model's figures cover."""
