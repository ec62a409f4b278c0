"""An experiment that the referee judges, and what is kept of the people who see it. No I/O."""

from dataclasses import dataclass, field
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.allocation import allocation
from scoring.arrays import Bools, Floats, Ints
from scoring.assignment import OUTSIDE, Experiment
from scoring.interleaving import Duel, Score
from scoring.trial import Look, Trial
from scoring.units import DAY_MS
from streams.control_wire import Allocation, ExperimentSetting
from streams.experiments.people import FROM_IMPRESSIONS, SHOWN
from streams.experiments.registry import definition, next_cohort

DAYS_MIN = 1 / 24
"""Least time of a person in an experiment, in days: an hour. Over a second, one purchase would be a fortune a day.
With a whole day, the variance of value a day would grow all through the first day: intervals are not planned for that.
"""
EARLIEST = 0.01
"""Where an experiment does not tell its start, it counts as begun once this share of its users was in: few have wrong
dates, and the earlier ones lose little of their time."""
NEVER_MS = np.iinfo(np.int64).max
"""Later than the time of every row."""


@dataclass
class Watched:
    """An experiment's trial, and the exposures that no row has held yet.

    ``exposed_after [U, 2]``: the user's sums from impressions before the exposing one. ``other_ms [U]``: when a user
    who is exposed, or waits for a row, was shown another arm that no row has held yet; else `NEVER_MS`.
    """

    setting: ExperimentSetting
    trial: Trial
    allocation: Allocation | None = None
    duel: Duel | None = None
    exposed_arm: npt.NDArray[np.int8] = field(default_factory=lambda: np.empty(0, dtype=np.int8))
    exposed_ms: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    exposed_after: Floats = field(default_factory=lambda: np.empty((0, len(FROM_IMPRESSIONS))))
    other_ms: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    last: Look | None = None
    score: Score | None = None
    """For an interleaved experiment: what the last look showed of its clicks."""
    judged_ms: int = 0
    """UTC time up to which the last look knew what people had done; 0 where a referee of before did not keep it."""
    unwatched_before: int = 0
    unwatched: int = 0
    """`People.unwatched` when it was first watched, and how many times more at the last look."""

    @classmethod
    def of(cls, setting: ExperimentSetting) -> Self:
        """A new one, to which nobody has been exposed yet."""
        return cls(setting, Trial(definition(setting).shares), duel=Duel() if setting.interleaved else None)

    def ended(self, setting: ExperimentSetting) -> "Watched":
        """The experiment once it has stopped: it keeps the last look, but nothing of its users."""
        end = {field: getattr(setting, field) for field in ("status", "reason", "time_ms", "revision")}
        told = msgspec.structs.replace(self.setting, **end)
        seen = {
            field: getattr(self, field) for field in ("last", "score", "judged_ms", "unwatched_before", "unwatched")
        }
        return Watched(told, Trial(self.trial.shares), self.allocation, **seen)

    @property
    def experiment(self) -> Experiment:
        """The experiment as the workers run it."""
        return definition(self.setting, self.allocation)

    def next_cohort(self, stands: Allocation | None, time_ms: int) -> Allocation | None:
        """The cohorts that stand and one more, with shares by the last look; None where it is not due.

        The shares stay as they are until every arm can be compared with the first.
        """
        if self.setting.allocation != "bandit" or self.last is None:
            return None
        primary, shares = self.setting.primary, self.trial.shares[-1]
        means, variances = (np.array(of[primary]) for of in (self.last.values, self.last.variances))
        if len(self.last.differences[primary]) == self.trial.arms - 1 and variances.min() > 0:
            shares = allocation(means, variances, self.setting.minimum)
        return next_cohort(self.setting, stands, shares.tolist(), time_ms)

    def expose(self, place: int, arm: int, time_ms: int, after: Floats) -> None:
        """Learn of an impression of an arm; ``after [2]``: the user's sums from impressions before it.

        The row that holds it may come much later, after further impressions. Of two arms the one shown first counts,
        until a row holds the other. An impression dated in the future was refused, so no row holds it.
        """
        if not 0 <= arm < self.trial.arms:
            return
        known = self.trial.arm[place] if place < len(self.trial.arm) else OUTSIDE
        waits = self.exposed_arm[place] if known == OUTSIDE else known
        if waits not in (OUTSIDE, arm) and (known != OUTSIDE or time_ms >= self.exposed_ms[place]):
            self.other_ms[place] = min(self.other_ms[place], time_ms)
        elif known == OUTSIDE and waits == arm:
            self.exposed_ms[place] = min(self.exposed_ms[place], time_ms)
        elif known == OUTSIDE:
            self.other_ms[place] = NEVER_MS if waits == OUTSIDE else self.exposed_ms[place]
            self.exposed_arm[place], self.exposed_ms[place], self.exposed_after[place] = arm, time_ms, after

    def days(self, now_ms: int) -> Floats:
        """Days ``[U]`` from where the outcome begins (the exposing impression, or a first row that `begin` calls mixed)
        to ``now_ms``, `DAYS_MIN` at least.

        Days count from the experiment's start at the earliest, or an impression dated in seconds would count for
        decades. An experiment that does not tell its start began when `EARLIEST` of its users were in: its last change,
        such as a ramp, may be weeks later.
        """
        begun_ms = self.setting.started_ms or _begun_ms(self.exposed_ms[self.exposed_ms > 0])
        since: Floats = np.maximum((now_ms - np.maximum(self.exposed_ms, begun_ms)) / DAY_MS, DAYS_MIN)
        return since

    def had_been_shown(self, people: Ints) -> Bools:
        """Whether people, by their places, are known to have been shown anything before the exposing impression."""
        shown: Bools = self.exposed_after[people, FROM_IMPRESSIONS.index(SHOWN)] > 0
        return shown

    def begin(self, people: Ints, totals: Floats, now: Floats, row_ms: Ints, mixed: Bools) -> None:
        """Let people, by their places, count from the rows on that hold their exposures.

        ``totals [U, sums]``: everyone's sums before those rows; ``now [E, sums]``: with them; ``row_ms [E]``: the rows'
        times. ``mixed [E]``: the row is the person's first and mixes before and after the exposure. They count from
        after that row, their days, too, and their past is unknown, since the row has some of what the arm earned. Being
        mixed must not depend on the arm, or one arm would lose more of its earnings than another.
        """
        new = self.trial.expose(people, self.exposed_arm[people].astype(np.int64), totals)
        late = mixed & np.isin(people, new)
        self.trial.before[people[late]], self.trial.blank[people[late]] = now[late], True
        self.exposed_ms[people[late]] = row_ms[late]
        self.trial.before[new[:, None], FROM_IMPRESSIONS] = self.exposed_after[new]
        self.exposed_arm[people] = OUTSIDE

    def cross(self, people: Ints, row_ms: Ints) -> None:
        """Exclude people, by their places, whose rows, of ``row_ms [N]``, hold an impression of another arm."""
        crossed = people[row_ms >= self.other_ms[people]]
        self.trial.crossed[crossed], self.other_ms[crossed] = True, NEVER_MS

    def holds(self, users: int) -> Bools:
        """Whom of the first ``users`` places it counts, or will once a row holds their exposure."""
        held: Bools = self.exposed_arm[:users] != OUTSIDE
        held[: len(self.trial.arm)] |= self.trial.arm[:users] != OUTSIDE
        if self.duel is not None:
            held[: len(self.duel.shown)] |= self.duel.shown[:users]
        return held

    def forget(self, people: Ints) -> None:
        """Remove people, by their places, as if they had never come."""
        self.exposed_arm[people], self.exposed_ms[people], self.exposed_after[people] = OUTSIDE, 0, 0
        self.other_ms[people] = NEVER_MS
        self.trial.forget(people)
        if self.duel is not None:
            self.duel.forget(people)

    def grow(self, users: int) -> None:
        """Make room for ``users``."""
        more = users - len(self.exposed_arm)
        if more <= 0:
            return
        self.exposed_arm = np.concatenate([self.exposed_arm, np.full(more, OUTSIDE, dtype=np.int8)])
        self.exposed_ms = np.concatenate([self.exposed_ms, np.zeros(more, dtype=np.int64)])
        self.other_ms = np.concatenate([self.other_ms, np.full(more, NEVER_MS)])
        self.exposed_after = np.concatenate([self.exposed_after, np.zeros((more, len(FROM_IMPRESSIONS)))])


def _begun_ms(exposed_ms: Ints) -> int:
    """When the share `EARLIEST` of the exposures at ``exposed_ms [N]`` had happened; 0 where there are none."""
    return int(np.quantile(exposed_ms, EARLIEST, method="higher")) if len(exposed_ms) else 0
