"""How unusual the fastest person is: a score for click floods, to be watched; nothing is filtered by it.

The bounds of `scoring.cleaning` are absolute; a flood below them, or a shop that has become slower, shows here.
"""

import math

from river import anomaly

WINDOW = 10_000
"""Observations that the scorer knows: minutes of a busy lane, hours of a quiet one."""
GRACE = 100
"""Observations before the first score."""
FEW = 10
"""Actions in a minute that are no flood wherever they happen."""
LEARNT_SIGMAS = 3.0
"""An observation is learnt as at most so far above the mean: a flood must not teach that floods are usual."""


class FloodScore:
    """River's Gaussian scorer over the logarithm of the most actions by one user in a minute, one a slice."""

    def __init__(self) -> None:
        self._scorer = anomaly.GaussianScorer(window_size=WINDOW, grace_period=GRACE)

    def observe(self, actions: int) -> float:
        """The score of ``actions`` in [0, 1], predicted before it is learnt; 0 of few, and of less than usual."""
        value = math.log1p(actions)
        gaussian = self._scorer.gaussian
        mean, sigma = float(gaussian.mu), float(gaussian.sigma)
        score = float(self._scorer.score_one(None, value)) if actions > FEW and value > mean else 0.0
        known = gaussian.n_samples >= GRACE
        self._scorer.learn_one(None, min(value, mean + LEARNT_SIGMAS * max(sigma, 0.1)) if known else value)
        return score
