"""Snapshots: what they hold comes back; what cannot be believed is refused, and the changelog read instead."""

import errno
import os
from pathlib import Path
from typing import BinaryIO, Literal, NoReturn

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from scoring.ids import id64
from scoring.rows import LAYOUT_VERSION, ROW, ROW_BYTES, RowStore
from streams.clock import wall_ms
from streams.lanes import snapshots
from streams.lanes.clicks import person_key
from streams.lanes.snapshots import Snapshots, holds
from streams.own_files import own_file
from streams.settings import Settings
from streams.step import LaneState
from streams.topics import TOMBSTONES_KEPT_MS

OFFSET = 40
STALE = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
"""What a file server that was away says of what was open."""


def lane_with(users: int) -> LaneState:
    store = RowStore()
    for number in range(users):
        row = store.row_of(f"user-{number}".encode())
        store.rows["time_ms"][row] = number
    store.remove(b"user-1")  # a free place in the middle is not a user
    return LaneState(3, ("a", "b"), 4, store=store)


def save_as_before(kept: Snapshots, state: LaneState, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save as the version before would, whose rows were shorter."""
    with monkeypatch.context() as then:
        then.setattr(snapshots, "LAYOUT_VERSION", LAYOUT_VERSION - 1)
        then.setattr(state.store, "_rows", np.zeros(len(state.store.rows), dtype=f"V{ROW_BYTES - 64}"))
        kept.save(state, OFFSET, wall_ms())


class Opened(list[BinaryIO]):
    """Files that snapshots have opened to write."""

    def keep(self, file: BinaryIO) -> BinaryIO:
        self.append(file)
        return file


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    files = Opened()
    monkeypatch.setattr(snapshots, "own_file", lambda path: files.keep(own_file(path)))
    return files


@pytest.fixture
def kept(tmp_path: Path) -> Snapshots:
    return Snapshots(Settings(home=tmp_path), "changelog-1")


def test_every_user_and_row_comes_back_with_the_offset(kept: Snapshots) -> None:
    state = lane_with(700)
    kept.save(state, OFFSET, wall_ms())
    back = kept.load(3, 0, 100)
    assert (back.offset, back.lane_row, len(back.store)) == (OFFSET, None, 699)
    for user in (b"user-0", b"user-2", b"user-699"):
        before, after = state.store, back.store
        assert before.rows[before.find(user)].tobytes() == after.rows[after.find(user)].tobytes()
    assert back.store.find(b"user-1") == -1


def test_a_snapshot_holds_whose_row_or_whose_lift_it_has(kept: Snapshots) -> None:
    state = lane_with(3)
    state.clicks.layer.people.put(np.array([id64(b"lift-only")], dtype=np.uint64), np.array([[1.0, 2.0, 0.0]]))
    kept.save(state, OFFSET, wall_ms())
    path = kept.path(3)
    assert [holds(path, [user]) for user in (b"user-0", b"user-1", b"lift-only", b"nobody")] == [
        True,
        False,
        True,
        False,
    ]
    assert holds(path, [b"nobody", b"user-2"])  # not the first of those that stand together
    assert not holds(path, [b"user"])  # with whose name others' begin
    assert person_key(b"lift-only") in kept.load(3, 0, 100).parts
    path.write_bytes(path.read_bytes()[:12])
    assert not holds(path, [b"lift-only"])
    path.write_bytes(b"of another format, with user-2 in it")
    assert [holds(path, users) for users in ([b"nobody", b"user-2"], [b"nobody"])] == [True, False]


def test_a_snapshot_of_a_former_layout_whose_rows_were_shorter_holds_whomever_it_names(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = lane_with(3_000)
    state.clicks.layer.people.put(np.array([id64(b"lift-only")], dtype=np.uint64), np.array([[1.0, 2.0, 0.0]]))
    save_as_before(kept, state, monkeypatch)
    path = kept.path(3)
    asked = ([b"user-0"], [b"user-2999"], [b"nobody", b"lift-only"], [b"nobody"])
    assert [holds(path, users) for users in asked] == [True, True, True, False]


def test_an_empty_lane_has_a_snapshot_too(kept: Snapshots) -> None:
    kept.save(LaneState(3, ("a", "b"), 4), OFFSET, wall_ms())
    assert kept.load(3, 0, 100).offset == OFFSET


def test_without_a_file_the_lane_starts_empty_and_nothing_is_told_of_it(kept: Snapshots) -> None:
    with structlog.testing.capture_logs() as told:
        assert (kept.load(3, 0, 100).offset, len(kept.load(3, 0, 100).store)) == (0, 0)
    assert told == []


@pytest.mark.parametrize(("begin", "end"), [(0, OFFSET - 1), (OFFSET + 1, 100)], ids=["beyond the end", "compacted"])
def test_an_offset_that_the_changelog_does_not_have_is_refused(kept: Snapshots, begin: int, end: int) -> None:
    kept.save(lane_with(5), OFFSET, wall_ms())
    assert len(kept.load(3, begin, end).store) == 0


def test_a_snapshot_of_another_topic_is_refused(kept: Snapshots, tmp_path: Path) -> None:
    kept.save(lane_with(5), OFFSET, wall_ms())
    assert len(Snapshots(Settings(home=tmp_path), "changelog-2").load(3, 0, 100).store) == 0


@pytest.mark.parametrize(
    ("age_ms", "users"),
    [(TOMBSTONES_KEPT_MS // 2, 4), (TOMBSTONES_KEPT_MS // 2 + 1, 0), (-60_000, 4), (-60_001, 0)],
)
@pytest.mark.parametrize("deleted", [False, True])
def test_one_so_old_that_tombstones_may_be_gone_or_of_the_future_is_refused_and_deleted_wherever_nobody_loads_it(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch, age_ms: int, users: int, deleted: bool
) -> None:
    kept.save(lane_with(5), OFFSET, 10**12)
    monkeypatch.setattr(snapshots, "wall_ms", lambda: 10**12 + age_ms)
    if deleted:
        with structlog.testing.capture_logs() as told:
            kept.remove_old()
        assert kept.path(3).exists() == bool(users)
        assert [(line["file"], line["age_ms"]) for line in told] == [(str(kept.path(3)), age_ms)] * (not users)
    assert len(kept.load(3, 0, 100).store) == users


@pytest.mark.parametrize("off_ms", [-30 * 86_400_000, 30 * 86_400_000])
def test_a_file_servers_clock_does_not_tell_how_old_a_snapshot_is_while_it_is_written_or_after(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch, off_ms: int
) -> None:
    monkeypatch.setattr(snapshots, "_ROWS_PER_WRITE", 4)
    monkeypatch.setattr(snapshots, "wall_ms", lambda: wall_ms() + off_ms)
    state = lane_with(9)
    writing, written = kept.begin(state, OFFSET, wall_ms() + off_ms), 1
    kept.remove_old()
    while not writing.advance(state.store, OFFSET):
        written += 1
        kept.remove_old()
    kept.remove_old()
    assert (written, len(kept.load(3, 0, 100).store)) == (3, 8)


def test_what_a_lane_left_that_moved_away_is_deleted_once_it_would_be_refused_for_its_age(kept: Snapshots) -> None:
    unfinished = []
    for lane, age_ms in enumerate([TOMBSTONES_KEPT_MS // 2 - 60_000, TOMBSTONES_KEPT_MS // 2 + 60_000]):
        kept.save(LaneState(lane, ("a", "b"), 4, store=RowStore()), OFFSET, wall_ms())
        unfinished.append(kept.begin(LaneState(lane, ("a", "b"), 4, store=RowStore()), OFFSET, wall_ms()))
        for path in (kept.path(lane), kept.path(lane).with_suffix(".part")):
            os.utime(path, (0, (wall_ms() - age_ms) / 1000))
    kept.remove_old()
    left = sorted(path.name for path in kept.path(0).parent.iterdir())
    assert left == ["lane-0.part", "lane-0.snapshot"]
    for writing in unfinished:
        writing.abandon()


def test_a_disk_that_does_not_answer_ends_no_worker_that_looks_for_what_is_old_and_is_told_once(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_path: object) -> NoReturn:
        raise STALE

    kept.save(lane_with(5), OFFSET, wall_ms())
    monkeypatch.setattr(os, "scandir", stale)
    with structlog.testing.capture_logs() as told:
        kept.remove_old()
        kept.remove_old()
    assert [(line["log_level"], line["error"]) for line in told] == [("warning", str(STALE))]


def test_a_disk_that_does_not_answer_ends_no_worker_that_takes_a_lane_over(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_path: Path, *_: object, **_how: object) -> NoReturn:
        raise STALE

    kept.save(lane_with(5), OFFSET, wall_ms())
    monkeypatch.setattr(Path, "stat", stale)
    monkeypatch.setattr(Path, "open", stale)
    assert (kept.load(3, 0, 100).offset, len(kept.load(3, 0, 100).store)) == (0, 0)


def test_where_no_snapshot_was_ever_written_there_is_none_to_delete(kept: Snapshots) -> None:
    kept.remove_old()
    assert not kept.path(0).parent.exists()


def test_rows_newer_than_the_end_of_the_changelog_are_refused(kept: Snapshots) -> None:
    state = lane_with(5)
    writing = kept.begin(state, OFFSET, wall_ms())
    assert writing.advance(state.store, OFFSET + 20)
    assert len(kept.load(3, 0, OFFSET + 19).store) == 0
    kept.save(state, OFFSET, wall_ms())
    assert len(kept.load(3, OFFSET, OFFSET).store) == 4  # where the changelog begins, and ends


def test_one_that_was_not_finished_leaves_the_one_before(kept: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.save(lane_with(5), OFFSET, wall_ms())
    monkeypatch.setattr(snapshots, "_ROWS_PER_WRITE", 4)
    state = lane_with(9)
    writing = kept.begin(state, OFFSET + 1, wall_ms())
    assert not writing.advance(state.store, OFFSET + 1)
    assert (kept.load(3, 0, 100).offset, len(kept.load(3, 0, 100).store)) == (OFFSET, 4)
    writing.abandon()


def test_a_file_cut_short_anywhere_is_no_snapshot(kept: Snapshots) -> None:
    kept.save(lane_with(5), OFFSET, wall_ms())
    whole = kept.path(3).read_bytes()
    assert len(kept.load(3, 0, 100).store) == 4
    for length in [*range(300), *range(len(whole) - 12, len(whole))]:
        kept.path(3).write_bytes(whole[:length])
        assert len(kept.load(3, 0, 100).store) == 0


def test_a_snapshot_of_another_layout_is_refused_and_deleted_with_whom_it_names(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_as_before(kept, lane_with(5), monkeypatch)
    assert (kept.load(3, 0, 100).offset, len(kept.load(3, 0, 100).store)) == (0, 0)  # the changelog from its beginning
    assert not kept.path(3).exists()


def test_one_of_another_format_is_no_snapshot_whatever_follows_its_number(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as then:
        then.setattr(snapshots, "_MAGIC", b"salience-3")
        kept.save(lane_with(5), OFFSET, wall_ms())
    assert (kept.load(3, 0, 100).offset, len(kept.load(3, 0, 100).store)) == (0, 0)


def test_one_that_is_given_up_leaves_nothing_of_itself_and_the_one_before(kept: Snapshots, opened: Opened) -> None:
    kept.save(lane_with(5), OFFSET, wall_ms())
    writing = kept.begin(lane_with(9), OFFSET + 1, wall_ms())
    writing.abandon()
    writing.abandon()  # of which nothing is left
    assert [path.name for path in kept.path(3).parent.iterdir()] == [kept.path(3).name]
    assert kept.load(3, 0, 100).offset == OFFSET
    assert [file.closed for file in opened] == [True, True]


def test_one_whose_beginning_is_gone_is_not_written_on(kept: Snapshots, opened: Opened) -> None:
    state = lane_with(5)
    writing = kept.begin(state, OFFSET, wall_ms())
    kept.path(3).with_suffix(".part").unlink()
    with pytest.raises(FileNotFoundError):
        writing.advance(state.store, OFFSET)
    assert (list(kept.path(3).parent.iterdir()), [file.closed for file in opened]) == ([], [True])


def test_a_disk_that_is_full_keeps_no_file_open(
    kept: Snapshots, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("/dev/full is no device here")
    monkeypatch.setattr(snapshots, "own_file", lambda _: opened.keep(full.open("wb")))
    with pytest.raises(OSError, match="No space"):
        kept.begin(lane_with(5), OFFSET, wall_ms())
    assert [file.closed for file in opened] == [True]


def test_a_link_that_is_put_where_one_is_being_written_leads_nothing_elsewhere(kept: Snapshots, tmp_path: Path) -> None:
    state, victim, part = lane_with(5), tmp_path / "victim.conf", kept.path(3).with_suffix(".part")
    victim.write_bytes(b"as it was")
    writing = kept.begin(state, OFFSET, wall_ms())
    part.unlink()
    part.symlink_to(victim)
    with pytest.raises(FileNotFoundError, match="replaced by another"):
        writing.advance(state.store, OFFSET)
    assert (victim.read_bytes(), part.is_symlink(), kept.path(3).exists()) == (b"as it was", True, False)


def test_a_worker_that_has_lost_its_lane_unnoticed_leaves_the_snapshot_of_the_next_owner_alone(
    kept: Snapshots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_ROWS_PER_WRITE", 4)
    before, after = lane_with(9), lane_with(9)
    after.store.remove(b"user-8")  # who was erased meanwhile
    lost = kept.begin(before, OFFSET, wall_ms())
    taken_over = Snapshots(Settings(home=tmp_path), "changelog-1").begin(after, OFFSET + 1, wall_ms())
    assert [lost.advance(before.store, OFFSET), taken_over.advance(after.store, OFFSET + 1)] == [False, False]
    assert not lost.advance(before.store, OFFSET)
    with pytest.raises(FileNotFoundError, match="replaced by another"):
        lost.advance(before.store, OFFSET)
    while not taken_over.advance(after.store, OFFSET + 1):
        pass
    back = kept.load(3, 0, 100)
    assert (back.offset, rows_of(back.store)) == (OFFSET + 1, rows_of(after.store))


Change = tuple[Literal["set", "forget", "write"], int]
CHANGES = st.lists(st.tuples(st.sampled_from(["set", "set", "forget", "write"]), st.integers(0, 11)), max_size=60)


@given(before=CHANGES, during=CHANGES)
def test_what_is_written_between_slices_and_the_changelog_from_there_are_the_state(
    tmp_path_factory: pytest.TempPathFactory, before: list[Change], during: list[Change]
) -> None:
    kept = Snapshots(Settings(home=tmp_path_factory.mktemp("home")), "changelog-1")
    state, changelog = LaneState(3, ("a", "b"), 4), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "_ROWS_PER_WRITE", 2)
        for change in before:
            slice_with(state.store, changelog, change)
        writing, whole = kept.begin(state, len(changelog), wall_ms()), False
        for change in during:
            slice_with(state.store, changelog, change)
            whole = whole or (change[0] == "write" and writing.advance(state.store, len(changelog)))
        while not whole:
            whole = writing.advance(state.store, len(changelog))

    back = kept.load(3, 0, len(changelog))
    for user, value in changelog[back.offset :]:
        if value is None:
            back.store.remove(user)
        else:
            back.store.put([user], np.frombuffer(value, dtype=ROW))

    assert rows_of(back.store) == rows_of(state.store)


def slice_with(store: RowStore, changelog: list[tuple[bytes, bytes | None]], change: Change) -> None:
    """One change of one user, in the store and in the changelog."""
    what, number = change
    user = f"user-{number}".encode()
    if what == "set":
        row = store.row_of(user)
        store.rows["time_ms"][row] = len(changelog)
        changelog.append((user, store.rows[row].tobytes()))
    elif what == "forget" and store.remove(user):
        changelog.append((user, None))


def rows_of(store: RowStore) -> dict[bytes, bytes]:
    return {user: store.rows[store.find(user)].tobytes() for user in store.users if user is not None}


def test_a_refused_snapshot_that_cannot_be_deleted_is_none_all_the_same(
    kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(_path: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError("read-only file system")

    kept.save(lane_with(3), OFFSET, wall_ms())
    monkeypatch.setattr(Path, "unlink", read_only)
    assert len(kept.load(3, 0, OFFSET - 1).store) == 0
