"""The switch at its bounds: catalogues of many parts, models of half numbers, and what ends the worker."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.attention import AttentionModel
from scoring.catalogue import learned_column
from scoring.manifest import ModelError
from scoring.models import Models
from streams.clock import wall_ms
from streams.control import Control
from streams.control_wire import ModelRoles, PushedModel
from streams.models import switch as switches
from streams.models.switch import REASON_MAX, ModelSwitch
from streams.models.trial import TrialServer
from streams.settings import Settings
from tests.unit.consenting import told
from tests.unit.lanes import turns
from tests.unit.test_model_switch import AtOnce, Counted, Failing, Held, _ends, new, old
from tests.unit.test_models import ADS, engine_of

__all__ = ["new", "old"]  # fixtures


async def until(so: Callable[[], object]) -> None:
    """Let the event loop come by until it is ``so``: models are encoded in a thread."""
    async with asyncio.timeout(30):  # lest a test of one that never is never ends
        while not so():  # noqa: ASYNC110 - no event tells of it, and the loop is what is let come by
            await asyncio.sleep(0)


async def end() -> None:
    """Cancel all that has begun."""
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@pytest.mark.parametrize("per_call", [1, 7, ADS - 1, ADS, ADS + 1])
def test_a_model_is_given_vectors_of_every_ad_however_many_are_encoded_at_once(
    old: AttentionModel, new: AttentionModel, monkeypatch: pytest.MonkeyPatch, per_call: int
) -> None:
    monkeypatch.setattr(switches, "ADS_PER_CALL", per_call)
    models = engine_of(old).models
    Failing(models, new, []).promote()
    catalogue = models.base.catalogue
    tokens, dense, _ = catalogue.told(0, len(catalogue))
    np.testing.assert_allclose(models.live.learned[: len(catalogue)], new.encode(tokens, dense), rtol=1e-5)
    assert models.live.version == new.version


class Odd(AttentionModel):
    """One ad's vector is no number."""

    def encode(self, *given: Any) -> np.ndarray:
        vectors = super().encode(*given).copy()
        vectors[-1, 0] = np.nan
        return vectors


def test_a_model_with_a_single_vector_that_is_no_number_is_refused_and_leaves_no_column(
    old: AttentionModel, new: AttentionModel
) -> None:
    models = engine_of(old).models
    Failing(models, Odd(new.manifest, new._encoder, new._attention), []).promote()
    assert models.live.version == old.version
    assert "vectors of ads are no numbers" in models.refused[new.version]
    with pytest.raises(AttributeError):
        getattr(models.base.catalogue, learned_column(new.version))


def test_the_reason_of_a_refusal_is_bounded(old: AttentionModel, new: AttentionModel) -> None:
    models = engine_of(old).models
    Failing(models, new, [ModelError("x" * 10_000, "less", "train it")]).promote()
    assert models.refused == {new.version: "x" * REASON_MAX}


async def test_roles_that_stand_when_a_worker_starts_are_taken_before_it_is_started() -> None:
    control, models = Control(), Held()
    assert control.take([told(ModelRoles(shadow="m-00000001", shadow_share=0.1), 0)]) == 0
    await Counted(Settings(home=Path()), control, models, AtOnce(), _ends).on_start()
    assert models.roles.shadow == "m-00000001"
    await end()


async def test_a_switch_that_cannot_follow_any_more_ends_the_worker() -> None:
    control, models, failures = Control(), Held(), list[BaseException]()
    models.on_play = lambda _: 1 / 0  # type: ignore[assignment, return-value]  # stands in for a defect
    await Counted(Settings(home=Path()), control, models, AtOnce(), failures.append).on_start()
    assert control.take([told(ModelRoles(shadow="m-00000001", shadow_share=0.1), 0)]) == 0
    await until(lambda: failures)
    await end()
    assert [type(error) for error in failures] == [ZeroDivisionError]


async def test_the_wait_for_a_model_begins_anew_after_all_that_was_wanted_was_got(
    old: AttentionModel, new: AttentionModel
) -> None:
    models = engine_of(old).models
    switch = Failing(models, new, [])
    await switch.on_start()
    for failures, version in ((3, new.version), (0, ""), (2, new.version)):
        switch.failures = [ConnectionError("no broker")] * failures
        assert switch.control.take([told(ModelRoles(live=version), switch.control.next_offset)]) == 0
        live = version or old.version
        await until(lambda: models.live.version == live)  # noqa: B023 - called here alone
    await end()
    assert [pause_s for pause_s, _ in switch.pauses] == [1.0, 2.0, 4.0, 1.0, 2.0]
    assert models.live.version == new.version


