"""A lane on a real broker, driven by hand: for tests of what happens between two of its steps."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.protocol.metadata import MetadataRequest

from deploy.brokers import Broker
from scoring.events import Source
from scoring.rows import decode_rows
from streams import nodes, topic_admin, topics
from streams.app import make_engine, make_step
from streams.columns import Event, source_of
from streams.compute import Compute
from streams.feeds.catalogue import entry_of
from streams.group_offsets import GroupOffsets
from streams.identity import identify
from streams.intake import group_consumer
from streams.lanes.lane import Lane, Shared
from streams.lanes.outbox import Outbox
from streams.lanes.snapshots import Snapshots
from streams.message import Message
from streams.reading import read_topic
from streams.settings import Settings
from streams.topics import CHANGELOG
from streams.wire import LANE_KEY, RESERVED, Ad, Click, Impression, LaneRow, encode_json
from tests.builders import ad, click, impression
from tests.integration.conserved import assert_conserved

ADS = [ad(ad_id=f"ad-{number}", category=f"shelf/{number % 5}", bid_micros=100_000 + number) for number in range(30)]
USERS = 6
LAST_MS = 1_790_000_000_000 + 58_500
GUARANTEES = pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
DEADLINE_S = 120.0
"""For what comes within a second where the machine is idle."""
LOOK_AGAIN_S = 0.2
"""Between two questions to a broker, which has other things to do: reading a topic is 50 ms of a processor."""
FOR_EVER = {one.name: {topics.RETENTION: "-1"} for one in topics.TABLE if topics.RETENTION in dict(one.configs)}
"""Configs of topics that are kept for some days: the tests' records are of a fixed date, so that a broker would delete
them whenever it looks, half a minute after its start and every five minutes."""
_ALIVE: list["Owner"] = []
_OPEN: list["Shop"] = []


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario, and hold every record of its shops to account; owners that it leaves behind are ended."""
    _OPEN.clear()

    async def whole() -> None:
        try:
            await scenario()
            for shop in _OPEN:
                await assert_conserved(shop)
        finally:
            for owner in tuple(_ALIVE):
                await owner.vanish()

    asyncio.run(whole())


@dataclass
class Shop:
    """Topics on a broker, of one lane unless told otherwise, and settings to run on them."""

    settings: Settings
    adopted: bool = False
    """Whether its topics were made anew, or lost records, under a lane's feet."""

    def __post_init__(self) -> None:
        _OPEN.append(self)

    @classmethod
    def open(
        cls, bootstrap: str, prefix: str, home: Path, *, partitions: int = 1, replication: int = 1, **settings: Any
    ) -> "Shop":
        topic_admin.create(bootstrap, partitions, prefix, replication, configs=FOR_EVER)
        return cls(Settings(bootstrap=bootstrap, topic_prefix=prefix, group=f"{prefix}group", home=home, **settings))

    async def publish(self, messages: Sequence[Event | Ad | tuple[str, bytes, bytes, int]]) -> None:
        """Produce events and ads, or raw (topic, key, value, time), in order."""
        async with AIOKafkaProducer(bootstrap_servers=self.settings.bootstrap) as producer:
            for message in messages:
                name, key, value, time_ms = record_of(message)
                await producer.send_and_wait(self.settings.topic_prefix + name, value, key=key, timestamp_ms=time_ms)

    async def publish_in_batches(self, messages: Sequence[Event]) -> None:
        """Produce events, those of one topic in one batch."""
        async with AIOKafkaProducer(bootstrap_servers=self.settings.bootstrap, max_batch_size=900_000) as producer:
            for of in (Impression, Click):
                batch = producer.create_batch()
                for name, key, value, time_ms in (record_of(each) for each in messages if isinstance(each, of)):
                    topic = self.settings.topic_prefix + name
                    assert batch.append(key=key, value=value, timestamp=time_ms) is not None
                await (await producer.send_batch(batch, topic, partition=0))

    async def read(self, name: str) -> list[tuple[bytes, bytes | None]]:
        """Key and value of every committed record of a topic."""
        batches = read_topic(self.settings.bootstrap, self.settings.topic_prefix + name)
        return [(record.key or b"", record.value) async for records in batches for record in records]

    async def placement_ids(self) -> Counter[str]:
        """How often a read-committed reader sees each placement."""
        values = [value for _, value in await self.read("placements") if value is not None]
        return Counter(msgspec.json.decode(value)["placement_id"] for value in values)

    async def lane_row(self) -> LaneRow | None:
        """The newest committed lane row."""
        rows = [value for key, value in await self.read("state-changelog") if key == LANE_KEY]
        return msgspec.msgpack.decode(rows[-1], type=LaneRow) if rows and rows[-1] is not None else None

    async def state(self) -> dict[bytes, bytes]:
        """The newest committed row of each user."""
        return {key: value for key, value in (await self._kept()).items() if not key.startswith(RESERVED)}

    async def applied(self) -> int:
        """Events that the committed rows count."""
        rows = decode_rows((await self.state()).values())
        return int(rows["impressions"].sum() + rows["clicks"].sum())

    async def has_applied(self, count: int) -> bool:
        """Whether the committed rows count so many events at least."""
        return await self.applied() >= count

    async def _kept(self) -> dict[bytes, bytes]:
        last = dict(await self.read("state-changelog"))
        return {key: value for key, value in last.items() if value is not None}


