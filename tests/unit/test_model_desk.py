"""Models pushed and removed on topics in memory: what is sent, what is refused, and what others do meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from scoring.attention import load
from scoring.manifest import ModelError, read_manifest
from scoring.proof import Proof
from streams.control import Control
from streams.control_wire import ArmSetting, ControlMessage, ModelRoles, ModelStatus, PushedModel
from streams.experiments.registry import create, start
from streams.models import desk, store
from streams.models.pushed import manifest_of
from streams.models.roles import RolesError, promoted, with_canary, with_shadow
from streams.models.store import MODELS_MAX, Parts, chunk_key, fetch, obtain, pack, unshared
from streams.models.switch import ModelSwitch
from streams.models.trial import TrialServer
from streams.reading import MissingTopicError
from streams.settings import Settings
from tests.builders import START_MS, Record
from tests.models import toy_model
from tests.unit.consenting import told
from tests.unit.test_experiment_numbers import Topic
from tests.unit.test_model_store import pushed
from tests.unit.test_model_switch import AtOnce, _ends
from tests.unit.test_model_switch_bounds import end, until
from tests.unit.test_models import engine_of

SETTINGS = Settings()


class Topics:
    """``control`` and ``models`` in memory; ``before``: what somebody else does before the desk's n-th call of one."""

    def __init__(self) -> None:
        self.control, self.models = Topic(), dict[bytes, bytes]()
        self.sent_ms: dict[bytes, int] = {}
        """When parts were sent, where it was at another time than that of all tests."""
        self.calls: list[str] = []
        self.reads = 0
        """Of ``models``."""
        self.before: dict[tuple[str, int], Callable[[], None]] = {}

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.before.pop((name, self.calls.count(name)), lambda: None)()

    async def read_control(self, _: Settings) -> Control:
        self._called("read_control")
        return self.control.read()

    async def publish(
        self, _: Settings, messages: Sequence[ControlMessage], gone: Sequence[ControlMessage] = ()
    ) -> None:
        self._called("publish")
        self.control.write(messages, gone)

    async def send(self, _: Settings, parts: Mapping[bytes, bytes | None]) -> None:
        self._called("send")
        for key, value in parts.items():
            self.models.pop(key, None)
            if value is not None:
                self.models[key] = value

    async def read_topic(self, *_: object) -> AsyncIterator[list[Record]]:
        self.reads += 1
        yield [
            Record("models", 0, at, self.sent_ms.get(key, START_MS), key, value)
            for at, (key, value) in enumerate(self.models.items())
        ]

    def known(self) -> Mapping[str, PushedModel]:
        return self.control.read().all(PushedModel)

    def whole(self, model: PushedModel) -> bool:
        """Whether all files of a model are there."""
        parts = Parts(model)
        parts.take([Record("models", 0, 0, START_MS, key, value) for key, value in self.models.items()])
        try:
            return all(parts.of(name) for name in manifest_of(model).files)
        except ModelError:
            return False


def in_memory(monkeypatch: pytest.MonkeyPatch) -> Topics:
    """What the desk and the store work on from now on."""
    topics = Topics()
    for name in ("read_control", "publish", "send"):
        monkeypatch.setattr(desk, name, getattr(topics, name))
    monkeypatch.setattr(store, "read_topic", topics.read_topic)
    monkeypatch.setattr(TrialServer, "try_model", in_this_process)
    return topics


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    return in_memory(monkeypatch)


async def in_this_process(_: TrialServer, directory: Path) -> Proof:
    """A model tried where it does no harm, which takes no second."""
    return await asyncio.to_thread(lambda: Proof(load(directory).version, 0.0, 1.0))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return toy_model(tmp_path / "model")


def push(directory: Path) -> PushedModel:
    return asyncio.run(desk.push(SETTINGS, directory))


def remove(version: str) -> None:
    asyncio.run(desk.remove(SETTINGS, version))


