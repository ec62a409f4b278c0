"""What personalisation changed: everyone whom the engine ranked for, beside the control group, ranked at random.

Impressions of placements that left a receipt count, by the receipt's arm, while the control group's share of the people
is what it was when a person first came: a change of it moves people from one group to the other. Who came while there
was but one group, or one of the two was meant for hardly anybody, compares nothing. Differences come from the
experiments' own analysis (`scoring.trial`): the unit is the user, and the intervals hold however often one looks.
"""

import math

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from scoring.assignment import OUTSIDE
from scoring.confidence import Z_95
from scoring.events import Kind
from scoring.ids import MISSING
from scoring.trial import SUMS, Look, Trial
from streams.behaviour.gathered import Table
from streams.behaviour.joined import UNKNOWN, Behaviour, places

GROUPS = ("control", "personalised")
IMPRESSIONS_MIN = 10
"""Of a person, before the entropy of what was shown to him is told: with fewer it is what the number allows."""
PEOPLE_MIN = 20
"""Of either group, before their entropies have an interval, which is asymptotic: with 2 it covers 81 %, with 20 94."""
EXPECTED_MIN = 20
"""People that either group is to have of a cohort beside the largest, before it counts: the few stand for the whole of
it, one for a thousand where a thousandth is meant for control, and while they are none or two no variance tells how far
off that is. By the number meant: to go by the people who came would choose among the draws."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Change(Struct, frozen=True):
    """A metric of both groups, and personalised less control with its 95 % interval; null where too little tells."""

    metric: str
    control: float
    personalised: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class Personalisation(Struct, frozen=True):
    """``split_p_value``: below 0.001 the groups do not have their shares of the people; believe nothing then.

    ``crossed``: people seen in both groups, who count in neither.
    """

    people: dict[str, int]
    impressions: dict[str, int]
    changes: list[Change]
    split_p_value: float
    crossed: int


def personalisation(behaviour: Behaviour) -> Personalisation | None:
    """The comparison; None where no impression that counts has a receipt, or all are of one group."""
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
    """The receipts ``[N]`` of the impressions that count, and these; each person's cohort, ``[U]``, `OUTSIDE` of who is
    in none; the control group's share of each cohort, ``[K]``.
    """
    decisions = behaviour.gathered.decisions
    decided = places(decisions["placement"], behaviour.impressions["placement"])
    chosen = np.flatnonzero((decided != MISSING) & (behaviour.impressions["placement"] != 0))
    told, user = decisions[decided[chosen]], behaviour.impression_user[chosen]
    people, first = np.unique(user, return_index=True)  # impressions are by time already
    share = np.zeros(behaviour.users)
    share[people] = told["share"][first]
    two = (share > 0) & (share < 1)
    shares, of, size = np.unique(share[two], return_inverse=True, return_counts=True)
    expected = size * np.minimum(shares, 1 - shares)
    tells = expected >= min(EXPECTED_MIN, expected.max(initial=0))  # within one all weigh alike
    cohort = np.full(behaviour.users, OUTSIDE, dtype=np.int64)
    cohort[two] = np.where(tells[of], of, OUTSIDE)
    counts = (cohort[user] != OUTSIDE) & (told["share"] == share[user])
    return told[counts], chosen[counts], cohort, shares


def _totals(behaviour: Behaviour, chosen: Ints) -> Floats:
    """What each person did with these impressions, ``[U, SUMS]``."""
    user, told = behaviour.impression_user[chosen], np.zeros((behaviour.users, len(SUMS)))
    columns: dict[str, Floats] = {
        "impressions": np.ones(len(chosen)),
        "clicks": behaviour.clicked[chosen].astype(float),
        "conversions": (behaviour.stage[chosen] >= Kind.PURCHASED).astype(float),
        "revenue_micros": behaviour.bought_micros[chosen].astype(float),
        "viewed_s": behaviour.of_impressions(behaviour.actions["viewed_ms"])[chosen] / 1000,
        "switches": _switches(behaviour, chosen).astype(float),
        "shown": np.ones(len(chosen)),
    }
    for name, values in columns.items():
        told[:, SUMS.index(name)] = np.bincount(user, weights=values, minlength=behaviour.users)
    return told


def _switches(behaviour: Behaviour, chosen: Ints) -> npt.NDArray[np.bool_]:
    """Whether an impression is of another category than the person's last, which the first of a person is not."""
    user, category = behaviour.impression_user[chosen], behaviour.categories.of_ad[behaviour.impression_ad[chosen]]
    order = np.argsort(user, kind="stable")  # impressions are by time already
    other = np.zeros(len(chosen), dtype=np.bool_)
    same_user = user[order][1:] == user[order][:-1]
    other[order[1:]] = same_user & (category[order][1:] != category[order][:-1])
    return other


def _changes(look: Look) -> list[Change]:
    changes = []
    for metric, values in look.values.items():
        found = look.differences[metric].get(1)
        told = (found.value, found.low, found.high) if found else (None, None, None)
        changes.append(Change(metric, values[0], values[1], *told))
    return changes


def _entropies(behaviour: Behaviour, chosen: Ints, trial: Trial, cohort: Ints) -> list[Change]:
    """Entropy of the categories that a person is shown: the mean over people, and its difference (Welch)."""
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
    """The mean over people ``[N]``, each of whom stands for one over the ``chance`` of the own group, and its variance.

    As `scoring.trial` has it, and for its reason: plain means would compare one group's early people with the other's
    late ones.
    """
    weight, people = 1 / chance, len(values)
    mean = float(np.average(values, weights=weight))
    squares = float((weight**2 * (values - mean) ** 2).sum())
    return mean, squares / float(weight.sum()) ** 2 * people / max(people - 1, 1)


def category_entropy(behaviour: Behaviour, chosen: Ints) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Bits, ``[U]``, of the categories of a person's impressions, and who has `IMPRESSIONS_MIN` of them.

    With Miller's correction (1955), (kinds − 1) / 2n nats: people with few impressions would seem narrower than they
    are. Ads that no catalogue knows say nothing.
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
