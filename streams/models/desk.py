"""What the commands do with models on the topics: push one, look at it again, take one away.

No write there depends on what others write meanwhile, so whoever has written looks again: of those who push or give a
role, and those who remove, the last to write looks after both have written, and finds what is missing.
"""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from scoring.attention import MANIFEST, ModelError
from streams.clock import wall_ms
from streams.control import Control, publish, read_control, read_message
from streams.control_wire import ExperimentSetting, ModelStatus, PushedModel
from streams.experiments.registry import models_of
from streams.models.roles import RolesError, roles_of, roles_told, state_of
from streams.models.store import (
    MODELS_MAX,
    MissingFilesError,
    fetch,
    left,
    manifest_of,
    needs_any,
    obtain,
    pack,
    send,
    unshared,
)
from streams.models.trial import try_model
from streams.settings import Settings
from streams.wire import UNREADABLE


async def push(settings: Settings, directory: Path) -> PushedModel:
    """Try the model in ``directory`` and publish it: its files first, then the manifest that speaks of them.

    Raises `ModelError` where it is refused, or somebody removed files of it meanwhile, and `RolesError` where there is
    no room for it or its version is another's.
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
    """Raises `ModelError` where readers would refuse the message: nobody could find the model, nor remove it."""
    try:
        read_message(pushed.key, msgspec.json.encode(pushed))
    except UNREADABLE as error:
        reason = f"{directory}: no reader takes what would be told of {pushed.model[:80]!r}: {error}"
        expected = "a name of 64 letters, digits, '.', '_' and '-', no '_' first, and a manifest of 65,536 characters"
        raise ModelError(reason, f"{expected}, at most", f"change {directory / MANIFEST}") from error
    manifest_of(pushed)


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


async def begin_anew(settings: Settings, versions: Iterable[str]) -> None:
    """Take back what lanes told of those of ``versions`` that have no role, before they are given one.

    It is of a former role, and would count in this one until each lane has told anew. By the topic as it is now: where
    somebody else has given one a role meanwhile, what lanes tell of it since then stays.
    """
    given = {*versions}
    if not given:
        return
    control = await read_control(settings)
    given -= {*roles_of(roles_told(control), models_of(control.all(ExperimentSetting).values())).versions}
    if stale := [one for one in control.all(ModelStatus).values() if one.model in given]:
        await publish(settings, [], stale)


async def remove(settings: Settings, version: str) -> None:
    """Take a model off the topics: its message first, so that who gives it a role from then on finds it gone.

    With it go files that no model names, once they are old: of a push, or a removal, that did not come to its end.

    Raises `RolesError` where it has a role or is not there, having put it back where it was given one meanwhile, and
    where a model that was pushed meanwhile lacks files now.
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
    """Whether a model's files are on the topic: while its message is not there, another removal takes them for left."""
    with tempfile.TemporaryDirectory(prefix="salience-model-") as folder:
        try:
            await fetch(settings, pushed, Path(folder))
        except MissingFilesError:
            return False
        except ModelError:  # nobody gets it, whatever there is of it
            pass
    return True


async def _removed(settings: Settings, known: Mapping[str, PushedModel], parts: Iterable[bytes]) -> int:
    """Take ``parts`` off the topic, and those that have been left there; how many.

    Raises `RolesError` where a model that is none of ``known`` was pushed meanwhile and lacks some now.
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
