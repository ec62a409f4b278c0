"""What travels on the ``control`` topic: one Struct per kind, JSON with the kind in ``kind``.

The topic is compacted, with the key ``kind/name``: the newest record of each name stays, and a tombstone takes it
back. A new kind is a subclass of `ControlMessage` with a ``tag`` and a ``name``, in `KINDS`.
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
    def former_keys(self) -> tuple[bytes, ...]:
        """Keys that former versions gave it; what is on the topic under them is read, and stays beside what is new."""
        return ()

    @property
    def sequence(self) -> int:
        """Its place among its key's messages: a tombstone for this message leaves those with a higher one alone."""
        return 0

    def stands_after(self, before: Self) -> bool:  # noqa: ARG002 - kinds that have an order heed it
        """Whether it replaces ``before``, which held until now; if not, every reader skips it."""
        return True

    def repeats(self, before: Self) -> bool:
        """Whether it says the same as ``before``."""
        return self == before


class Revised(ControlMessage, frozen=True, kw_only=True):
    """A message that several people may change, each from the one in force (`streams.control_changes`).

    ``revision``: one more than that of the message it was made from; the first has 1. 0: its writer gives none.
    """

    revision: Count = 0

    @property
    def sequence(self) -> int:
        """Its revision."""
        return self.revision

    def stands_after(self, before: Self) -> bool:
        """Whether it replaces ``before``, which held until now.

        Where two changes are made from one message, the first on the topic holds and every reader skips the second,
        unless both say the same: two writers may repeat what holds. If the newest message holds, compaction changes
        nothing, since no other message has a higher revision.
        """
        return self.revision == 0 or self.revision > before.revision or self == before

    def repeats(self, before: Self) -> bool:
        """Whether it says the same as ``before``, revisions aside."""
        return before == msgspec.structs.replace(self, revision=before.revision)


class Asked(ControlMessage, frozen=True, kw_only=True):
    """What a person asks for. ``time_ms``: when they did, by the clock of their device."""

    user_id: PlainId
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The user."""
        return self.user_id

    @property
    def told_ms(self) -> int:
        """Time to compare with events and their records: the message's own time, where no other is known."""
        return self.time_ms


class Heard:
    """A person's request as read. ``came_ms``: its record's time, by the clock that dates the records of events."""

    __slots__ = ()
    came_ms: int

    @property
    def told_ms(self) -> int:
        """The record's time."""
        return self.came_ms

    def repeats(self, before: ControlMessage) -> bool:
        """Whether it says the same as ``before``, record times aside."""
        return isinstance(before, Heard) and self == msgspec.structs.replace(before, came_ms=self.came_ms)


class Consent(Asked, frozen=True, kw_only=True, tag="consent"):
    """A person's answer on whether to be remembered; it holds until the next one. ``time_ms``: when it was given."""

    granted: bool


class HeardConsent(Heard, Consent, frozen=True, kw_only=True, tag="consent"):
    """A consent as read."""

    came_ms: int


class Erasure(Asked, frozen=True, kw_only=True, tag="erasure"):
    """A request to forget a person: everything that happened until ``time_ms``, for good.

    ``repeated``: written again by whoever took an older request back; skipped where a later request holds.
    """

    repeated: bool = False

    @property
    def sequence(self) -> int:
        """Its time."""
        return self.time_ms

    def stands_after(self, before: Self) -> bool:
        """True for a person's own request, whatever the device's clock; a repeated one must not be older."""
        return not self.repeated or self.time_ms >= before.time_ms


class HeardErasure(Heard, Erasure, frozen=True, kw_only=True, tag="erasure"):
    """An erasure as read."""

    came_ms: int


END = r"$(?!\n)"
"""The end of a pattern: `$` alone lets a line end follow, and JSON Schema does not know Python's \\Z."""
EXPERIMENT_NAME = f"^[a-z0-9][a-z0-9-]{{0,31}}{END}"
ExperimentName = Annotated[str, Meta(pattern=EXPERIMENT_NAME)]
"""Lower-case letters, digits and dashes, 32 at most: placements and reports show it."""
_VERSION = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}-[0-9a-f]{8}"
ModelVersion = Annotated[str, Meta(pattern=f"^{_VERSION}{END}")]
"""A model's name and eight hex digits of a hash of its files and their specification."""
ModelOrNone = Annotated[str, Meta(pattern=f"^({_VERSION})?{END}")]
"""The same, or "" for none."""
Lane = Annotated[int, Meta(ge=0, le=2_147_483_647)]
"""A partition's number: Kafka has 32 bits for it."""
Metric = Literal["ctr", "cvr", "revenue_micros", "viewed_s", "diversity"]


class ArmSetting(Struct, frozen=True, kw_only=True):
    """An arm's policy: its share of the experiment's users, the settings that it changes, and its model.

    ``model``: "" is the live model, or the canary for its share of users.
    """

    arm: ExperimentName
    share: Share
    changes: dict[str, float | str] = {}
    model: ModelOrNone = ""


