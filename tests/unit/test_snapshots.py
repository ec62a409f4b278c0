"""Snapshots: what they hold comes back; what cannot be believed is refused, and the changelog read instead."""

from pathlib import Path

import numpy as np
import pytest

from scoring.rows import RowStore
from streams import snapshots
from streams.settings import Settings
from streams.snapshots import Snapshots
from streams.step import LaneState
from streams.topics import TOMBSTONES_KEPT_MS

OFFSET = 40


def lane_with(users: int) -> LaneState:
    store = RowStore()
    for number in range(users):
        row = store.row_of(f"user-{number}".encode())
        store.rows["time_ms"][row] = number
    store.remove(b"user-1")  # a free place in the middle is not a user
    return LaneState(3, ("a", "b"), 4, store=store)


@pytest.fixture
def kept(tmp_path: Path) -> Snapshots:
    return Snapshots(Settings(home=tmp_path), "changelog-1")


def test_every_user_and_row_comes_back_with_the_offset(kept: Snapshots) -> None:
    state = lane_with(700)
    kept.save(state, OFFSET)
    back = kept.load(3, 0, 100)
    assert (back.offset, back.lane_row, len(back.store)) == (OFFSET, None, 699)
    for user in (b"user-0", b"user-2", b"user-699"):
        before, after = state.store, back.store
        assert before.rows[before.find(user)].tobytes() == after.rows[after.find(user)].tobytes()
    assert back.store.find(b"user-1") == -1


def test_an_empty_lane_has_a_snapshot_too(kept: Snapshots) -> None:
    kept.save(LaneState(3, ("a", "b"), 4), OFFSET)
    assert kept.load(3, 0, 100).offset == OFFSET


def test_without_a_file_the_lane_starts_empty(kept: Snapshots) -> None:
    assert (kept.load(3, 0, 100).offset, len(kept.load(3, 0, 100).store)) == (0, 0)


@pytest.mark.parametrize(("begin", "end"), [(0, OFFSET - 1), (OFFSET + 1, 100)], ids=["beyond the end", "compacted"])
def test_an_offset_that_the_changelog_does_not_have_is_refused(kept: Snapshots, begin: int, end: int) -> None:
    kept.save(lane_with(5), OFFSET)
    assert len(kept.load(3, begin, end).store) == 0


def test_a_snapshot_of_another_topic_is_refused(kept: Snapshots, tmp_path: Path) -> None:
    kept.save(lane_with(5), OFFSET)
    assert len(Snapshots(Settings(home=tmp_path), "changelog-2").load(3, 0, 100).store) == 0


@pytest.mark.parametrize(("age_ms", "users"), [(TOMBSTONES_KEPT_MS // 2, 4), (TOMBSTONES_KEPT_MS // 2 + 1, 0), (-1, 0)])
def test_one_so_old_that_tombstones_may_be_gone_is_refused(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch, age_ms: int, users: int
) -> None:
    monkeypatch.setattr(snapshots, "wall_ms", lambda: 10**12)
    kept.save(lane_with(5), OFFSET)
    monkeypatch.setattr(snapshots, "wall_ms", lambda: 10**12 + age_ms)
    assert len(kept.load(3, 0, 100).store) == users


def test_a_write_that_is_cut_short_leaves_the_one_before(kept: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.save(lane_with(5), OFFSET)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "ascontiguousarray", full)
    with pytest.raises(OSError, match="no space"):
        kept.save(lane_with(9), OFFSET + 1)
    monkeypatch.undo()
    assert (kept.load(3, 0, 100).offset, len(kept.load(3, 0, 100).store)) == (OFFSET, 4)
