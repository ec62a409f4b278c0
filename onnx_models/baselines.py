"""What a model must beat: the overall click rate, and each item's."""

import numpy as np

from onnx_models.examples import Examples
from onnx_models.metrics import Metrics, measure

PRIOR = 20
"""Strength of the prior: an item's click rate counts as if it had been shown so often more, at the overall rate."""


def baselines(learn: Examples, test: Examples) -> dict[str, Metrics]:
    """How well ``test`` is predicted by the click rates of ``learn``: "mean", and "popularity" of each item."""
    rate = float(learn.label.mean())
    items = int(max(learn.item.max(), test.item.max())) + 1
    shown = np.bincount(learn.item, minlength=items)
    clicked = np.bincount(learn.item, weights=learn.label, minlength=items)
    popularity = (clicked + PRIOR * rate) / (shown + PRIOR)
    mean = np.full(len(test), rate)
    return {"mean": measure(test.label, mean), "popularity": measure(test.label, popularity[test.item])}
