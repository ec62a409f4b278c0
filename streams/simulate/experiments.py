"""Experiments whose truth is known, watched all the time: how often is salience's own analysis wrong?

Shoppers differ in how readily they click; their clicks before the experiment explain half of that. They arrive one
after the other and go on acting, while the trial is looked at a hundred times, as a growth team would. Shoppers of a
bandit arrive cohort by cohort, and later ones click more, whatever their arm.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scoring.allocation import allocation
from scoring.arrays import Floats, Ints
from scoring.assignment import Arm, Experiment
from scoring.confidence import split_log_e_value
from scoring.ids import mix64
from scoring.trial import SUMS, USERS_MIN, Look, Trial
from streams.experiments.findings import SPLIT_P_MIN

LOOKS = 100
IMPRESSIONS_MEAN = 40.0
"""Impressions of a shopper in each of the two periods."""
CLICKS_MEAN = 4.0
CLICKS_SPREAD = 10.3
"""Variance of expected clicks between shoppers. With this and the mean, the clicks before an experiment explain half
the variance of the clicks in it: (10.3 / (10.3 + 4))² = .52."""
COHORTS, COHORT, MINIMUM = 10, 400, 0.1
"""Of a bandit: number of cohorts, shoppers in each, and the least share of an arm."""


@dataclass(frozen=True)
class Shoppers:
    """The people who take part, in order of arrival: arm ``[U]``, sums before and sums after ``[U, sums]``."""

    arm: Ints
    before: Floats
    after: Floats


def shoppers(seed: int, count: int, lift: float) -> Shoppers:
    """``count`` shoppers, assigned as live users are; those of the second arm click ``lift`` more (0.05 = 5 %)."""
    draw = np.random.default_rng(seed)
    experiment = Experiment(f"simulated-{seed}", "simulated", 0.0, 1.0, 1.0, (Arm("a", 0.5), Arm("b", 0.5)))
    arm = experiment.assign(mix64(np.arange(1, count + 1, dtype=np.uint64)))
    shape = CLICKS_MEAN**2 / CLICKS_SPREAD
    readiness = draw.gamma(shape, CLICKS_MEAN / shape, count) / IMPRESSIONS_MEAN

    def period(rate: Floats) -> Floats:
        sums = np.zeros((count, len(SUMS)))
        sums[:, SUMS.index("impressions")] = draw.poisson(IMPRESSIONS_MEAN, count)
        sums[:, SUMS.index("clicks")] = draw.poisson(rate * sums[:, SUMS.index("impressions")])
        return sums

    return Shoppers(arm, period(readiness), period(readiness * (1 + lift * arm)))


def watch(people: Shoppers, seen: Callable[[Look], bool]) -> None:
    """Run the trial, with `LOOKS` looks at even distances, until ``seen`` returns True.

    A shopper's sums after exposure grow evenly from arrival to the end of the trial.
    """
    trial, count = Trial(shares=np.array([0.5, 0.5])), len(people.arm)
    arrival = np.arange(count) / count
    totals, arrived = people.before.copy(), 0
    for number in range(1, LOOKS + 1):
        now = number / LOOKS
        until = int(np.searchsorted(arrival, now))
        trial.expose(np.arange(arrived, until), people.arm[arrived:until], totals)
        arrived = until
        done = (now - arrival[:until]) / (1 - arrival[:until])
        totals[:until] = people.before[:until] + np.floor(people.after[:until] * done[:, None])
        if seen(trial.look(totals)):
            return


@dataclass
class Watched:
    """What watching one experiment showed; ``truth`` is the true difference in click rate."""

    truth: float
    found: bool = False
    covered: bool = True
    variance_cut: float = 0.0
    raised: bool = False

    def seen(self, look: Look) -> bool:
        if difference := look.differences["ctr"].get(1):
            self.found |= not difference.low <= 0 <= difference.high
            self.covered &= difference.low <= self.truth <= difference.high
            self.raised |= difference.variance_cut < 0
            self.variance_cut = difference.variance_cut
        return False


def one(seed: int, users: int, lift: float) -> Watched:
    """Watch one experiment of ``users`` shoppers with a true ``lift``."""
    watched = Watched(truth=lift * CLICKS_MEAN / IMPRESSIONS_MEAN)
    watch(shoppers(seed, users, lift), watched.seen)
    return watched


def users_until_split_found(seed: int, first_share: float, most: int) -> int | None:
    """Users until the split test finds that the first arm gets ``first_share`` instead of half; None if never."""
    draw, halves = np.random.default_rng(seed), np.array([0.5, 0.5])
    step, counts = most // LOOKS, np.zeros(2, dtype=np.int64)
    for users in range(step, most + 1, step):
        first = np.count_nonzero(draw.random(step) < first_share)
        counts += (first, step - first)
        if split_log_e_value(counts, halves) > -math.log(SPLIT_P_MIN):
            return users
    return None


@dataclass
class Bandit:
    """What a bandit showed. ``plain``: the same trial, analysed without people's chances (propensities) of their arms.

    ``missed``, ``plain_missed``: whether any interval left out the true difference ``lift``; ``better``: the second
    arm's share of the people.
    """

    lift: float
    trial: Trial = field(default_factory=lambda: Trial(np.array([[0.5, 0.5]])))
    plain: Trial = field(default_factory=lambda: Trial(np.array([0.5, 0.5])))
    totals: Floats = field(default_factory=lambda: np.zeros((0, len(SUMS))))
    cohort: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    missed: bool = False
    plain_missed: bool = False

    @property
    def better(self) -> float:
        """Share of the people in the second arm."""
        return float((self.trial.arm[: len(self.totals)] == 1).mean())

    def let_in(self, number: int, draw: np.random.Generator) -> Look:
        """Let a cohort in, by the shares of its time, and look twice: with people's chances, and without."""
        arm = (draw.random(COHORT) < self.trial.shares[-1, 1]).astype(np.int64)
        places = np.arange(COHORT) + len(self.totals)
        self.totals = np.concatenate([self.totals, np.zeros((COHORT, len(SUMS)))])
        self.cohort = np.concatenate([self.cohort, np.full(COHORT, number)])
        for trial in (self.trial, self.plain):
            trial.expose(places, arm, self.totals)
        even = 0.1 + 0.04 * number
        rate = draw.beta(20, 20 * (1 / even - 1), COHORT) + self.lift * arm
        self.totals[places, SUMS.index("impressions")] = IMPRESSIONS_MEAN
        self.totals[places, SUMS.index("clicks")] = draw.binomial(int(IMPRESSIONS_MEAN), np.minimum(rate, 1.0))
        look = self.trial.look(self.totals, self.cohort)
        self.missed |= self._misses(look)
        self.plain_missed |= self._misses(self.plain.look(self.totals))
        return look

    def _misses(self, look: Look) -> bool:
        found = look.differences["ctr"].get(1)
        return found is not None and not found.low <= self.lift <= found.high


