"""Budget pacing: how much of its bid a campaign offers now, so that the day's budget lasts the day and is spent.

The multiplier is the dual variable of the budget constraint, tracked by a proportional-integral controller on its
logarithm (Balseiro & Gur 2019; Karlsson 2020), within [`LEAST`, 1] and without windup: what the bound cuts off is
not integrated. A campaign that has spent its budget is stopped, not paced.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DAY_MS = 86_400_000
LEAST = 1e-3
"""The least multiplier: a campaign that is far ahead all but stops, and can still find out that it is behind."""
PROPORTIONAL, INTEGRAL = 20.0, 250.0
"""Gains on the logarithm of the multiplier, per share of the budget that spending is behind the plan, and per that
share times the plan's progress. Where spending doubles as the bid does, this is a critically damped loop that
settles within about a twentieth of the day's traffic."""
FINISH = 0.95
"""Share of the day's traffic by which the plan wants the budget spent: what is late can still be made up."""


def planned(now_ms: Ints | int, day_curve: Floats) -> Floats:
    """Share of the day's budget that should be spent at ``now_ms``, by the traffic's ``day_curve [24]`` (sums to 1)."""
    of_day = (np.asarray(now_ms) % DAY_MS) / DAY_MS * 24
    cumulative = np.concatenate([[0.0], np.cumsum(day_curve)])
    share: Floats = np.minimum(np.interp(of_day, np.arange(25), cumulative) / FINISH, 1.0)
    return share


@dataclass
class Pacer:
    """Multipliers of M campaigns with daily ``budget_micros [M]`` (0: no limit), updated at even intervals.

    ``base [M]`` is the integral, the logarithm of the multiplier that keeps to the plan; it stays from day to day.
    """

    budget_micros: Ints
    day_curve: Floats = field(default_factory=lambda: np.full(24, 1 / 24))
    base: Floats = field(init=False)
    multiplier: Floats = field(init=False)
    stopped: npt.NDArray[np.bool_] = field(init=False)
    """Campaigns whose budget was spent at the last update; at the start, those whose bids were not what spent it."""
    reached: float | None = None
    """What the plan wanted at the last update; None before the first."""

    def __post_init__(self) -> None:
        self.base = np.full(len(self.budget_micros), np.log(0.5))  # neither all nor nothing: either is soon reached
        self.multiplier = np.where(self.budget_micros > 0, 0.5, 1.0)
        self.stopped = np.zeros(len(self.budget_micros), dtype=np.bool_)

    def update(self, now_ms: int, spent_micros: Ints) -> None:
        """Take what each campaign has spent today, ``[M]``.

        A multiplier of 0 stops a campaign: its budget is spent. A day begins when the plan starts again.
        """
        limited, budget = self.budget_micros > 0, np.maximum(self.budget_micros, 1)
        plan = float(planned(now_ms, self.day_curve))
        behind = plan - spent_micros / budget
        progress = max(plan - (plan if self.reached is None else self.reached), 0.0)  # negative: midnight has passed
        spent = limited & (spent_micros >= self.budget_micros)
        # A stopped campaign cannot spend less. One that spent all by bidding bid too high, by as much as too soon.
        more = np.where(spent, np.where(self.stopped, 0.0, np.log(max(plan, LEAST))), INTEGRAL * behind * progress)
        self.base = np.clip(self.base + more, np.log(LEAST), 0.0)
        self.stopped = spent
        wanted = np.clip(self.base + PROPORTIONAL * behind, np.log(LEAST), 0.0)
        wanted = np.zeros_like(wanted) if plan >= 1 else wanted  # the plan is over: no time is left to catch up
        self.multiplier = np.where(limited, np.where(spent, 0.0, np.exp(wanted)), 1.0)
        self.reached = plan

    def resume(self, former: "Pacer") -> None:
        """Go on from where the plan of a former pacer was, which may have had other campaigns."""
        self.reached = former.reached
