"""How good predicted click probabilities are: AUC, log loss, calibration. Labels are 0 or 1, all arrays ``[E]``."""

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from scoring import evidence
from scoring.runs import begins

Floats = npt.NDArray[np.floating]

CLIP = 1e-7
"""Probabilities are kept this far from 0 and 1, so that one confident mistake does not make the loss infinite."""
FEWEST = 20
"""Metrics of fewer examples, or of only one kind of label, mean nothing."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """``calibration``: clicks over predicted clicks; 1 is right on average. NaN where the examples tell nothing."""

    auc: float
    log_loss: float
    calibration: float

    def named(self, prefix: str) -> dict[str, float | None]:
        """As a flat dictionary, rounded, each name preceded by ``prefix``."""
        return {f"{prefix}{name}": rounded(value) for name, value in asdict(self).items()}


UNTOLD = Metrics(math.nan, math.nan, math.nan)
"""Metrics of examples that tell nothing."""


def rounded(value: float) -> float | None:
    """``value`` rounded for JSON, which has no NaN."""
    return None if math.isnan(value) else round(value, 5)


def shown(value: float, places: int) -> str:
    """``value`` as text for people."""
    return "–" if math.isnan(value) else f"{value:.{places}f}"


def tells(labels: Floats) -> bool:
    """Whether metrics of these examples mean anything."""
    return len(labels) >= FEWEST and bool(0 < labels.mean() < 1)


def untold(labels: Floats) -> str:
    """Why metrics of these examples mean nothing, for people; "" where they do."""
    if tells(labels):
        return ""
    return (
        f"{len(labels):,} impressions, {int(labels.sum()):,} of them clicked, tell nothing; expected some with and "
        f"some without a click, {FEWEST} or more in all"
    )


def measure(labels: Floats, predicted: Floats) -> Metrics:
    """All metrics of the examples."""
    return Metrics(auc(labels, predicted), log_loss(labels, predicted), calibration(labels, predicted))


def auc(labels: Floats, predicted: Floats) -> float:
    """Chance that a click is ranked above a non-click (Mann-Whitney), ties half; 0.5 where there is only one kind."""
    positives = float(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return 0.5
    _, inverse, counts = np.unique(predicted, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # mean rank of each distinct value
    return float((ranks[inverse] @ labels - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(labels: Floats, predicted: Floats) -> float:
    """Mean negative log-likelihood, in nats."""
    p = np.clip(predicted.astype(np.float64), CLIP, 1 - CLIP)
    return float(-np.mean(labels * np.log(p) + (1 - labels) * np.log1p(-p)))


def calibration(labels: Floats, predicted: Floats) -> float:
    """Clicks over predicted clicks; NaN where none were predicted."""
    return evidence.calibration(float(labels.sum()), float(predicted.sum(dtype=np.float64)))


PLATT_ROUNDS = 25
"""Newton steps on a convex function of two variables; it converges after about six."""
PLATT_RIDGE = 1.0
"""Weight, in examples, of the prior that scale is 1 and shift 0: a few examples alone are not believed."""


PLATT_ROUNDING = 1e-9
"""Share by which the loss may seem to rise, by rounding, once it has converged."""


def platt(logit: Floats, labels: Floats) -> tuple[float, float]:
    """Scale and shift of ``logit`` that fit ``labels`` best by log loss (Platt, 1999).

    Where the scale would be 0 or less, those of `level`: a ranking that the labels contradict is neither reversed nor
    flattened.
    """
    x = np.column_stack([logit, np.ones(len(logit))])  # [E, 2]
    scale, shift = _least_loss(x, labels, np.zeros(len(logit)), np.array([1.0, 0.0]))
    return (float(scale), float(shift)) if scale > 0 else level(logit, labels)


def level(logit: Floats, labels: Floats) -> tuple[float, float]:
    """Scale 1, and the shift of ``logit`` that fits ``labels`` best: predicted clicks equal clicks."""
    (shift,) = _least_loss(np.ones((len(logit), 1)), labels, logit, np.zeros(1))
    return 1.0, float(shift)


def _least_loss(x: Floats, labels: Floats, offset: Floats, start: Floats) -> npt.NDArray[np.float64]:
    """Weights of ``x [E, W]``, added to ``offset [E]``, that fit ``labels`` best by log loss; Newton's method.

    A step may raise the loss far from the optimum; it is halved while it does. So weights never fit worse than
    ``start``.
    """
    weights, x = start.astype(np.float64), x.astype(np.float64)

    def loss(weights: npt.NDArray[np.float64]) -> float:
        odds, gone = x @ weights + offset, weights - start
        return float(np.sum(np.logaddexp(0, odds) - labels * odds) + PLATT_RIDGE * (gone @ gone) / 2)

    for _ in range(PLATT_ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights + offset, -50, 50)))
        gradient = x.T @ (p - labels) + PLATT_RIDGE * (weights - start)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + PLATT_RIDGE * np.eye(len(start))
        step = np.linalg.solve(hessian, gradient)
        most = loss(weights) * (1 + PLATT_ROUNDING)
        while loss(weights - step) > most:
            step /= 2
        weights -= step
    return weights


def line(said: Floats, told: Floats) -> tuple[float, float]:
    """Scale and shift of ``said`` that come nearest to ``told`` by least squares.

    As `platt`, it turns no order round: where the scale would be 0 or less, those of `lift`.
    """
    x, y = said.astype(np.float64), told.astype(np.float64)
    gone = x - x.mean()
    scale = float(gone @ y) / max(float(gone @ gone), CLIP)
    return (scale, float(y.mean() - scale * x.mean())) if scale > 0 else lift(said, told)


def lift(said: Floats, told: Floats) -> tuple[float, float]:
    """Scale 1, and the shift of ``said`` that gives it the mean of ``told``."""
    return 1.0, float(told.mean(dtype=np.float64) - said.mean(dtype=np.float64))


def normalised_entropy(labels: Floats, predicted: Floats) -> float:
    """Log loss over that of always predicting the labels' mean (He et al., 2014); informative below 1."""
    rate = float(np.clip(labels.mean(), CLIP, 1 - CLIP))
    return log_loss(labels, predicted) / -float(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))


