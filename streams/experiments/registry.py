"""Experiments as the control topic declares them: what the workers run, and the changes that commands make.

An experiment keeps its number and its range of the layer until it is stopped; while it runs, only its ramp grows.
A change that would move users between arms is refused, since the report could not be trusted then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog
from pydantic import ValidationError

from scoring.assignment import Arm, Cohort, Experiment, free_range
from scoring.policies import EXPERIMENTS_MAX, LAYERS_MAX, Experiments, Policy, changed
from streams.control import Control
from streams.control_wire import (
    Allocation,
    ArmSetting,
    CohortSetting,
    ExperimentSetting,
    Guardrail,
    Metric,
    ModelStatus,
    PushedModel,
)
from streams.mendable import MendableError
from streams.models.roles import record_of, roles_told
from streams.settings import Settings

log = structlog.get_logger()

MODELS_MAX = 8
"""Models that all experiments may name, drafts included: every worker holds them, with a vector of every ad."""


COHORT = 0.1
"""Share of a bandit's range in each cohort, by default."""
COHORT_MIN = 1 / 64
"""Least share of a bandit's range in a cohort: so many cohorts fit an `Allocation`."""
MINIMUM_MIN = 0.1
"""Least share of a cohort for each arm of a new bandit. A user's weight is one over their arm's share. Where few people
buy, and some of them much more than others, a few of large weight decide, and intervals get narrow before they get
right. With equal arms, intervals left out zero at some look in 6 % of bandits at 0.1, 11 % at 0.05, and 20 % at 0.01
(3 % buyers, ten cohorts of 1,000)."""


@dataclass(frozen=True, slots=True)
class Bandit:
    """Gives users to arms by what is known of them: at least ``minimum`` to each, with new shares every ``epoch_s``."""

    minimum: float
    epoch_s: int


_RANKINGS = frozenset({"temperature", "explore", "ucb_alpha"})
"""What interleaved arms may change, besides the model."""


class ExperimentError(MendableError, ValueError):
    """A change that is not possible; the message says what is."""


def definition(setting: ExperimentSetting, allocation: Allocation | None = None) -> Experiment:
    """The experiment that the messages describe. Raises `ValueError` where it is impossible."""
    arms = tuple(Arm(arm.arm, arm.share, arm.changes, arm.model) for arm in setting.arms)
    mine = allocation is not None and allocation.number == setting.number and setting.allocation == "bandit"
    later = tuple(Cohort(one.upto, one.shares) for one in allocation.cohorts) if allocation and mine else ()
    place = (setting.layer, setting.low, setting.high, setting.ramp)
    return Experiment(setting.experiment, *place, arms, later, setting.interleaved)


def shared_number(setting: ExperimentSetting, holder: str) -> str:
    """Says that ``holder`` had the experiment's number first, and what to do about it."""
    return (
        f"its number {setting.number} is that of {holder}, and placements' ids tell numbers alone: nobody judges it; "
        "make it anew under another name: salience experiment create"
    )


class ExperimentSwitch:
    """Lets an engine's experiments follow the control topic. One that cannot run is refused; the others go on.

    An experiment whose number another holds waits until that one has ended: placements' ids have only the number.
    """

    def __init__(self, experiments: Experiments) -> None:
        self._experiments = experiments
        self._settings: dict[str, ExperimentSetting] = {}
        self._waiting: dict[str, ExperimentSetting] = {}
        self._allocations: dict[str, Allocation] = {}

    def follow(self, name: str, setting: ExperimentSetting | None) -> None:
        """Take the newest message of an experiment; None if it was taken back."""
        self._waiting.pop(name, None)
        former = self._settings.get(name)
        if former is not None and (setting is None or setting.number != former.number):
            self._end(self._settings.pop(name))
            log.info("experiment", experiment=name, number=former.number, status="gone")
        if setting is not None and self._set(setting):
            self._settings[name] = setting
            log.info("experiment", experiment=name, status=setting.status)
        for other, waits in list(self._waiting.items()):
            if self._experiments.name_of(waits.number) is None:
                self.follow(other, waits)

    def allocate(self, name: str, allocation: Allocation | None) -> None:
        """Take the newest cohorts of an experiment; its message may come before or after."""
        if allocation is None:
            self._allocations.pop(name, None)
            return
        self._allocations[name] = allocation
        if (setting := self._settings.get(name)) is not None and setting.status == "running" and self._set(setting):
            log.info("experiment's cohorts", experiment=name, cohorts=1 + len(allocation.cohorts))

    def _set(self, setting: ExperimentSetting) -> bool:
        """Run or end an experiment, as its message says. Returns whether that was possible."""
        name = setting.experiment
        if setting.status != "running":
            self._end(setting)
            return True
        try:
            self._experiments.set(setting.number, definition(setting, self._allocations.get(name)))
        except ValueError as error:
            why, holder = str(error), self._experiments.name_of(setting.number)
            if holder is not None and holder != name:
                self._waiting[name] = setting
                why = f"{shared_number(setting, holder)}; it waits until that has ended"
            log.warning("experiment refused", experiment=name, error=why)
            return False
        return True

    def _end(self, setting: ExperimentSetting) -> None:
        """End an experiment, if it is the one that runs under its number."""
        if self._experiments.name_of(setting.number) == setting.experiment:
            self._experiments.set(setting.number, None)


