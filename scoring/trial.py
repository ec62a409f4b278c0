"""What an experiment shows, at any moment: per arm and metric the value, the difference and its always-valid interval.

The unit is the user. A user counts from the first impression that an arm's policy earned; what they did before is
the covariate (CUPED: Deng, Xu, Kohavi & Walker 2013), what they do after is the outcome. A metric is a ratio of two
sums over users, with the variance of its linearised form (delta method: Deng, Knoblich & Lu 2018).

Where a bandit allocates users, each cohort has shares of its own, and cohorts come at different times: plain means
would compare an arm's late users with another's early ones. So every user is weighted by one over the chance of their
arm (Hájek 1971), and every arm stands for all cohorts alike. The chances are fixed before the users come, whatever they
were made from, which is all that the intervals need (Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro 2024,
"Anytime-valid off-policy inference for contextual bandits"). The split is tested cohort by cohort, against its chances.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Floats, Ints
from scoring.assignment import OUTSIDE
from scoring.confidence import ONE_SHARE_MAX, log_e_value, mixture_width, radius, split_log_e_value

SUMS = ("days", "impressions", "clicks", "conversions", "revenue_micros", "viewed_s", "switches", "shown")
"""What is summed per user. "days" come with a look: the days since exposure, or 1 for everyone. "switches" are
impressions of another category than the one before, among those "shown"; these are the "impressions", or impressions
that are counted elsewhere.
"""

METRICS: dict[str, tuple[str, str]] = {
    "ctr": ("clicks", "impressions"),
    "cvr": ("conversions", "clicks"),
    "revenue_micros": ("revenue_micros", "days"),
    "viewed_s": ("viewed_s", "impressions"),
    "diversity": ("switches", "shown"),
}
"""Each metric as (numerator, denominator), both sums over users. Revenue is divided by days since the others'
denominators grow with time, too. The variance of a running total per user would grow without end, while the interval is
planned by that of the first look: after a month no interval showed a difference of seven standard errors.
"""
BOUNDED = ("ctr", "cvr", "diversity")
"""Metrics whose numerator is at most the denominator: a user does it at most once for each of what it is divided by."""

USERS_MIN = 100
"""Users an arm needs before anything is said of it: the intervals are asymptotic."""
DOERS_MIN, EXPECTED_MIN = 5, 20
"""Users of an arm who did what a metric counts, or who would have if both arms were alike, before it is compared.

While nobody in an arm has done it, that arm's variance is 0, and the few of the other make it seem a certain loss: of
20,000 users, 5 % in one arm and no difference, 27 to 43 % of revenue's intervals left out zero at some look (3 to 12
buyers in a thousand; 7 % at 30). With 5 who did it in each arm none of 150 runs each did (1 at 30). Nor with 20
expected, so an arm in which nobody does what many do in the other is still found out.

Of a bounded metric (`BOUNDED`) where nearly all is done, those who left something undone are the few, and as many of
them are waited for: with a tenth of 4,000 users in one arm, of whom 6 % click and nine clicks of ten buy, 25 % of
intervals of ``cvr`` left out zero.

This holds for buyers who spend alike and weigh alike, since they are counted by heads. A bandit's few users who weigh
much and spend very different amounts make more intervals wrong than intended, the more the smaller its arms get.
"""
HAVING_MIN = math.ceil(1 / ONE_SHARE_MAX)
"""Users of an arm who have any of a metric's denominator: of fewer, one has more than the bound in any case."""
FIRST_PLAN = 20.0
"""The interval is narrowest where this many times the information of the first look is reached."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An arm's metric against the first arm's. ``low`` and ``high`` hold at all times at once.

    ``variance_cut``: share of the variance that the covariate took away. ``p_value``: always valid.
    """

    value: float
    low: float
    high: float
    relative: float
    p_value: float
    variance_cut: float


