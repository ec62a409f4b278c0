"""``salience train`` and ``salience evaluate`` where something is in the way: told in words, not lost with the work."""

import errno
import importlib.util
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from streams.cli import app
from streams.cli.evaluate import _fitting
from streams.cli.failing import writing
from streams.cli.train import _log_in

DATA = ("kuairand", "log")


@pytest.fixture
def with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where PyTorch is installed, up to where a command imports it."""
    find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return True if name in {"torch", "onnx"} else find(name, package)

    monkeypatch.setattr("streams.cli.train.find_spec", find_spec)


@pytest.mark.usefixtures("with_torch")
@pytest.mark.parametrize("what", ["demo", "kuairand", "log"])
def test_a_folder_that_cannot_be_made_is_told_before_anything_is_learnt(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("somebody's own")
    out, data = tmp_path / "file" / "model", ["--data", str(tmp_path)] if what in DATA else []
    told = CliRunner().invoke(app, ["train", what, *data, "--out", str(out), "--json"])
    assert told.exit_code == 1
    assert isinstance(told.exception, SystemExit), told.exception
    error = f"--out {out} cannot be written (Not a directory); name a folder that is yours, on a disk with room"
    assert json.loads(told.stdout)["error"] == error
    assert (tmp_path / "file").read_text() == "somebody's own"


@pytest.mark.usefixtures("with_torch")
def test_a_folder_that_nothing_may_be_written_to_is_told_before_anything_is_learnt(tmp_path: Path) -> None:
    out = Path("/proc/self") if os.geteuid() == 0 else tmp_path  # root may write everywhere else
    tmp_path.chmod(0o500)
    told = CliRunner().invoke(app, ["train", "kuairand", "--data", str(tmp_path), "--out", str(out), "--json"])
    assert told.exit_code == 1
    assert f"--out {out} cannot be written (" in json.loads(told.stdout)["error"]


@pytest.mark.parametrize(
    ("command", "option"),
    [("train demo", "--out"), ("train log", "--data"), ("evaluate headlines", "--data"), ("export-log", "--out")],
)
@pytest.mark.parametrize("error", [errno.EACCES, errno.ENAMETOOLONG])
def test_a_folder_that_cannot_be_looked_at_is_refused_by_its_name(
    command: str, option: str, error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one within somebody else's: root may look at all, so that the answer comes from a stand-in for the system."""
    name, stat = tmp_path / "theirs" / "log", Path.stat

    def refuse(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if self == name:
            raise OSError(error, os.strerror(error), str(self))
        return stat(self, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refuse)
    told = CliRunner().invoke(app, [*command.split(), option, str(name)], env={"COLUMNS": "400"})
    assert (told.exit_code, type(told.exception)) == (2, SystemExit), told.exception
    assert f"{name} cannot be looked at ({os.strerror(error)}); name a folder of your own" in told.stderr


@pytest.mark.usefixtures("with_torch")
@pytest.mark.parametrize(
    ("what", "option"), [("demo", "--out"), ("kuairand", "--out"), ("log", "--out"), ("log", "--data")]
)
def test_a_folder_whose_name_is_not_utf8_is_refused_before_anything_is_learnt(
    tmp_path: Path, what: str, option: str
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    data = folder if option == "--data" else tmp_path
    data.mkdir(exist_ok=True)
    out = folder if option == "--out" else tmp_path / "model"
    given = ["--data", str(data)] if what in DATA else []
    told = CliRunner().invoke(app, ["train", what, *given, "--out", str(out), "--json"])
    assert told.exit_code == 1
    assert isinstance(told.exception, SystemExit), told.exception
    error = f"{option} '{tmp_path}/caf\\udce9' has a name that is not UTF-8; give the folder another name"
    assert json.loads(told.stdout)["error"] == error
    assert not out.exists()


def test_the_log_in_the_folder_one_stands_in_is_named_as_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spring").mkdir()
    monkeypatch.chdir(tmp_path / "spring")
    for folder in (".", "../spring", "", tmp_path / "spring"):
        assert _log_in(Path(folder)) == "the log in spring"
    Path("latest").symlink_to(tmp_path / "spring")
    assert _log_in(Path("latest")) == "the log in latest"


@pytest.mark.usefixtures("with_torch")
def test_an_out_that_leads_nowhere_is_told_in_words_before_anything_is_learnt(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for out in (loop, loop / "model"):
        told = CliRunner().invoke(app, ["train", "demo", "--out", str(out), "--json"])
        assert told.exit_code == 1
        assert json.loads(told.stdout)["error"].startswith(f"--out {out} cannot be written")


def test_what_cannot_be_written_is_told_also_where_the_system_gives_no_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit), writing(tmp_path, "name another"):
        raise OSError("the disk is gone")
    assert f"--out {tmp_path} cannot be written (the disk is gone); name another" in capsys.readouterr().err


def test_how_a_command_was_to_fail_is_not_how_what_comes_after_it_in_the_process_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert CliRunner().invoke(app, ["worker", "--log-json", "--nosuch", "--json"]).exit_code == 2
    with pytest.raises(typer.Exit), writing(tmp_path, "name another"):
        raise OSError("the disk is gone")
    assert capsys.readouterr() == ("", f"Error: --out {tmp_path} cannot be written (the disk is gone); name another\n")


def test_a_fit_whose_process_is_killed_is_told_with_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool, pytest.raises(typer.Exit), _fitting():
        pool.submit(os._exit, 9).result()  # as where memory is out
    said = capsys.readouterr().err
    assert "a process that fits a model was killed: was it out of memory?" in said
    assert "--jobs 1" in said


def test_a_model_that_cannot_learn_is_told_in_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), _fitting():
        raise ValueError("nothing to learn from")
    assert "Error: nothing to learn from" in capsys.readouterr().err
