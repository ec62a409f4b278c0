"""The referee whose file cannot be written, as on a full disk: it judges on."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.control_wire import ExperimentSetting
from streams.experiments.referee import Referee
from streams.experiments.report import ExperimentReport
from streams.experiments.store import StoreError, load, save
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
    with pytest.raises(StoreError, match=r"experiments\.npz cannot be written \(Is a directory\)"):
        asyncio.run(shop.service.run(follow=False))


@pytest.mark.parametrize(
    ("in_the_way", "made"), [("", Path.touch), ("referee/experiments.lock", partial(Path.mkdir, parents=True))]
)
def test_a_referee_whose_folder_cannot_be_written_says_so_and_names_the_setting(
    in_the_way: str, made: Callable[[Path], None], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    made(home / in_the_way)
    environment = {"SALIENCE_HOME": str(home), "COLUMNS": "400"}
    told = CliRunner().invoke(app, ["experiment", "referee", "--once"], env=environment)
    assert (told.exit_code, type(told.exception)) == (1, SystemExit)
    assert f"{home / 'referee/experiments.npz'} cannot be written (" in told.stderr
    assert "name a folder that is yours and has room: SALIENCE_HOME" in told.stderr


def test_the_command_says_that_its_single_look_cannot_be_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = Shop([], monkeypatch, tmp_path).service.file
    file.with_suffix(".half.npz").mkdir(parents=True)
    environment = {"SALIENCE_HOME": str(tmp_path), "COLUMNS": "400"}
    told = CliRunner().invoke(app, ["experiment", "referee", "--once"], env=environment)
    assert (told.exit_code, type(told.exception)) == (1, SystemExit)
    assert f"{file} cannot be written (Is a directory)" in told.stderr