class Lack(NamedTuple):
    """Why two arms are not compared yet: the arm ``at`` has ``have`` of ``need`` users of a kind.

    ``kind``: "users" of any kind, those "having" any of the denominator, or those who did what is counted ("doers"), or
    left something undone ("undone").
    """

    at: int
    kind: str
    have: int
    need: int


@dataclass(frozen=True, slots=True)
class Look:
    """A moment of a trial. ``differences[metric][arm]``, for every arm but the first, where enough is known.

    ``variances``: of the ``values``. ``heaviest[metric][arm]``: where one person has more than `ONE_SHARE_MAX` of the
    denominator, so that the arm is not compared, that share. ``meant``: users of each arm by the shares; ``undefined``:
    arms that have none of a metric's denominator, so that 0 stands for a value; ``lacks``: of metrics with an arm that
    is not compared, what the first such arm or the first arm lacks; all empty in looks of before. ``by_days``: whether
    revenue is per user and day; else it is per user.
    """

    users: Ints  # [A]
    crossed: int
    split_p_value: float
    values: dict[str, list[float]]
    variances: dict[str, list[float]]
    differences: dict[str, dict[int, Difference]]
    heaviest: dict[str, dict[int, float]] = field(default_factory=dict)
    by_days: bool = True
    meant: list[float] = field(default_factory=list)
    undefined: dict[str, list[int]] = field(default_factory=dict)
    lacks: dict[str, Lack] = field(default_factory=dict)


