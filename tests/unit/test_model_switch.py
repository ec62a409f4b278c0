"""The switch that follows the roles of models: news that comes while it settles, and models that it cannot get."""

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never

import numpy as np
import pytest

from scoring.attention import AttentionModel, load
from scoring.feedback import ClickLayer, Learning
from scoring.manifest import ModelError
from scoring.models import Models, Roles
from streams.control import Control
from streams.control_wire import ArmSetting, ModelRoles, PushedModel
from streams.experiments.registry import create, ramp_to, start, stop
from streams.models.news import ModelNews
from streams.models.switch import PAUSE_S, PAUSE_S_MAX, ModelSwitch
from streams.settings import Settings
from tests.builders import START_MS
from tests.models import gives_fewer, toy_model
from tests.unit.consenting import told
from tests.unit.lanes import turns
from tests.unit.test_models import engine_of

ROUNDS_MAX = 20


class AtOnce:
    """In place of the compute thread: what it is given has run when the event loop comes by again."""

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


class Held:
    """Models of which every version is held; ``on_play`` is called with the roles that they are given."""

    def __init__(self) -> None:
        self.roles, self.refused, self.live = Roles(), {}, SimpleNamespace(version="")
        self.on_play: Callable[[Roles], None] = lambda _: None

    def __contains__(self, version: str) -> bool:
        return True

    def play(self, roles: Roles) -> None:
        self.roles = roles
        self.on_play(roles)


class Counted(ModelSwitch):
    """Ends after `ROUNDS_MAX` rounds, lest a test of one that spins never ends."""

    rounds = 0

    @property
    def should_stop(self) -> bool:
        self.rounds += 1
        return self.rounds > ROUNDS_MAX


async def test_roles_told_and_taken_while_others_are_settled_leave_the_event_loop_free() -> None:
    control, models = Control(), Held()
    failures: list[BaseException] = []

    def tell(number: int) -> None:
        roles = ModelRoles(shadow=f"m-{number:08x}", shadow_share=0.1)
        assert control.take([told(roles, control.next_offset)]) == 0

    switch = Counted(Settings(home=Path()), control, models, AtOnce(), failures.append)
    await switch.on_start()
    models.on_play = lambda roles: tell(2) if roles.shadow == "m-00000001" else None
    tell(1)
    beats = 0
    while models.roles.shadow != "m-00000002" or beats < ROUNDS_MAX:
        await asyncio.sleep(0)
        beats += 1
    assert switch.rounds < ROUNDS_MAX
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    assert not failures


async def test_a_switch_that_is_cancelled_by_nobody_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[BaseException] = []

    async def cancelled() -> Never:  # as a part of aiokafka's ends that it cancels itself
        raise asyncio.CancelledError

    switch = ModelSwitch(Settings(home=Path()), Control(), Held(), AtOnce(), failures.append)
    monkeypatch.setattr(switch, "_follow", cancelled)
    await switch.on_start()
    await turns()
    assert [str(error) for error in failures] == ["the switch of models was cancelled by nobody"]


async def test_models_that_arms_of_experiments_name_are_played_and_other_news_of_experiments_are_none() -> None:
    control, models, played = Control(), Held(), list[tuple[str, ...]]()
    arms = (ArmSetting(arm="as-is", share=0.5), ArmSetting(arm="newer", share=0.5, model="m-00000001"))
    draft = create({}, "newer", arms=arms, layer="ranking", width=1.0, primary="ctr", guardrails=(), time_ms=1)
    running = start(draft, 0.1, 2)
    await Counted(Settings(home=Path()), control, models, AtOnce(), _ends).on_start()
    models.on_play = lambda roles: played.append(roles.arms)
    for news in (running, ramp_to(running, 0.5, 3), stop(ramp_to(running, 0.5, 3), "enough", 4)):
        assert control.take([told(news, control.next_offset)]) == 0
        for _ in range(ROUNDS_MAX):
            await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    assert played == [("m-00000001",), ()]


