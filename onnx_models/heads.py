"""How good a network's other heads are: which clicks become purchases, and how long people look.

No placement goes by it: a campaign that bids for purchases or seconds is ranked by its own (`scoring.budgets`).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_models.examples import Examples
from onnx_models.metrics import UNTOLD, Metrics, measure, rounded, tells
from onnx_models.predicting import Said, chance


@dataclass(frozen=True, slots=True)
class Heads:
    """``conversion``: of the ``clicks``, some of them ``purchases``; ``always``: of who always says the share of the
    training part. ``explained``: share of the variance of log1p of seconds, told of ``looks`` impressions, about the
    training part's mean; ``viewed_calibration``: what is told over what is said, in that measure. NaN where the test
    does not tell.
    """

    clicks: int
    purchases: int
    conversion: Metrics
    always: Metrics
    looks: int
    explained: float
    viewed_calibration: float

    def named(self) -> dict[str, Any]:
        """As a flat dictionary, rounded; None where nothing is known."""
        return {
            "conversion_clicks": self.clicks,
            "conversion_purchases": self.purchases,
            **self.conversion.named("conversion_"),
            "conversion_log_loss_of_always": rounded(self.always.log_loss),
            "viewed_looks": self.looks,
            "viewed_explained": rounded(self.explained),
            "viewed_calibration": rounded(self.viewed_calibration),
        }


def heads(said: Said, learn: Examples, test: Examples) -> Heads:
    """How good is what a network that learnt from ``learn`` has ``said`` of ``test``."""
    clicked = test.label > 0
    bought, before = test.converted[clicked], learn.converted[learn.label > 0]
    conversion = always = UNTOLD
    if tells(bought):
        conversion = measure(bought, chance(said.conversion[clicked]))
        always = measure(bought, np.full(len(bought), before.mean()))
    looked, expected = np.log1p(test.viewed_s), np.log1p(learn.viewed_s).mean()
    looks, spread = int(np.count_nonzero(looked)), float(np.square(looked - expected).mean())
    explained = calibration = math.nan
    if looks and spread:
        explained = 1 - float(np.square(looked - said.viewed).mean()) / spread
        calibration = float(looked.mean() / said.viewed.mean())
    return Heads(len(bought), int(bought.sum()), conversion, always, looks, explained, calibration)
