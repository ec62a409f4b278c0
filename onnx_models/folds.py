"""Time-series cross-validation: learn from everything before, test on the next stretch, and repeat."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnx_models.examples import Examples
from onnx_models.metrics import Metrics

T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t at 97.5 % for 1 to 9 degrees of freedom."""
FOLDS_MAX = len(T_95) + 1


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean of a measure over folds, half the width of its 95 % interval (Student's t), and how many folds."""

    mean: float
    half_width: float
    folds: int


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
        yield (
            examples.at(examples.time_ms < cut_ms),
            examples.at((examples.time_ms >= cut_ms) & (examples.time_ms < end_ms)),
        )


def spread(metrics: list[Metrics]) -> dict[str, Spread]:
    """Every measure over folds, two or more."""
    out = {}
    for name in ("auc", "log_loss", "calibration"):
        values = np.array([getattr(each, name) for each in metrics])
        half = T_95[len(values) - 2] * float(values.std(ddof=1)) / math.sqrt(len(values))
        out[name] = Spread(float(values.mean()), half, len(values))
    return out