def _ends(error: BaseException) -> None:
    raise AssertionError("it ends the process") from error


@pytest.fixture
def old(tmp_path: Path) -> AttentionModel:
    return load(toy_model(tmp_path / "old"))


@pytest.fixture
def new(tmp_path: Path) -> AttentionModel:
    return load(toy_model(tmp_path / "new", seed=1))


class Failing(ModelSwitch):
    """Gets ``model`` after ``failures``, one a try; ``pauses``: how long it waits between, and why, as is told then."""

    def __init__(self, models: Models, model: AttentionModel, failures: list[Exception]) -> None:
        control = Control()
        super().__init__(Settings(home=Path()), control, models, AtOnce(), _ends, sleep=self._paused)
        self.model, self.failures, self.pauses = model, failures, list[tuple[float, str]]()
        self.control = control

    async def _load(self, version: str) -> AttentionModel:
        assert version == self.model.version
        if self.failures:
            raise self.failures.pop(0)
        return self.model

    async def _paused(self, pause_s: float) -> None:
        assert self._models.live is self._models.base
        self.pauses.append((pause_s, self._models.refused[self.model.version]))

    def promote(self) -> None:
        """Make the model live, and let the switch follow until it is, or is refused, and for a while."""

        async def follow() -> None:
            await self.on_start()
            assert self.control.take([told(ModelRoles(live=self.model.version, former=("",)), 0)]) == 0
            beats = 0
            while beats < ROUNDS_MAX:
                settled = self._models.roles.live == self.model.version and not self._missing
                beats = beats + 1 if settled else 0
                await asyncio.sleep(0)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run(asyncio.wait_for(follow(), 30))  # lest a test of one that tries again and again never ends


def test_a_model_that_cannot_be_got_for_a_while_is_tried_again_and_why_is_told_meanwhile(
    old: AttentionModel, new: AttentionModel
) -> None:
    models = engine_of(old).models
    switch = Failing(models, new, [ConnectionError(f"no broker {number}") for number in range(9)])
    switch.promote()
    assert models.live.version == new.version
    assert models.refused == {}
    assert [reason for _, reason in switch.pauses] == [
        f"not got yet, and tried again: ConnectionError: no broker {number}" for number in range(9)
    ]
    pauses = [pause_s for pause_s, _ in switch.pauses]
    assert (pauses[0], pauses[-1]) == (PAUSE_S, PAUSE_S_MAX)
    assert all(after == min(2 * before, PAUSE_S_MAX) for before, after in pairwise(pauses))


def test_a_model_that_cannot_be_got_for_one_reason_is_told_of_once_however_often_it_is_tried(
    old: AttentionModel, new: AttentionModel
) -> None:
    models, news, layer = engine_of(old).models, ModelNews(), ClickLayer(Learning())
    said: list[list[str]] = []

    def tell() -> list[str]:
        return [status.refused for status in news.tell(0, models, layer, "w", START_MS)]

    class Told(Failing):
        async def _paused(self, pause_s: float) -> None:
            await super()._paused(pause_s)
            said.append(tell())

    switch = Told(models, new, [ConnectionError("no broker")] * 9)
    switch.promote()
    assert said == [["not got yet, and tried again: ConnectionError: no broker"], *[[]] * 8]
    assert tell() == [""]
    models.play(models.roles)
    assert not news.waits(models)


def test_a_model_that_no_folder_can_be_made_for_is_told_of_once_though_each_would_have_had_another_name(
    old: AttentionModel, new: AttentionModel
) -> None:
    models = engine_of(old).models
    full = [OSError(errno.ENOSPC, "No space left on device", f"/disk/.salience-model-got-{at}") for at in range(9)]
    switch = Failing(models, new, full)
    switch.promote()
    reason = f"not got yet, and tried again: OSError: No space left on device, in {Path()}"
    assert [told for _, told in switch.pauses] == [reason] * 9


