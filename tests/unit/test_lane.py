"""A lane's step and its end, without a broker: what it does where a disk fails it."""

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from structlog.testing import capture_logs

from streams.clock import wall_ms
from streams.control import Control
from streams.intake import Intake
from streams.lanes.lane import Lane
from streams.lanes.snapshots import AGE_MAX_MS, holds
from streams.own_files import own_file
from streams.privacy.requests import Requests
from tests.unit.consenting import erasure, told
from tests.unit.lanes import (
    CHANGELOG_OFFSET,
    DEADLINE_MS,
    DEADLINE_S,
    Group,
    Outbox,
    intake_of,
    queue_one,
    shared_of,
    step,
    taken_over,
    turns,
    within_deadline,
)


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    """A lane that has been taken over, and whose snapshots would be under ``tmp_path / "home"``."""
    return taken_over(shared_of(tmp_path / "home", Group()), Outbox())


def test_a_lane_whose_snapshot_cannot_be_written_goes_on_and_tries_again_when_it_is_due(
    lane: Lane, tmp_path: Path
) -> None:
    home, snapshots = tmp_path / "home", lane._shared.snapshots

    async def live() -> None:
        home.write_text("no folder")
        assert await step(lane, 0)
        due_ms = lane._saving.due_ms
        assert due_ms > 0
        home.unlink()
        assert await step(lane, 1)
        assert snapshots.path(0).exists()

    with capture_logs() as told:
        asyncio.run(live())
    assert [(each["event"], each["lane"]) for each in told if each["log_level"] == "warning"] == [
        ("snapshot not written", 0)
    ]
    assert lane._outbox.did.count("commit") == 2


async def test_a_snapshot_that_fails_at_its_end_leaves_nothing_of_itself(lane: Lane) -> None:
    path = lane._shared.snapshots.path(0)
    path.mkdir(parents=True)  # what is whole cannot be put in its place
    assert await step(lane, 0)
    assert list(path.parent.iterdir()) == [path]
    path.rmdir()
    assert await step(lane, 1)
    assert path.is_file()


async def test_a_lane_is_closed_though_its_snapshot_cannot_be_written(lane: Lane, tmp_path: Path) -> None:
    assert await step(lane, 0)
    for path in sorted((tmp_path / "home").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "home").rmdir()
    (tmp_path / "home").write_text("no folder")
    await lane.close(DEADLINE_MS)
    assert lane.held is None


def asking(lane: Lane) -> Control:
    """A control topic that ``lane`` listens to."""
    control = Control()
    step = replace(lane._shared.step, requests=Requests(control, lambda _: 0))
    lane._shared = replace(lane._shared, step=step)
    return control


def last_turn_of(intake: Intake) -> Intake:
    """The intake, whose parts that look after things now and then do so once more."""

    async def sleep(_: float) -> None:
        intake._stopping = True

    intake.sleep = sleep  # type: ignore[method-assign, assignment]  # the last of its turns
    return intake


async def rest(lane: Lane) -> None:
    """A turn of those who look after idle lanes, when a snapshot is due."""
    lane._saving.due_ms = 0
    await last_turn_of(intake_of(lane._shared, lane))._look_after_idle()


async def idle(lane: Lane) -> int:
    """The slices of a turn in which nothing comes."""
    await last_turn_of(intake_of(lane._shared, lane))._look_after_idle()
    slices = 0
    while lane.has_work and await lane.step() is not None:
        slices += 1
    return slices


async def test_the_row_of_an_idle_lane_moves_past_markers_once_and_never_past_what_is_queued(lane: Lane) -> None:
    """Once retention has deleted a marker, a row that stands at it would seem to lack what lay there."""
    impressions, clicks = lane.queues.sources
    assert await step(lane, 7)
    before = lane.state.next_offsets
    assert await idle(lane) == 0
    impressions.position, clicks.position = before[0] + 1, before[1] + 2
    assert [await idle(lane), await idle(lane)] == [1, 0]
    assert lane.state.next_offsets == (before[0] + 1, before[1] + 2)
    queue_one(lane, before[0] + 1)
    impressions.position = before[0] + 9
    lane._is_due = True  # it was idle a moment ago
    impressions.caught_up = clicks.caught_up = False
    assert await lane.step() is not None
    assert lane.state.next_offsets == (before[0] + 1, before[1] + 2)  # the record waits for the other topic


