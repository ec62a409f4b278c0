"""How a bandit shares users among arms: each gets what its chance of being the best one is, and a minimum.

That is Thompson sampling (Thompson 1933) for a batch of users who come in together: to draw every user's arm from the
posteriors is to draw it with these chances. They are integrated here rather than sampled, as River's `bandit` would, so
that they are exact: the report divides by them.
"""

import math

import numpy as np

from scoring.arrays import Floats

_GRID = np.linspace(-8.0, 8.0, 1_601)
"""Standard deviations from an arm's mean; beyond lies less than 1e-15. A hundredth apart."""
_DENSITY: Floats = np.exp(-(_GRID**2) / 2) / math.sqrt(2 * math.pi) * (_GRID[1] - _GRID[0])


def best_chances(means: Floats, variances: Floats) -> Floats:
    """Chance that each arm has the largest mean, ``[A]``, where what is known of each is normal and independent.

    ``variances [A]`` above 0: of the estimates ``means [A]``, under a flat prior.
    """
    spread = np.sqrt(variances)
    chances = np.empty(len(means))
    for arm in range(len(means)):
        value = means[arm] + spread[arm] * _GRID
        others = [other for other in range(len(means)) if other != arm]
        below = [_below((value - means[other]) / spread[other]) for other in others]
        chances[arm] = float(_DENSITY @ np.prod([np.ones_like(value), *below], axis=0))
    total: Floats = chances / chances.sum()
    return total


def allocation(means: Floats, variances: Floats, minimum: float) -> Floats:
    """Shares ``[A]`` of the next cohort's users: ``minimum`` to each arm, and the rest by `best_chances`."""
    shares: Floats = minimum + (1 - len(means) * minimum) * best_chances(means, variances)
    return shares


def _below(z: Floats) -> Floats:
    """Standard normal distribution function."""
    return np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in z.tolist()])