def models_of(settings: Iterable[ExperimentSetting]) -> tuple[str, ...]:
    """Versions of models that workers hold for experiments: for drafts, too, so that a start takes effect at once.

    Each version once, sorted: all workers fetch them in the same order.
    """
    return tuple(sorted({arm.model for one in settings if one.status != "stopped" for arm in one.arms if arm.model}))


def absences(setting: ExperimentSetting, control: Control) -> list[str]:
    """Says which of its arms' models are not there."""
    there = ", ".join(sorted(control.all(PushedModel))) or "none"
    return [
        f"there is no model {arm.model!r}; there are: {there}; push it: salience model push DIR"
        for arm in setting.arms
        if arm.model and control.get(PushedModel, arm.model) is None
    ]


def objections(setting: ExperimentSetting, control: Control) -> list[str]:
    """What speaks against a draft: a number that another had first, `absences`, and models that lanes refuse.

    Only refusals of models that workers hold now count: others may be long out of date.
    """
    known = control.all(ExperimentSetting).values()
    holders = [one.experiment for one in known if one.number == setting.number and one.status != "draft"]
    roles, arms = roles_told(control), models_of(known)
    told = control.all(ModelStatus).values()
    refused = {version: record_of(version, roles, arms, told).refusals for version in models_of([setting])}
    return [
        *(shared_number(setting, holder) for holder in holders if holder != setting.experiment),
        *absences(setting, control),
        *(
            f"lane {lane} ({worker}) refuses {version}: {reason}"
            for version, refusals in refused.items()
            for lane, (worker, reason) in refusals.items()
        ),
    ]


