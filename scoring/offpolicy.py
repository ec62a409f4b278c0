"""What another policy would have earned, from the log of the one that ran: IPS, SNIPS, DM, DR, SNDR, switch-DR.

Each estimate is a mean over N logged choices. One person's choices are correlated, since some people click often: the
independent unit, by which intervals go, is the person. A choice has the observed reward, the weight
w = π(chosen | context) / π₀(chosen | context) of the evaluated policy over the one that logged it, and, for the
estimators with a reward model q, q of what was chosen and the mean of q under the evaluated policy.

- IPS: Horvitz & Thompson 1952. SNIPS: Swaminathan & Joachims 2015. DR: Dudík, Langford & Li 2011.
- switch-DR: Wang, Agarwal & Dudík 2017; weights above τ give way to the model.
- Effective sample size: Kish 1965, (Σw)² / Σw².
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from statistics import NormalDist

import numpy as np

from scoring.arrays import Floats, Ints
from scoring.confidence import ONE_SHARE_MAX

SWITCH_WEIGHT = 10.0
"""Default τ of switch-DR: a choice that counts more than ten times says more about chance than about the policy."""
EFFECTIVE_MIN = 200
"""Fewest effective choices for which the normal interval can be trusted."""
PEOPLE_MIN, REWARDED_MIN = 30, 20
"""People, and choices that earned anything, below which the normal interval is too narrow: at a nominal 95 % it covers
88 % with 10 people of very different tastes, 92 % with 30; 90 % with 5 clicks, 93 % with 20. Both are effective
numbers: with a rare action's weight of 50 beside .5 it covers 48 % though 60 choices earned something, and with eleven
people who have 98 % of all choices 88 % though there are 61 people."""
WEIGHT_OFF_MAX, WEIGHT_OFF_MIN, WEIGHT_ERRORS = 0.1, 0.01, 3
"""How far the mean weight may be from 1: never more than the first; where it is more than the second, not by as many
standard errors as the third."""
WEIGHT_ROUNDING = 1e-6
"""Rounding error of a weight: a receipt has worth in single precision."""
ROUNDING = 1e-12
"""Relative rounding error by which the mean of equal terms may differ from each."""


@dataclass(frozen=True, slots=True)
class Weighted:
    """N logged choices, weighted for one evaluated policy, without a reward model; all arrays ``[N]``.

    ``person``: the number of the person that each was made for; None: everyone came once.
    """

    reward: Floats
    weight: Floats
    person: Ints | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        told = (getattr(self, each.name) for each in fields(self))
        sizes = {len(each) for each in told if each is not None}
        if len(sizes) != 1 or sizes == {0}:
            raise ValueError(f"logged choices: arrays of {sorted(sizes)} choices; expected one length, above 0")
        if not (np.isfinite(self.weight).all() and (self.weight >= 0).all()):
            raise ValueError("logged choices: a weight is negative or infinite; was a propensity of 0 logged?")

    def of_people(self, values: Floats) -> Floats:
        """Sums of ``values [N]`` over each person's choices, ``[P]``."""
        if self.person is None:
            return values
        people, of = np.unique(self.person, return_inverse=True)
        sums = np.zeros(len(people))
        np.add.at(sums, of, values)
        return sums


@dataclass(frozen=True, slots=True)
class Logged(Weighted):
    """Logged choices with a reward model.

    ``model_chosen`` is q of the logged choice, ``model_policy`` the mean of q under the evaluated policy; q is fitted
    on other choices than those it is used on.
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


def evaluate(log: Weighted) -> dict[str, Estimate]:
    """Every estimator's value with its 95 % normal interval; those by a reward model, where there is one."""
    terms = {"ips": ips(log)}
    normalised = {"snips": _self_normalised(log, np.zeros_like(log.reward), terms["ips"])}
    if isinstance(log, Logged):
        terms |= {name: of(log) for name, of in MODELLED.items()}
        residuals = log.weight * (log.reward - log.model_chosen)
        normalised["sndr"] = _self_normalised(log, log.model_policy, residuals)
    influences = {name: (float(each.mean()), each) for name, each in terms.items()} | normalised
    return {name: _estimate(log, *each) for name, each in influences.items()}


def _estimate(log: Weighted, value: float, influence: Floats) -> Estimate:
    """The interval is unbounded where the spread is unknown: for one person, or where all terms are equal."""
    off, terms = log.of_people(influence - value), log.of_people(np.abs(influence))
    known = len(off) > 1 and (np.abs(off) > ROUNDING * terms).any()
    spread = float(np.sqrt(len(off) / (len(off) - 1) * (off**2).sum()) / len(influence)) if known else np.inf
    reach = NormalDist().inv_cdf(0.975) * spread
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
    weight = log.of_people(log.weight)
    if log.person is not None and (people := effective_size(weight)) < PEOPLE_MIN * (1 - ROUNDING):
        found.append(
            f"choices of {len(weight)} {'person' if len(weight) == 1 else 'people'}, by their weights {people:.1f} "
            f"effective ones; expected {PEOPLE_MIN} or more, since choices of one are alike"
        )
    total = float(weight.sum())
    # Not Kish's size of the rewarded alone: their weights are equal where no choice of large weight earned anything.
    rewarded = effective * float(log.weight[log.reward != 0].sum()) / total if total else 0.0
    if rewarded < REWARDED_MIN * (1 - ROUNDING):
        found.append(
            f"{rewarded:.1f} effective choices of {len(log.reward)} earned anything; expected {REWARDED_MIN} or more: "
            "the interval may be far too narrow"
        )
    if total and (share := float(weight.max()) / total) > ONE_SHARE_MAX:
        who = "choice" if log.person is None else "person"
        found.append(f"one {who} has {share:.0%} of all weight; expected {ONE_SHARE_MAX:.0%} at most")
    if (why := _uncovered(log)) is not None:
        found.append(f"mean weight {log.weight.mean():.3f}; expected 1: {why}")
    return found


def _uncovered(log: Weighted) -> str | None:
    """What speaks against the mean weight, which is 1 where every choice of the policy had a chance to be logged.

    A log that drew nothing has propensities of 1. No weight is above 1 then, and each choice that the policy makes
    less often than always is one that the log lacks, however near to 1 the mean is.
    """
    mean, people = float(log.weight.mean()), log.of_people(log.weight - log.weight.mean())
    error = (
        float(np.sqrt(len(people) / (len(people) - 1) * (people**2).sum())) / len(log.weight)
        if len(people) > 1
        else np.inf
    )
    off = abs(mean - 1)
    drew_nothing = log.weight.max() <= 1 + WEIGHT_ROUNDING and log.weight.min() < 1 - WEIGHT_ROUNDING
    if not (drew_nothing or off > WEIGHT_OFF_MAX or (off > WEIGHT_OFF_MIN and off > WEIGHT_ERRORS * error)):
        return None
    if mean > 1:
        return "propensities are wrong"
    return (
        "this policy would show ads that the log never shows, so ips and snips cannot be believed, and the others "
        "only as far as their model"
    )


def fitted_means(action: Ints, reward: Floats, fold: Ints, actions: int, prior: float = 20.0) -> Floats:
    """A plain reward model, cross-fitted: per fold the mean reward of each action in the *other* folds.

    ``action, reward, fold [N]`` → ``[folds, actions]``; each mean is shrunk to the overall one as by ``prior``
    choices, so that an action seen twice is not trusted.
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
