"""What personalisation changed: people for whom the engine ranked, against the control group, ranked at random.

An impression counts if its placement left a receipt and was made for the person who saw it (a page from before a login
was not), in the receipt's arm, and while the control group's share of the people is the same as when the person first
came: a change of the share moves people between the groups. People who came while there was only one group, or while
one was meant for hardly anybody, do not count. Differences come from the experiments' own analysis (`scoring.trial`):
the unit is the user, and the intervals hold however often one looks.
"""

import math

import numpy as np
from msgspec import Struct

from scoring.arrays import Bools, Floats, Ints
from scoring.assignment import OUTSIDE
from scoring.confidence import Z_95
from scoring.events import Kind
from scoring.ids import MISSING
from scoring.interest import VIEWED_MS_MAX
from scoring.trial import SUMS, Look, Trial
from streams.behaviour.gathered import Table
from streams.behaviour.joined import UNKNOWN, Behaviour, places

GROUPS = ("control", "personalised")
IMPRESSIONS_MIN = 10
"""Least impressions of a person whose entropy counts: with fewer, their number alone bounds the entropy."""
PEOPLE_MIN = 20
"""Least people of each group for an interval of entropies: it is asymptotic, and covers 81 % with 2, 94 % with 20."""
EXPECTED_MIN = 20
"""Least people expected in each group for a cohort to count; the largest cohort always counts. In a small group a few
people stand for the whole cohort, one for a thousand where a thousandth is meant for control; with none or two of them,
no variance tells how far off that is. The bound is on the expected number: one on the people who came would select
among the draws."""


A_USER = {"revenue_micros": "revenue_micros_a_user"}
"""Metrics of experiments that are told of a user and day there, and here, over the whole log, of a user."""


class Change(Struct, frozen=True):
    """A metric of both groups, and personalised − control with its 95 % interval; null where data are too few."""

    metric: str
    control: float
    personalised: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class Personalisation(Struct, frozen=True):
    """``split_p_value``: below 0.001 the groups do not have their shares of the people (SRM), and nothing here holds.

    ``crossed``: people seen in both groups, who count in neither.
    """

    people: dict[str, int]
    impressions: dict[str, int]
    changes: list[Change]
    split_p_value: float
    crossed: int


def personalisation(behaviour: Behaviour) -> Personalisation | None:
    """The comparison; None where no impression counts, or all that count are of one group."""
    decisions, chosen, cohort, shares = _divided(behaviour)
    control = decisions["control"] == 1
    if not control.any() or control.all():
        return None
    user, arm = behaviour.impression_user[chosen], np.where(control, 0, 1)
    trial = Trial(shares=np.stack([shares, 1 - shares], axis=1))
    totals = _totals(behaviour, chosen)
    for number in range(len(GROUPS)):
        exposed = np.unique(user[arm == number])
        trial.expose(exposed, np.full(len(exposed), number), np.zeros_like(totals))
    look = trial.look(totals, cohort)
    sums = np.bincount(arm[~trial.crossed[user]], minlength=len(GROUPS)).tolist()
    return Personalisation(
        people=dict(zip(GROUPS, look.users.tolist(), strict=True)),
        impressions=dict(zip(GROUPS, sums, strict=True)),
        changes=[*_changes(look), *_entropies(behaviour, chosen, trial, cohort)],
        split_p_value=look.split_p_value,
        crossed=look.crossed,
    )


def _divided(behaviour: Behaviour) -> tuple[Table, Ints, Ints, Floats]:
    """The receipts ``[N]`` of the impressions that count, and these impressions; each person's cohort, ``[U]``,
    `OUTSIDE` where they have none; the control group's share of each cohort, ``[K]``.
    """
    decisions = behaviour.gathered.decisions
    decided = places(decisions["placement"], behaviour.impressions["placement"])
    chosen = np.flatnonzero((decided != MISSING) & (behaviour.impressions["placement"] != 0))
    chosen = chosen[decisions["user"][decided[chosen]] == behaviour.impressions["user"][chosen]]
    told, user = decisions[decided[chosen]], behaviour.impression_user[chosen]
    people, first = np.unique(user, return_index=True)  # impressions are in time order
    share = np.zeros(behaviour.users)
    share[people] = told["share"][first]
    two = (share > 0) & (share < 1)
    shares, of, size = np.unique(share[two], return_inverse=True, return_counts=True)
    expected = size * np.minimum(shares, 1 - shares)
    tells = expected >= min(EXPECTED_MIN, expected.max(initial=0))  # in a single cohort all people weigh the same
    cohort = np.full(behaviour.users, OUTSIDE, dtype=np.int64)
    cohort[two] = np.where(tells[of], of, OUTSIDE)
    counts = (cohort[user] != OUTSIDE) & (told["share"] == share[user])
    return told[counts], chosen[counts], cohort, shares


