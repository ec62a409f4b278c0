"""What the click layer's settings are worth on a log: variants of learning against the one that workers use.

Non-clicks are downsampled as in He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook" (2014), but
weighted instead of corrected afterwards.
"""

from dataclasses import dataclass, replace

import numpy as np

from onnx_models.bootstrap import Draws, Interval, interval
from onnx_models.metrics import Metrics, measure
from onnx_models.trial import Trial, logit_of
from scoring.arrays import Floats
from scoring.feedback import Learning

AS_SERVED = "as a worker learns"


def ways(served: Learning) -> dict[str, Learning]:
    """How workers learn, and what else to try: each differs from that in one setting."""
    return {
        AS_SERVED: served,
        "window of a minute": replace(served, window_ms=60_000),
        "window of an hour": replace(served, window_ms=3_600_000),
        "non-clicks at once": replace(served, wait_ms=0),
        "after half a minute": replace(served, wait_ms=30_000),
        "after two minutes": replace(served, wait_ms=120_000),
        "at the end of the window": replace(served, wait_ms=served.window_ms),
        "half of the non-clicks": replace(served, negatives=0.5),
        "a tenth of the non-clicks": replace(served, negatives=0.1),
    }


@dataclass(frozen=True, slots=True)
class Variant:
    """How well a layer does, and how much its log loss exceeds the reference's; None for the reference itself."""

    name: str
    metrics: Metrics
    log_loss_difference: Interval | None

    @property
    def key(self) -> str:
        """The name as one word."""
        return self.name.replace(" ", "_").replace("-", "_")


def variants(trial: Trial, chances: dict[str, Floats], seed: int) -> list[Variant]:
    """Variants from their ``chances [E]`` by name; the first is the reference."""
    test = trial.stateful
    draws = Draws(test.label.astype(np.float64), test.row, seed)
    losses = {name: draws.log_loss(each) for name, each in chances.items()}
    first, *_ = losses
    return [
        Variant(
            name,
            measure(test.label, each),
            None if name == first else interval(losses[name], losses[first], draws.people),
        )
        for name, each in chances.items()
    ]


def compare_learning(trial: Trial, stateful: Floats, seed: int) -> list[Variant]:
    """Each of `ways` over the same log-odds, those of the probabilities ``stateful [E]``."""
    logit, each = logit_of(stateful), ways(trial.stream.learning)
    learnt = {name: trial.stream.observe(logit, trial.stateful, way)[1].predicted for name, way in each.items()}
    return variants(trial, learnt, seed)
