"""An experiment that the referee judges, and what it keeps of the people who see it. No I/O."""

from dataclasses import dataclass, field
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.allocation import allocation
from scoring.assignment import OUTSIDE, Experiment
from scoring.interleaving import Duel, Score
from scoring.trial import Look, Trial
from streams.control_wire import Allocation, ExperimentSetting
from streams.experiments.people import FROM_IMPRESSIONS, SHOWN, Bools, Floats, Ints
from streams.experiments.registry import definition, next_cohort

DAY_MS, DAYS_MIN = 86_400_000, 1 / 24
"""A person's time in an experiment is an hour at least: of a second, a purchase would be a fortune a day. With a whole
day the variance of value a day would grow all through the first one, which is what the interval is not planned for."""
EARLIEST = 0.01
"""Of an experiment's users, who are in before it counts as begun where that is not told: few are dated wrongly, and who
came before the others loses little of their time."""
NEVER_MS = np.iinfo(np.int64).max
"""No row's time."""


@dataclass
class Watched:
    """An experiment's trial, and exposures whose row has not been seen yet.

    ``exposed_after [U, 2]``: what impressions had told of the user before the exposing one. ``other_ms [U]``: when
    whoever has been exposed, or is about to be, was shown another arm, which no row has held yet; `NEVER_MS`: not.
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
    """Of an interleaved one: what was seen last of its clicks."""

    @classmethod
    def of(cls, setting: ExperimentSetting) -> Self:
        """Nobody has been exposed yet."""
        return cls(setting, Trial(definition(setting).shares), duel=Duel() if setting.interleaved else None)

    def ended(self, setting: ExperimentSetting) -> "Watched":
        """As it stays once stopped: what was seen last, without what was kept of its users to judge it by."""
        end = {field: getattr(setting, field) for field in ("status", "reason", "time_ms", "revision")}
        told = msgspec.structs.replace(self.setting, **end)
        return Watched(told, Trial(self.trial.shares), self.allocation, last=self.last, score=self.score)

    @property
    def experiment(self) -> Experiment:
        """As the workers run it."""
        return definition(self.setting, self.allocation)

    def next_cohort(self, stands: Allocation | None, time_ms: int) -> Allocation | None:
        """The cohorts that stand with one more, by what was seen last; None where it is not due.

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
        """Learn of an impression of an arm; ``after [2]``: what impressions had told of the user before it.

        Rows that hold it may come much later, and further impressions before them. Of two arms the one that was shown
        first counts until a row holds the other: one that is dated in the future, which is refused, is in no row.
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
        """Days ``[U]`` up to ``now_ms`` since the exposing impression, `DAYS_MIN` at least.

        However it is dated, the experiment had begun, or one that is dated in seconds would be in it for ages. One that
        does not tell since when it runs had begun when `EARLIEST` of its users were in: its last change, as a ramp, may
        be weeks after them.
        """
        begun_ms = self.setting.started_ms or _begun_ms(self.exposed_ms[self.exposed_ms > 0])
        since: Floats = np.maximum((now_ms - np.maximum(self.exposed_ms, begun_ms)) / DAY_MS, DAYS_MIN)
        return since

    def had_been_shown(self, people: Ints) -> Bools:
        """Whether people, by their places, were shown anything before the exposing impression, of what is known."""
        shown: Bools = self.exposed_after[people, FROM_IMPRESSIONS.index(SHOWN)] > 0
        return shown

    def begin(self, people: Ints, totals: Floats, now: Floats, mixed: Bools) -> None:
        """Let people, by their places, count from the rows that hold their exposures on.

        ``totals [U, sums]``: everyone's of before; ``now [E, sums]``: with those rows. Whose row is their first and of
        before and after the exposure, ``mixed [E]``, counts after it, and their past is not known: what the arm earned
        is in it. Whether it is so must not depend on the arm, or arms would lose more or less of what they earn.
        """
        new = self.trial.expose(people, self.exposed_arm[people].astype(np.int64), totals)
        late = mixed & np.isin(people, new)
        self.trial.before[people[late]], self.trial.blank[people[late]] = now[late], True
        self.trial.before[new[:, None], FROM_IMPRESSIONS] = self.exposed_after[new]
        self.exposed_arm[people] = OUTSIDE

    def cross(self, people: Ints, row_ms: Ints) -> None:
        """Let people, by their places, count no more whose rows, of ``row_ms [N]``, hold that they saw another arm."""
        crossed = people[row_ms >= self.other_ms[people]]
        self.trial.crossed[crossed], self.other_ms[crossed] = True, NEVER_MS

    def forget(self, people: Ints) -> None:
        """Let people, by their places, leave, as if they had never come."""
        self.exposed_arm[people], self.exposed_ms[people], self.exposed_after[people] = OUTSIDE, 0, 0
        self.other_ms[people] = NEVER_MS
        self.trial.forget(people)
        if self.duel is not None:
            self.duel.forget(people)

    def grow(self, users: int) -> None:
        """Room for ``users``."""
        more = users - len(self.exposed_arm)
        if more <= 0:
            return
        self.exposed_arm = np.concatenate([self.exposed_arm, np.full(more, OUTSIDE, dtype=np.int8)])
        self.exposed_ms = np.concatenate([self.exposed_ms, np.zeros(more, dtype=np.int64)])
        self.other_ms = np.concatenate([self.other_ms, np.full(more, NEVER_MS)])
        self.exposed_after = np.concatenate([self.exposed_after, np.zeros((more, len(FROM_IMPRESSIONS)))])


def _begun_ms(exposed_ms: Ints) -> int:
    """When `EARLIEST` of those who were exposed at ``exposed_ms [N]`` had been; 0 where nobody was."""
    return int(np.quantile(exposed_ms, EARLIEST, method="higher")) if len(exposed_ms) else 0
