"""What the commands do with models on the topics: push one, look at it again, take one away."""

from collections.abc import Iterable
from pathlib import Path

from scoring.attention import ModelError
from streams.clock import wall_ms
from streams.control import Control, publish, read_control
from streams.control_wire import ExperimentSetting, ModelStatus, PushedModel
from streams.experiments import models_of
from streams.model_roles import RolesError, roles_told, state_of
from streams.model_store import MODELS_MAX, manifest_of, obtain, pack, send, unshared
from streams.model_trial import try_model
from streams.settings import Settings


async def push(settings: Settings, directory: Path) -> PushedModel:
    """Try the model in ``directory`` and publish it: its files first, then the manifest that speaks of them.

    Raises `ModelError` where it is refused, and `RolesError` where there is no room for it or its version is another's.
    """
    packed = pack(directory)
    proof = await try_model(directory, settings)
    pushed = PushedModel(
        model=proof.version,
        manifest=packed.manifest,
        bytes=packed.bytes,
        parity=proof.parity,
        score_ms=proof.score_ms,
        time_ms=wall_ms(),
    )
    manifest_of(pushed)
    known = (await read_control(settings)).all(PushedModel)
    there = known.get(pushed.model)
    if there is not None and there.manifest != pushed.manifest:
        raise RolesError(f"{pushed.model} is on the topic with another manifest; give this one a name of its own")
    if there is None and len(known) >= MODELS_MAX:
        raise RolesError(f"{len(known)} models are on the topic, as many as may be; salience model remove VERSION")
    await send(settings, packed.parts)
    await publish(settings, [pushed])
    return pushed


async def parity(settings: Settings, pushed: PushedModel) -> list[str]:
    """Get a model from the topic and try it again; what speaks against it."""
    try:
        await obtain(settings, pushed)
    except ModelError as error:
        return [str(error)]
    return []


async def tried(settings: Settings, control: Control, versions: Iterable[str]) -> None:
    """Get models that are on the topics, and try them as a worker would. Raises `ModelError` of the first refused."""
    for version in versions:
        pushed = control.get(PushedModel, version)
        assert pushed is not None, f"{version} is on the topics"
        await obtain(settings, pushed)


async def remove(settings: Settings, version: str) -> None:
    """Take a model off the topics. Raises `RolesError` where it has a role or is not there."""
    control = await read_control(settings)
    known = control.all(PushedModel)
    if version not in known:
        raise RolesError(f"there is no model {version!r}; there are: {', '.join(sorted(known)) or 'none'}")
    if (state := state_of(roles_told(control), version)) != "pushed":
        raise RolesError(f"{version} is {state}; it can be removed when it has no role and cannot come back")
    if version in models_of(control.all(ExperimentSetting).values()):
        raise RolesError(f"an experiment's arm names {version}; stop it first: salience experiment list")
    gone = known[version]
    parts = unshared(gone, [one for name, one in known.items() if name != version])
    statuses = [one for one in control.all(ModelStatus).values() if one.model == version]
    await publish(settings, [], [gone, *statuses])
    await send(settings, dict.fromkeys(parts))
