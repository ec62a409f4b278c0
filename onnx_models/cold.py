"""Cold start: how well new people and new ads are predicted, beside known ones."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnx_models.examples import Examples
from onnx_models.metrics import Metrics, measure, tells
from onnx_models.trial import Trial
from scoring.arrays import Bools, Floats
from scoring.inputs import OF_AD, RATED, SESSION_S


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the test's examples, and how well they were predicted."""

    name: str
    examples: int
    metrics: Metrics


def segments(trial: Trial, chances: dict[str, Floats]) -> list[Segment]:
    """Those that exist of: new people by context alone, with their session so far, and back after a pause; new ads;
    ads without what names them.

    ``chances``: frozen, stateful and, for a network, unnamed (all ids hidden, so content alone).
    """
    test = trial.stateful
    known = met(test.row, trial)
    earlier = (test.history >= 0).any(axis=1)
    session = ((test.history >= 0) & (test.age < np.log1p(SESSION_S))).any(axis=1)
    shown = np.union1d(trial.learn.item, trial.before.item)
    new_ad = ~np.isin(test.item, shown)
    everyone = np.ones(len(test), dtype=np.bool_)
    wanted: list[tuple[str, str, Bools]] = [
        ("known people", "stateful", known),
        ("new people, context alone", "frozen", ~known),
        ("new people, first impression", "stateful", ~known & ~earlier),
        ("new people, session so far", "stateful", ~known & session),
        ("the same, as if they had none", "frozen", ~known & session),
        ("new people, back after a pause", "stateful", ~known & earlier & ~session),
        ("known ads", "stateful", ~new_ad),
        ("new ads", "stateful", new_ad),
        ("all ads, content alone", "unnamed", everyone),
    ]
    return [
        Segment(name, int(mask.sum()), measure(test.label[mask], chances[mode][mask]))
        for name, mode, mask in wanted
        if mode in chances and tells(test.label[mask])
    ]


def met(rows: npt.NDArray[np.int32], trial: Trial) -> Bools:
    """Whether each user in ``rows`` was shown anything before the test."""
    return np.isin(rows, np.union1d(trial.learn.row, trial.before.row))


def unmet(examples: Examples) -> Examples:
    """The examples as if their ads had never been shown to anybody; what other ads of their brands met stays known."""
    stats = examples.stats.copy()
    of_ad, of_brand = slice(RATED, RATED + 2), slice(RATED + 2, RATED + 4)
    alone = (stats[:, of_ad] == stats[:, of_brand]).all(axis=1)  # nothing of the brand's is another ad's
    stats[np.flatnonzero(alone), of_brand] = 0
    stats[:, OF_AD], stats[:, of_ad] = 0, 0
    return replace(examples, stats=stats)
