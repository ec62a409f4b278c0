"""Cohorts and retention: people by the period of their first event, and how many of them came again later."""

import numpy as np
from msgspec import Struct

from scoring.arrays import Ints
from scoring.units import HOUR_MS
from streams.behaviour.joined import Behaviour

SESSION_GAP_MS = 1_800_000
"""Half an hour without an event ends a visit: the half-life of session interest, and usual in web analytics."""


class Cohort(Struct, frozen=True):
    """People first seen in the period from ``from_ms``; ``active[k]`` of them did something k periods later."""

    from_ms: int
    people: int
    active: list[int]


class Cohorts(Struct, frozen=True):
    """``returned``: share of people who were active in the period after their first, among those whose next period the
    log covers; null where there are none. The end of the log may cut the last period short.
    """

    width_ms: int
    cohorts: list[Cohort]
    returned: float | None
    visits: int
    visits_per_person: float
    hours_between_visits: float | None


def cohorts(behaviour: Behaviour) -> Cohorts:
    """Cohorts over the report's periods. An event of any kind makes a person active."""
    periods = behaviour.periods
    time_ms = np.concatenate([behaviour.impressions["time_ms"], behaviour.actions["time_ms"]])
    user = np.concatenate([behaviour.impression_user, behaviour.action_user])
    active = np.zeros((behaviour.users, periods.count), dtype=np.bool_)
    active[user, periods.of(time_ms)] = True
    first = active.argmax(axis=1)
    found = [
        Cohort(start_ms, int((first == at).sum()), active[first == at, at:].sum(axis=0).tolist())
        for at, start_ms in enumerate(periods.starts_ms)
    ]
    followed = [cohort for cohort in found[:-1] if cohort.people]
    seen = sum(cohort.people for cohort in followed)
    gaps_ms, visits = _visits(user, time_ms, behaviour.users)
    return Cohorts(
        width_ms=periods.width_ms,
        cohorts=found,
        returned=sum(cohort.active[1] for cohort in followed) / seen if seen else None,
        visits=visits,
        visits_per_person=visits / behaviour.users,
        hours_between_visits=float(np.median(gaps_ms)) / HOUR_MS if len(gaps_ms) else None,
    )


def _visits(user: Ints, time_ms: Ints, users: int) -> tuple[Ints, int]:
    """Gaps between people's visits, and how many visits there were."""
    order = np.lexsort((time_ms, user))
    same = np.diff(user[order]) == 0
    gaps_ms = np.diff(time_ms[order])[same]
    apart = gaps_ms[gaps_ms >= SESSION_GAP_MS]
    return apart, users + len(apart)
