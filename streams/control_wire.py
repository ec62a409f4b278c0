"""What travels on the ``control`` topic: one Struct per kind, JSON with the kind in ``kind``.

The topic is compacted; a record's key is ``kind/name``, so that of each name the newest record stays, and a
tombstone takes it back. A new kind is a subclass of `ControlMessage` with a ``tag`` and a ``name``, in `KINDS`.
"""

from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from streams.wire import Id, TimeMs


class ControlMessage(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """A switch that every worker reads. ``name``: what is switched, unique within the kind."""

    @property
    def name(self) -> str:
        """The second half of the key."""
        raise NotImplementedError

    @property
    def key(self) -> bytes:
        """The record's key."""
        return f"{kind_of(type(self))}/{self.name}".encode()


class Consent(ControlMessage, frozen=True, kw_only=True, tag="consent"):
    """A person's own answer, until the next one. ``time_ms``: when it was given."""

    user_id: Id
    granted: bool
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The user."""
        return self.user_id


class Erasure(ControlMessage, frozen=True, kw_only=True, tag="erasure"):
    """Everything held of a person is to be forgotten: what happened until ``time_ms``, and never comes back."""

    user_id: Id
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The user."""
        return self.user_id


ExperimentName = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]
"""Lower-case letters, digits and dashes, 32 at most: it stands in placements and reports."""
Share = Annotated[float, Meta(ge=0, le=1)]
Metric = Literal["ctr", "cvr", "revenue_micros", "viewed_s", "diversity"]


class ArmSetting(Struct, frozen=True, kw_only=True):
    """A policy: its share of the experiment's users, and the settings that it changes."""

    arm: ExperimentName
    share: Share
    changes: dict[str, float] = {}


class Guardrail(Struct, frozen=True, kw_only=True):
    """What no arm may cost: ``most_loss`` of the first arm's metric (0.05 = 5 %)."""

    metric: Metric
    most_loss: Share


class ExperimentSetting(ControlMessage, frozen=True, kw_only=True, tag="experiment"):
    """An experiment, as it is to run from now on. ``number`` is its own for good and stands in placements' ids.

    ``low`` to ``high`` of ``layer`` is reserved while it is not stopped; ``ramp`` of that takes part.
    """

    experiment: ExperimentName
    number: Annotated[int, Meta(ge=1, le=65_535)]
    layer: ExperimentName
    low: Share
    high: Share
    ramp: Share
    arms: Annotated[tuple[ArmSetting, ...], Meta(min_length=2, max_length=16)]
    status: Literal["draft", "running", "stopped"]
    time_ms: TimeMs
    primary: Metric = "ctr"
    guardrails: Annotated[tuple[Guardrail, ...], Meta(max_length=16)] = ()
    reason: Annotated[str, Meta(max_length=512)] = ""

    @property
    def name(self) -> str:
        """The experiment."""
        return self.experiment


class Drift(ControlMessage, frozen=True, kw_only=True, tag="drift"):
    """A lane's click layer no longer fits the world, and what the lane did about it (`scoring.watch`).

    ``was`` and ``now``: means of what the detector watches, before and after; ``learnt``: outcomes until then;
    ``model``: the attention model beneath, which ``retrain`` asks to be replaced. ``time_ms``: the lane's time.
    """

    lane: int
    detector: Literal["calibration", "surprise", "interest"]
    answer: Literal["quicken", "fall-back", "retrain"]
    was: float
    now: float
    learnt: int
    model: str
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The lane and the detector."""
        return f"{self.lane}/{self.detector}"


KINDS = Consent | Erasure | ExperimentSetting | Drift
"""Every kind, as a union: ``Consent | Other``."""


def kind_of(message: type[ControlMessage]) -> str:
    """The kind's tag."""
    tag: Any = message.__struct_config__.tag
    return str(tag)


KIND_NAMES = frozenset(kind_of(kind) for kind in get_args(KINDS))
decode_control = msgspec.json.Decoder(KINDS).decode
