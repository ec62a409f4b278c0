"""A lane's producer on real brokers: what of it is seen, in which order, and what it says where a broker fails it."""

import asyncio
import gc
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError, ProducerClosed, ProducerFenced

from deploy.brokers import Broker
from deploy.brokers.embedded import EmbeddedBroker
from streams import topic_admin
from streams.lanes.outbox import Outbox
from streams.letters import LETTER_BYTES_MAX
from streams.message import Message
from streams.reading import read_topic
from streams.settings import Settings
from streams.topics import BATCH_BYTES, CLICKS, DEAD_LETTERS, PLACEMENTS
from tests.integration.lanes import DEADLINE_S, FOR_EVER, GUARANTEES

pytestmark = pytest.mark.integration

TIME_MS = 1_790_000_000_000


def outbox_on(broker: Broker, prefix: str, guarantee: str = "exactly_once", **settings: Any) -> Outbox:
    """An outbox on topics of two lanes, which are there already where another has been made; not started."""
    if guarantee == "exactly_once" and not broker.transactions:
        pytest.skip("exactly_once needs a broker with transactions, and Apache Kafka could not be had")
    topic_admin.create(broker.bootstrap, 2, prefix, 1, configs=FOR_EVER)
    chosen = Settings(bootstrap=broker.bootstrap, topic_prefix=prefix).model_copy(update=settings)
    return Outbox(chosen, f"{prefix}lane" if guarantee == "exactly_once" else None)


def numbered(*numbers: int, size: int = 10) -> list[Message]:
    """A message per number, which is its key."""
    return [Message(b"%d" % number, bytes(size), (("n", None),), TIME_MS + number) for number in numbers]


async def send(outbox: Outbox, topic: str, messages: Sequence[Message]) -> dict[tuple[str, int], int]:
    """A slice whose effects are all on one partition, as a lane commits it."""
    await outbox.begin()
    await outbox.send(topic, 0, messages)
    begun = await outbox.delivered()
    await outbox.commit()
    return begun


async def seen(broker: Broker, topic: str, partition: int = 0) -> list[tuple[int, int]]:
    """Offset and number of each committed record of a partition."""
    async with asyncio.timeout(DEADLINE_S):
        batches = [records async for records in read_topic(broker.bootstrap, topic)]
    return [(each.offset, int(each.key)) for records in batches for each in records if each.partition == partition]


@GUARANTEES
def test_each_partition_has_what_was_handed_over_for_it_in_that_order_however_many_batches_it_takes(
    kafka: Broker, topic_prefix: str, guarantee: str
) -> None:
    async def scenario() -> None:
        outbox, topic = outbox_on(kafka, topic_prefix, guarantee, batch_bytes=2_048), topic_prefix + PLACEMENTS
        await outbox.start()
        for turn in range(2):
            await outbox.begin()
            for start in range(0, 60, 20):
                for partition in (0, 1):
                    numbers = range(100 * turn + start, 100 * turn + start + 20)
                    await outbox.send(topic, partition, numbered(*numbers, size=100 + 700 * partition))
            begun = await outbox.delivered()
            await outbox.commit()
            for partition in (0, 1):
                placed = await seen(kafka, topic, partition)
                assert [number for _, number in placed] == [
                    100 * done + n for done in range(turn + 1) for n in range(60)
                ]
                # A batch of the larger records holds two of them, one of the smaller more than ten of twenty.
                last = dict(placed)[begun[topic, partition]]
                assert last == 100 * turn + 58 if partition else 50 < last % 100 < 60
        await outbox.stop()
        await outbox.begin()
        with pytest.raises(ProducerClosed):
            await outbox.send(topic, 0, numbered(200))

    asyncio.run(scenario())


@GUARANTEES
def test_the_largest_letter_and_the_largest_record_that_is_sent_on_go_between_small_ones_and_in_order(
    kafka: Broker, topic_prefix: str, guarantee: str
) -> None:
    async def scenario() -> None:
        outbox = outbox_on(kafka, topic_prefix, guarantee)
        await outbox.start()
        for name, size in ((DEAD_LETTERS, LETTER_BYTES_MAX), (CLICKS, BATCH_BYTES - 512)):
            large = Message(b"1", bytes(size - 1))
            assert large.size == size
            await send(outbox, topic_prefix + name, [*numbered(0), large, *numbered(2, 3)])
            assert [number for _, number in await seen(kafka, topic_prefix + name)] == [0, 1, 2, 3]
        await outbox.stop()

    asyncio.run(scenario())


