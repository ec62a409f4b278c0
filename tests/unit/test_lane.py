"""A lane's step and its end, without a broker: what it does where a disk fails it."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from scoring.events import Source
from streams.compute import Compute
from streams.identity import TopicIdentity
from streams.lane import Lane, Shared
from streams.message import Message
from streams.settings import Settings
from streams.snapshots import Snapshots
from tests.builders import START_MS, impression, known_topics, record
from tests.unit.slices import new_state, step_of

IDENTITY = TopicIdentity(known_topics(lanes=4))
DEADLINE_MS = 60_000


class Outbox:
    """Delivers everything, nowhere."""

    transactional = True

    def __init__(self) -> None:
        self.commits = 0
        self._sent: set[tuple[str, int]] = set()

    async def begin(self) -> None: ...

    async def send(self, topic: str, partition: int, _messages: Iterable[Message]) -> None:
        self._sent.add((topic, partition))

    async def delivered(self) -> dict[tuple[str, int], int]:
        return dict.fromkeys(self._sent, 0)

    async def commit(self) -> None:
        self.commits += 1

    async def stop(self) -> None: ...


class Group:
    """A consumer whose commits succeed."""

    async def commit(self, offsets: object) -> None: ...


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    """A lane that has been taken over, and whose snapshots would be under ``tmp_path / "home"``."""
    settings = Settings(home=tmp_path / "home")
    snapshots = Snapshots(settings, IDENTITY.changelog)
    out = Lane(0, Shared(settings, Group(), step_of(), Compute(), IDENTITY, snapshots))
    out._state, out._outbox, out.running = new_state(), Outbox(), True
    return out


async def step(lane: Lane, number: int) -> Counter[str] | None:
    """A slice of one impression, after which a snapshot is due."""
    lane._snapshot_due_ms = 0
    lane.queues.put(Source.IMPRESSION, [record(impression(time_ms=START_MS + number), number)])
    for queue in lane.queues.sources:
        queue.caught_up = True
    return await lane.step()


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
    assert lane._outbox.commits == 2


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
