"""Which policy decides for whom: the shop's own, changed by the arms of the experiments that a user is in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scoring.arrays import Bools, Floats, Ids, Ints
from scoring.assignment import BOTH, OUTSIDE, Arm, Experiment, in_holdout
from scoring.candidates import Shares
from scoring.exploration import EXPLORATIONS, UCB_ALPHA, Explore
from scoring.ids import id64, uniform
from scoring.rows import RING_SIZE
from scoring.units import DAY_MS

ENGINE_ARM, CONTROL_ARM = "engine", "control"
"""The engine's ranking, and a random one that it is measured against."""
INTERLEAVED = "interleaved"
"""Stands for an arm's name where both arms of an experiment make one placement."""
_ARM_SALT = id64("salience/control-arm/1")
EXPERIMENTS_MAX = 100
"""Most experiments at once: each costs two hashes per scored user."""
LAYERS_MAX = 10
"""Most layers at once: each adds at most ``.ffff-f`` to the ids of its users' placements. Without layers these have 55
characters, and ids of more than 128 are refused when they come back on events."""
CHANGEABLE = (
    "slots", "candidates", "fresh_share", "random_share", "temperature", "explore", "ucb_alpha", "placement_ttl_ms",
)  # fmt: skip
"""What an arm may change, by the settings' names."""
BOUNDS: Mapping[str, tuple[float, float]] = {
    "slots": (1, RING_SIZE),
    "candidates": (1, 1_000),
    "fresh_share": (0, 1),
    "random_share": (0, 1),
    "temperature": (0, 10),
    "ucb_alpha": (0, 10),
    "placement_ttl_ms": (1, 365 * DAY_MS),
}
"""Bounds of the numbers among them, as in the settings; they are checked because an arm comes over a topic."""
WHOLE = frozenset({"slots", "candidates", "placement_ttl_ms"})
"""Those of them that are whole numbers."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How to choose and rank; recorded in every receipt. ``model``: the version that scores; "": the one in the role.

    Explorations that draw by it use ``temperature``, LinUCB uses ``ucb_alpha`` (`scoring.exploration`).
    """

    slots: int = 10
    shares: Shares = field(default_factory=Shares)
    temperature: float = 0.0
    explore: Explore = "plackett-luce"
    ucb_alpha: float = UCB_ALPHA
    control_share: float = 0.05
    placement_ttl_ms: int = 600_000
    model: str = ""


def in_control(users: Ids, share: float) -> Bools:
    """Whether each user ``[B]`` of 64-bit ids is in the control arm: for ever, by a salted hash of the user."""
    control: Bools = uniform(users ^ np.uint64(_ARM_SALT)) < share
    return control


def changed(policy: Policy, changes: Mapping[str, float | str]) -> Policy:
    """``policy`` with an arm's ``changes``. Raises `ValueError` for a name not in `CHANGEABLE`, a number outside its
    `BOUNDS`, and a fraction where it must be `WHOLE`.
    """
    if unknown := sorted(changes.keys() - set(CHANGEABLE)):
        raise ValueError(f"an arm cannot change {', '.join(unknown)}; expected some of {', '.join(CHANGEABLE)}")
    numbers = {name: _within(name, change) for name, change in changes.items() if name in BOUNDS}
    shares = Shares(
        int(numbers.get("candidates", policy.shares.count)),
        numbers.get("fresh_share", policy.shares.fresh),
        numbers.get("random_share", policy.shares.random),
    )
    explore = changes.get("explore", policy.explore)
    if explore not in EXPLORATIONS:
        raise ValueError(f"explore {explore!r}; expected one of {', '.join(EXPLORATIONS)}")
    return replace(
        policy,
        shares=shares,
        explore=explore,
        ucb_alpha=numbers.get("ucb_alpha", policy.ucb_alpha),
        slots=int(numbers.get("slots", policy.slots)),
        temperature=numbers.get("temperature", policy.temperature),
        placement_ttl_ms=int(numbers.get("placement_ttl_ms", policy.placement_ttl_ms)),
    )


def _within(name: str, change: float | str) -> float:
    """The number that ``name`` is changed to. Raises `ValueError` where it is no number, outside its `BOUNDS`, or a
    fraction where it must be `WHOLE`.
    """
    least, most = BOUNDS[name]
    value = float(change)
    if not least <= value <= most:  # true for NaN, too
        raise ValueError(f"{name} {change!r}; expected {least} to {most}")
    if name in WHOLE and not value.is_integer():
        raise ValueError(f"{name} {change!r}; expected a whole number: say {int(value)} or {int(value) + 1}")
    return value


