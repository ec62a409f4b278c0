"""What a lane's click layer has learned of one attention model, as its changelog keeps it, within `LayerRow`."""

from dataclasses import replace

import msgspec
import numpy as np
import structlog

from scoring.arrays import Floats
from scoring.clicks import FEATURES, ClickModel
from scoring.evidence import Evidence
from scoring.learner import Learner
from scoring.watch import Adwin, Detector, KeptError, Watch

log = structlog.get_logger()


class WatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """`scoring.watch.Watch`: detectors and their means by name; arrays of the weights last seen good, or none.

    ``loss``: None in older rows, whose sums since weights were last judged begin anew.
    """

    detectors: dict[str, bytes]
    means: dict[str, float]
    good: tuple[bytes, bytes] | None
    last_alarm: int
    alarms_soon: int
    clicked: float
    predicted: float
    unjudged: int = 0
    loss: float | None = None
    loss_squared: float = 0.0
    gained: float = 0.0
    dull: bool = False

    @classmethod
    def of(cls, watch: Watch) -> "WatchRow":
        """What there is to keep."""
        return cls(
            detectors={each.value: adwin.kept() for each, adwin in watch.detectors.items()},
            means={each.value: mean for each, mean in watch.means.items()},
            good=None if watch.good is None else (watch.good[0].tobytes(), watch.good[1].tobytes()),
            last_alarm=watch.last_alarm,
            alarms_soon=watch.alarms_soon,
            clicked=watch.clicked,
            predicted=watch.predicted,
            unjudged=watch.unjudged,
            loss=watch.loss,
            loss_squared=watch.loss_squared,
            gained=watch.gained,
            dull=watch.dull,
        )

    def watch(self) -> Watch:
        """What was kept."""
        out = Watch()
        for name, kept in self.detectors.items():
            try:
                out.detectors[Detector(name)] = Adwin.of(kept)
            except KeptError as error:
                log.warning("a drift detector begins anew: what was kept is none", detector=name, error=str(error))
        out.means = {Detector(name): mean for name, mean in self.means.items()}
        out.good = None if self.good is None else (_weights(self.good[0]), _weights(self.good[1]))
        out.last_alarm, out.alarms_soon = self.last_alarm, self.alarms_soon
        out.gained, out.dull = self.gained, self.dull
        if self.loss is not None:
            out.clicked, out.predicted, out.unjudged = self.clicked, self.predicted, self.unjudged
            out.loss, out.loss_squared = self.loss, self.loss_squared
        return out


class LearnerRow(msgspec.Struct, frozen=True, kw_only=True):
    """`scoring.learner.Learner`. Arrays are little-endian float64.

    Older rows lack ``known_ms``. Their sums beside another model's chances count from the first outcome on, without the
    squares, and are dropped.
    """

    weights: bytes
    caution: bytes
    learned: int
    watch: WatchRow
    evidence: Evidence
    known_ms: int | None = None

    @classmethod
    def of(cls, learner: Learner) -> "LearnerRow":
        """What there is to keep."""
        return cls(
            weights=learner.model.array.tobytes(),
            caution=learner.model.caution.tobytes(),
            learned=learner.learned,
            watch=WatchRow.of(learner.watch),
            evidence=learner.evidence,
            known_ms=learner.known_ms,
        )

    def learner(self) -> Learner:
        """What was kept. Raises `ValueError` where the model of another version has more weights, or fewer."""
        out = Learner(ClickModel(), self.watch.watch(), self.learned, replace(self.evidence), self.known_ms)
        if self.known_ms is None:
            out.evidence.apart()
        out.model.restore(_weights(self.weights), _weights(self.caution))
        return out


def _weights(kept: bytes) -> Floats:
    """Of a click model ``[F]``, or their sums of squares."""
    weights = np.frombuffer(kept)
    if len(weights) != len(FEATURES):
        raise ValueError(f"a click model has {len(weights)} weights; this version's has {len(FEATURES)}")
    return weights