@dataclass
class Trial:
    """The users of one experiment. Arrays are by the user's place in the totals that a look is given.

    ``shares [K, A]`` of each cohort's users meant for each arm (``[A]``: there is one cohort); ``alpha`` the chance
    that an interval of the trial's primary metric is ever wrong, shared among the arms. ``blank [U]``: users whose
    ``before`` holds some of what came after exposure: their outcome begins there, but it is no covariate.
    """

    shares: Floats
    alpha: float = 0.05
    arm: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty(0, dtype=np.int8))
    before: Floats = field(default_factory=lambda: np.empty((0, len(SUMS))))
    crossed: Bools = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    blank: Bools = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    widths: dict[tuple[str, int], float] = field(default_factory=dict)
    evidence: dict[tuple[str, int], float] = field(default_factory=dict)
    split_evidence: float = 0.0

    @property
    def arms(self) -> int:
        """How many there are."""
        return int(self.shares.shape[-1])

    def expose(self, users: Ints, arms: Ints, totals: Floats) -> Ints:
        """Users ``[E]`` (places, each once) saw their arm's policy; ``totals [U, sums]`` are those before it.

        A user who was exposed to one arm before and is now to another has crossed, and does not count. Returns the
        users who are new, and count from now on.
        """
        self._grow(len(totals))
        known = self.arm[users] != OUTSIDE
        self.crossed[users[known & (self.arm[users] != arms)]] = True
        new: Ints = users[~known]
        self.arm[new] = arms[~known]
        self.before[new] = totals[new]
        return new

    def forget(self, users: Ints) -> None:
        """Let users (places) leave, as if they had never come; what was seen while they were there stays evidence."""
        held = users[users < len(self.arm)]
        self.arm[held], self.before[held], self.crossed[held], self.blank[held] = OUTSIDE, 0, False, False

    def _grow(self, users: int) -> None:
        if (more := users - len(self.arm)) > 0:
            more = max(more, len(self.arm))  # doubling: growing costs O(users) in all
            self.arm = np.concatenate([self.arm, np.full(more, OUTSIDE, dtype=np.int8)])
            self.before = np.concatenate([self.before, np.zeros((more, len(SUMS)))])
            self.crossed = np.concatenate([self.crossed, np.zeros(more, dtype=np.bool_)])
            self.blank = np.concatenate([self.blank, np.zeros(more, dtype=np.bool_)])

    def look(self, totals: Floats, cohort: Ints | None = None, days: Floats | None = None) -> Look:
        """What is known now, given everyone's ``totals [U, sums]``, ``cohort [U]`` (None: the first), and the
        ``days [U]``, above 0, that each has been exposed (None: 1 each, so that revenue is per user).

        Looking remembers the strongest evidence yet.
        """
        size, shares = min(len(totals), len(self.arm)), np.atleast_2d(self.shares)
        cohort = np.zeros(size, dtype=np.int64) if cohort is None else cohort[:size]
        taking_part = np.flatnonzero((self.arm[:size] != OUTSIDE) & (cohort != OUTSIDE) & ~self.crossed[:size])
        arm, cohort = self.arm[taking_part].astype(np.int64), cohort[taking_part]
        share = shares[cohort, arm]
        weight = 1 / np.where(share > 0, share, 1.0)  # users in an arm of share 0 show in the split
        before = self.before[taking_part]
        after = totals[taking_part] - before
        before[:, 0], after[:, 0] = 1.0, 1.0 if days is None else days[taking_part]
        before[self.blank[taking_part]] = 0.0  # no deviation from what is usual, either way
        split = np.bincount(cohort * self.arms + arm, minlength=shares.size).reshape(shares.shape)
        users = split.sum(axis=0)
        # Cohorts are independent, so their evidence multiplies.
        self.split_evidence = max(self.split_evidence, sum(map(split_log_e_value, split, shares)))
        values: dict[str, list[float]] = {}
        variances: dict[str, list[float]] = {}
        differences: dict[str, dict[int, Difference]] = {metric: {} for metric in METRICS}
        heaviest: dict[str, dict[int, float]] = {metric: {} for metric in METRICS}
        undefined: dict[str, list[int]] = {}
        lacks: dict[str, Lack] = {}
        for metric, (above, below) in METRICS.items():
            columns = SUMS.index(above), SUMS.index(below)
            moments = _Moments.of(arm, self.arms, weight, *(part[:, at] for part in (after, before) for at in columns))
            values[metric], variances[metric] = moments.ratio.tolist(), moments.variance.tolist()
            doers = np.bincount(arm[after[:, columns[0]] != 0], minlength=self.arms)
            undone = np.bincount(arm[after[:, columns[0]] < after[:, columns[1]]], minlength=self.arms)
            deeds = 1.0 if below == "days" else after[:, columns[1]]  # time goes by for everybody
            held = _heaviest(arm, self.arms, weight * deeds)
            having = np.bincount(arm[after[:, columns[1]] > 0], minlength=self.arms)
            undefined[metric] = np.flatnonzero(having == 0).tolist()
            for pair in ([0, other] for other in range(1, self.arms)):
                few = (doers, undone) if metric in BOUNDED else (doers,)
                if (lack := _lack(pair, users, having, few)) is not None:
                    lacks.setdefault(metric, lack)
                    continue
                if deciding := {at: float(held[at]) for at in pair if held[at] > ONE_SHARE_MAX}:
                    heaviest[metric] |= deciding
                elif (found := self._compare(metric, moments, pair)) is not None:
                    differences[metric][pair[1]] = found
        split_p_value = _p_value(self.split_evidence)
        crossed, by_days = int(self.crossed.sum()), days is not None
        meant = (split.sum(axis=1) @ shares).tolist()
        beside = heaviest, by_days, meant, undefined, lacks
        return Look(users, crossed, split_p_value, values, variances, differences, *beside)

    def _compare(self, metric: str, moments: "_Moments", pair: list[int]) -> Difference | None:
        _, other = pair
        plain, slope, variance = moments.adjusted(pair)
        if not (plain > 0 and variance > 0):
            return None  # nobody did it yet, or everybody alike
        value = moments.ratio[other] - moments.ratio[0] - slope * (moments.covariate[other] - moments.covariate[0])
        key, alpha = (metric, other), self.alpha / (self.arms - 1)
        width = self.widths.setdefault(key, mixture_width(FIRST_PLAN / variance, alpha))
        self.evidence[key] = max(self.evidence.get(key, 0.0), log_e_value(value, variance, width))
        reach = radius(variance, width, alpha)
        return Difference(
            value=float(value),
            low=float(value - reach),
            high=float(value + reach),
            relative=float(value / moments.ratio[0]) if moments.ratio[0] else math.nan,
            p_value=min(1.0, _p_value(self.evidence[key]) * (self.arms - 1)),
            variance_cut=float(1 - variance / plain),
        )


