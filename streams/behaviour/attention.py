"""Attention: seconds looked, by category and hour of the day (UTC)."""

import numpy as np
from msgspec import Struct

from scoring.ids import MISSING
from scoring.units import HOUR_MS
from streams.behaviour.joined import Behaviour

CATEGORIES_MAX = 20
"""Categories reported one by one: those looked at longest. The others share one line."""
OTHERS = "(others)"
HOURS = 24


class Looked(Struct, frozen=True):
    """Seconds looked at a category: in all, per look and per impression, and by hour of the day."""

    category: str
    seconds: float
    looks: int
    seconds_per_look: float
    seconds_per_impression: float | None
    by_hour: list[float]


class Attention(Struct, frozen=True):
    """``seconds`` of all categories, including those of ads that are in no catalogue."""

    seconds: float
    categories: list[Looked]


def attention(behaviour: Behaviour) -> Attention:
    """Every look counts, whether it answers an impression or not."""
    looks = np.flatnonzero(behaviour.actions["viewed_ms"] > 0)
    names = behaviour.categories.names
    category = behaviour.categories.of_ad[behaviour.action_ad[looks]]
    seconds = behaviour.actions["viewed_ms"][looks] / 1000
    hour = behaviour.actions["time_ms"][looks] // HOUR_MS % HOURS
    sums = np.bincount(category * HOURS + hour, weights=seconds, minlength=len(names) * HOURS).reshape(-1, HOURS)
    counts = np.bincount(category, minlength=len(names))
    shown = np.bincount(behaviour.categories.of_ad[behaviour.impression_ad], minlength=len(names))
    # Seconds per impression count only looks that answer an impression.
    answered = behaviour.answers[looks] != MISSING
    earned = np.bincount(category[answered], weights=seconds[answered], minlength=len(names))
    order = [at for at in np.argsort(-sums.sum(axis=1), kind="stable").tolist() if counts[at]]
    groups = [(names[at], [at]) for at in order[:CATEGORIES_MAX]]
    groups += [(OTHERS, order[CATEGORIES_MAX:])] if len(order) > CATEGORIES_MAX else []
    return Attention(
        seconds=float(seconds.sum()),
        categories=[
            Looked(
                category=name,
                seconds=float(sums[places].sum()),
                looks=int(counts[places].sum()),
                seconds_per_look=float(sums[places].sum() / counts[places].sum()),
                seconds_per_impression=float(earned[places].sum() / total) if (total := shown[places].sum()) else None,
                by_hour=sums[places].sum(axis=0).tolist(),
            )
            for name, places in groups
        ],
    )
