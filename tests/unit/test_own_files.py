"""Files that tell of people are for whoever wrote them; folders that were there before stay as they are."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from deploy.brokers import BrokerError
from deploy.brokers.embedded import EmbeddedBroker
from deploy.brokers.ready import free_port
from streams.app import create_app
from streams.cli import app
from streams.clock import wall_ms
from streams.experiments.referee import Referee
from streams.experiments.store import StoreError, alone, save
from streams.lanes.snapshots import Snapshots
from streams.own_files import own_file, own_folder, shared_file
from streams.settings import Settings
from tests.builders import impression
from tests.unit.lanes import IDENTITY
from tests.unit.slices import new_state


@pytest.fixture(autouse=True)
def everybodys() -> Iterator[None]:
    """Whatever is made is for everybody, unless it is said otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def _snapshot(home: Path) -> None:
    snapshots = Snapshots(Settings(home=home), "changelog-1")
    snapshots.begin(new_state(1), 0, wall_ms()).abandon()
    snapshots.save(new_state(0), 0, wall_ms())


def _referee(home: Path) -> None:
    with alone(home / "referee" / "books.npz"):
        save(home / "referee" / "books.npz", Referee(), {}, {})


def _log(home: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")
    from streams.logs import parquet

    with parquet.Writer(home / "log" / "of-today") as writer:
        writer.add(impression())


WRITERS = pytest.mark.parametrize("write", [_snapshot, _referee, _log])


def _broker(home: Path) -> None:
    port = str(free_port())
    told = CliRunner().invoke(app, ["broker", "embedded", "up", "--home", str(home), "--port", port])
    assert told.exit_code == 1, told.output


def _worker(home: Path) -> None:
    create_app(Settings(home=home), IDENTITY)


@pytest.mark.parametrize("make", [_broker, _worker])
def test_a_home_is_its_makers_alone_whether_a_broker_or_a_worker_makes_it(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedBroker, "start", Mock(side_effect=BrokerError("not in a test")))
    make(tmp_path / "made" / "home")
    made = [path for path in (tmp_path / "made", *(tmp_path / "made").rglob("*")) if path.is_dir()]
    assert (len(made) > 1, _modes(iter(made))) == (True, {0o700})


def _modes(paths: Iterator[Path]) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in paths}


@WRITERS
def test_files_that_tell_of_people_and_folders_made_for_them_are_their_writers_alone(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    home = tmp_path / "made" / "home"
    for _ in range(2):  # those that are written over, too
        write(home)
        made = [tmp_path / "made", *(tmp_path / "made").rglob("*")]
        assert _modes(path for path in made if path.is_dir()) == {0o700}
        assert _modes(path for path in made if path.is_file()) == {0o600}


@WRITERS
def test_a_file_that_was_for_everybody_is_its_writers_once_it_is_written_and_its_folder_stays_as_it_is(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folders = _modes(path for path in tmp_path.rglob("*") if path.is_dir())
    write(tmp_path)
    assert _modes(path for path in tmp_path.rglob("*") if path.is_dir()) == folders
    assert _modes(path for path in _made(tmp_path) if path.suffix != ".lock") == {0o600}  # a lock tells of nobody


def _made(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file()]


def _halves(home: Path) -> list[Path]:
    """Where files may stand until they are whole."""
    suffixes = (".part", ".parquet.part", ".half.npz")
    return [path.with_suffix(suffix) for path in _made(home) for suffix in suffixes if path.suffix != ".lock"]


@WRITERS
def test_a_link_where_a_file_is_to_be_made_leads_nothing_elsewhere(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    home, victim = tmp_path / "home", tmp_path / "victim.conf"
    write(home)
    victim.write_bytes(b"as it was")
    victim.chmod(0o644)
    made = _made(home)
    for half in _halves(home):
        half.unlink(missing_ok=True)
        half.symlink_to(victim)
    write(home)
    assert (victim.read_bytes(), stat.S_IMODE(victim.stat().st_mode)) == (b"as it was", 0o644)
    assert not any(path.is_symlink() for path in made)


@WRITERS
def test_nothing_is_written_into_a_file_that_somebody_has_put_there(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path)
    with ExitStack() as theirs:
        put = []
        for half in _halves(tmp_path):
            half.unlink(missing_ok=True)
            put.append(theirs.enter_context(half.open("xb")))
        write(tmp_path)
        assert {os.fstat(file.fileno()).st_size for file in put} == {0}


def test_a_lock_that_leads_elsewhere_is_refused_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "victim.conf").write_bytes(b"as it was")
    (tmp_path / "books.lock").symlink_to(tmp_path / "victim.conf")
    with pytest.raises(StoreError, match="cannot be written"), alone(tmp_path / "books.npz"):
        pass
    assert (tmp_path / "victim.conf").read_bytes() == b"as it was"


def test_a_link_that_is_put_there_while_a_file_is_made_anew_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By somebody who is faster, between what stood there going and the file being made."""
    file, victim, unlink = tmp_path / "of-people", tmp_path / "victim.conf", Path.unlink
    victim.write_bytes(b"as it was")

    def overtaken(path: Path, *, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        path.symlink_to(victim)

    monkeypatch.setattr(Path, "unlink", overtaken)
    with pytest.raises(FileExistsError):
        own_file(file)
    assert victim.read_bytes() == b"as it was"


@pytest.mark.parametrize(
    ("user", "owner", "mode", "refused"),
    [
        (1000, 1000, 0o755, ""),
        (1000, 0, 0o755, ""),
        (0, 1000, 0o755, ""),
        (1000, 1001, 0o755, "is of user 1001, not yours"),
        (1000, 1000, 0o777, "everybody may write there: chmod o-w"),
        (0, 65534, 0o777, "everybody may write there: chmod o-w"),
        (1000, 1000, 0o1777, ""),
        (1000, 0, 0o2775, ""),
        (1000, 0, 0o777, ""),
    ],
    ids=[
        "own", "root's", "mounted for root", "another's", "own, for all", "another's, for all", "as /tmp", "of a group",
        "made by a cluster",
    ],
)  # fmt: skip
def test_a_folder_in_which_others_could_put_files_is_refused_but_what_is_mounted_is_taken(
    user: int, owner: int, mode: int, refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters make volumes for everybody (emptyDir, local paths): root's, and alone in the pod."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: SimpleNamespace(st_mode=stat.S_IFDIR | mode, st_uid=owner))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    if not refused:
        own_folder(tmp_path)
    else:
        with pytest.raises(PermissionError, match=refused):
            own_folder(tmp_path)


def test_what_processes_share_is_a_plain_file_and_no_link(tmp_path: Path) -> None:
    victim, link, pipe = tmp_path / "victim", tmp_path / "link", tmp_path / "pipe"
    victim.write_bytes(b"as it was")
    link.symlink_to(victim)
    os.mkfifo(pipe)
    for path in (link, pipe):
        with pytest.raises(OSError, match=r"symbolic links|no plain file"):
            os.close(shared_file(path))
    os.close(shared_file(tmp_path / "new"))
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    assert victim.read_bytes() == b"as it was"
