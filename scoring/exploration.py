"""How slots are explored, behind one interface: how a placement departs from the order of ads' worth.

| exploration | a slot goes to |
|---|---|
| plackett-luce | each in proportion to worth^(1/temperature), whatever is known of it; temperature 0: the most worth |
| thompson | each with its chance of being worth the most, given how little is known of it (Thompson 1933) |
| linucb | as with plackett-luce, by an upper confidence bound of each one's worth (Li, Chu, Langford & Schapire 2010) |

What the attention model and the click layer say of a person holds for all candidates alike. What is uncertain about an
ad is its lift (`scoring.clicks.AdLifts`), and that is what Thompson sampling and LinUCB explore. They read it from the
click layer's state and have none of their own: they are checkpointed and restored with it.

- Thompson: the rate behind the lift is gamma of shape clicks + prior; its standard deviation is its mean over the
  square root of the shape.
- LinUCB, disjoint: one Bayesian linear regression per ad, of its clicks y on a single feature, the chance p that the
  models expect. A click's variance grows with p, so y/√p is regressed on √p; with the lift's prior the coefficient is
  the lift, and its variance 1 over (expected clicks + prior).

River's `bandit` holds an object for every arm and asks one after the other; here they are arrays, and the tests hold
them to River's ThompsonSampling and LinUCBDisjoint.
"""

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from scoring.arrays import Floats

if TYPE_CHECKING:  # settings know the names of explorations; they need not load River
    from scoring.calibration import Calibration


Explore = Literal["plackett-luce", "thompson", "linucb"]
EXPLORATIONS: tuple[Explore, ...] = get_args(Explore)
UCB_ALPHA = 2.0
"""Default number of standard errors that LinUCB adds: a new ad counts 1.7 times. In the tests' shop a good new ad is
found in 4 rounds; with 1 standard error in 190, or never."""


def doubt_of(explore: Explore, calibration: "Calibration", ucb_alpha: float = UCB_ALPHA) -> Floats | None:
    """How uncertain each candidate's click rate is, ``[B, C]``, as a share of it; None where that does not matter.

    For Thompson sampling a standard deviation, for LinUCB ``ucb_alpha`` standard errors, times the weight that the
    click layer has learned for lifts (not below 0).
    """
    if explore == "plackett-luce":
        return None
    heeded = np.maximum(calibration.lift_weights, 0.0)[:, None]
    doubt: Floats = heeded / np.sqrt(calibration.evidence.astype(np.float64))
    if explore == "linucb":
        doubt *= ucb_alpha * np.exp(-calibration.lift.astype(np.float64) / 2)
    return doubt


def spread_of(doubt: Floats) -> Floats:
    """Standard deviation of the logarithm of a value that is known with a relative standard deviation of ``doubt``.

    The value is taken as log-normal with that mean and deviation: its tails are a gamma's, except the last per cent.
    """
    spread: Floats = np.sqrt(np.log1p(doubt * doubt))
    return spread