class Guardrail(Struct, frozen=True, kw_only=True):
    """The most that an arm may lose: ``most_loss``, a share of the first arm's ``metric`` (0.05 = 5 %)."""

    metric: Metric
    most_loss: Share


class ExperimentSetting(Revised, frozen=True, kw_only=True, tag="experiment"):
    """An experiment, as it is to run from now on. ``number`` is its own for good and appears in placement ids.

    The range ``low`` to ``high`` of ``layer`` is reserved until the experiment is stopped; the share ``ramp`` of it
    takes part. For a ``bandit``, that share is the first cohort; an equally large one joins every ``epoch_s`` seconds,
    with at least ``minimum`` for each arm (`Allocation`). ``interleaved``: each user sees two arms, whose rankings
    alternate. ``time_ms``: of this message; ``started_ms``: when the experiment started; 0 before, or where its writer
    gives none. ``revision``: one more than that of the message it was made from; the first has 1. 0: its writer gives
    none.
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
        """As of any `Revised`, but a stopped experiment stays stopped, and a stop replaces any message."""
        if "stopped" in (self.status, before.status):
            return self.status == "stopped"
        return Revised.stands_after(self, before)


class CohortSetting(Struct, frozen=True, kw_only=True):
    """Users who joined together: the experiment's range from the end of the previous cohort to ``upto``.

    ``shares``: of the arms, in their order; they never change.
    """

    upto: Share
    shares: tuple[Share, ...]


class Allocation(Revised, frozen=True, kw_only=True, tag="allocation"):
    """The cohorts of a bandit after its first, oldest first. Only the referee writes it, and only adds to it.

    ``number``: the experiment's. Where two referees run, a cohort that one adds counts for both. ``revision``: one more
    than that of the cohorts it was made from, even those of an earlier experiment with this name; the first has 1.
    0: its writer gives none.
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
        """As of any `Revised`; without a revision, if it only adds cohorts or is another experiment's: nobody moves."""
        if self.revision:
            return Revised.stands_after(self, before)
        return self.number != before.number or self.cohorts[: len(before.cohorts)] == before.cohorts


class Drift(ControlMessage, frozen=True, kw_only=True, tag="drift"):
    """A detector found drift in a lane's click layer, and the lane answered it (`scoring.watch`).

    ``was`` and ``now``: means of the watched quantity before and after; ``learnt``: outcomes learned until then;
    ``model``: the attention model whose predictions they are, live or not, to be replaced if the answer is ``retrain``;
    "" where the lane no longer knows its name. ``time_ms``: the lane's time.
    """

    lane: int
    detector: Literal["calibration", "surprise", "interest", "gain"]
    answer: Literal["quicken", "fall-back", "retrain"]
    was: float
    now: float
    learnt: int
    model: str
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The lane, the detector and the model: of two models, the drift of one does not replace that of the other."""
        return f"{self.lane}/{self.detector}/{self.model}"

    @property
    def former_keys(self) -> tuple[bytes, ...]:
        """Without the model."""
        return (f"drift/{self.lane}/{self.detector}".encode(),)


class HourlyTraffic(ControlMessage, frozen=True, kw_only=True, tag="traffic"):
    """A lane's impressions in each UTC hour of the day, as means over past days; null for an hour not yet known.

    Written as hours end. The sum over all lanes plans the day's budgets, from midnight to midnight.
    """

    lane: int
    hours: Annotated[tuple[Annotated[float, Meta(ge=0, le=1e12)] | None, ...], Meta(min_length=24, max_length=24)]
    time_ms: TimeMs

    @property
    def name(self) -> str:
        """The lane."""
        return str(self.lane)


class PushedModel(ControlMessage, frozen=True, kw_only=True, tag="model"):
    """A model. Its files are on the topic ``models``, under the hashes that its ``manifest`` (unchanged JSON) names.

    ``bytes``: of all files; ``parity``, ``score_ms``: as measured where it was pushed (`scoring.proof`).
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
    """Which model scores whom from now on (`scoring.models.Roles`): one message, so that no worker sees half a change.

    ``forced``: set without the required evidence; ``reason``: why, in the operator's words. ``revision``: one more than
    that of the roles it was made from; the first has 1. 0: its writer gives none.
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
        """The same for all: there is one such message."""
        return "all"


class ModelStatus(ControlMessage, frozen=True, kw_only=True, tag="model-status"):
    """A lane's report on a model that has a role: whether its worker uses the model, and the evidence on it.

    ``refused``: why the worker does not use it, "" if it does. ``outcomes`` to ``gain_squares``: sums over the lane's
    outcomes, as in `scoring.learner.Evidence`. ``candidates``: how many the model scored as a shadow since the worker
    took the lane over; ``difference``, ``largest_difference``: sum and maximum of the pCTRs' differences from the
    deciding model's.
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
    """Tag of the kind."""
    tag: Any = message.__struct_config__.tag
    return str(tag)


KIND_NAMES = frozenset(kind_of(kind) for kind in get_args(KINDS))
decode_control = msgspec.json.Decoder(KINDS).decode
