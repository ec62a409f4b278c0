"""When people come: impressions by the hour of the day, as each lane learns them, and the plan of a day made from them.

A budget that is planned by the clock is held back when people are there and has to be made up when they sleep. The
plan of a day is the shop's whole traffic, all campaigns' together, which pacing does not change.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from scoring.arrays import Floats
from scoring.units import HOUR_MS

HOURS = 24
NEW = 0.3
"""Weight of the newest day in an hour's mean; days more than a week ago then have 8 % of it."""
LEAST = 0.1
"""Least share of an hour, as a part of an even hour's share: a plan that stands still learns nothing."""


def unknown() -> Floats:
    """The means ``[24]`` of a lane that has seen no complete hour."""
    return np.full(HOURS, np.nan)


@dataclass
class Traffic:
    """One lane's traffic. ``mean [24]``: mean impressions in each hour of a UTC day; NaN where unknown."""

    mean: Floats = field(default_factory=unknown)
    _hour: int = -1
    """Since the epoch; of the lane's own time, so that a backlog is counted when it happened."""
    _count: int = 0
    _whole: bool = False
    """Whether the hour was seen from its beginning."""

    def observe(self, time_ms: int, impressions: int) -> bool:
        """Add impressions at the lane's time, which never goes back; returns whether ``mean`` has changed.

        Hours without impressions count, too, up to a day of them. Before its first event a lane's time is 0.
        """
        hour, ended = time_ms // HOUR_MS, False
        if time_ms <= 0:
            return False
        if hour > self._hour:
            if self._hour >= 0:
                if self._whole:
                    self._learn(self._hour, self._count)
                for empty in range(max(self._hour + 1, hour - HOURS), hour):
                    self._learn(empty, 0)
                ended = self._whole or hour > self._hour + 1
                self._whole = True
            self._hour, self._count = hour, 0
        self._count += impressions
        return ended

    def _learn(self, hour: int, count: int) -> None:
        at = hour % HOURS
        known = self.mean[at]
        self.mean[at] = count if np.isnan(known) else known + NEW * (count - known)


def day_curve(lanes: Iterable[Floats]) -> Floats:
    """Share of a day's traffic in each hour, ``[24]``, by the lanes' means; what a lane does not know is even.

    Hours below the least share get that share, and the others divide the rest.
    """
    total = np.zeros(HOURS)
    for mean in lanes:
        known = ~np.isnan(mean)
        if known.any():
            total += np.where(known, mean, mean[known].mean())
    if total.sum() <= 0:
        return np.full(HOURS, 1 / HOURS)
    share, least = total / total.sum(), LEAST / HOURS
    curve: Floats = share
    raised = np.zeros(HOURS, dtype=np.bool_)
    while (short := (curve < least) & ~raised).any():  # what the raised ones take may leave others short
        raised |= short
        curve = np.where(raised, least, share * (1 - least * raised.sum()) / share[~raised].sum())
    return curve
