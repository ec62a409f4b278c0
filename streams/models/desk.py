"""What the commands do with models on the topics: push one, check it again, remove one.

A write does not depend on what others write meanwhile, so every command reads again after its write. Where one pushes a
model or gives it a role while another removes it, the last to write reads after both, and finds what is missing.
"""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from scoring.manifest import MANIFEST, ModelError
from streams.clock import wall_ms
from streams.control import Control, publish, read_control, read_message
from streams.control_wire import ExperimentSetting, ModelStatus, PushedModel
from streams.experiments.registry import models_of
from streams.models.pushed import manifest_of
from streams.models.roles import RolesError, roles_of, roles_told, state_of
from streams.models.store import (
    MODELS_MAX,
    MissingFilesError,
    fetch,
    left,
    needs_any,
    obtain,
    pack,
    send,
    unshared,
)
from streams.models.trial import TrialServer
from streams.settings import Settings
from streams.wire import UNREADABLE


async def push(settings: Settings, directory: Path) -> PushedModel:
    """Try the model in ``directory`` and publish it: its files first, then the manifest that names them.

    Raises `ModelError` where it is refused, or where somebody removed some of its files meanwhile; `RolesError` where
    there is no room for it, or its version is taken, or was pushed or removed meanwhile.
    """
    packed = pack(directory)
    async with TrialServer(settings) as trials:
        proof = await trials.try_model(directory)
    pushed = PushedModel(
        model=proof.version,
        manifest=packed.manifest,
        bytes=packed.bytes,
        parity=proof.parity,
        score_ms=proof.score_ms,
        time_ms=wall_ms(),
    )
    _check_readable(directory, pushed)
    known = (await read_control(settings)).all(PushedModel)
    there = known.get(pushed.model)
    if there is not None and there.manifest != pushed.manifest:
        raise RolesError(f"{pushed.model} is on the topic with another manifest; give this one a name of its own")
    if there is None and len(known) >= MODELS_MAX:
        raise RolesError(f"{len(known)} models are on the topic, as many as may be; salience model remove VERSION")
    await send(settings, packed.parts)
    await publish(settings, [pushed])
    if (await read_control(settings)).get(PushedModel, pushed.model) != pushed:
        raise RolesError(f"somebody pushed or removed {pushed.model} meanwhile; push it again")
    with tempfile.TemporaryDirectory(prefix="salience-model-") as folder:
        await fetch(settings, pushed, Path(folder))
    return pushed


def _check_readable(directory: Path, pushed: PushedModel) -> None:
    """Raises `ModelError` where readers would refuse the message: nobody could then find the model or remove it."""
    try:
        read_message(pushed.key, msgspec.json.encode(pushed))
    except UNREADABLE as error:
        reason = f"{directory}: no reader takes what would be told of {pushed.model[:80]!r}: {error}"
        expected = "a name of 64 letters, digits, '.', '_' and '-', no '_' first, and a manifest of 65,536 characters"
        raise ModelError(reason, f"{expected}, at most", f"change {directory / MANIFEST}") from error
    manifest_of(pushed)


async def parity(settings: Settings, pushed: PushedModel) -> list[str]:
    """Get a model from the topic and try it again. Returns what speaks against it."""
    try:
        async with TrialServer(settings) as trials:
            await obtain(settings, pushed, trials)
    except ModelError as error:
        return [str(error)]
    return []


async def tried(settings: Settings, control: Control, versions: Iterable[str]) -> None:
    """Get models from the topics, and try them as a worker would. Raises the `ModelError` of the first refused one."""
    async with TrialServer(settings) as trials:
        for version in versions:
            pushed = control.get(PushedModel, version)
            assert pushed is not None, f"{version} is on the topics"
            await obtain(settings, pushed, trials)


async def begin_anew(settings: Settings, versions: Iterable[str]) -> None:
    """Take back the lanes' statuses of those ``versions`` that have no role, before they are given one.

    A status of a former role would count in the new one until its lane has sent another. The topic is read now: where
    somebody else has given a version a role meanwhile, its statuses stay.
    """
    given = {*versions}
    if not given:
        return
    control = await read_control(settings)
    given -= {*roles_of(roles_told(control), models_of(control.all(ExperimentSetting).values())).versions}
    if stale := [one for one in control.all(ModelStatus).values() if one.model in given]:
        await publish(settings, [], stale)


async def remove(settings: Settings, version: str) -> None:
    """Take a model off the topics: its message first, so that whoever gives it a role after that finds it gone.

    Old files that no model names go with it: a push or a removal that did not come to its end has left them.

    Raises `RolesError` where the model has a role (if it was given one meanwhile, it is put back first), where it is
    not there, and where a model that was pushed meanwhile lacks files now.
    """
    control = await read_control(settings)
    _check_removable(control, version)
    gone = control.all(PushedModel).get(version)
    if gone is None:
        swept = await _removed(settings, control.all(PushedModel), [])
        there = ", ".join(sorted(control.all(PushedModel))) or "none"
        also = f"; {swept} parts of files that no model names were removed" if swept else ""
        raise RolesError(f"there is no model {version!r}; there are: {there}{also}")
    await publish(settings, [], [gone])
    control = await read_control(settings)
    try:
        _check_removable(control, version)
    except RolesError as error:
        back = control.get(PushedModel, version) or gone
        await publish(settings, [back])
        if not await _is_whole(settings, back):
            raise RolesError(f"{error}; files of it were removed meanwhile: push it again") from error
        raise
    known = dict(control.all(PushedModel))
    await publish(settings, [], [one for one in control.all(ModelStatus).values() if one.model == version])
    await _removed(settings, known, unshared(gone, known.values()))


async def _is_whole(settings: Settings, pushed: PushedModel) -> bool:
    """Whether a model's files are on the topic: while its message was not, another removal may have taken them."""
    with tempfile.TemporaryDirectory(prefix="salience-model-") as folder:
        try:
            await fetch(settings, pushed, Path(folder))
        except MissingFilesError:
            return False
        except ModelError:  # nobody can load it, whether its files are there or not
            pass
    return True


async def _removed(settings: Settings, known: Mapping[str, PushedModel], parts: Iterable[bytes]) -> int:
    """Take ``parts`` off the topic, and those left there by others. Returns how many.

    Raises `RolesError` where a model that is not among ``known`` was pushed meanwhile and lacks some of them now.
    """
    gone = dict.fromkeys([*parts, *await left(settings, known.values(), wall_ms())])
    if gone:
        await send(settings, gone)
    for name, pushed in (await read_control(settings)).all(PushedModel).items():
        if name not in known and needs_any(pushed, gone):
            raise RolesError(f"{name} was pushed meanwhile and lacks files that were removed; push it again")
    return len(gone)


def _check_removable(control: Control, version: str) -> None:
    """Raises `RolesError` where the model has a role, or an experiment's arm names it."""
    if (state := state_of(roles_told(control), version)) != "pushed":
        raise RolesError(f"{version} is {state}; it can be removed when it has no role and cannot come back")
    if version in models_of(control.all(ExperimentSetting).values()):
        raise RolesError(f"an experiment's arm names {version}; stop it first: salience experiment list")
