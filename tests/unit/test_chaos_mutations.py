"""The fault harness's mutations, each by a lane without a broker: one that changes nothing would prove nothing."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from scoring import exposure, update
from scoring.events import Source
from streams.compute import Compute
from streams.group_offsets import GroupOffsets
from streams.identity import TopicIdentity
from streams.lanes import lane, outbox
from streams.lanes.lane import Lane, Shared
from streams.lanes.outbox import Outbox
from streams.lanes.snapshots import Snapshots
from streams.settings import Settings
from streams.topics import CHANGELOG, LANE_INPUTS
from tests.builders import START_MS, Record, impression, known_topics, record
from tests.integration.chaos.mutations import MUTATIONS
from tests.unit.slices import new_state, slice_of, step_of

IDENTITY = TopicIdentity(known_topics(lanes=4))
REFUSED = 3
"""The slice that a broker takes nothing of."""
PATCHED: list[tuple[object, str]] = [
    *((Lane, name) for name in ("_deliver", "seek")),
    *((Outbox, name) for name in ("send", "delivered")),
    *((module, "transactional_id") for module in (lane, outbox)),
    *((module, "clean") for module in (exposure, update)),
]
"""All that mutations touch, to be put back."""

Story = list[tuple[Any, ...]]


class Wire:
    """A producer and a consumer that are connected to nothing, and note what they are asked, in order."""

    create_batch: Callable[[], Any]
    """A real producer's."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self.refuses = False

    def _note(self, *what: Any) -> None:
        self._story.append(what)

    async def begin_transaction(self) -> None:
        self._note("begin")

    async def abort_transaction(self) -> None:
        self._note("abort")

    async def commit_transaction(self) -> None:
        self._note("commit")

    async def send_batch(self, builder: Any, topic: str, *, partition: int) -> "asyncio.Future[Delivery]":
        self._note("send", topic, partition, builder.record_count())
        delivery: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        if self.refuses:
            delivery.set_exception(MessageSizeTooLargeError())
        else:
            delivery.set_result(Delivery(topic, partition))
        return delivery

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(name, 0) for name in LANE_INPUTS}

    async def commit(self, offsets: Any) -> None:
        self._note("group offsets", {tp.topic: offset for tp, offset in offsets.items()})

    def seek(self, tp: Any, offset: int) -> None:
        self._note("seek", tp.topic, offset)


class Delivery:
    """Where a batch is: at the beginning of its partition."""

    offset = 0

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition


def slice_records(number: int) -> list[Record]:
    """An impression of a user's own, and one of a user who comes again in every slice."""
    shown = [impression(user, f"ad-{number}", START_MS + number) for user in ("again", f"user-{number}")]
    return [record(event, 2 * number + place) for place, event in enumerate(shown)]


async def live(folder: Path, *, scoring: bool) -> Story:
    """What a lane asks of its connections, and its rows' offsets, from its fence to a slice that is refused."""
    story: Story = []
    async with AsyncExitStack() as stack:
        await _live(folder, story, stack, scoring=scoring)
    return story


async def _live(folder: Path, story: Story, stack: AsyncExitStack, *, scoring: bool) -> None:
    wire = Wire(story)

    class Box(Outbox):
        def __init__(self, settings: Settings, transactional_id: str | None) -> None:
            story.append(("producer", transactional_id))
            super().__init__(settings, transactional_id)
            wire.create_batch = self._producer.create_batch
            stack.push_async_callback(self._producer.stop)
            self._producer = wire

        async def start(self) -> None: ...

    settings = Settings(home=folder)
    snapshots = Snapshots(settings, IDENTITY.id_of(CHANGELOG))
    owner = Lane(
        0, Shared(settings, wire, GroupOffsets(wire), step_of(scoring=scoring), Compute(), IDENTITY, snapshots, Box)
    )
    owner._state, owner._outbox, owner.running = new_state(), await owner._fence(), True
    owner.seek()
    for number in range(REFUSED + 1):
        wire.refuses = number == REFUSED
        owner.queues.put(Source.IMPRESSION, slice_records(number))
        for queue in owner.queues.sources:
            queue.caught_up = True
        try:
            await owner.step()
        except MessageSizeTooLargeError:
            story.append(("refused",))
        await owner._shared.offsets.leave(owner.inputs)
        story.append(("offsets", owner.state.store.rows["offset"].tolist()))


@pytest.fixture
def put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a mutation does to the modules, when the test is over."""
    for owner, name in PATCHED:
        monkeypatch.setattr(owner, name, getattr(owner, name))


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("scoring", [True, False], ids=["scored", "unscored"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_lane_under_a_mutation_does_something_else(mutation: str, tmp_path: Path, *, scoring: bool) -> None:
    right = asyncio.run(live(tmp_path / "right", scoring=scoring))
    assert asyncio.run(live(tmp_path / "again", scoring=scoring)) == right

    MUTATIONS[mutation]()

    assert asyncio.run(live(tmp_path / "wrong", scoring=scoring)) != right


@pytest.mark.usefixtures("put_back")
@pytest.mark.parametrize("scoring", [True, False], ids=["scored", "unscored"])
def test_a_step_that_forgets_offsets_applies_what_came_again_twice(*, scoring: bool) -> None:
    def again() -> int:
        step, state = step_of(scoring=scoring), new_state()
        for _ in range(2):
            effects = step.run(state, slice_of(slice_records(0)), START_MS)
        return effects.counts["replayed"]

    assert again() == 2
    MUTATIONS["no_offset_in_row"]()
    assert again() == 0
