"""What travels on the ``control`` topic: one Struct per kind, JSON with the kind in ``kind``.

The topic is compacted; a record's key is ``kind/name``, so that of each name the newest record stays, and a
tombstone takes it back. A new kind is a subclass of `ControlMessage` with a ``tag`` and a ``name``, in `KINDS`.
"""

from typing import Annotated, Any, Literal, Self, get_args

import msgspec
from msgspec import Meta, Struct

from streams.wire import Count, PlainId, Share, TimeMs


class ControlMessage(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """A switch that every worker reads. ``name``: what is switched, unique within the kind."""

    @property
    def name(self) -> str:
        """The second half of the key."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it switches")

    @property
    def key(self) -> bytes:
        """The record's key."""
        return f"{kind_of(type(self))}/{self.name}".encode()

    @property
    def sequence(self) -> int:
        """Where it is in the order of its key's messages: what takes this one back leaves alone those further on."""
        return 0

    def stands_after(self, before: Self) -> bool:  # noqa: ARG002 - kinds that have an order heed it
        """Whether it holds from now on, ``before`` having held until now; else every reader passes over it."""
        return True

    def repeats(self, before: Self) -> bool:
        """Whether it says what ``before`` did, once more."""
        return self == before


class Revised(ControlMessage, frozen=True, kw_only=True):
    """What several people change, each message made from the one that stands (`streams.control_changes`).

    ``revision``: one more than that of the message it was made from, 1 at first; 0 where its writer tells none.
    """

    revision: Count = 0

    @property
    def sequence(self) -> int:
        """Its revision."""
        return self.revision

    def stands_after(self, before: Self) -> bool:
        """Whether it holds from now on, ``before`` having held until now.

        Of two changes made from one message the first on the topic stands, and every reader passes over the other,
        unless it is the same: two may write what stands once more. Where the newest message stands, compaction changes
        nothing: no other's revision is above its own.
        """
        return self.revision == 0 or self.revision > before.revision or self == before

    def repeats(self, before: Self) -> bool:
        """Whether it says what ``before`` did, perhaps as another revision."""
        return before == msgspec.structs.replace(self, revision=before.revision)


class Consent(ControlMessage, frozen=True, kw_only=True, tag="consent"):
    """A person's own answer, until the next one. ``time_ms``: when it was given."""

    user_id: PlainId
    granted: bool
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The user."""
        return self.user_id

    @property
    def told_ms(self) -> int:
        """When it was told, by which it is compared with a no on an event: its own time, where no other is known."""
        return self.time_ms


class HeardConsent(Consent, frozen=True, kw_only=True, tag="consent"):
    """One as it was read. ``came_ms``: its record's own time, by the clock that dates the records of events."""

    came_ms: int

    @property
    def told_ms(self) -> int:
        """When its record came."""
        return self.came_ms

    def repeats(self, before: ControlMessage) -> bool:
        """Whether it says what ``before`` did, whenever either came."""
        return isinstance(before, HeardConsent) and self == msgspec.structs.replace(before, came_ms=self.came_ms)


class Erasure(ControlMessage, frozen=True, kw_only=True, tag="erasure"):
    """Everything held of a person is to be forgotten: what happened until ``time_ms``, and never comes back.

    ``repeated``: asked for once more by who took an older request back, and passed over where a later one stands.
    """

    user_id: PlainId
    time_ms: TimeMs
    repeated: bool = False

    @property
    def name(self) -> str:
        """The user."""
        return self.user_id

    @property
    def told_ms(self) -> int:
        """When it was told, by which it is compared with events' records: its own time, where no other is known."""
        return self.time_ms

    @property
    def sequence(self) -> int:
        """Its time."""
        return self.time_ms

    def stands_after(self, before: Self) -> bool:
        """Whether the person asks, or nothing later is asked: a device's clock decides nothing."""
        return not self.repeated or self.time_ms >= before.time_ms


class HeardErasure(Erasure, frozen=True, kw_only=True, tag="erasure"):
    """One as it was read. ``came_ms``: its record's own time, by the clock that dates the records of events."""

    came_ms: int

    @property
    def told_ms(self) -> int:
        """When its record came."""
        return self.came_ms

    def repeats(self, before: ControlMessage) -> bool:
        """Whether it says what ``before`` did, whenever either came."""
        return isinstance(before, HeardErasure) and self == msgspec.structs.replace(before, came_ms=self.came_ms)


_END = r"$(?!\n)"
"""Of a pattern: `$` alone lets a line end follow; Python's \\Z is no regular expression of JSON Schema."""
EXPERIMENT_NAME = f"^[a-z0-9][a-z0-9-]{{0,31}}{_END}"
ExperimentName = Annotated[str, Meta(pattern=EXPERIMENT_NAME)]
"""Lower-case letters, digits and dashes, 32 at most: it stands in placements and reports."""
_VERSION = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}-[0-9a-f]{8}"
ModelVersion = Annotated[str, Meta(pattern=f"^{_VERSION}{_END}")]
"""A model's name, and eight hex digits of what its files and their specification hash to."""
ModelOrNone = Annotated[str, Meta(pattern=f"^({_VERSION})?{_END}")]
"""The same, or "" for none."""
Lane = Annotated[int, Meta(ge=0, le=2_147_483_647)]
"""A partition's number: Kafka has 32 bits for it."""
Metric = Literal["ctr", "cvr", "revenue_micros", "viewed_s", "diversity"]