def record_of(message: Event | Ad | tuple[str, bytes, bytes, int]) -> tuple[str, bytes, bytes, int | None]:
    """Topic, key, value and time of what is to be produced."""
    if isinstance(message, tuple):
        return message
    if isinstance(message, Ad):
        return "ads", message.ad_id.encode(), encode_json(message), None
    return topics.LANE_INPUTS[source_of(message)], message.user_id.encode(), encode_json(message), message.time_ms


class Owner:
    """A process's hold of the lane, in this process: its own consumer, engine and producer."""

    def __init__(self, shop: Shop, ads: Sequence[Ad], outbox: Callable[..., Outbox] = Outbox) -> None:
        self.settings = shop.settings
        self._ads = ads
        self._outbox = outbox
        self._compute = Compute()
        self.consumer: AIOKafkaConsumer | None = None
        self.lane: Lane | None = None
        _ALIVE.append(self)

    async def take_over(self) -> Lane:
        """Connect, and take the lane over."""
        settings = self.settings
        engine = make_engine(settings)
        engine.catalogue.upsert([entry_of(ad) for ad in self._ads])
        identity = await asyncio.to_thread(identify, settings)
        step = make_step(settings, engine, identity.lanes)
        self.consumer = group_consumer(settings)
        await self.consumer.start()
        snapshots = Snapshots(settings, identity.id_of(CHANGELOG))
        offsets = GroupOffsets(self.consumer)
        shared = Shared(settings, self.consumer, offsets, step, self._compute, identity, snapshots, self._outbox)
        lane = self.lane = Lane(0, shared)
        self.consumer.assign(list(lane.inputs))
        await lane.take_over()
        return lane

    async def fetch(self) -> None:
        """Queue everything that the topics hold now."""
        assert self.consumer is not None
        assert self.lane is not None
        ends = await self.consumer.end_offsets(list(self.lane.inputs))
        async with asyncio.timeout(DEADLINE_S):
            while behind := [tp for tp in ends if await self.consumer.position(tp) < ends[tp]]:
                for tp, records in (await self.consumer.getmany(*behind, timeout_ms=200)).items():
                    self.lane.queues.put(Source(self.lane.inputs.index(tp)), records)
        for tp, queue in zip(self.lane.inputs, self.lane.queues.sources, strict=True):
            queue.caught_up, queue.empty_since_ms, queue.position = True, 0, await self.consumer.position(tp)

    async def step_all(self) -> Counter[str]:
        """Fetch, and step until nothing is queued; the counts."""
        await self.fetch()
        assert self.lane is not None
        counts: Counter[str] = Counter()
        async with asyncio.timeout(DEADLINE_S):
            while len(self.lane.queues):
                if (of_slice := await self.lane.step()) is not None:
                    counts.update(of_slice)
                else:
                    await asyncio.sleep(0.01)  # the lane waits for the other topic's older records
        return counts

    async def vanish(self) -> None:
        """End as a killed process does: nothing is aborted, committed or said to the group."""
        _ALIVE.remove(self)
        if self.lane is not None:
            if (writing := self.lane._shared.offsets._task) is not None:
                writing.cancel()
                await asyncio.wait([writing])
            if self.lane._outbox is not None:
                await self.lane._outbox.stop()
        if self.consumer is not None:
            await self.consumer.stop()
        self._compute.stop()


