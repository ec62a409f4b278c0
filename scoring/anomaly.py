"""How unusual the fastest person is: a score for click floods, to be watched; nothing is filtered by it.

The bounds of `scoring.cleaning` are absolute; a flood below them, or a shop that has become slower, shows here.
"""

import math

from river import stats, utils

from scoring.events import Source
from scoring.rows import Rows
from scoring.units import MINUTE_MS

WINDOW = 10_000
"""Observations that the scorer knows: minutes of a busy lane, hours of a quiet one."""
GRACE = 100
"""Observations before the first score."""
FEW = 10
"""Actions in a minute that are no flood wherever they happen."""
LEARNT_SIGMAS = 3.0
"""An observation is learnt as at most so far above the mean: a flood must not teach that floods are usual."""
SIGMA_MIN = 1e-6
"""Least sigma: below the distance of any two counts, and above the mean's rounding error where all counts are equal."""


def fastest(rows: Rows, stream_ms: int) -> int:
    """The most clicks, or other actions, of one of ``rows`` in a minute that had not ended at ``stream_ms``.

    ``stream_ms`` is the slice's first moment by the lane's time: all that the slice counted is of that minute or later.
    An event that it did not count, such as a late one, leaves its row with a minute that may be long gone.
    """
    counts = rows["minute_count"][rows["rate_minute"] >= stream_ms // MINUTE_MS, Source.CLICK]
    return int(counts.max(initial=0))


class FloodScore:
    """A Gaussian over the logarithm of the most actions by one user in a minute, one a slice; of the last `WINDOW`.

    It scores as River's `anomaly.GaussianScorer` does, over River's rolling variance. The scorer itself cannot be used:
    on a lane that has become quiet, subtracting what leaves the window takes the variance below 0, by 1e-15 or so, and
    the scorer's sigma is then a complex number.
    """

    def __init__(self) -> None:
        self._known = utils.Rolling(stats.Var, window_size=WINDOW)

    def observe(self, actions: int) -> float:
        """The score of ``actions`` in [0, 1], predicted before it is learnt; 0 of few, and of less than usual."""
        value = math.log1p(actions)
        mean, sigma = self._known.mean.get(), math.sqrt(max(self._known.get(), SIGMA_MIN**2))
        if self._known.n < GRACE:
            self._known.update(value)
            return 0.0
        self._known.update(min(value, mean + LEARNT_SIGMAS * max(sigma, 0.1)))
        if actions <= FEW or value <= mean:
            return 0.0
        return math.erf((value - mean) / (sigma * math.sqrt(2)))