class ArmSetting(Struct, frozen=True, kw_only=True):
    """A policy: its share of the experiment's users, the settings that it changes, and the model that scores for it.

    ``model`` "" is whichever is live, or a canary's.
    """

    arm: ExperimentName
    share: Share
    changes: dict[str, float | str] = {}
    model: ModelOrNone = ""


class Guardrail(Struct, frozen=True, kw_only=True):
    """What no arm may cost: ``most_loss`` of the first arm's metric (0.05 = 5 %)."""

    metric: Metric
    most_loss: Share


class ExperimentSetting(Revised, frozen=True, kw_only=True, tag="experiment"):
    """An experiment, as it is to run from now on. ``number`` is its own for good and stands in placements' ids.

    ``low`` to ``high`` of ``layer`` is reserved while it is not stopped; ``ramp`` of that takes part. Of a ``bandit``
    that is the first cohort; every ``epoch_s`` another as large comes in, in shares of ``minimum`` at least
    (`Allocation`). ``interleaved``: whoever takes part is shown both of two arms, whose rankings take turns.
    ``time_ms``: of this message; ``started_ms``: since when it runs, 0 before, and where its writer does not tell.
    ``revision``: one more than that of the message it was made from, 1 at first; 0 where its writer tells none.
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
    allocation: Literal["fixed", "bandit"] = "fixed"
    minimum: Share = 0.0
    epoch_s: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 0
    interleaved: bool = False
    started_ms: TimeMs = 0

    @property
    def name(self) -> str:
        """The experiment."""
        return self.experiment

    def stands_after(self, before: Self) -> bool:
        """Likewise; yet what was stopped stays so, and a stop stands whatever came meanwhile."""
        if "stopped" in (self.status, before.status):
            return self.status == "stopped"
        return Revised.stands_after(self, before)


class CohortSetting(Struct, frozen=True, kw_only=True):
    """Users who came in together: those ``upto`` of the experiment's range, beyond the cohort before.

    ``shares`` of the arms, in their order, are theirs for good.
    """

    upto: Share
    shares: tuple[Share, ...]


class Allocation(Revised, frozen=True, kw_only=True, tag="allocation"):
    """The cohorts of a bandit after its first, oldest first. The referee alone writes it, and only adds to it.

    ``number``: that of the experiment. Where two referees run, the first to let a cohort in has let it in for all.
    ``revision``: one more than that of the cohorts it was made from, another's of this name too, 1 at first; 0 where
    its writer tells none.
    """

    experiment: ExperimentName
    number: Annotated[int, Meta(ge=1, le=65_535)]
    cohorts: Annotated[tuple[CohortSetting, ...], Meta(max_length=63)]
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The experiment."""
        return self.experiment

    def stands_after(self, before: Self) -> bool:
        """Likewise; without a revision where it only adds to cohorts, or is another experiment's: nobody is moved."""
        if self.revision:
            return Revised.stands_after(self, before)
        return self.number != before.number or self.cohorts[: len(before.cohorts)] == before.cohorts


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