@dataclass(frozen=True, slots=True)
class Group:
    """Users with one policy. ``people [G]``: their places; ``arm``: its name; ``tag``: ends their placements' ids.

    ``chance [G]``: each one's chance of these arms, over all experiments; None: 1, there is no experiment. ``other``:
    the policy whose ranking takes turns with that of ``policy``, where the two are interleaved.
    """

    people: Ints
    policy: Policy
    arm: str = ENGINE_ARM
    tag: str = ""
    chance: Floats | None = None
    other: Policy | None = None

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that decide: one, or two that take turns."""
        return (self.policy,) if self.other is None else (self.policy, self.other)

    def among(self, places: Ints) -> "Group":
        """The group, found among the people at ``places``, with its people's places among everyone."""
        return replace(self, people=places[self.people])

    def parts(self, most: int) -> "list[Group]":
        """The group in parts of ``most`` people."""
        cuts = [slice(at, at + most) for at in range(0, len(self.people), most)]
        chances = [None if self.chance is None else self.chance[cut] for cut in cuts]
        return [replace(self, people=self.people[cut], chance=of) for cut, of in zip(cuts, chances, strict=True)]


class Experiments:
    """The experiments that run now, by number. Changed between slices alone."""

    def __init__(self, holdout_share: float = 0.0) -> None:
        self._holdout_share = holdout_share
        self._running: dict[int, Experiment] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def models(self) -> set[str]:
        """Versions that arms of running experiments name."""
        return {model for experiment in self._running.values() for model in experiment.models}

    def name_of(self, number: int) -> str | None:
        """The experiment that runs under ``number``; None where none does."""
        running = self._running.get(number)
        return None if running is None else running.name

    def set(self, number: int, experiment: Experiment | None) -> None:
        """Start or change an experiment, or end it (None). Raises `ValueError` where it cannot run; nothing changes."""
        if experiment is None:
            self._running.pop(number, None)
            return
        if (holder := self.name_of(number)) not in (None, experiment.name):
            raise ValueError(f"its number {number} is that of {holder}, which runs")
        for arm in experiment.arms:
            changed(Policy(), arm.changes)
        if number not in self._running and len(self._running) >= EXPERIMENTS_MAX:
            raise ValueError(f"{EXPERIMENTS_MAX} experiments run already; stop one first")
        self._running[number] = experiment

    def groups(self, users: Ids, policy: Policy, able: Callable[[str], object] = bool) -> list[Group]:
        """Everyone of ``users [B]``, grouped by the policy that decides for them.

        ``able``: the model that scores as a given version, falsy where none can. Where an arm's version has none,
        nobody takes part in its experiment: arms are comparable only while all of them are what they say.
        """
        numbers = [number for number in sorted(self._running) if all(map(able, self._running[number].models))]
        if not numbers:
            return [Group(np.arange(len(users)), policy)]
        found, chances = zip(*(self._running[number].allocate(users) for number in numbers), strict=True)
        arms, chance = np.stack(found, axis=1), np.prod(chances, axis=0)
        outside = in_holdout(users, self._holdout_share) | in_control(users, policy.control_share)
        arms[outside], chance[outside] = OUTSIDE, 1.0
        kinds, of = np.unique(arms, axis=0, return_inverse=True)
        groups = []
        for at, kind in enumerate(kinds.tolist()):
            people = np.flatnonzero(of.ravel() == at)
            groups.append(replace(self._group(people, policy, numbers, kind), chance=chance[people]))
        return groups

    def _group(self, people: Ints, policy: Policy, numbers: list[int], arms: list[int]) -> Group:
        taken = [(number, arm) for number, arm in zip(numbers, arms, strict=True) if arm != OUTSIDE]
        names = []
        other: Policy | None = None
        for number, place in sorted(taken, key=lambda one: one[1] != BOTH):  # interleaved first: others change both
            experiment = self._running[number]
            if experiment.interleaved:
                policy, other = (_under(policy, arm) for arm in experiment.arms)
                names.append(f"{experiment.name}/{INTERLEAVED}")
                continue
            arm = experiment.arms[place]
            policy, other = _under(policy, arm), None if other is None else _under(other, arm)
            names.append(f"{experiment.name}/{arm.name}")
        return Group(people, policy, "+".join(names) or ENGINE_ARM, arm_tag(taken), other=other)


def _under(policy: Policy, arm: Arm) -> Policy:
    """``policy`` as an arm changes it."""
    return replace(changed(policy, arm.changes), model=arm.model or policy.model)


def arm_tag(arms: list[tuple[int, int]]) -> str:
    """The end of a placement's id: ``.number-arm`` per experiment, so that an impression tells which arms earned it."""
    return "".join(f".{number:x}-{arm:x}" for number, arm in arms)


def arms_of(placement_id: str) -> list[tuple[int, int]]:
    """Experiment numbers and arms in a placement's id; none where it has none, or was made up by somebody else."""
    found = []
    for part in placement_id.split(".")[1:]:
        number, _, arm = part.partition("-")
        try:
            found.append((int(number, 16), int(arm, 16)))
        except ValueError:
            return []
    return found if all(number >= 0 <= arm for number, arm in found) else []