def test_of_another_file_that_keeps_a_model_from_being_got_the_name_is_told(
    old: AttentionModel, new: AttentionModel
) -> None:
    switch = Failing(engine_of(old).models, new, [FileNotFoundError(errno.ENOENT, "No such file", "/gone/python")])
    switch.promote()
    ((_, reason),) = switch.pauses
    assert reason.endswith("No such file: '/gone/python'")


def test_a_model_that_was_removed_and_is_pushed_again_is_got_though_it_had_its_role_meanwhile(
    old: AttentionModel, new: AttentionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Removed(Failing):
        async def _load(self, version: str) -> AttentionModel:
            return await ModelSwitch._load(self, version)

        async def _paused(self, pause_s: float) -> None:
            await super()._paused(pause_s)
            pushed = PushedModel(model=new.version, manifest="{}", bytes=1, parity=0, score_ms=1, time_ms=1)
            assert self.control.take([told(pushed, self.control.next_offset)]) == 0

    async def obtain(*_: object) -> AttentionModel:
        return new

    monkeypatch.setattr("streams.models.switch.obtain", obtain)
    models = engine_of(old).models
    switch = Removed(models, new, [])
    switch.promote()
    assert models.live.version == new.version
    ((_, reason),) = switch.pauses
    assert f"{new.version} is not on the control topic; push it: salience model push DIR" in reason


def test_a_model_that_is_taken_back_before_it_is_got_decides_for_nobody_and_none_beside_it_is_got(
    old: AttentionModel, new: AttentionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, played, got, settled = engine_of(old).models, list[str](), list[str](), asyncio.Event()
    roles = ModelRoles(live=new.version, former=("",), shadow="m-00000001", shadow_share=0.1)

    class TakenBack(Failing):
        async def _load(self, version: str) -> AttentionModel:
            got.append(version)
            assert self.control.take([told(ModelRoles(), self.control.next_offset)]) == 0
            return await super()._load(version)

    def play(now: Roles) -> None:
        played.append(now.live)
        Models.play(models, now)
        if not now.live:
            settled.set()

    async def follow() -> None:
        await switch.on_start()
        assert switch.control.take([told(roles, 0)]) == 0
        await settled.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    monkeypatch.setattr(models, "play", play)
    switch = TakenBack(models, new, [])
    asyncio.run(asyncio.wait_for(follow(), 30))  # lest a test of one that never plays them never ends
    assert (played, got) == ([""], [new.version])
    assert models.held == [models.base]


def test_a_model_that_breaks_its_contract_is_refused_for_good(old: AttentionModel, new: AttentionModel) -> None:
    models = engine_of(old).models
    switch = Failing(models, new, [ModelError("it is slow", "a faster one", "train it")])
    switch.promote()
    assert models.live.version == old.version
    assert models.refused == {new.version: "it is slow; expected a faster one; train it"}
    assert not switch.pauses


def test_a_model_that_cannot_encode_the_ads_that_are_there_is_refused_for_good(
    old: AttentionModel, new: AttentionModel
) -> None:
    class Encodes(AttentionModel):
        def encode(self, *_: object) -> np.ndarray:
            raise RuntimeError("index out of range")

    models = engine_of(old).models
    switch = Failing(models, Encodes(new.manifest, new._encoder, new._attention), [])
    switch.promote()
    assert models.live.version == old.version
    assert "does not encode an ad: index out of range" in models.refused[new.version]
    assert not switch.pauses


def test_a_model_that_gives_vectors_of_some_ads_alone_is_refused_for_good(tmp_path: Path, old: AttentionModel) -> None:
    models = engine_of(old).models
    few = load(toy_model(tmp_path / "few", seed=1, graphs=partial(gives_fewer, output="vector")))
    switch = Failing(models, few, [])
    switch.promote()
    assert models.live.version == old.version
    assert "gives vectors of shape (4, 4); expected (20, 4)" in models.refused[few.version]
    assert not switch.pauses
