"""Lanes and an intake without a broker: what they ask of it and hand over is written down, in order."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

from aiokafka import TopicPartition

from scoring.events import Source
from streams.clock import wall_ms
from streams.compute import Compute
from streams.group_offsets import GroupOffsets
from streams.identity import TopicIdentity
from streams.intake import Intake
from streams.lanes.lane import Lane, Shared
from streams.lanes.snapshots import Snapshots
from streams.message import Message
from streams.settings import Settings
from streams.topics import CHANGELOG
from streams.wire import LANE_KEY
from tests.builders import START_MS, Record, impression, known_topics, record
from tests.unit.slices import new_state, step_of

IDENTITY = TopicIdentity(known_topics(lanes=4))
TOPICS = ("ad-impressions", "clicks")
DEADLINE_MS = 60_000
DEADLINE_S = 30.0
"""For what is there at once; only a test that fails waits for it."""
CHANGELOG_OFFSET = 7
"""Where every batch to the changelog is said to begin."""


class Outbox:
    """Delivers everything, nowhere. ``did``: what it was asked for, a batch by its topic or as a lane row."""

    def __init__(self, did: list[str] | None = None, *, transactional: bool = True) -> None:
        self.did = [] if did is None else did
        self.transactional = transactional
        self.answers = asyncio.Event()
        """Deliveries wait for it."""
        self.answers.set()
        self.begun = asyncio.Event()
        self._sent: set[tuple[str, int]] = set()

    async def start(self) -> None:
        self.did.append("start")

    async def begin(self) -> None:
        self.did.append("begin")
        self.begun.set()

    async def abort(self) -> None:
        self.did.append("abort")

    async def send(self, topic: str, partition: int, messages: Iterable[Message]) -> None:
        if keys := [message.key for message in messages]:
            self.did.append("lane row" if LANE_KEY in keys else topic)
            self._sent.add((topic, partition))

    async def delivered(self) -> dict[tuple[str, int], int]:
        await self.answers.wait()
        self.did.append("delivered")
        return dict.fromkeys(self._sent, CHANGELOG_OFFSET)

    async def commit(self) -> None:
        self.did.append("commit")

    async def stop(self) -> None:
        self.did.append("stop")


class Group:
    """The group's member on topics that begin at 10 and 20. ``did``: what it was asked for that changes anything."""

    def __init__(self, did: list[str] | None = None) -> None:
        self.did = [] if did is None else did
        self.begins = dict(zip(TOPICS, (10, 20), strict=True))
        self.assigned: set[TopicPartition] = set()
        self.sought: dict[TopicPartition, int] = {}
        self.positions: dict[TopicPartition, int] = {}
        self.stable_ends: dict[TopicPartition, int | None] = {}
        self.asked: list[tuple[TopicPartition, ...]] = []
        """Partitions of each fetch."""
        self.fetch: Callable[[], Mapping[TopicPartition, Sequence[Record]]] = dict
        """What the next fetch gives."""

    async def committed(self, *_: object) -> int:
        self.did.append("look up")
        return 0

    async def commit(self, _: dict[TopicPartition, int], /) -> None:
        self.did.append("write offsets")

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self.begins.get(tp.topic, 0) for tp in partitions}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.sought[tp] = offset

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    async def position(self, tp: TopicPartition) -> int:
        return self.positions.get(tp, 0)

    def last_stable_offset(self, tp: TopicPartition) -> int | None:
        return self.stable_ends.get(tp)

    async def getmany(self, *partitions: TopicPartition, **_: Any) -> Mapping[TopicPartition, Sequence[Record]]:
        self.asked.append(partitions)
        return self.fetch()

    async def stop(self) -> None:
        self.did.append("leave")


class Unanswered(Group):
    """A group whose coordinator does not answer."""

    async def committed(self, *_: object) -> int:
        await super().committed()
        return await asyncio.get_running_loop().create_future()


def assigned(impressions: set[int], clicks: set[int]) -> list[TopicPartition]:
    """Partitions of both topics."""
    return [TopicPartition(TOPICS[0], n) for n in impressions] + [TopicPartition(TOPICS[1], n) for n in clicks]


def shared_of(home: Path, group: Group, make_outbox: Callable[..., Any] = Outbox, **settings: Any) -> Shared:
    """What lanes of a worker with these settings use; bounds of the settings' own may be broken here."""
    chosen = Settings(home=home).model_copy(update=settings)
    snapshots = Snapshots(chosen, IDENTITY.id_of(CHANGELOG))
    return Shared(chosen, group, GroupOffsets(group), step_of(), Compute(), IDENTITY, snapshots, make_outbox)


def taken_over(shared: Shared, outbox: Outbox, number: int = 0) -> Lane:
    """A lane that runs."""
    lane = Lane(number, shared)
    lane._state, lane._outbox, lane.running = new_state(number), outbox, True
    lane._saving.committed(wall_ms())
    return lane


async def stepping(intake: Intake, lane: Lane, outbox: Outbox) -> asyncio.Task[None]:
    """A step of the lane that has begun, and whose deliveries wait for ``outbox.answers``."""
    queue_one(lane)
    outbox.answers.clear()
    task = asyncio.create_task(intake.step(lane.number))
    await within_deadline(outbox.begun.wait())
    return task


def intake_of(shared: Shared, *lanes: Lane) -> Intake:
    """An intake that has started, with these lanes; it puts its tokens nowhere."""
    intake = Intake(shared.settings, lambda _: shared, AsyncMock())
    intake._shared = shared
    intake._lanes = {lane.number: lane for lane in lanes}
    return intake


def queue_one(lane: Lane, number: int = 0) -> None:
    """Give it an impression, in a log that has nothing more."""
    lane.queues.put(Source.IMPRESSION, [record(impression(time_ms=START_MS + number), number)])
    for queue in lane.queues.sources:
        queue.caught_up = True


async def step(lane: Lane, number: int = 0) -> Counter[str] | None:
    """A slice of one impression, after which a snapshot is due."""
    lane._saving.due_ms = 0
    queue_one(lane, number)
    return await lane.step()


async def turns(count: int = 20) -> None:
    """Let everything run that waits for nothing."""
    for _ in range(count):
        await asyncio.sleep(0)


async def within_deadline(work: Awaitable[Any]) -> Any:
    """Its result; a `TimeoutError` of its own is told from one that it never gave."""
    done, _ = await asyncio.wait([asyncio.ensure_future(work)], timeout=DEADLINE_S)
    assert done, f"still under way after {DEADLINE_S:.0f} s"
    return done.pop().result()
