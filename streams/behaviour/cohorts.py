"""Cohorts and return: people by the period in which the log first knows them, and how many were there again later."""

import numpy as np
from msgspec import Struct

from streams.behaviour.joined import Behaviour, Ints

SESSION_GAP_MS = 1_800_000
"""Half an hour without an event ends a visit: the session's half-life, and the web's custom."""


class Cohort(Struct, frozen=True):
    """People first seen in the period from ``from_ms``; ``active[k]`` of them did something k periods later."""

    from_ms: int
    people: int
    active: list[int]


class Cohorts(Struct, frozen=True):
    """``returned``: the share of people who were there in the period after their first, of those whose next period the
    log covers; null where it covers none. The last period may be cut short by the log's end.
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
        hours_between_visits=float(np.median(gaps_ms)) / 3_600_000 if len(gaps_ms) else None,
    )


def _visits(user: Ints, time_ms: Ints, users: int) -> tuple[Ints, int]:
    """Gaps between people's visits, and how many visits there were."""
    order = np.lexsort((time_ms, user))
    same = np.diff(user[order]) == 0
    gaps_ms = np.diff(time_ms[order])[same]
    apart = gaps_ms[gaps_ms >= SESSION_GAP_MS]
    return apart, users + len(apart)