async def test_a_lane_to_which_nothing_comes_uses_its_producer_once_a_day_so_that_no_broker_forgets_it(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = lane._used_ms

    def wait(hours: int) -> None:
        nonlocal now_ms
        now_ms += hours * 3_600_000

    monkeypatch.setattr("streams.lanes.lane.tick_ms", lambda: now_ms)
    slices = []
    for hours in (1, 22, 1, 23, 1):
        wait(hours)
        slices.append(await idle(lane))
    assert slices == [0, 0, 1, 0, 1]
    assert lane._outbox.did.count("commit") == 2


async def test_the_snapshot_of_a_lane_that_moved_to_another_worker_goes_while_this_one_runs_on(lane: Lane) -> None:
    assert await step(lane)
    await lane.close(DEADLINE_MS)
    path = lane._shared.snapshots.path(lane.number)
    assert path.exists()  # it may come back
    long_ago_s = (wall_ms() - AGE_MAX_MS) / 1000 - 60
    os.utime(path, (long_ago_s, long_ago_s))
    await last_turn_of(intake_of(lane._shared))._summarise()
    assert not path.exists()


def sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker be paused for days, in which another may have had its lanes."""
    for module in ("lane", "snapshots"):
        monkeypatch.setattr(f"streams.lanes.{module}.wall_ms", lambda: wall_ms() + AGE_MAX_MS + 60_000)


@pytest.mark.parametrize("then", ["closes", "rests"])
async def test_a_snapshot_of_a_worker_that_was_paused_for_days_is_as_old_as_the_slice_before(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    path = lane._shared.snapshots.path(0)
    assert await step(lane)
    path.unlink()
    queue_one(lane, 1)
    assert await lane.step()  # when no snapshot is due
    sleep(monkeypatch)
    await (lane.close(DEADLINE_MS) if then == "closes" else rest(lane))
    assert path.exists()
    lane._shared.snapshots.remove_old()
    assert not path.exists()


def test_a_snapshot_is_no_younger_than_its_slice_though_the_worker_was_paused_before_it_heard_of_the_commit(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def commit() -> None:
        sleep(monkeypatch)

    monkeypatch.setattr(lane._outbox, "commit", commit)
    asyncio.run(step(lane))
    path = lane._shared.snapshots.path(0)
    assert path.exists()
    lane._shared.snapshots.remove_old()
    assert not path.exists()


async def test_a_snapshot_of_a_lane_that_went_on_after_a_pause_is_of_its_newest_slice(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep(monkeypatch)
    assert await step(lane)
    await lane.close(DEADLINE_MS)
    assert len(lane._shared.snapshots.load(0, 0, CHANGELOG_OFFSET).store) == 1


async def test_a_person_who_is_erased_leaves_the_snapshot_of_a_lane_to_which_nothing_comes_any_more(lane: Lane) -> None:
    control, path = asking(lane), lane._shared.snapshots.path(0)
    assert await step(lane)
    (user,) = (user for user in lane.state.store.users if user is not None)
    assert holds(path, [user])
    control.take([told(erasure(user.decode()), 0)])
    assert await lane.step() is not None
    await rest(lane)
    assert path.exists()
    assert not holds(path, [user])
    path.unlink()
    await rest(lane)
    assert not path.exists()  # what has not changed is not written again and again


def test_a_lane_that_is_taken_over_has_a_snapshot_though_nothing_comes_and_one_whose_slice_failed_has_none(
    lane: Lane,
) -> None:
    path = lane._shared.snapshots.path(0)
    asyncio.run(rest(lane))
    assert not path.exists()
    lane._committed = True  # as `take_over` leaves it
    asyncio.run(rest(lane))
    assert path.exists()


def test_the_snapshot_of_an_idle_lane_is_written_to_its_end_and_tried_again_where_it_could_not_be(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.lanes.snapshots._ROWS_PER_WRITE", 1)
    lane._committed, path = True, lane._shared.snapshots.path(0)
    for user in (b"ann", b"bob", b"eve"):
        lane.state.store.row_of(user)
    path.mkdir(parents=True)  # what is whole cannot be put in its place
    asyncio.run(rest(lane))
    path.rmdir()
    asyncio.run(rest(lane))
    assert holds(path, [b"eve"])


@pytest.mark.parametrize("committed", [True, False])
async def test_a_lane_that_is_left_keeps_no_half_of_a_snapshot(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    path, opened = lane._shared.snapshots.path(0), []

    def kept(file: Path) -> BinaryIO:
        opened.append(own_file(file))
        return opened[-1]

    monkeypatch.setattr("streams.lanes.snapshots._ROWS_PER_WRITE", 1)
    monkeypatch.setattr("streams.lanes.snapshots.own_file", kept)
    lane._saving.due_ms = 0
    for user in (b"ann", b"bob", b"eve"):
        lane.state.store.row_of(user)
    lane._committed = True
    await lane._saving.some(lane.state, 0)
    assert [file.closed for file in opened] == [False]
    lane._committed = committed
    await lane.close(DEADLINE_MS)
    lane._shared.compute.stop()
    assert all(file.closed for file in opened)
    assert [each.name for each in path.parent.iterdir()] == [path.name] * committed


async def test_a_lane_that_is_given_up_while_its_snapshot_is_being_written_lets_that_call_end_and_keeps_nothing_of_it(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving, compute, goes_on = lane._saving, lane._shared.compute, threading.Event()
    monkeypatch.setattr("streams.lanes.snapshots._ROWS_PER_WRITE", 1)
    saving.due_ms = 0
    for user in (b"ann", b"bob"):
        lane.state.store.row_of(user)
    compute.soon(lambda: goes_on.wait(DEADLINE_S) and None)
    writing = asyncio.create_task(saving.some(lane.state, 0))
    await turns()
    saving.end()
    goes_on.set()
    assert await within_deadline(writing)  # there was more to write
    compute.stop()
    assert [*lane._shared.snapshots.path(0).parent.iterdir()] == []
