"""Cold start: how well new people and new ads are predicted, beside known ones."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnx_models.examples import Examples
from onnx_models.metrics import Metrics, measure, tells
from onnx_models.trial import Trial
from scoring.inputs import OF_AD, RATED

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the test's examples, and how well they were predicted."""

    name: str
    examples: int
    metrics: Metrics


def segments(trial: Trial, chances: dict[str, Floats]) -> list[Segment]:
    """Those that exist of: new people by context alone, and with their session so far; new ads; ads without their ids.

    ``chances``: frozen, stateful and, for a network, unnamed (all ids hidden, so content alone).
    """
    test = trial.stateful
    met = _met(test.row, trial)
    earlier = (test.history >= 0).any(axis=1)
    shown = np.union1d(trial.learn.item, trial.before.item)
    new_ad = ~np.isin(test.item, shown)
    everyone = np.ones(len(test), dtype=np.bool_)
    wanted: list[tuple[str, str, Mask]] = [
        ("known people", "stateful", met),
        ("new people, context alone", "frozen", ~met),
        ("new people, first impression", "stateful", ~met & ~earlier),
        ("new people, session so far", "stateful", ~met & earlier),
        ("the same, as if they had none", "frozen", ~met & earlier),
        ("known ads", "stateful", ~new_ad),
        ("new ads", "stateful", new_ad),
        ("all ads, content alone", "unnamed", everyone),
    ]
    return [
        Segment(name, int(mask.sum()), measure(test.label[mask], chances[mode][mask]))
        for name, mode, mask in wanted
        if mode in chances and tells(test.label[mask])
    ]


def _met(rows: npt.NDArray[np.int32], trial: Trial) -> Mask:
    """Whether each user in ``rows`` was shown anything before the test."""
    return np.isin(rows, np.union1d(trial.learn.row, trial.before.row))


def unmet(examples: Examples) -> Examples:
    """The examples as if their ads had never been shown to anybody; outcomes of their brands stay known."""
    stats = examples.stats.copy()
    stats[:, OF_AD], stats[:, RATED : RATED + 2] = 0, 0
    return replace(examples, stats=stats)
