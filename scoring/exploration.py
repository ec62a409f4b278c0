"""How slots are explored, behind one interface: by what a placement departs from the order of what ads are worth.

| exploration | a slot goes to |
|---|---|
| plackett-luce | each in proportion to worth^(1/temperature), whatever is known of it; temperature 0: the most worth |
| thompson | each with its chance of being worth the most, given how little is known of it (Thompson 1933) |
| linucb | as with plackett-luce, of what each may well be worth (Li, Chu, Langford & Schapire 2010) |

What the attention model and the click layer say of a person, they say of all candidates; what is not known of an ad is
its lift (`scoring.clicks.AdLifts`), and both of the latter explore that. They read it off the click layer's state and
have none of their own: they are checkpointed with it, and go on where it was.

- Thompson: the lift's rate is gamma, of shape clicks + prior; its standard deviation is its mean over the shape's root.
- LinUCB, disjoint: for each ad a Bayesian linear regression of its clicks on the one feature that holds all that the
  models know, the chance p expected of it. A click's variance grows with p, so that it is y/√p on √p; with the prior of
  the lift the coefficient is the lift, and its variance 1 over the expected clicks + prior.

River's `bandit` holds an object for every arm and asks one after the other; here they are arrays, and the tests hold
them to River's ThompsonSampling and LinUCBDisjoint.
"""

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # settings know the names of explorations; they need not load River
    from scoring.calibration import Calibration

Floats = npt.NDArray[np.float64]

Explore = Literal["plackett-luce", "thompson", "linucb"]
EXPLORATIONS: tuple[Explore, ...] = get_args(Explore)
UCB_ALPHA = 2.0
"""Standard errors that LinUCB adds, where the policy says nothing else: a new ad counts 1.7 times. In the tests' shop
a good new one is found in 4 rounds; with 1 in 190, or never."""


def doubt_of(explore: Explore, calibration: "Calibration", ucb_alpha: float = UCB_ALPHA) -> Floats | None:
    """How uncertain each candidate's click rate is, ``[B, C]``, as a share of it; None where that does not matter.

    For Thompson sampling a standard deviation, for LinUCB ``ucb_alpha`` standard errors. It counts as far as the click
    layer has learned that lifts do (their weight, not below 0).
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

    The value is taken as log-normal with that mean and deviation: a gamma's tails, but for the last per cent.
    """
    spread: Floats = np.sqrt(np.log1p(doubt * doubt))
    return spread
