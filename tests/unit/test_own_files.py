"""Files that tell of people are for whoever wrote them; folders that were there before stay as they are."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.experiments.referee import Referee
from streams.experiments.store import alone, save
from streams.lanes.snapshots import Snapshots
from streams.settings import Settings
from tests.builders import impression
from tests.unit.slices import new_state


@pytest.fixture(autouse=True)
def everybodys() -> Iterator[None]:
    """Whatever is made is for everybody, unless it is said otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def _snapshot(home: Path) -> None:
    snapshots = Snapshots(Settings(home=home), "changelog-1")
    snapshots.begin(new_state(1), 0)  # is not finished
    snapshots.save(new_state(0), 0)


def _referee(home: Path) -> None:
    with alone(home / "referee" / "books.npz"):
        save(home / "referee" / "books.npz", Referee(), {}, {})


def _log(home: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")
    from streams.logs import parquet

    with parquet.Writer(home / "log" / "of-today") as writer:
        writer.add(impression())


WRITERS = pytest.mark.parametrize("write", [_snapshot, _referee, _log])


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
    assert _modes(path for path in tmp_path.rglob("*") if path.is_file()) == {0o600}
