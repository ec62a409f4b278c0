"""Which model scores whom: the live one, a canary for some people, and those that arms of experiments name for theirs.
A shadow scores beside them, and its scores decide nothing.

Every model that is held has vectors of its own in the catalogue. So a change of roles is one assignment between two
slices, and nobody is scored with half of one model and half of another. A model that fails while it scores is refused:
the one to fall back to answers instead.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from scoring.arrays import Bools, Floats, Ids, Ints, Singles
from scoring.attention import AttentionModel
from scoring.catalogue import LEARNED, Catalogue, learned_column
from scoring.ids import id64, uniform
from scoring.inputs import ModelInputs
from scoring.rows import RING_SIZE

FORMER_MAX = 8
"""Promotions that can be taken back, one by one."""


class ModelFailure(RuntimeError):  # noqa: N818 - it is no programming error
    """A model that could not score what it was asked to; the message says why."""

    def __init__(self, failed: "Served", reason: str) -> None:
        super().__init__(reason)
        self.failed = failed


def number_of(version: str) -> int:
    """A model's number, 32 bits: how impressions remember who scored them."""
    return id64(version) & 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class Served:
    """A model that is held, and the catalogue, whose ``column`` has the vectors that it gives the ads."""

    model: AttentionModel
    catalogue: Catalogue
    column: str = LEARNED

    @property
    def version(self) -> str:
        """See `Manifest.version`."""
        return self.model.version

    @cached_property
    def number(self) -> int:
        """See `number_of`."""
        return number_of(self.version)

    @property
    def learned(self) -> Singles:
        """Learned vectors of the catalogue's slots, ``[N, D]``."""
        vectors: Singles = getattr(self.catalogue, self.column)
        return vectors

    def knows(self, shown_ms: Ints) -> Bools:
        """Whether its training data include impressions of these times ``[N]``, and so their outcomes."""
        manifest = self.model.manifest
        return (manifest.data_from_ms <= shown_ms) & (shown_ms <= manifest.data_to_ms)

    def score(self, inputs: ModelInputs) -> tuple[Singles, Singles]:
        """`AttentionModel.score`. Raises `ModelFailure` where that fails, or gives other shapes or numbers not finite.

        Whether they are finite is not checked of the base model: there is none to answer instead.
        """
        try:
            logit, attention = self.model.score(inputs)
        except Exception as error:  # onnxruntime's errors share no base class of their own
            raise ModelFailure(self, f"it does not run: {error}") from error
        asked = inputs.candidates.shape[:2]
        for given, told, shape in (("scores", logit, asked), ("weights of the past", attention, (*asked, RING_SIZE))):
            if told.shape != shape:
                raise ModelFailure(self, f"it gives {given} of shape {told.shape}; expected {shape}")
            if self.column != LEARNED and not np.isfinite(told).all():
                raise ModelFailure(self, f"it gives {given} that are no finite numbers")
        return logit, attention


@dataclass(frozen=True, slots=True)
class Roles:
    """Versions by role. "" is none; for ``live`` it is the model that a worker was started with.

    ``former``: those that were live before, newest first. ``canary_share``, ``shadow_share``: of people.
    ``arms``: those that arms of experiments name.
    """

    live: str = ""
    former: tuple[str, ...] = ()
    canary: str = ""
    canary_share: float = 0.0
    shadow: str = ""
    shadow_share: float = 0.0
    arms: tuple[str, ...] = ()

    @property
    def versions(self) -> tuple[str, ...]:
        """All that a worker must hold, with the one to fall back to; none twice."""
        wanted = (self.live, *self.former[:1], self.canary, self.shadow, *self.arms)
        return tuple(dict.fromkeys(version for version in wanted if version))


@dataclass
class Models:
    """The models that a worker holds, and their roles. Changed between slices alone.

    ``refused``: versions that are not used, with the reason. ``revision`` counts changes, for those who report them.
    """

    base: Served
    live: Served = field(init=False)
    canary: Served | None = None
    shadow: Served | None = None
    roles: Roles = Roles()
    refused: dict[str, str] = field(default_factory=dict)
    revision: int = 0

    def __post_init__(self) -> None:
        self.live = self.base
        self._further: dict[str, Served] = {}

    def __contains__(self, version: str) -> bool:
        return version in self._further or version == self.base.version

    @property
    def held(self) -> list[Served]:
        """All that are held, the base first."""
        return [self.base, *self._further.values()]

    def hold(self, model: AttentionModel) -> Served:
        """Hold ``model``, even if it was refused before. The catalogue has its vectors; it has no role yet."""
        column = learned_column(model.version)
        served = self._further[model.version] = Served(model, self.base.catalogue, column)
        self.refused.pop(model.version, None)
        self.revision += 1
        return served

    def refuse(self, version: str, reason: str) -> None:
        """Do not use ``version`` until no role names it, or it is held anew; other models play its roles."""
        if self.refused.get(version) != reason:  # the same reason again is no change
            self.refused[version] = reason
            self.revision += 1
        self._cast()

    def settle(self) -> None:
        """Refuse models whose encoder has failed on a new ad."""
        for served in self._further.values():
            if (why := self.base.catalogue.broken.get(served.column)) and served.version not in self.refused:
                self.refuse(served.version, why)

    def play(self, roles: Roles) -> None:
        """Take these ``roles``, and let go of models that have none."""
        for version in self._further.keys() - set(roles.versions):
            self.base.catalogue.detach(self._further.pop(version).column)
        refused = {version: why for version, why in self.refused.items() if version in roles.versions}
        if (roles, refused) != (self.roles, self.refused):
            self.roles, self.refused = roles, refused
            self.revision += 1
        self._cast()

    def _cast(self) -> None:
        """Give the roles to models that are held and not refused; live is the base where no other can be."""
        roles = self.roles
        heirs = (self.able(version) for version in (roles.live, *roles.former[:1]) if version)
        self.live = next((served for served in heirs if served is not None), self.base) if roles.live else self.base
        canary, shadow = self.able(roles.canary), self.able(roles.shadow)
        self.canary = None if canary is self.live else canary
        heeded = roles.shadow in roles.arms or shadow in (self.live, self.canary)
        self.shadow = None if heeded else shadow

    def able(self, version: str) -> Served | None:
        """The model ``version``, if it is held and not refused."""
        if not version or version in self.refused:
            return None
        return self.base if version == self.base.version else self._further.get(version)

    def split(self, users: Ids) -> list[tuple[Served, Ints]]:
        """Each model with the places of those of ``users [B]``, 64-bit ids, whom it scores; each has one."""
        if self.canary is None:
            return [(self.live, np.arange(len(users)))]
        chosen = _drawn(users, "canary", self.canary.version) < self.roles.canary_share
        parts = ((self.live, np.flatnonzero(~chosen)), (self.canary, np.flatnonzero(chosen)))
        return [(served, places) for served, places in parts if len(places)]

    def shadowed(self, users: Ids) -> Ints:
        """Places of those of ``users [B]`` whom the shadow scores, too."""
        if self.shadow is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(_drawn(users, "shadow", self.shadow.version) < self.roles.shadow_share)

    def after(self, why: ModelFailure) -> Served:
        """Refuse the model that failed; returns the one that answers instead. Raises ``why`` where the base failed."""
        if why.failed is self.base:
            raise why
        self.refuse(why.failed.version, str(why))
        return self.live


def _drawn(users: Ids, role: str, version: str) -> Floats:
    """A draw of each user, 0 to 1, fixed by role and version: a share that grows only adds users."""
    return uniform(users ^ np.uint64(id64(f"salience/{role}/{version}")))
