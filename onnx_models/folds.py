"""Time-series cross-validation: learn from everything before, test on the next stretch, and repeat."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnx_models.examples import Examples
from onnx_models.metrics import Metrics
from scoring.confidence import student_95

FOLDS_MAX = 10
"""With more, the shortest of them learn from too little."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean of a measure over folds, its 95 % interval (Student's t), and how many folds.

    Log loss and calibration are above 0, and spread by ratios: their interval is that of their logarithms.
    """

    mean: float
    low: float
    high: float
    folds: int

    def named(self) -> dict[str, float]:
        """As numbers by name."""
        return {"mean": round(self.mean, 5), "low": round(self.low, 5), "high": round(self.high, 5)}


def folds(examples: Examples, count: int) -> Iterator[tuple[Examples, Examples]]:
    """Training and test examples, ``count`` times. The tests are the latest ``count`` of ``count + 1`` stretches with
    equally many examples; everything before a test is learnt from.
    """
    if not 2 <= count <= FOLDS_MAX:
        raise ValueError(f"{count} folds; expected 2 to {FOLDS_MAX}")
    edges = np.linspace(0, len(examples), count + 2).astype(int)
    for at in range(1, count + 1):
        cut_ms = examples.time_ms[min(edges[at], len(examples) - 1)]
        end_ms = examples.time_ms[edges[at + 1]] if edges[at + 1] < len(examples) else np.iinfo(np.int64).max
        before, rest = examples.cut(cut_ms)
        yield before, rest.cut(end_ms)[0]


def spread(metrics: list[Metrics]) -> dict[str, Spread]:
    """Every measure over folds, two or more."""
    out = {}
    for name in ("auc", "log_loss", "calibration"):
        values = np.array([getattr(each, name) for each in metrics])
        there, back = (np.asarray, float) if name == "auc" else (np.log, math.exp)
        spread_by = there(values)
        half = student_95(len(values) - 1) * float(spread_by.std(ddof=1)) / math.sqrt(len(values))
        centre = float(spread_by.mean())
        out[name] = Spread(float(values.mean()), back(centre - half), back(centre + half), len(values))
    return out
