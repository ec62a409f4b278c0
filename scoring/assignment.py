"""Who is in which experiment and arm: salted hashes of the user, so that every process knows without asking.

A layer is a line from 0 to 1 on which each user has one place; its experiments hold ranges that do not overlap, so a
user is in at most one of them. Experiments of different layers meet at random. Within an experiment a second hash
draws the arm. Nothing is stored: the same user is in the same arm for as long as the definition stands. A ramp only
ever adds users, and may give them other shares than earlier users had (Tang, Agarwal, O'Brien & Meyer 2010,
"Overlapping experiment infrastructure").
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from scoring.arrays import Bools, Floats, Ids, Ints
from scoring.ids import id64, uniform

OUTSIDE = -1
"""The arm of a user who is not in the experiment."""
BOTH = 2
"""The arm of a user who has both arms of an interleaved experiment: the one after the two."""

_HOLDOUT_SALT = id64("salience/holdout/1")


@dataclass(frozen=True, slots=True)
class Arm:
    """A named policy: ``share`` of the experiment's users, and what it changes, by the settings' names.

    ``model``: the version that scores its users; "": whichever has the role.
    """

    name: str
    share: float
    changes: Mapping[str, float | str] = field(default_factory=dict)
    model: str = ""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Users who came in together: the part of the experiment's range from the cohort before to ``upto`` (0 to 1).

    The arms' ``shares [A]`` hold for them for good: later cohorts have their own, and nobody is moved.
    """

    upto: float
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms that share a range of a layer; the first arm is the one the others are compared with.

    ``[low, high)`` is reserved for good; ``ramp`` (0 to 1) of it takes part by the arms' shares, and then the ``later``
    cohorts by theirs. ``interleaved``: all who take part have both of two arms, whose rankings take turns.
    """

    name: str
    layer: str
    low: float
    high: float
    ramp: float
    arms: tuple[Arm, ...]
    later: tuple[Cohort, ...] = ()
    interleaved: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"experiment {self.name}: range {self.low} to {self.high}; expected 0 ≤ low < high ≤ 1")
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"experiment {self.name}: ramp {self.ramp}; expected 0 to 1")
        if len(self.arms) < 2 or len({arm.name for arm in self.arms}) < len(self.arms):
            raise ValueError(f"experiment {self.name}: expected two or more arms with names of their own")
        if not (all(arm.share > 0 for arm in self.arms) and abs(sum(arm.share for arm in self.arms) - 1) < 1e-9):
            shares = ", ".join(f"{arm.name}={arm.share}" for arm in self.arms)
            raise ValueError(f"experiment {self.name}: shares {shares}; expected all above 0, 1 in total")
        if self.interleaved and (len(self.arms) != 2 or self.later):
            raise ValueError(f"experiment {self.name}: {len(self.arms)} arms to interleave; expected two")
        ends = [self.ramp, *(cohort.upto for cohort in self.later)]
        if ends[-1] > 1 or any(end <= before for before, end in itertools.pairwise(ends)):
            raise ValueError(f"experiment {self.name}: cohorts end at {ends}; expected each beyond the last, 1 at most")
        for cohort in self.later:
            if len(cohort.shares) != len(self.arms) or min(cohort.shares) <= 0 or abs(sum(cohort.shares) - 1) > 1e-9:
                raise ValueError(
                    f"experiment {self.name}: a cohort's shares {cohort.shares}; expected one above 0 an arm"
                )

    @property
    def models(self) -> tuple[str, ...]:
        """Versions that its arms name."""
        return tuple(arm.model for arm in self.arms if arm.model)

    @property
    def shares(self) -> Floats:
        """Share of each arm in each cohort, ``[K, A]``."""
        return np.array([[arm.share for arm in self.arms], *(cohort.shares for cohort in self.later)])

    def cohort(self, users: Ids) -> Ints:
        """Cohort of each user ``[B]`` of 64-bit ids; `OUTSIDE` where the user does not take part."""
        place = uniform(users ^ np.uint64(id64(f"salience/layer/{self.layer}")))
        ends = self.low + np.array([self.ramp, *(one.upto for one in self.later)]) * (self.high - self.low)
        cohort = np.searchsorted(ends, place, side="right")
        return np.where((place >= self.low) & (cohort < len(ends)), cohort, OUTSIDE)

    def assign(self, users: Ids) -> Ints:
        """Arm of each user ``[B]`` of 64-bit ids; `OUTSIDE` where the user does not take part."""
        return self.allocate(users)[0]

    def allocate(self, users: Ids) -> tuple[Ints, Floats]:
        """Arm of each user ``[B]`` of 64-bit ids, and their chance of it.

        `OUTSIDE`, with a chance of 1, where the user does not take part; `BOTH` in an interleaved experiment.
        """
        cohort, shares = self.cohort(users), self.shares
        if self.interleaved:
            return np.where(cohort != OUTSIDE, BOTH, OUTSIDE), np.ones(len(users))
        draw = uniform(users ^ np.uint64(id64(f"salience/experiment/{self.name}")))
        ends = np.cumsum(shares, axis=1)[:, :-1]
        arm = (draw[:, None] >= ends[cohort]).sum(axis=1)
        inside = cohort != OUTSIDE
        return np.where(inside, arm, OUTSIDE), np.where(inside, shares[cohort, arm], 1.0)


def in_holdout(users: Ids, share: float) -> Bools:
    """Whether each user ``[B]`` is kept out of every experiment: the holdout that measures all of them together."""
    held: Bools = uniform(users ^ np.uint64(_HOLDOUT_SALT)) < share
    return held


def free_range(taken: list[tuple[float, float]], width: float) -> tuple[float, float]:
    """The first gap of a layer that is ``width`` wide, given the ranges ``taken``.

    Raises `ValueError`, saying the widest gap, where there is none.
    """
    at, widest = 0.0, 0.0
    for low, high in [*sorted(taken), (1.0, 1.0)]:
        if low - at >= width - 1e-12:
            return at, min(at + width, low)  # a float's last bit must not reach beyond the gap, or the layer
        widest, at = max(widest, low - at), max(at, high)
    raise ValueError(
        f"no {width:.3f} of the layer is free, the widest gap is {widest:.3f}; stop an experiment or use another layer"
    )
