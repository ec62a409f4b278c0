"""How a snapshot takes its place: whole, its own, and never before the disk has all of it."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

import pytest

from streams.clock import wall_ms
from streams.lanes import snapshots
from streams.lanes.snapshots import Snapshots
from streams.own_files import own_file
from streams.settings import Settings
from tests.unit.test_snapshots import OFFSET, lane_with


@pytest.fixture
def kept(tmp_path: Path) -> Snapshots:
    """With a snapshot of four users."""
    made = Snapshots(Settings(home=tmp_path), "changelog-1")
    made.save(lane_with(5), OFFSET, wall_ms())
    return made


class Closing(io.BufferedWriter):
    """A file of which something becomes known, or happens, only as it is closed: a file server may take its time."""

    def __init__(self, file: BinaryIO, meanwhile: Callable[[], object]) -> None:
        super().__init__(cast("io.BufferedWriter", file).detach())
        self._meanwhile = meanwhile

    def close(self) -> None:
        if not self.closed:
            try:
                self._meanwhile()
            finally:
                super().close()


def test_one_that_the_disk_had_no_room_for_as_is_known_when_it_is_closed_leaves_the_one_before(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room() -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(snapshots, "own_file", lambda path: Closing(own_file(path), no_room))
    with pytest.raises(OSError, match="No space"):
        kept.save(lane_with(9), OFFSET + 1, wall_ms())
    assert [path.name for path in kept.path(3).parent.iterdir()] == [kept.path(3).name]
    assert (kept.load(3, 0, 100).offset, len(kept.load(3, 0, 100).store)) == (OFFSET, 4)


def test_what_another_puts_in_its_place_while_it_is_closed_does_not_become_the_snapshot(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = kept.path(3).with_suffix(".part")

    def taken_over() -> None:
        own_file(part).close()  # by its next owner, who has still to write it

    monkeypatch.setattr(snapshots, "own_file", lambda path: Closing(own_file(path), taken_over))
    with pytest.raises(FileNotFoundError, match="replaced by another"):
        kept.save(lane_with(9), OFFSET + 1, wall_ms())
    assert part.exists()
    assert (kept.load(3, 0, 100).offset, len(kept.load(3, 0, 100).store)) == (OFFSET, 4)