class HourlyTraffic(ControlMessage, frozen=True, kw_only=True, tag="traffic"):
    """Impressions of a lane in each hour of the day (UTC), as means of the days gone by; null where none is known.

    Told as hours end. The day's budgets are planned by all lanes' together, from one midnight to the next.
    """

    lane: int
    hours: Annotated[tuple[Annotated[float, Meta(ge=0, le=1e12)] | None, ...], Meta(min_length=24, max_length=24)]
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The lane."""
        return str(self.lane)


class PushedModel(ControlMessage, frozen=True, kw_only=True, tag="model"):
    """A model whose files are on the topic ``models``, by the hashes that its ``manifest`` (JSON as it is) names.

    ``bytes``: of all files; ``parity``, ``score_ms``: what it has shown where it was pushed (`scoring.proof`).
    """

    model: ModelVersion
    manifest: Annotated[str, Meta(max_length=65_536)]
    bytes: int
    parity: float
    score_ms: float
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The version."""
        return self.model


class ModelRoles(Revised, frozen=True, kw_only=True, tag="model-roles"):
    """Who scores whom from now on (`scoring.models.Roles`): one message, so that no worker sees half of a change.

    ``forced``: without the evidence that is asked for; ``reason``: why, in the words of who did it. ``revision``: one
    more than that of the roles it was made from, 1 at first; 0 where its writer tells none.
    """

    live: ModelOrNone = ""
    former: Annotated[tuple[ModelOrNone, ...], Meta(max_length=8)] = ()
    canary: ModelOrNone = ""
    canary_share: Share = 0.0
    shadow: ModelOrNone = ""
    shadow_share: Share = 0.0
    time_ms: TimeMs = 0
    forced: bool = False
    reason: Annotated[str, Meta(max_length=512)] = ""

    @property
    def name(self) -> str:
        """There is one."""
        return "all"


class ModelStatus(ControlMessage, frozen=True, kw_only=True, tag="model-status"):
    """How a lane fares with a model that has a role: whether its worker uses it, and what outcomes say of it.

    ``refused``: why not, "" where it is used. Sums over the lane's outcomes as in `scoring.learner.Evidence`; of what
    the model said as a shadow ``candidates`` since the lane was taken over, with the sum and the largest of the
    differences between its chances and those beside them.
    """

    lane: Lane
    model: ModelVersion
    worker: Annotated[str, Meta(max_length=256)]
    refused: Annotated[str, Meta(max_length=512)] = ""
    outcomes: Count = 0
    clicks: Count = 0
    predicted: float = 0.0
    log_loss: float = 0.0
    beside: Count = 0
    beside_log_loss: float = 0.0
    live_log_loss: float = 0.0
    gain_squares: float = 0.0
    candidates: Count = 0
    difference: float = 0.0
    largest_difference: float = 0.0
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The version and the lane."""
        return f"{self.model}/{self.lane}"


KINDS = (
    Consent | Erasure | ExperimentSetting | Allocation | HourlyTraffic | Drift | PushedModel | ModelRoles | ModelStatus
)
"""Every kind, as a union: ``Consent | Other``."""


def kind_of(message: type[ControlMessage]) -> str:
    """The kind's tag."""
    tag: Any = message.__struct_config__.tag
    return str(tag)


KIND_NAMES = frozenset(kind_of(kind) for kind in get_args(KINDS))
decode_control = msgspec.json.Decoder(KINDS).decode
