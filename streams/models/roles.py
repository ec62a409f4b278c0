"""Changes of the models' roles, and what a model must have shown before. No I/O.

A model goes from *pushed* to *shadow* (it scores some people, and its scores are not used), to *canary* (its scores are
used for some people), to *live*. Each step can be skipped by force, with a reason, and the last can be taken back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from scoring.attention import GOLDEN_TOLERANCE
from scoring.evidence import KNOWN, Evidence, calibration
from scoring.models import FORMER_MAX, Roles
from streams.control import Control
from streams.control_changes import Read, Write, after
from streams.control_wire import ModelRoles, ModelStatus, PushedModel
from streams.mendable import MendableError

OUTCOMES_MIN = 1_000
"""Outcomes that a model must have had; at a click rate of 3 % its calibration is then known to within a fifth."""
CLICKS_MIN = 30
MISCALIBRATED_MAX = 0.25
"""How far clicks over predicted clicks may be from 1, as a ratio: the click layer takes minutes to correct so much."""
WORSE_MAX = 0.01
"""How much more log loss than the live model a shadow may have, as a share of the live one's. For a model that the
click layer knows (`scoring.evidence.KNOWN`), what the layer has not corrected yet costs about as much at most."""
SURELY = 3.0
"""Standard errors by which a shadow must exceed that: more than two, since one person's impressions correlate."""
_Shared = Literal["canary", "shadow"]
"""Roles that a model has for a share of people."""


class RolesError(MendableError, ValueError):
    """A change that is not made; the message says why, and what would help."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of a model before it is promoted. ``outcomes``: as many must be compared with the live model's."""

    outcomes: int = OUTCOMES_MIN
    clicks: int = CLICKS_MIN
    miscalibrated: float = MISCALIBRATED_MAX
    worse: float = WORSE_MAX


@dataclass(frozen=True, slots=True)
class Record:
    """All that lanes tell of one model. ``refusals``: by lane, the worker and its reason. ``told_ms``: the event time
    of each lane's last status, which is old where the lane is down.
    """

    evidence: Evidence
    refusals: Mapping[int, tuple[str, str]]
    lanes: int = 0
    candidates: int = 0
    mean_difference: float = 0.0
    largest_difference: float = 0.0
    told_ms: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, statuses: Sequence[ModelStatus]) -> "Record":
        """The sum of what lanes tell."""
        evidence = Evidence()
        for status in statuses:
            told = Evidence(**{name: getattr(status, name) for name in Evidence.__slots__})
            if not told.gain_squares and told.gain:  # a former version does not tell it
                told.apart()
            evidence.join(told)
        candidates = sum(status.candidates for status in statuses)
        return cls(
            evidence,
            {status.lane: (status.worker, status.refused) for status in statuses if status.refused},
            len(statuses),
            candidates,
            sum(status.difference for status in statuses) / max(candidates, 1),
            max((status.largest_difference for status in statuses), default=0.0),
            {status.lane: status.time_ms for status in statuses},
        )

    @property
    def calibration(self) -> float | None:
        """Clicks over predicted clicks; None before the first outcome."""
        evidence = self.evidence
        return calibration(evidence.clicks, evidence.predicted) if evidence.predicted else None

    @property
    def gain(self) -> float | None:
        """How much lower its log loss is, as a shadow, than that of the model in use; None where it was beside none."""
        return self.evidence.gain


def roles_told(control: Control) -> ModelRoles:
    """The roles that stand; before the first change, no model has one."""
    return control.get(ModelRoles, "all") or ModelRoles()


def roles_of(message: ModelRoles, arms: tuple[str, ...]) -> Roles:
    """The roles that a message gives, and the versions that arms of experiments name."""
    return Roles(
        live=message.live,
        former=message.former,
        canary=message.canary,
        canary_share=message.canary_share,
        shadow=message.shadow,
        shadow_share=message.shadow_share,
        arms=arms,
    )


def record_of(version: str, roles: ModelRoles, arms: tuple[str, ...], statuses: Iterable[ModelStatus]) -> Record:
    """What lanes tell of a model that has a role, or is in an experiment's arm; an empty record for any other.

    When a model loses its role, the statuses stay on the topic, but the lanes forget: their next ones begin anew.
    """
    held = version in roles_of(roles, arms).versions
    return Record.of([one for one in statuses if held and one.model == version])


def objections(pushed: PushedModel, record: Record, limits: Limits) -> list[str]:
    """What speaks against promoting a model; empty where it meets all ``limits``."""
    found = [
        f"lane {lane} ({worker}) refuses it: {reason}" for lane, (worker, reason) in sorted(record.refusals.items())
    ]
    if not pushed.parity <= GOLDEN_TOLERANCE:
        found.append(f"its outputs differ from the golden ones by {pushed.parity:.3g}, at most {GOLDEN_TOLERANCE:g}")
    evidence, calibration = record.evidence, record.calibration
    if evidence.outcomes < limits.outcomes or evidence.clicks < limits.clicks:
        found.append(
            f"{evidence.outcomes:,} outcomes with {evidence.clicks:,} clicks; expected {limits.outcomes:,} with "
            f"{limits.clicks:,} in a role that it has: let it be a shadow or a canary for longer, or for more people. "
            "An outcome counts when its window has ended, SALIENCE_CLICK_WINDOW_MS (ten minutes) after the impression"
        )
    elif calibration is None or not 1 / (1 + limits.miscalibrated) <= calibration <= 1 + limits.miscalibrated:
        told = "none" if calibration is None else f"{calibration:.3f}"
        low, high = 1 / (1 + limits.miscalibrated), 1 + limits.miscalibrated
        found.append(f"clicks over predicted clicks are {told}; expected {low:.2f} to {high:.2f}")
    if beside := _beside(record, limits):
        found.append(beside)
    return found