def bandit(seed: int, lift: float) -> Bandit:
    """A bandit of `COHORTS`, whose second arm has ``lift`` more clicks per impression (0.03 = 3 in 100)."""
    draw, out = np.random.default_rng([seed, 7]), Bandit(lift)
    for number in range(COHORTS):
        look = out.let_in(number, draw)
        shares = allocation(np.array(look.values["ctr"]), np.array(look.variances["ctr"]), MINIMUM)
        out.trial.shares = np.vstack([out.trial.shares, shares]) if number + 1 < COHORTS else out.trial.shares
    return out


def bandits(null: list[Bandit], lifted: list[Bandit]) -> dict[str, Any]:
    """The figures of bandits in ``salience simulate aa``."""
    return {
        "bandit_false_positive_rate": float(np.mean([one.missed for one in null])),
        "bandit_plain_means_wrong": float(np.mean([one.plain_missed for one in null])),
        "bandit_coverage": float(np.mean([not one.missed for one in lifted])),
        "bandit_better_arm_share": float(np.mean([one.better for one in lifted])),
    }


def summary(null: list[Watched], lifted: list[Watched], split_users: int | None) -> dict[str, Any]:
    """The figures of ``salience simulate aa``."""
    return {
        "experiments": len(null),
        "looks": LOOKS,
        "users_min": USERS_MIN,
        "false_positive_rate": float(np.mean([watched.found for watched in null])),
        "coverage": float(np.mean([watched.covered for watched in lifted])),
        "lift_found": float(np.mean([watched.found for watched in lifted])),
        "cuped_variance_cut": float(np.median([watched.variance_cut for watched in null])),
        "cuped_raised": int(sum(watched.raised for watched in [*null, *lifted])),
        "srm_detected": split_users is not None,
        "srm_users": split_users,
    }
