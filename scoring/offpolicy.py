"""What another policy would have earned, from the log of the one that ran: IPS, SNIPS, DM, DR, SNDR, switch-DR.

Each estimate is a mean over N independent logged choices. For a choice: the reward seen, the weight
w = π(chosen | context) / π₀(chosen | context) of the policy asked about over the one that logged it, and, for the
estimators with a reward model q, q of what was chosen and the mean of q under the policy asked about.

- IPS: Horvitz & Thompson 1952. SNIPS: Swaminathan & Joachims 2015. DR: Dudík, Langford & Li 2011.
- switch-DR: Wang, Agarwal & Dudík 2017; weights above τ give way to the model.
- Effective sample size: Kish 1965, (Σw)² / Σw².
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SWITCH_WEIGHT = 10.0
"""Default τ of switch-DR: a choice that counts more than ten times says more about chance than about the policy."""
EFFECTIVE_MIN = 200
"""Below so many effective choices the normal interval is not to be believed."""
ONE_WEIGHT_MAX = 0.1
"""One choice with more than this share of all weight decides the estimate by itself."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """N logged choices as one policy asked about sees them, without a reward model; all arrays ``[N]``."""

    reward: Floats
    weight: Floats

    def __post_init__(self) -> None:
        sizes = {len(getattr(self, each.name)) for each in fields(self)}
        if len(sizes) != 1 or sizes == {0}:
            raise ValueError(f"logged choices: arrays of {sorted(sizes)} choices; expected one length, above 0")
        if not (np.isfinite(self.weight).all() and (self.weight >= 0).all()):
            raise ValueError("logged choices: a weight is negative or infinite; was a propensity of 0 logged?")


@dataclass(frozen=True, slots=True)
class Logged(Weighted):
    """The same beside a reward model.

    ``model_chosen`` is q of the logged choice, ``model_policy`` the mean of q under the policy asked about; fitted
    on other choices than those they are used on.
    """

    model_chosen: Floats
    model_policy: Floats


@dataclass(frozen=True, slots=True)
class Estimate:
    """A policy's value with its interval, and how many choices it rests on."""

    value: float
    low: float
    high: float
    standard_error: float


def ips(log: Weighted) -> Floats:
    """Terms of inverse propensity scoring, ``[N]``: unbiased where every choice had a chance."""
    return log.weight * log.reward


def direct(log: Logged) -> Floats:
    """Terms of the direct method, ``[N]``: what the model says, as biased as the model."""
    return log.model_policy


def doubly_robust(log: Logged) -> Floats:
    """Terms of DR, ``[N]``: the model, corrected by weighted residuals; unbiased if either is right."""
    return log.model_policy + log.weight * (log.reward - log.model_chosen)


def switch_doubly_robust(log: Logged, most: float = SWITCH_WEIGHT) -> Floats:
    """Terms of switch-DR, ``[N]``: DR that trusts the model alone where the weight is above ``most``."""
    kept = np.where(log.weight <= most, log.weight, 0.0)
    return log.model_policy + kept * (log.reward - log.model_chosen)


def _self_normalised(log: Weighted, plain: Floats, numerator: Floats) -> tuple[float, Floats]:
    """Value and influence ``[N]`` of ``mean(plain) + Σ numerator / Σ weight`` (delta method)."""
    total = log.weight.mean()
    if total == 0:
        raise ValueError("the policy never chooses what was logged: nothing can be said of it from this log")
    ratio = numerator.mean() / total
    value = float(plain.mean() + ratio)
    return value, plain + (numerator - ratio * log.weight) / total + ratio


MODELLED: dict[str, Callable[[Logged], Floats]] = {"dm": direct, "dr": doubly_robust, "switch_dr": switch_doubly_robust}


def evaluate(log: Weighted, confidence: float = 0.95) -> dict[str, Estimate]:
    """Every estimator's value with a normal interval at ``confidence``; those by a reward model, where there is one."""
    terms = {"ips": ips(log)}
    normalised = {"snips": _self_normalised(log, np.zeros_like(log.reward), terms["ips"])}
    if isinstance(log, Logged):
        terms |= {name: of(log) for name, of in MODELLED.items()}
        residuals = log.weight * (log.reward - log.model_chosen)
        normalised["sndr"] = _self_normalised(log, log.model_policy, residuals)
    plain = {name: _estimate(float(each.mean()), each, confidence) for name, each in terms.items()}
    return plain | {name: _estimate(*each, confidence) for name, each in normalised.items()}


def _estimate(value: float, influence: Floats, confidence: float) -> Estimate:
    spread = float(influence.std(ddof=1) / np.sqrt(len(influence))) if len(influence) > 1 else np.inf
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * spread
    return Estimate(value, value - reach, value + reach, spread)


def effective_size(weight: Floats) -> float:
    """How many equally weighted choices ``weight [N]`` is worth (Kish)."""
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares else 0.0


def doubts(log: Weighted) -> list[str]:
    """Why not to believe the weighted estimates; empty where nothing speaks against them."""
    found = []
    if (effective := effective_size(log.weight)) < EFFECTIVE_MIN:
        found.append(
            f"effective sample size {effective:.0f} of {len(log.weight)} choices; expected {EFFECTIVE_MIN} or more: "
            "log more, explore more, or ask about a policy closer to the logged one"
        )
    total = float(log.weight.sum())
    if total and (share := float(log.weight.max()) / total) > ONE_WEIGHT_MAX:
        found.append(f"one choice has {share:.0%} of all weight; expected {ONE_WEIGHT_MAX:.0%} at most")
    if (mean := float(log.weight.mean())) < 0.9 or mean > 1.1:
        found.append(
            f"mean weight {mean:.3f}; expected 1: propensities are wrong, or the policy chooses what was never logged"
        )
    return found


def fitted_means(
    action: npt.NDArray[np.int64], reward: Floats, fold: npt.NDArray[np.int64], actions: int, prior: float = 20.0
) -> Floats:
    """A plain reward model, cross-fitted: per fold the mean reward of each action in the *other* folds.

    ``action, reward, fold [N]`` → ``[folds, actions]``; each mean is shrunk to the overall one as by ``prior``
    choices, so that an action seen twice is not believed.
    """
    folds = int(fold.max()) + 1
    out = np.empty((folds, actions))
    for held_out in range(folds):
        others = fold != held_out
        overall = reward[others].mean() if others.any() else 0.0
        sums = np.bincount(action[others], weights=reward[others], minlength=actions)
        counts = np.bincount(action[others], minlength=actions)
        out[held_out] = (sums + prior * overall) / (counts + prior)
    return out