def status(version: str, lane: int) -> ModelStatus:
    return ModelStatus(lane=lane, model=version, worker="w", time_ms=1)


def test_a_model_is_pushed_with_its_files_first_and_taken_away_with_what_lanes_told_of_it(
    topics: Topics, model: Path, tmp_path: Path
) -> None:
    there = push(model)
    assert topics.calls == ["read_control", "send", "publish", "read_control"]
    assert topics.known() == {there.model: there}
    assert topics.whole(there)
    assert asyncio.run(desk.parity(SETTINGS, there)) == []
    other = toy_model(tmp_path / "other", seed=1)
    kept = push(other)
    topics.control.write([status(there.model, 0), status(there.model, 1), status(kept.model, 0)])
    remove(there.model)
    assert topics.known() == {kept.model: kept}
    assert list(topics.control.read().all(ModelStatus)) == [f"{kept.model}/0"]
    assert topics.whole(kept)
    assert topics.models.keys() == pack(other).parts.keys()


def test_what_speaks_against_a_model_on_the_topic_is_told(topics: Topics, model: Path) -> None:
    there = push(model)
    topics.models.popitem()
    (reason,) = asyncio.run(desk.parity(SETTINGS, there))
    assert "is not on models" in reason
    with pytest.raises(ModelError, match="is not on models"):
        asyncio.run(desk.tried(SETTINGS, topics.control.read(), [there.model]))


def test_a_version_is_one_manifest_and_pushing_it_again_is_no_other(topics: Topics, model: Path) -> None:
    first = push(model)
    assert push(model).model == first.model
    toy_model(model, manifest=lambda fields: fields.update(data="others"))
    with pytest.raises(RolesError, match="with another manifest"):
        push(model)


def test_no_more_models_are_pushed_than_there_is_room_for_and_one_that_is_there_may_be_again(
    topics: Topics, model: Path
) -> None:
    there = push(model)
    more = [msgspec.structs.replace(there, model=f"m-{number:08x}") for number in range(MODELS_MAX - 1)]
    topics.control.write(more)
    push(model)
    topics.control.write([], [there])
    push(model)
    topics.control.write([msgspec.structs.replace(there, model="one-00000001")], [there])
    with pytest.raises(RolesError, match=f"{MODELS_MAX} models are on the topic"):
        push(model)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "tents 2026"}, "model"),
        ({"name": "_mine"}, "model"),
        ({"name": "x" * 65}, "model"),
        ({"metrics": {f"auc_of_{number}": 0.1 for number in range(5_000)}}, "manifest"),
    ],
    ids=["a blank", "a dash below", "long", "a long manifest"],
)
def test_a_model_whose_message_no_reader_takes_leaves_nothing_on_the_topics(
    topics: Topics, model: Path, change: dict[str, object], field: str
) -> None:
    toy_model(model, manifest=lambda fields: fields.update(change))
    with pytest.raises(ModelError, match=rf"\$\.{field}`.*expected a name of"):
        push(model)
    assert (topics.models, topics.control.read().all(PushedModel)) == ({}, {})


def test_who_pushes_what_somebody_removes_meanwhile_is_told(topics: Topics, model: Path) -> None:
    topics.before["read_control", 2] = lambda: topics.control.write([], [*topics.known().values()])
    with pytest.raises(RolesError, match="somebody pushed or removed"):
        push(model)
    topics.before["read_control", 4] = topics.models.clear
    with pytest.raises(ModelError, match="is not on models"):
        push(model)