def _totals(behaviour: Behaviour, chosen: Ints) -> Floats:
    """Each person's sums over the chosen impressions, ``[U, SUMS]``."""
    user, told = behaviour.impression_user[chosen], np.zeros((behaviour.users, len(SUMS)))
    looked_ms = np.minimum(behaviour.actions["viewed_ms"], VIEWED_MS_MAX)  # as rows count for experiments
    columns: dict[str, Floats] = {
        "impressions": np.ones(len(chosen)),
        "clicks": behaviour.clicked[chosen].astype(float),
        "conversions": (behaviour.stage[chosen] >= Kind.PURCHASED).astype(float),
        "revenue_micros": behaviour.bought_micros[chosen].astype(float),
        "viewed_s": behaviour.of_impressions(looked_ms)[chosen] / 1000,
        "switches": _switches(behaviour, chosen).astype(float),
        "shown": np.ones(len(chosen)),
    }
    for name, values in columns.items():
        told[:, SUMS.index(name)] = np.bincount(user, weights=values, minlength=behaviour.users)
    return told


def _switches(behaviour: Behaviour, chosen: Ints) -> Bools:
    """Whether an impression has another category than the person's one before; false for a person's first.

    An ad that is in no catalogue has no category, and changes none, as in experiments.
    """
    known = np.flatnonzero(behaviour.impression_ad[chosen] != MISSING)
    user = behaviour.impression_user[chosen][known]
    category = behaviour.categories.of_ad[behaviour.impression_ad[chosen]][known]
    order = np.argsort(user, kind="stable")  # impressions are in time order
    other = np.zeros(len(chosen), dtype=np.bool_)
    same_user = user[order][1:] == user[order][:-1]
    other[known[order[1:]]] = same_user & (category[order][1:] != category[order][:-1])
    return other


def _changes(look: Look) -> list[Change]:
    changes = []
    for metric, values in look.values.items():
        found = look.differences[metric].get(1)
        told = (found.value, found.low, found.high) if found else (None, None, None)
        changes.append(Change(A_USER.get(metric, metric), values[0], values[1], *told))
    return changes


def _entropies(behaviour: Behaviour, chosen: Ints, trial: Trial, cohort: Ints) -> list[Change]:
    """Entropy of the categories shown to a person: the groups' means over people, and their difference (Welch)."""
    entropy, enough = category_entropy(behaviour, chosen)
    size = min(len(trial.arm), behaviour.users)
    groups = [
        np.flatnonzero(enough[:size] & (trial.arm[:size] == number) & ~trial.crossed[:size])
        for number in range(len(GROUPS))
    ]
    if not all(len(group) for group in groups):
        return []
    told = [_mean(entropy[group], trial.shares[cohort[group], number]) for number, group in enumerate(groups)]
    (control, _), (personal, _) = told
    if any(len(group) < PEOPLE_MIN for group in groups):
        return [Change("category_entropy_bits", control, personal)]
    difference, reach = personal - control, Z_95 * math.sqrt(sum(variance for _, variance in told))
    return [Change("category_entropy_bits", control, personal, difference, difference - reach, difference + reach)]


def _mean(values: Floats, chance: Floats) -> tuple[float, float]:
    """The mean over people ``[N]``, weighted by 1 over the ``chance`` of coming to their group, and its variance.

    As in `scoring.trial`, and for the same reason: plain means would compare one group's early people with the other's
    late ones.
    """
    weight, people = 1 / chance, len(values)
    mean = float(np.average(values, weights=weight))
    squares = float((weight**2 * (values - mean) ** 2).sum())
    return mean, squares / float(weight.sum()) ** 2 * people / max(people - 1, 1)


def category_entropy(behaviour: Behaviour, chosen: Ints) -> tuple[Floats, Bools]:
    """Entropy in bits, ``[U]``, of the categories of a person's impressions, and who has `IMPRESSIONS_MIN` of them.

    With Miller's correction (1955), (kinds − 1) / 2n nats: without it, people with few impressions would seem narrower
    than they are. Ads that are in no catalogue do not count.
    """
    of_ad = behaviour.categories.of_ad[behaviour.impression_ad[chosen]]
    known = of_ad != behaviour.categories.names.index(UNKNOWN)
    user = behaviour.impression_user[chosen][known]
    kinds = len(behaviour.categories.names)
    pairs, counts = np.unique(user * kinds + of_ad[known], return_counts=True)
    owner = pairs // kinds
    total = np.bincount(user, minlength=behaviour.users)
    shares = counts / total[owner]
    told = np.bincount(owner, weights=-shares * np.log(shares), minlength=behaviour.users)
    missed = (np.bincount(owner, minlength=behaviour.users) - 1).clip(0) / (2 * np.maximum(total, 1))
    return (told + missed) / np.log(2), total >= IMPRESSIONS_MIN