def create(
    known: Mapping[str, ExperimentSetting],
    name: str,
    arms: Sequence[ArmSetting],
    *,
    layer: str,
    width: float,
    primary: Metric,
    guardrails: Sequence[Guardrail],
    time_ms: int,
    bandit: Bandit | None = None,
    interleaved: bool = False,
) -> ExperimentSetting:
    """A draft with the first free ``width`` of ``layer``, and a number of its own. Raises `ExperimentError`."""
    if name in known:
        raise ExperimentError(f"there is an experiment {name!r} already ({known[name].status}); choose another name")
    taken = [(one.low, one.high) for one in known.values() if one.layer == layer and one.status != "stopped"]
    number = 1 + max((one.number for one in known.values()), default=0)
    try:
        for arm in arms:  # first: another layer would not mend them
            _check_changes(arm)
        low, high = _free(taken, width)
        setting = ExperimentSetting(
            experiment=name,
            number=number,
            layer=layer,
            low=low,
            high=high,
            ramp=0.0,
            arms=tuple(arms),
            status="draft",
            time_ms=time_ms,
            revision=1,
            primary=primary,
            guardrails=tuple(guardrails),
            allocation="fixed" if bandit is None else "bandit",
            minimum=0.0 if bandit is None else bandit.minimum,
            epoch_s=0 if bandit is None else bandit.epoch_s,
            interleaved=interleaved,
        )
        definition(setting)
        _check_layers([one for one in known.values() if one.status != "stopped"], setting)
        _check_apart(known, setting)
        _check_bandit(setting)
        _check_interleaved(setting)
        if len(models := models_of([*known.values(), setting])) > MODELS_MAX:
            raise ExperimentError(f"experiments name {', '.join(models)}; {MODELS_MAX} models at most: stop one first")
        return msgspec.convert(msgspec.to_builtins(setting), ExperimentSetting)  # checks names and ranges
    except ValidationError as error:
        why = "; ".join(f"{'_'.join(map(str, each['loc']))} {each['input']}: {each['msg']}" for each in error.errors())
        raise ExperimentError(f"{name}: {why}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise ExperimentError(f"{name}: {error}") from error


def _free(taken: list[tuple[float, float]], width: float) -> tuple[float, float]:
    try:
        return free_range(taken, width)
    except ValueError as error:
        raise ExperimentError(f"{error}, or a smaller --width") from error


def _check_changes(arm: ArmSetting) -> None:
    """An arm may set what the settings allow, within their bounds."""
    changed(Policy(), arm.changes)
    Settings(**arm.changes)  # type: ignore[arg-type]  # settings by name, checked by pydantic


def _check_layers(others: Iterable[ExperimentSetting], setting: ExperimentSetting) -> None:
    """Raises where there are too many layers: ids of placements name an experiment of each, and must stay readable."""
    layers = sorted({one.layer for one in others})
    if setting.layer not in layers and len(layers) >= LAYERS_MAX:
        raise ExperimentError(
            f"layer {setting.layer} beside {', '.join(layers)}; {LAYERS_MAX} layers at most, or the ids of placements "
            "would be too long: use one of those, or stop the experiments of one first"
        )


def _check_apart(known: Mapping[str, ExperimentSetting], setting: ExperimentSetting) -> None:
    """Raises where another layer changes the same: for users in both, one would hide the other's differences."""
    mine = _changed_by(setting)
    for one in known.values():
        if one.layer != setting.layer and one.status != "stopped" and (both := sorted(mine & _changed_by(one))):
            raise ExperimentError(
                f"{one.experiment} in layer {one.layer} changes {', '.join(both)} too; use that layer, or stop it first"
            )


def _check_bandit(setting: ExperimentSetting) -> None:
    if setting.allocation != "bandit":
        return
    most = 1 / len(setting.arms)
    if not MINIMUM_MIN <= setting.minimum < most:
        raise ExperimentError(
            f"minimum {setting.minimum} per arm; expected {MINIMUM_MIN} at least, or a few users who weigh much would "
            f"decide, and below {most:.3g}, which leaves the bandit nothing to share out"
        )
    if min(arm.share for arm in setting.arms) < setting.minimum:
        raise ExperimentError(f"an arm begins with less than the minimum of {setting.minimum}; give it more")
    if setting.epoch_s < 1:
        raise ExperimentError(
            f"epoch of {setting.epoch_s} s; expected 1 at least, and long enough for outcomes to come"
        )


def next_cohort(
    setting: ExperimentSetting, allocation: Allocation | None, shares: Sequence[float], time_ms: int
) -> Allocation | None:
    """A bandit's cohorts and one more, whose users come to arms in ``shares``; None before its time, or if all are in.

    ``allocation``: what stands on the topic, perhaps of another experiment. Earlier cohorts stay as they are: a user
    who was moved would have seen two arms, and count for neither. None, too, where the setting, one that no command
    makes, allows no such cohort.
    """
    cohorts = allocation.cohorts if allocation is not None and allocation.number == setting.number else ()
    since_ms = allocation.time_ms if allocation is not None and cohorts else setting.time_ms
    upto = cohorts[-1].upto if cohorts else setting.ramp
    if setting.status != "running" or time_ms - since_ms < 1_000 * setting.epoch_s or _upto(upto) >= 1:
        return None
    further = CohortSetting(upto=_upto(upto + setting.ramp), shares=tuple(shares))
    made = Allocation(
        experiment=setting.experiment,
        number=setting.number,
        cohorts=(*cohorts, further),
        time_ms=time_ms,
        revision=1 + (allocation.revision if allocation is not None else 0),
    )
    try:
        definition(setting, made)
    except ValueError:
        return None
    return made


def _upto(upto: float) -> float:
    """Where a cohort ends, as a share of the range: 1 also where a sum of floats comes out a bit below."""
    return upto if upto < 1 - 1e-9 else 1.0


def _changed_by(setting: ExperimentSetting) -> set[str]:
    found = {name for arm in setting.arms for name in arm.changes}
    found |= {"model"} if any(arm.model for arm in setting.arms) else set()
    return found | {"whose turn it is"} if setting.interleaved else found


def _check_interleaved(setting: ExperimentSetting) -> None:
    if not setting.interleaved:
        return
    more = {name for arm in setting.arms for name in arm.changes} - _RANKINGS
    if more:
        raise ExperimentError(
            f"interleaved arms change {', '.join(sorted(more))}; only rankings take turns: "
            f"{', '.join(sorted(_RANKINGS))}, model"
        )
    if setting.allocation == "bandit" or setting.guardrails or len({arm.share for arm in setting.arms}) > 1:
        raise ExperimentError(
            "an interleaved experiment has two arms of 0.5 each, without bandit and guardrails: everyone has both arms"
        )


def start(
    setting: ExperimentSetting, ramp: float | None, time_ms: int, known: Iterable[ExperimentSetting] = ()
) -> ExperimentSetting:
    """Run an experiment with ``ramp`` of its range; None: all, or `COHORT` for a bandit. ``known``: all there are.

    Raises `ExperimentError` where it has run before, or the running experiments leave no room for it.
    """
    if setting.status != "draft":
        raise ExperimentError(f"{setting.experiment} is {setting.status}; only a draft can be started")
    running = [one for one in known if one.status == "running"]
    if len(running) >= EXPERIMENTS_MAX:
        raise ExperimentError(
            f"{len(running)} experiments run, and workers run {EXPERIMENTS_MAX} at most; "
            "stop one first: salience experiment stop"
        )
    _check_layers(running, setting)
    bandit = setting.allocation == "bandit"
    if ramp is None:
        ramp = COHORT if bandit else 1.0
    if bandit and not COHORT_MIN <= ramp < 1:
        raise ExperimentError(
            f"ramp {ramp}; of a bandit it is the size of each of its cohorts, {COHORT_MIN} at least, 0.1 for ten, "
            "and below 1, which leaves nobody to share out"
        )
    return _changed(setting, time_ms, status="running", ramp=_share(ramp), started_ms=time_ms)


def ramp_to(setting: ExperimentSetting, ramp: float, time_ms: int) -> ExperimentSetting:
    """Let more users take part. Raises `ExperimentError` for fewer: users taken out would have seen both policies."""
    if setting.status != "running":
        raise ExperimentError(f"{setting.experiment} is {setting.status}; start it first: salience experiment start")
    if setting.allocation == "bandit":
        raise ExperimentError(
            f"{setting.experiment} is a bandit: its referee lets in a cohort every {setting.epoch_s} s"
        )
    if ramp < setting.ramp:
        raise ExperimentError(
            f"{setting.experiment} has a ramp of {setting.ramp}, {ramp} is less; a ramp only grows, or stop it"
        )
    return _changed(setting, time_ms, ramp=_share(ramp))


def stop(setting: ExperimentSetting, reason: str, time_ms: int) -> ExperimentSetting:
    """End an experiment for good: everyone has the shop's policy from the next slice on.

    Raises `ExperimentError` if it has ended already.
    """
    if setting.status == "stopped":
        raise ExperimentError(f"{setting.experiment} has been stopped already: {setting.reason or 'no reason given'}")
    return _changed(setting, time_ms, status="stopped", reason=reason[:512])


def _changed(setting: ExperimentSetting, time_ms: int, **fields: float | str) -> ExperimentSetting:
    return msgspec.structs.replace(setting, revision=setting.revision + 1, time_ms=time_ms, **fields)


def _share(ramp: float) -> float:
    if not 0 < ramp <= 1:
        raise ExperimentError(f"ramp {ramp}; expected above 0, 1 at most")
    return ramp