def test_a_model_with_a_role_or_in_an_arm_is_not_removed_and_one_that_is_not_there_is_none(
    topics: Topics, model: Path
) -> None:
    there = push(model)
    roles = with_canary(ModelRoles(), there.model, 0.1, 1)
    topics.control.write([roles])
    with pytest.raises(RolesError, match="is canary"):
        remove(there.model)
    topics.control.write([roles := with_shadow(roles, there.model, 0.1, 2)])
    with pytest.raises(RolesError, match="is shadow"):
        remove(there.model)
    topics.control.write([promoted(promoted(roles, there.model, 3), "other-00000002", 4)])
    with pytest.raises(RolesError, match="is former"):
        remove(there.model)
    with pytest.raises(RolesError, match=f"there is no model 'no-00000001'; there are: {there.model}"):
        remove("no-00000001")
    assert topics.calls.count("publish") == 1  # its message was there all the time: a worker that starts asks for it
    assert topics.known() == {there.model: there}
    assert topics.whole(there)


def test_a_model_that_an_experiment_names_is_not_removed(topics: Topics, model: Path) -> None:
    there = push(model)
    arms = (ArmSetting(arm="as-is", share=0.5), ArmSetting(arm="newer", share=0.5, model=there.model))
    draft = create({}, "newer", arms=arms, layer="ranking", width=1.0, primary="ctr", guardrails=(), time_ms=1)
    topics.control.write([start(draft, 0.1, 2)])
    with pytest.raises(RolesError, match="an experiment's arm names"):
        remove(there.model)


def test_a_model_that_is_given_a_role_while_it_is_removed_is_put_back(topics: Topics, model: Path) -> None:
    there = push(model)
    topics.before["publish", 2] = lambda: topics.control.write([with_canary(ModelRoles(), there.model, 0.1, 1)])
    with pytest.raises(RolesError, match="is canary"):
        remove(there.model)
    assert topics.known() == {there.model: there}
    assert topics.whole(there)


def test_one_that_was_pushed_anew_after_it_was_given_a_role_stays_as_it_was_pushed(topics: Topics, model: Path) -> None:
    there = push(model)
    newer = msgspec.structs.replace(there, time_ms=there.time_ms + 1)
    topics.before["read_control", 4] = lambda: topics.control.write(
        [with_canary(ModelRoles(), there.model, 0.1, 1), newer]
    )
    with pytest.raises(RolesError, match="is canary"):
        remove(there.model)
    assert topics.known() == {there.model: newer}


def test_who_removes_files_of_what_was_pushed_meanwhile_is_told_of_that_one_alone(
    topics: Topics, model: Path, tmp_path: Path
) -> None:
    there = push(model)
    namesake = pushed(toy_model(tmp_path / "namesake", manifest=lambda fields: fields.update(name="namesake")))
    apart = pushed(toy_model(tmp_path / "apart", manifest=lambda fields: fields.update(name="apart"), seed=3))
    topics.before["send", 2] = lambda: topics.control.write([namesake])
    with pytest.raises(RolesError, match=f"{namesake.model} was pushed meanwhile and lacks files that were removed"):
        remove(there.model)
    topics.control.write([], [namesake])
    there = push(model)
    gone = unshared(there, [apart])
    assert len(gone) < len(unshared(there, []))


def test_files_are_fetched_as_they_were_and_without_their_topic_the_model_is_not_there(
    topics: Topics, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = push(model)
    folder = tmp_path / "into"
    folder.mkdir()
    assert asyncio.run(fetch(SETTINGS, there, folder)) == folder
    assert load(folder).version == there.model
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        file.name: file.read_bytes() for file in model.iterdir()
    }

    async def missing(*_: object) -> AsyncIterator[list[Record]]:
        raise MissingTopicError("no topic models")
        yield []

    monkeypatch.setattr(store, "read_topic", missing)
    with pytest.raises(ModelError, match="no topic models; expected its files there"):
        asyncio.run(fetch(SETTINGS, there, folder))