def _beside(record: Record, limits: Limits) -> str:
    """What speaks against a model beside the live one: few outcomes compared, or surely too much log loss; else empty.

    Only a shadow's outcomes are compared, and they count in any role that follows. Those of a canary say nothing of it:
    its people were shown what it chose, and who chooses better meets more clicks, which cost more log loss.
    """
    evidence = record.evidence
    if evidence.beside < limits.outcomes:
        return (
            f"{evidence.beside:,} of its {evidence.outcomes:,} outcomes were compared with what is live; expected "
            f"{limits.outcomes:,}. Each lane ({record.lanes} told of it) compares what it scored as a shadow after "
            f"{KNOWN:,} outcomes: let it be a shadow for longer, or for more people"
        )
    gain, error = evidence.gain, evidence.gain_error
    if gain is None or error is None:
        return ""
    live = evidence.live_log_loss / evidence.beside
    if gain + SURELY * error >= -limits.worse * live:
        return ""
    return (
        f"as a shadow it cost {-gain:.4f} of log loss more than what is live (standard error {error:.4f}; that cost "
        f"{live:.4f}), over {evidence.beside:,} outcomes; expected at most {limits.worse * live:.4f} more, within "
        f"{SURELY:g} standard errors: train another"
    )


def state_of(roles: ModelRoles, version: str) -> str:
    """What a model does: live, canary, shadow, former or pushed."""
    for state in ("live", "canary", "shadow"):
        if getattr(roles, state) == version:
            return state
    return "former" if version in roles.former else "pushed"


def with_shadow(roles: ModelRoles, version: str, share: float, time_ms: int) -> ModelRoles:
    """Let ``version`` score a share of people, without using its scores; a share of 0 ends that."""
    return _shared(roles, version, "shadow", share, time_ms)


def with_canary(roles: ModelRoles, version: str, share: float, time_ms: int) -> ModelRoles:
    """Use the scores of ``version`` for a share of people; a share of 0 ends that."""
    return _shared(roles, version, "canary", share, time_ms)


def _shared(roles: ModelRoles, version: str, role: _Shared, share: float, time_ms: int) -> ModelRoles:
    """The roles with ``version`` as ``role`` and not in the other shared role; without it where the share is 0."""
    _not_live(roles, version, role)
    if not 0 <= share <= 1:  # refuses NaN, too
        raise RolesError(f"a share of {share}; expected 0 to 1")
    if share > 0:
        kept = _without(roles, version, "canary" if role == "shadow" else "shadow")
        changes: dict[str, Any] = {role: version, f"{role}_share": share}
        return _changed(kept, time_ms, **changes)
    if getattr(roles, role) != version:
        raise RolesError(f"{version} is {state_of(roles, version)}, and no {role}: a share of 0 ends nothing")
    return _changed(_without(roles, version, role), time_ms)


def promoted(roles: ModelRoles, version: str, time_ms: int, reason: str = "", *, forced: bool = False) -> ModelRoles:
    """Use the scores of ``version`` for everybody; the model that was live before can come back."""
    _not_live(roles, version, "live")
    kept = _without(_without(roles, version, "canary"), version, "shadow")
    former = (roles.live, *roles.former)[:FORMER_MAX]
    return _changed(kept, time_ms, reason, live=version, former=former, forced=forced)


def rolled_back(roles: ModelRoles, time_ms: int, reason: str = "") -> ModelRoles:
    """Go back to what was live before, and end canary and shadow: one thing at a time."""
    if not roles.former:
        ends = "; salience model {0} {1} --share 0 ends the {0}"
        tried = [("canary", roles.canary), ("shadow", roles.shadow)]
        how = "".join(ends.format(role, version) for role, version in tried if version)
        raise RolesError(f"no model was live before this one; nothing to go back to{how}")
    live, *former = roles.former
    return _changed(ModelRoles(live=live, former=tuple(former), revision=roles.revision), time_ms, reason)


def _not_live(roles: ModelRoles, version: str, role: str) -> None:
    if roles.live == version:
        raise RolesError(f"{version} is live already; it cannot become {role}")


def _without(roles: ModelRoles, version: str, role: _Shared) -> ModelRoles:
    """The roles with ``role`` empty where ``version`` has it."""
    if getattr(roles, role) != version:
        return roles
    return msgspec.structs.replace(roles, **{role: "", f"{role}_share": 0.0})


def _changed(roles: ModelRoles, time_ms: int, reason: str = "", *, forced: bool = False, **changes: Any) -> ModelRoles:
    made: dict[str, Any] = {
        "revision": roles.revision + 1,
        "time_ms": time_ms,
        "reason": reason[:512],
        "forced": forced,
    }
    return msgspec.structs.replace(roles, **(made | changes))


def settled(made: ModelRoles, read: Read, write: Write[ModelRoles]) -> ModelRoles:
    """Write a change. Returns the roles as they stand now.

    Raises `RolesError` where others changed the roles meanwhile: the change is not tried again, since the reasons for a
    promotion or a rollback were given for the roles as they were. Raises it also where a model in it was removed.
    """
    write([made], ())
    control = after(made, read, write)
    stands = roles_told(control)
    if not made.repeats(stands):
        live = stands.live or "the workers' own"
        raise RolesError(
            f"somebody else has changed roles meanwhile; live is {live}. Look at salience model list, and do it again "
            "where it is still meant and has not become so"
        )
    for version in filter(None, (made.live, made.canary, made.shadow)):
        if control.get(PushedModel, version) is None:
            raise RolesError(f"{version} was removed meanwhile, workers do without it: push it again, or end its role")
    return stands
