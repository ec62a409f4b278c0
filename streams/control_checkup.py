"""What the control topic asks of workers and they refuse, as may be after an upgrade: former versions allowed more."""

from msgspec.structs import replace

from scoring.assignment import Experiment
from scoring.manifest import ModelError
from scoring.policies import Experiments
from streams.control import Control
from streams.control_wire import Allocation, ExperimentSetting, PushedModel
from streams.experiments.registry import definition, models_of
from streams.models.pushed import manifest_of
from streams.models.roles import roles_of, roles_told


def as_run(setting: ExperimentSetting, allocation: Allocation | None) -> Experiment:
    """The experiment as workers run it. Raises `ValueError` where they refuse it: then nobody takes part."""
    runs = definition(setting, allocation)
    Experiments().set(setting.number, runs)
    return runs


def refused_experiments(control: Control) -> dict[str, str]:
    """Running experiments that workers refuse, by name, and why."""
    found = {}
    for name, setting in control.all(ExperimentSetting).items():
        try:
            if setting.status == "running":
                as_run(setting, control.get(Allocation, name))
        except ValueError as error:
            found[name] = str(error)
    return found


def without_people(control: Control) -> dict[str, str]:
    """Running experiments in which workers let nobody take part, by name, and why: they refuse it, or an arm's model.

    Whoever has met its arms has the shop's policy now, so that what they do from here on tells nothing of the arms.
    """
    found, models = refused_experiments(control), refused_models(control)
    for name, setting in control.all(ExperimentSetting).items():
        refused = [models[arm.model] for arm in setting.arms if arm.model in models]
        if setting.status == "running" and refused:
            found.setdefault(name, refused[0])
    return found


def refused_models(control: Control) -> dict[str, str]:
    """Models with a role, or in an experiment's arm, whose manifests workers refuse, by version, and why.

    A model that was live before is none of them: it may stay what it is for as long as nobody wants it back.
    """
    found = {}
    arms = models_of(control.all(ExperimentSetting).values())
    for version in roles_of(replace(roles_told(control), former=()), arms).versions:
        try:
            if (pushed := control.get(PushedModel, version)) is not None:
                manifest_of(pushed)
        except ModelError as error:
            found[version] = str(error)
    return found