def test_what_an_owner_leaves_uncommitted_is_never_seen_and_holds_nobody_back_once_there_is_another(
    kafka: Broker, topic_prefix: str
) -> None:
    async def scenario() -> None:
        topic, former, owner = topic_prefix + PLACEMENTS, *(outbox_on(kafka, topic_prefix) for _ in range(2))
        await former.start()
        await send(former, topic, numbered(1))
        await former.begin()
        await former.send(topic, 0, numbered(2))
        await former.delivered()
        await former.stop()
        await owner.start()
        await owner.begin()
        await owner.abort()
        assert [number for _, number in await seen(kafka, topic)] == [1]
        await send(owner, topic, numbered(3))
        assert [number for _, number in await seen(kafka, topic)] == [1, 3]
        await owner.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("done", range(4), ids=["nothing", "begun", "sent", "delivered"])
def test_an_owner_that_was_fenced_meanwhile_hears_of_it_at_once_whatever_it_had_done(
    kafka: Broker, topic_prefix: str, done: int
) -> None:
    async def scenario() -> None:
        topic, former, owner = topic_prefix + PLACEMENTS, *(outbox_on(kafka, topic_prefix) for _ in range(2))
        await former.start()
        await send(former, topic, numbered(1))
        steps = (former.begin, lambda: former.send(topic, 0, numbered(2)), former.delivered, former.commit)
        for step in steps[:done]:
            await step()
        await owner.start()
        await send(owner, topic, numbered(3))

        async def go_on() -> None:
            for step in steps[done:]:
                await step()

        with pytest.raises(ProducerFenced):
            async with asyncio.timeout(DEADLINE_S):
                await go_on()
        assert [number for _, number in await seen(kafka, topic)] == [1, 3]
        await former.stop()
        await owner.stop()
        assert [number for _, number in await seen(kafka, topic)] == [1, 3]

    asyncio.run(scenario())


def test_of_a_failure_that_was_told_nothing_is_left_for_the_collector_to_tell_again(
    kafka: Broker, topic_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        topic, former, owner = topic_prefix + PLACEMENTS, *(outbox_on(kafka, topic_prefix) for _ in range(2))
        await former.start()
        await former.begin()
        await owner.start()

        async def go_on() -> None:
            await former.send(topic, 0, numbered(1))
            await former.delivered()

        with pytest.raises(ProducerFenced):
            async with asyncio.timeout(DEADLINE_S):
                await go_on()
        await former.stop()
        await owner.stop()

    asyncio.run(scenario())
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_a_broker_that_is_gone_fails_the_delivery_within_a_slices_deadline_and_holds_up_no_end(
    tmp_path: Path, topic_prefix: str
) -> None:
    async def begun(broker: EmbeddedBroker, topic: str) -> Outbox:
        """One that has sent something: at once, or by another try where the machine stood still for a deadline."""
        while True:
            outbox = outbox_on(broker, topic_prefix, "at_least_once", slice_deadline_ms=2_000)
            try:
                await outbox.start()
                await send(outbox, topic, numbered(1))
            except KafkaError:
                await outbox.stop()
            else:
                return outbox

    async def scenario(broker: EmbeddedBroker) -> None:
        topic = topic_prefix + PLACEMENTS
        async with asyncio.timeout(DEADLINE_S):
            outbox = await begun(broker, topic)
        os.kill(broker.pids[0], signal.SIGKILL)
        await outbox.send(topic, 0, numbered(2))
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(KafkaError):
                await outbox.delivered()
            await outbox.stop()

    with EmbeddedBroker(tmp_path) as broker:
        asyncio.run(scenario(broker))


def test_of_a_slice_that_was_given_up_because_no_broker_answered_nothing_is_seen_when_one_answers_again(
    kafka: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        topic, former, owner = topic_prefix + PLACEMENTS, *(outbox_on(kafka, topic_prefix) for _ in range(2))
        await former.start()
        await send(former, topic, numbered(1))
        os.kill(kafka.pids[0], signal.SIGSTOP)
        try:
            await former.begin()
            await former.send(topic, 0, numbered(2))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await former.delivered()
            with monkeypatch.context() as patch:
                patch.setattr("streams.leaving.FAREWELL_S", 0.1)
                async with asyncio.timeout(DEADLINE_S):
                    await former.stop()
        finally:
            os.kill(kafka.pids[0], signal.SIGCONT)
        await owner.start()
        await send(owner, topic, numbered(3))
        await owner.stop()
        assert [number for _, number in await seen(kafka, topic)] == [1, 3]

    asyncio.run(scenario())