async def test_a_model_that_is_refused_is_not_got_again_when_roles_change(
    old: AttentionModel, new: AttentionModel
) -> None:
    models = engine_of(old).models
    switch, tries = Failing(models, new, [ModelError("it is slow", "a faster one", "train it")]), list[str]()
    load = switch._load

    async def counted(version: str) -> AttentionModel:
        tries.append(version)
        return await load(version)

    switch._load = counted  # type: ignore[method-assign]  # counts the calls
    await switch.on_start()
    for share in (0.1, 0.2, 0.3):
        roles = ModelRoles(canary=new.version, canary_share=share)
        assert switch.control.take([told(roles, switch.control.next_offset)]) == 0
        await until(lambda: models.roles.canary_share == share)  # noqa: B023 - called here alone
    await end()
    assert tries == [new.version]
    assert models.roles.canary_share == 0.3


async def test_a_model_is_unpacked_in_the_workers_home_which_is_made_for_it(
    old: AttentionModel, new: AttentionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[tuple[str, Path | None]] = []

    async def obtain(_: Settings, pushed: PushedModel, _trials: TrialServer, within: Path) -> AttentionModel:
        got.append((pushed.model, within))
        return new

    monkeypatch.setattr(switches, "obtain", obtain)
    control, models, home = Control(), engine_of(old).models, tmp_path / "a" / "home"
    pushed = PushedModel(model=new.version, manifest="{}", bytes=1, parity=0, score_ms=1, time_ms=1)
    assert control.take([told(pushed, 0), told(ModelRoles(live=new.version, former=("",)), 1)]) == 0
    await ModelSwitch(Settings(home=home), control, models, AtOnce(), _ends).on_start()
    await end()
    assert got == [(new.version, home)]
    assert home.is_dir()
    assert isinstance(models, Models)
    assert models.live.version == new.version


async def test_who_gives_a_model_its_role_once_more_has_it_tried_at_once(
    old: AttentionModel, new: AttentionModel
) -> None:
    class Waits(Failing):
        async def _paused(self, pause_s: float) -> None:
            await super()._paused(pause_s)
            await asyncio.Event().wait()

    models = engine_of(old).models
    switch = Waits(models, new, [ConnectionError("no broker")])
    await switch.on_start()
    for live in (old.version, new.version):
        assert switch.control.take([told(ModelRoles(live=new.version), switch.control.next_offset)]) == 0
        await until(lambda: len(switch.pauses) == 1 and models.live.version == live)  # noqa: B023 - called here alone
    await end()
    assert len(switch.pauses) == 1


async def test_a_model_that_cannot_be_got_is_tried_again_by_one_however_often_it_is_wanted_and_by_none_once_it_is_not(
    old: AttentionModel, new: AttentionModel
) -> None:
    woken = asyncio.Semaphore(0)

    class Waits(Failing):
        async def _paused(self, pause_s: float) -> None:
            self.pauses.append((pause_s, ""))
            await woken.acquire()

    models = engine_of(old).models
    switch = Waits(models, new, [ConnectionError("no broker")] * 4)

    async def wanted(version: str) -> None:
        left = len(switch.failures) - bool(version)
        assert switch.control.take([told(ModelRoles(live=version), switch.control.next_offset)]) == 0
        await until(lambda: len(switch.failures) == left and switch._settled is switch._wanted)
        await turns()

    await switch.on_start()
    for _ in range(3):
        await wanted(new.version)
    assert [pause_s for pause_s, _ in switch.pauses] == [1.0]
    woken.release()
    await until(lambda: len(switch.pauses) == 2)
    assert switch.failures == []
    await wanted("")
    woken.release()
    await turns()
    await end()
    assert len(switch.pauses) == 2


async def test_a_model_that_is_refused_at_the_second_try_is_not_tried_a_third_time(
    old: AttentionModel, new: AttentionModel
) -> None:
    models = engine_of(old).models
    unlike_golden = ModelError("it differs", "the golden outputs", "train it")
    switch = Failing(models, new, [ConnectionError("no broker"), unlike_golden])
    await switch.on_start()
    assert switch.control.take([told(ModelRoles(live=new.version), 0)]) == 0
    await until(lambda: models.refused.get(new.version) == str(unlike_golden))
    await turns()
    await end()
    assert [pause_s for pause_s, _ in switch.pauses] == [1.0]
    assert models.live.version == old.version


async def test_a_worker_that_starts_removes_what_one_that_was_killed_while_it_got_a_model_has_left(
    tmp_path: Path,
) -> None:
    left, at_work = ".salience-model-got-left", ".salience-model-got-at-work"
    for name, age_s in ((left, 3_700), (at_work, 60), ("salience-model-mine", 3_700)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "attention.onnx").write_bytes(b"some")
        written_s = wall_ms() / 1_000 - age_s
        os.utime(tmp_path / name, (written_s, written_s))
    await Counted(Settings(home=tmp_path), Control(), Held(), AtOnce(), _ends).on_start()
    await end()
    assert {folder.name for folder in tmp_path.iterdir()} == {at_work, "salience-model-mine"}  # noqa: ASYNC240 - nothing waits
