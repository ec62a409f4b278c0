"""Inference that may be looked at all the time: intervals and tests that hold at every moment at once.

- The interval of an estimate is the mixture sequential probability ratio test's, turned round (Robbins 1970;
  Johari, Koomen, Pekelis & Walsh 2017), which is also the asymptotic confidence sequence of Waudby-Smith, Arbour,
  Sinha, Kennedy & Ramdas 2024. Where V is the estimate's variance and t = 1/V its information, the chance that
  the truth ever leaves estimate ± radius is at most α.
- The test of a split is the sequential multinomial test of Lindon & Malek 2022.

There are also intervals of a share, for a look taken once: Wilson's, where all trials are independent, and Wilson's for
the effective number of trials, where one person's trials are correlated.
"""

import math

import numpy as np

from scoring.arrays import Bools, Floats, Ints

Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""
ONE_SHARE_MAX = 0.1
"""A person with more than this share of a ratio's denominator, or of all weight, decides it alone: it is nearly that
person's own rate, so no variance shows how far off it is."""


def mixture_width(information: float, alpha: float) -> float:
    """Variance τ² of the mixture that makes the radius smallest when ``information`` (1/variance) is reached.

    Waudby-Smith et al., eq. 24. The radius stays valid before and after.
    """
    log_term = -2 * math.log(alpha)
    return (log_term + math.log(log_term + 1)) / information


def radius(variance: float, width: float, alpha: float) -> float:
    """Half width of the always-valid interval of an estimate with ``variance``, at miss rate ``alpha``.

    ``width`` is τ² of `mixture_width`, fixed before the moments it is used at. Infinite while nothing is known.
    """
    if not (0 < variance < math.inf):
        return math.inf
    grown = math.log1p(width / variance) - 2 * math.log(alpha)
    return math.sqrt(variance * (1 + variance / width) * grown)


def log_e_value(estimate: float, variance: float, width: float) -> float:
    """Logarithm of the evidence that the truth is not 0: the mixture likelihood ratio, an e-process.

    The always-valid p-value is the running minimum of exp(-this). 0 while nothing is known.
    """
    if not (0 < variance < math.inf):
        return 0.0
    return 0.5 * (estimate**2 / variance / (1 + variance / width) - math.log1p(width / variance))


SPLIT_CONCENTRATION = 1_000.0
"""Weight of the alternative's centre: splits a few per cent off are what a broken assignment makes."""


def split_log_e_value(counts: Ints, shares: Floats) -> float:
    """Logarithm of the evidence that users ``counts [A]`` do not come from ``shares [A]`` (sample ratio mismatch).

    Bayes factor of a Dirichlet around the shares against the shares themselves; at all times at once the chance
    that it ever exceeds 1/α is at most α. Arms with a share of 0 must have no users: one is infinite evidence.
    """
    if counts[shares == 0].any():
        return math.inf
    used = shares > 0
    x, p = counts[used].astype(float), shares[used] / shares[used].sum()
    prior = SPLIT_CONCENTRATION * p
    gained = sum(math.lgamma(a + n) - math.lgamma(a) for a, n in zip(prior.tolist(), x.tolist(), strict=True))
    total = math.lgamma(SPLIT_CONCENTRATION) - math.lgamma(SPLIT_CONCENTRATION + x.sum())
    return float(gained + total - (x * np.log(p)).sum())


def wilson(successes: float, trials: float, z: float = Z_95) -> tuple[float, float]:
    """Interval of a share (E. B. Wilson, "Probable inference", JASA 1927); (0, 1) where nothing was tried.

    It keeps its coverage for small counts and rates near 0, where click rates live.
    """
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, z * z
    middle = share + z2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    scale = 1 + z2 / trials
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def student_95(freedom: int) -> float:
    """Quantile of Student's t of a two-sided 95 % interval, for ``freedom`` from 1 on, to an eighth of a per cent.

    By its expansion around the normal's `Z_95` (Abramowitz & Stegun 1964, 26.7.5), which begins to hold at 3.
    """
    if freedom < 3:
        return (12.706205, 4.302653)[freedom - 1]
    quantile = 0.0
    for term in (1.58953, 2.55585, 2.82250, 2.37227, Z_95):
        quantile = quantile / freedom + term
    return quantile


def by_person(successes: Ints, trials: Ints) -> tuple[float, float]:
    """95 % interval of the share Σ successes / Σ trials of people ``[U]``, who differ; (0, 1) for one person, or where
    nothing was tried, since nothing is known of others.

    `wilson` of as many independent trials as have the variance of the ratio of sums (delta method: Deng, Knoblich & Lu
    2018), and never more than were made, with Student's t in place of z (Korn & Graubard 1998, "Confidence intervals
    for proportions with small expected number of positive counts estimated from survey data"): the variance itself
    rests on few people. So it is never narrower than Wilson's. Of 2 to 20 people who were each tried 20 or 50 times it
    covers 92 % and more where up to two in five never succeed, and 85 % and more where half of them or more never do.
    """
    people, succeeded, tried = len(trials), int(successes.sum()), int(trials.sum())
    if people < 2 or tried == 0:
        return 0.0, 1.0
    share = succeeded / tried
    variance = people / (people - 1) * float(((successes - share * trials) ** 2).sum()) / tried**2
    effective = min(tried, share * (1 - share) / variance) if variance > 0 else tried
    return wilson(share * effective, effective, student_95(people - 1))


def of_trials(succeeded: Bools, person: Ints) -> tuple[float, float]:
    """`by_person` of single trials ``[N]``: whether each ``succeeded``, and the number of whose it was, from 0."""
    tried = np.bincount(person)
    people = np.flatnonzero(tried)
    return by_person(np.bincount(person[succeeded], minlength=len(tried))[people], tried[people])