async def stepped(shop: Shop) -> Counter[str]:
    """The counts of what a new owner of the lane makes of all that the topics hold; it then vanishes."""
    owner = Owner(shop, ADS)
    await owner.take_over()
    counts = await owner.step_all()
    await owner.vanish()
    return counts


async def bury(shop: Shop) -> None:
    """End what a lane's dead owner has begun, as a successor does: read-committed readers would wait for it."""
    successor = Owner(shop, ADS)
    await successor.take_over()
    await successor.vanish()


class Killed(Exception):  # noqa: N818 - not an error: the process is gone
    """The process ends here."""


def dying_outbox(deliveries: int, *, one_by_one: bool = False) -> type[Outbox]:
    """An outbox whose process is killed after that many batches have been handed over and delivered.

    ``one_by_one``: each record is a batch of its own.
    """

    class Dying(Outbox):
        left = deliveries

        async def send(self, topic: str, partition: int, messages: Iterable[Message]) -> None:
            for part in [[message] for message in messages] if one_by_one else [messages]:
                await super().send(topic, partition, part)

        async def _send(self, builder: Any, topic: str, partition: int) -> None:
            await super()._send(builder, topic, partition)
            await asyncio.gather(*self._pending)
            type(self).left -= 1
            if type(self).left <= 0:
                raise Killed

    return Dying


def events(count: int = 60, start: int = 0) -> list[Any]:
    """Impressions and clicks of six users, a click for every third impression; numbered, so none is like another."""
    out: list[Any] = []
    for number in range(start, start + count):
        user, time_ms = f"user-{number % USERS}", 1_790_000_000_000 + 1_000 * number
        seen = ADS[number % len(ADS)].ad_id
        out.append(impression(event_id=f"i{number}", user_id=user, ad_id=seen, time_ms=time_ms))
        if number % 3 == 0:
            out.append(
                click(event_id=f"c{number}", user_id=user, ad_id=seen, time_ms=time_ms + 5, impression_time_ms=time_ms)
            )
    return out


def shop_on(broker: Broker, prefix: str, home: Path, guarantee: str, **settings: Any) -> Shop:
    """A shop of this guarantee; a test that wants what the broker cannot do is skipped."""
    if guarantee == "exactly_once" and not broker.transactions:
        pytest.skip("exactly_once needs a broker with transactions, and Apache Kafka could not be had")
    return Shop.open(broker.bootstrap, prefix, home, guarantee=guarantee, **settings)


def counted(state: dict[bytes, bytes]) -> dict[str, int]:
    """What all users together were shown and clicked."""
    rows = decode_rows(state.values())
    return {name: int(rows[name].sum()) for name in ("impressions", "clicks")}


def repartition(bootstrap: str, name: str, partitions: int) -> None:
    """Let a topic have more partitions than it has."""
    from confluent_kafka.admin import AdminClient, NewPartitions

    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_partitions([NewPartitions(name, partitions)])[name].result()


def delete_all(bootstrap: str, names: Sequence[str]) -> None:
    """Delete all that the topics' first partitions hold, as retention does after a quiet week."""
    from confluent_kafka import OFFSET_END
    from confluent_kafka import TopicPartition as Place
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_records([Place(name, 0, OFFSET_END) for name in names]).values():
        future.result()


def delete(bootstrap: str, name: str) -> None:
    """Delete a topic, and wait until it is gone; in a thread of its own."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})  # to be held: with it goes the answer
    admin.delete_topics([name])[name].result()

    async def tells_no_more(client: AIOKafkaClient, node: int) -> bool:
        told = await client.send(node, MetadataRequest([name], allow_auto_topic_creation=False))
        ((error, *_),) = told.topics
        return bool(error == UnknownTopicOrPartitionError.errno)

    asyncio.run(nodes.until_all(bootstrap, tells_no_more, DEADLINE_S, DEADLINE_S))


def recreate(bootstrap: str, prefix: str, topic: str = "ad-impressions", partitions: int = 1) -> None:
    """Delete a topic and make it anew."""
    delete(bootstrap, prefix + topic)
    topic_admin.create(bootstrap, partitions, prefix, configs=FOR_EVER)
