"""The referee whose file cannot be written, as on a full disk: it judges on."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from streams.control_wire import ExperimentSetting
from streams.experiments.referee import Referee
from streams.experiments.report import ExperimentReport
from streams.experiments.store import load, save
from tests.unit.test_experiments import played
from tests.unit.test_referee_service import EndError, Shop


def test_what_cannot_be_written_leaves_nothing_of_itself_on_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    (file / "in the way").mkdir(parents=True)
    with pytest.raises(OSError, match=r"x\.npz"):
        save(file, played(1), {}, {})
    assert [*tmp_path.iterdir()] == [file]


def test_a_guardrail_that_breaks_while_the_file_cannot_be_written_stops_its_experiment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop, looks = Shop([], monkeypatch, tmp_path), iter(range(1, 5))
    file = shop.service.file

    def report(_: Sequence[ExperimentReport]) -> None:
        look = next(looks)
        if look == 1:
            file.unlink()
            (file / "in the way").mkdir(parents=True)
        elif look == 3:
            shutil.rmtree(file)
        elif look == 4:
            raise EndError

    monkeypatch.setattr("streams.experiments.service.breached", lambda *_: "costs" if file.is_dir() else None)
    shop.service._on_reports = report
    with pytest.raises(EndError):
        asyncio.run(shop.service.run())

    assert [one.status for one in shop.published if isinstance(one, ExperimentSetting)] == ["stopped"]
    assert shop.said == [
        "experiment rolled back",
        "what the referee knows is not saved",
        "what the referee knows is saved again",
    ]
    load(file, again := Referee())
    assert again.watched[1].setting.status == "stopped"


def test_a_single_look_that_cannot_be_saved_ends_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path)
    shop.service.file.with_suffix(".half.npz").mkdir(parents=True)
    with pytest.raises(OSError, match=r"experiments\.half\.npz"):
        asyncio.run(shop.service.run(follow=False))