@pytest.mark.parametrize("is_cut_short", [False, True])
def test_a_worker_gets_a_model_whose_files_were_missing_once_it_is_pushed_again(
    topics: Topics, model: Path, tmp_path: Path, is_cut_short: bool
) -> None:
    there = push(model)
    key, value = topics.models.popitem()
    if is_cut_short:  # as where the last of several parts is missing
        topics.models[key] = value[:-1]
    topics.reads = 0
    control, models = topics.control.read(), engine_of(load(toy_model(tmp_path / "old", seed=1))).models
    assert control.take([told(ModelRoles(live=there.model, former=("",)), control.next_offset)]) == 0
    pauses, reasons = asyncio.Queue[None](), list[str]()

    async def paused(_: float) -> None:
        reasons.append(models.refused[there.model])
        await pauses.get()

    async def follow() -> None:
        settings = Settings(home=tmp_path / "home")
        await ModelSwitch(settings, control, models, AtOnce(), _ends, sleep=paused).on_start()
        await until(lambda: reasons)
        pauses.put_nowait(None)
        await until(lambda: len(reasons) == 2)
        assert topics.reads == 1  # nothing was pushed since, and models may have gigabytes
        pushed = await desk.push(SETTINGS, model)
        assert control.take([told(pushed, control.next_offset)]) == 0
        pauses.put_nowait(None)
        await until(lambda: models.live.version == there.model)
        await end()

    asyncio.run(follow())
    assert all(reason.startswith("not got yet, and tried again: MissingFilesError") for reason in reasons)
    assert models.refused == {}


def test_a_model_is_tried_before_it_is_loaded_and_leaves_no_folder_whatever_came_of_it(
    topics: Topics, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, home, tried = push(model), tmp_path / "home", list[Path]()
    home.mkdir()

    async def refuses(_: TrialServer, directory: Path) -> Proof:
        tried.append(directory)
        raise ModelError(f"{directory}: it is slow", "a faster one", f"look at {directory}")

    monkeypatch.setattr(TrialServer, "try_model", refuses)
    with pytest.raises(ModelError) as refused:
        asyncio.run(obtain(SETTINGS, there, TrialServer(SETTINGS), home))
    assert str(refused.value) == f"{there.model}: it is slow; expected a faster one; look at {there.model}"
    assert [folder.parent for folder in tried] == [home]
    assert list(home.iterdir()) == []
    monkeypatch.setattr(TrialServer, "try_model", in_this_process)
    assert asyncio.run(obtain(SETTINGS, there, TrialServer(SETTINGS), home)).version == there.model
    assert list(home.iterdir()) == []


def test_a_file_of_nothing_is_a_part_of_nothing(tmp_path: Path) -> None:
    digest = sha256(b"").hexdigest()
    directory = toy_model(tmp_path, manifest=lambda fields: fields["files"].update(empty=digest))
    (directory / "empty").write_bytes(b"")
    packed = pack(directory)
    assert packed.parts[chunk_key(digest, 0)] == b""
    parts = Parts(pushed(directory))
    parts.take([Record("models", 0, 0, START_MS, *part) for part in packed.parts.items()])
    assert parts.of("empty") == [b""]
    assert chunk_key(digest, 0) in unshared(pushed(directory), [])


def test_a_model_as_large_as_may_be_is_sent_and_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = toy_model(tmp_path)
    size = sum((directory / name).stat().st_size for name in read_manifest(directory).files)
    monkeypatch.setattr(store, "MODEL_BYTES_MAX", size)
    packed = pack(directory)
    assert packed.bytes == size
    records = [Record("models", 0, 0, START_MS, *part) for part in packed.parts.items()]
    Parts(pushed(directory)).take(records)
    monkeypatch.setattr(store, "MODEL_BYTES_MAX", size - 1)
    with pytest.raises(ModelError, match="bytes or more"):
        pack(directory)


def test_whatever_bytes_a_message_tells_no_more_keys_are_named_than_a_file_can_have_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHUNK_BYTES", 400)
    directory = toy_model(tmp_path)
    message = pushed(directory)
    assert pack(directory).parts.keys() <= set(unshared(message, []))
    vast = unshared(msgspec.structs.replace(message, bytes=10**18), [])
    assert len(vast) == store.PARTS_MAX * len(manifest_of(message).files)
