"""How a model ages: the test in parts by hours since training ended, and what state and click layer add in each.

A freshly trained model leaves the click layer little to correct. How much it leaves after days tells how often to
train, and what waiting costs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_models.bootstrap import Draws, Interval, interval
from onnx_models.comparison import MODES
from onnx_models.examples import Examples
from onnx_models.metrics import tells
from scoring.arrays import Bools, Floats
from scoring.units import HOUR_MS

PART_HOURS = 12
"""People differ by day and by night: a part is one of the two."""


@dataclass(frozen=True, slots=True)
class Age:
    """A part of the test from ``from_hours`` after training on: AUC and log loss by mode, and what each mode adds."""

    from_hours: int
    to_hours: int
    examples: int
    auc: dict[str, float]
    log_loss: dict[str, float]
    state_adds_auc: Interval
    layer_adds_log_loss: Interval

    def named(self) -> dict[str, Any]:
        """As numbers by name."""
        return {
            "from_hours": self.from_hours,
            "to_hours": self.to_hours,
            "examples": self.examples,
            "auc": {mode: round(value, 5) for mode, value in self.auc.items()},
            "log_loss": {mode: round(value, 5) for mode, value in self.log_loss.items()},
            "state_adds_auc": self.state_adds_auc.named(),
            "layer_adds_log_loss": self.layer_adds_log_loss.named(),
        }


def ages(test: Examples, learnt_ms: int, chances: dict[str, Floats], seed: int) -> list[Age]:
    """The parts of ``test`` with enough outcomes. ``learnt_ms``: time of the newest example that trained; ``chances
    [E]``: by mode, including all of `MODES`.
    """
    part = (test.time_ms - learnt_ms) // (PART_HOURS * HOUR_MS)
    return [
        _age(int(one), test, part == one, chances, seed) for one in np.unique(part) if tells(test.label[part == one])
    ]


def _age(part: int, test: Examples, of: Bools, chances: dict[str, Floats], seed: int) -> Age:
    draws = Draws(test.label[of].astype(np.float64), test.row[of], seed)
    auc = {mode: draws.auc(chances[mode][of]) for mode in MODES}
    loss = {mode: draws.log_loss(chances[mode][of]) for mode in MODES}
    return Age(
        part * PART_HOURS,
        (part + 1) * PART_HOURS,
        int(of.sum()),
        {mode: float(each[0]) for mode, each in auc.items()},
        {mode: float(each[0]) for mode, each in loss.items()},
        interval(auc["stateful"], auc["frozen"], draws.people),
        interval(loss["online"], loss["stateful"], draws.people),
    )
