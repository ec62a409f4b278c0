"""A lane's step and its end, without a broker: what it does where a disk fails it."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from streams.lanes.lane import Lane
from tests.unit.lanes import DEADLINE_MS, Group, Outbox, shared_of, step, taken_over


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
        due_ms = lane._snapshot_due_ms
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


def test_a_snapshot_that_fails_at_its_end_leaves_nothing_of_itself(lane: Lane) -> None:
    path = lane._shared.snapshots.path(0)

    async def live() -> None:
        path.mkdir(parents=True)  # what is whole cannot be put in its place
        assert await step(lane, 0)
        assert list(path.parent.iterdir()) == [path]
        path.rmdir()
        assert await step(lane, 1)
        assert path.is_file()

    asyncio.run(live())


def test_a_lane_is_closed_though_its_snapshot_cannot_be_written(lane: Lane, tmp_path: Path) -> None:
    async def live() -> None:
        assert await step(lane, 0)
        for path in sorted((tmp_path / "home").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (tmp_path / "home").rmdir()
        (tmp_path / "home").write_text("no folder")
        await lane.close(DEADLINE_MS)

    asyncio.run(live())
    assert lane.held is None
