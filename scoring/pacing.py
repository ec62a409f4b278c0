"""Budget pacing: how much of its bid a campaign offers now, so that the day's budget lasts the day and is spent.

The multiplier is the dual variable of the budget constraint, tracked by a proportional-integral controller on its
logarithm (Balseiro & Gur 2019; Karlsson 2020), within [`LEAST`, 1] and without windup: what the bound cuts off is
not integrated. A campaign that has spent its budget is stopped, not paced. On its first day a campaign is planned from
when its first ad begins, and on its last until its last one ends. What is left of a budget may be planned anew.
"""

from dataclasses import dataclass, field

import numpy as np

from scoring.arrays import Bools, Floats, Ints
from scoring.events import TIME_MS_MAX
from scoring.units import DAY_MS

LEAST = 1e-3
"""The least multiplier: a campaign that is far ahead all but stops, and can still find out that it is behind."""
PROPORTIONAL, INTEGRAL = 20.0, 250.0
"""Gains on the logarithm of the multiplier, per share of the budget that spending is behind the plan, and per that
share times the plan's progress. Where spending doubles as the bid does, this is a critically damped loop that
settles within about a twentieth of the day's traffic."""
FINISH = 0.95
"""Share of the day's traffic by which the plan wants the budget spent: what is late can still be made up."""
LEAST_SHARE = 1e-9
"""The least share of a day's traffic that a plan is made for: a tenth of a millisecond of an even day."""


def planned(
    now_ms: Ints | int,
    day_curve: Floats,
    starts_ms: Ints | int = 0,
    ends_ms: Ints | int = TIME_MS_MAX,
    before: Floats | float = 0.0,
) -> Floats:
    """Share of the day's budget that should be spent at ``now_ms``, by the traffic's ``day_curve [24]`` (sums to 1).

    Only traffic between ``starts_ms`` and ``ends_ms``, times of any day, is planned for, and only what is left of the
    budget when ``before``, a share of it, was planned by ``starts_ms``. All are of one shape, or one.
    """
    begins_ms = np.asarray(now_ms) // DAY_MS * DAY_MS
    cumulative = np.concatenate([[0.0], np.cumsum(day_curve)])
    start, now, end = (
        np.interp((np.asarray(time_ms) - begins_ms) / DAY_MS * 24, np.arange(25), cumulative)
        for time_ms in (starts_ms, now_ms, ends_ms)
    )
    share: Floats = np.clip((now - start) / (FINISH * np.maximum(end - start, LEAST_SHARE)), 0.0, 1.0)
    return before + (1 - before) * share


@dataclass
class Pacer:
    """Multipliers of M campaigns with daily ``budget_micros [M]`` (0: no limit), updated at even intervals.

    ``base [M]`` is the integral, the logarithm of the multiplier that keeps to the plan; it stays from day to day.
    ``starts_ms, ends_ms [M]``: when campaigns begin and end, ``before [M]``: what was planned by then, as in `planned`.
    """

    budget_micros: Ints
    day_curve: Floats = field(default_factory=lambda: np.full(24, 1 / 24))
    starts_ms: Ints | int = 0
    ends_ms: Ints | int = TIME_MS_MAX
    before: Floats | float = 0.0
    base: Floats = field(init=False)
    multiplier: Floats = field(init=False)
    stopped: Bools = field(init=False)
    """Campaigns whose budget was spent at the last update; at the start, those whose bids were not what spent it."""
    plan: Floats = field(init=False)
    """What the plan wanted at the last update, as a share of each budget."""
    behind: Floats = field(init=False)
    """How far spending was behind that; means nothing without a limit."""
    updated_ms: int = -DAY_MS
    """The time of the last update."""

    def __post_init__(self) -> None:
        self.base = np.full(len(self.budget_micros), np.log(0.5))  # neither all nor nothing: either is soon reached
        self.multiplier = np.where(self.budget_micros > 0, 0.5, 1.0)
        self.stopped = np.zeros(len(self.budget_micros), dtype=np.bool_)
        self.plan = self.behind = np.zeros(len(self.budget_micros))

    def _wanted(self, now_ms: int) -> Floats:
        """What the plan wants at ``now_ms``, ``[M]``."""
        share = planned(now_ms, self.day_curve, self.starts_ms, self.ends_ms, self.before)
        return np.broadcast_to(share, self.budget_micros.shape)

    def update(self, now_ms: int, spent_micros: Ints) -> None:
        """Take what each campaign has spent today, ``[M]``.

        A multiplier of 0 stops a campaign: its budget is spent. A day begins when the plan starts again.
        """
        limited, budget = self.budget_micros > 0, np.maximum(self.budget_micros, 1)
        former, self.plan = self.plan, (plan := self._wanted(now_ms))
        self.behind = behind = plan - spent_micros / budget
        same_day = self.updated_ms // DAY_MS == now_ms // DAY_MS
        progress = np.maximum(plan - former, 0.0) if same_day else 0.0
        spent = limited & (spent_micros >= self.budget_micros)
        # A stopped campaign cannot spend less. One that spent all by bidding bid too high, by as much as too soon.
        too_soon = np.where(self.stopped, 0.0, np.log(np.maximum(plan, LEAST)))
        self.base = np.clip(self.base + np.where(spent, too_soon, INTEGRAL * behind * progress), np.log(LEAST), 0.0)
        self.stopped = spent
        wanted = np.clip(self.base + PROPORTIONAL * behind, np.log(LEAST), 0.0)
        wanted[plan >= 1] = 0.0  # the plan is over: no time is left to catch up
        self.multiplier = np.where(limited, np.where(spent, 0.0, np.exp(wanted)), 1.0)
        self.updated_ms = now_ms

    def resume(self, former: "Pacer") -> None:
        """Go on from when a former pacer, which may have had other campaigns, was updated."""
        self.updated_ms = former.updated_ms
        self.plan = self._wanted(former.updated_ms)