@dataclass(frozen=True, slots=True)
class _Moments:
    """Per arm ``[A]``: the ratio, the covariate's mean, and the variances and covariance of both, linearised."""

    ratio: Floats
    covariate: Floats
    variance: Floats
    covariate_variance: Floats
    covariance: Floats

    @classmethod
    def of(
        cls, arm: Ints, arms: int, weight: Floats, y: Floats, y_below: Floats, x: Floats, x_below: Floats
    ) -> "_Moments":
        """Moments of users ``[N]`` with ``weight``: the outcome ``y / y_below``, and the ratio before, ``x / x_below``.

        The covariate is centred on everyone's ratio, not the arm's own, so that arms remain comparable.
        """

        def mean(values: Floats) -> Floats:
            means: Floats = np.bincount(arm, weights=weight * values, minlength=arms) / total
            return means

        def variance(squares: Floats) -> Floats:
            sums = np.bincount(arm, weights=weight**2 * squares, minlength=arms)
            found: Floats = sums / total**2 * unbiased
            return found

        total = np.maximum(np.bincount(arm, weights=weight, minlength=arms).astype(float), 1)
        count = np.bincount(arm, minlength=arms)
        unbiased = count / np.maximum(count - 1, 1)
        below = mean(y_below)
        ratio = np.divide(mean(y), below, out=np.zeros(arms), where=below > 0)
        scale = np.divide(1.0, below, out=np.zeros(arms), where=below > 0)
        linear = (y - ratio[arm] * y_below) * scale[arm]
        past = x.sum() / x_below.sum() if x_below.sum() else 0.0
        covariate = x - past * x_below
        middle = mean(covariate)
        centred = covariate - middle[arm]
        return cls(ratio, middle, variance(linear**2), variance(centred**2), variance(linear * centred))

    def adjusted(self, pair: list[int]) -> tuple[float, float, float]:
        """Variance of the pair's difference, the covariate's slope, and the variance with it.

        The slope minimises the very variance that is reported, so the covariate never raises it.
        """
        plain = float(self.variance[pair].sum())
        covariate = float(self.covariate_variance[pair].sum())
        covariance = float(self.covariance[pair].sum())
        slope = covariance / covariate if covariate > 0 else 0.0
        return plain, slope, max(plain - slope * covariance, 0.0)


def _lack(pair: list[int], users: Ints, having: Ints, few: tuple[Ints, ...]) -> Lack | None:
    """What two arms of all lack for an interval; None where they suffice. All arrays ``[A]``.

    ``having``: of fewer than ten users one has more than `ONE_SHARE_MAX` in any case. ``few``: the users who did it,
    and those who left something undone.
    """
    for kind, who, need in (("users", users, USERS_MIN), ("having", having, HAVING_MIN)):
        for at in pair:
            if who[at] < need:
                return Lack(at, kind, int(who[at]), need)
    for kind, who in zip(("doers", "undone"), few, strict=False):
        expected = users * who[pair].sum() / max(users[pair].sum(), 1)
        for at in pair:
            if who[at] < DOERS_MIN and expected[at] < EXPECTED_MIN:
                return Lack(at, kind, int(who[at]), DOERS_MIN)
    return None


def _heaviest(arm: Ints, arms: int, held: Floats) -> Floats:
    """Largest share of one user in all that the users ``[N]`` of each arm have ``held``, ``[A]``."""
    most, total = np.zeros(arms), np.bincount(arm, weights=held, minlength=arms)
    np.maximum.at(most, arm, held)
    return np.divide(most, total, out=np.zeros(arms), where=total > 0)


def _p_value(log_evidence: float) -> float:
    return math.exp(-max(log_evidence, 0.0))