def grouped_auc(labels: Floats, predicted: Floats, group: npt.NDArray[np.integer]) -> float:
    """AUC within each group, weighted by its examples; groups with only one kind of label are left out, NaN if all are.

    Use it only for frozen state: over a stream it is biased, since features count the group's own earlier labels.
    """
    _, which = np.unique(group, return_inverse=True)
    order = np.lexsort((predicted, which))
    which, labels, predicted = which[order], labels[order].astype(np.float64), predicted[order]
    # Mid-ranks within a group: ties share the mean of their places.
    tie = np.cumsum(begins(which, predicted)) - 1
    ties = np.bincount(tie)
    place = (np.cumsum(ties) - (ties - 1) / 2)[tie]
    count = np.bincount(which)
    rank = place - np.repeat(np.cumsum(count) - count, count)
    positives = np.bincount(which, weights=labels)
    negatives = count - positives
    told = (positives > 0) & (negatives > 0)
    if not told.any():
        return math.nan
    above = np.bincount(which, weights=rank * labels) - positives * (positives + 1) / 2
    return float(np.average(above[told] / (positives * negatives)[told], weights=count[told]))


def ndcg(labels: Floats, predicted: Floats, group: npt.NDArray[np.integer], places: int = 10) -> float:
    """Mean over groups with a click and a non-click: discounted clicks of the first ``places``, over the best possible.

    Equal predictions keep the given order. NaN where there are no such groups.
    """
    _, which = np.unique(group, return_inverse=True)
    count = np.bincount(which)
    start = np.cumsum(count) - count

    def gain(order: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        place = np.arange(len(order)) - np.repeat(start, count)
        discounted = np.where(place < places, labels[order] / np.log2(place + 2), 0)
        return np.bincount(which[order], weights=discounted).astype(np.float64)

    positives = np.bincount(which, weights=labels)
    told = (positives > 0) & (positives < count)
    if not told.any():
        return math.nan
    best = gain(np.lexsort((-labels, which)))
    return float((gain(np.lexsort((-predicted, which)))[told] / best[told]).mean())
