"""Produces a recorded log onto the topics: as fast as the broker takes it, or at a multiple of its own pace.

Record timestamps are the log's own times, since lanes order records by them. Retention by age would therefore delete
an old log at its next check. So the topics with the log's times are created to keep records for ever.
"""

import asyncio
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from streams import topic_admin, topics
from streams.aside import aside
from streams.columns import source_of
from streams.connection import aiokafka_options
from streams.identity import partitioner
from streams.leaving import sending
from streams.logs import Event, Log
from streams.mendable import MendableError
from streams.wire import Ad, encode_json

RECORDS_PER_ROUND = 20_000
"""Records encoded, then awaited together: some megabytes, few enough for a progress bar that moves."""
BATCH_BYTES = 500_000
"""Half of what a topic takes at most: few requests, and room for Kafka's own overhead."""
REQUEST_BYTES = 1024 * 1024
"""Of all partitions' batches, which aiokafka sends as one request. One that takes over 40 s is given up: so it needs
27 KB/s. Larger ones fill a broker on loopback no faster."""
DELIVERED_S = 60.0
"""Longest wait for a batch, once those before it in its partition are delivered: an idempotent one is sent again for
ever. Longer than an election, or a request whose answer is lost (40 s)."""
TICK_S = 0.005
"""Shortest sleep at a multiple of real time: events that fall due within it are sent together."""

OLD_TIMES = (topics.CLICKS, topics.AD_IMPRESSIONS, topics.DEAD_LETTERS)
"""Topics whose records carry the log's times."""
KEPT_FOR_EVER = {name: {topics.RETENTION: "-1"} for name in OLD_TIMES}

T = TypeVar("T")

Produced = tuple[bytes, bytes, int | None]
"""Key, value, timestamp (None: now)."""


class ReplayError(MendableError):
    """A log that cannot be replayed onto these topics; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What was produced, and how long the events took."""

    ads: int
    events: int
    seconds: float

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0


def prepare(log: Log, bootstrap: str, prefix: str, partitions: int, now_ms: int) -> list[str]:
    """Create the missing topics, which keep the log for ever; return their names.

    Raises `ReplayError` where an existing topic would delete the log by its age, or has another number of partitions;
    `topic_admin.TopicsError` where the broker refuses.
    """
    named = {prefix + name: name for name in OLD_TIMES}
    check_retention(log, topic_admin.retentions_ms(bootstrap, named), now_ms)
    there = topic_admin.partition_counts(bootstrap, named)
    wrong = {name: count for name, count in there.items() if count != partitions}
    if wrong:
        raise ReplayError(
            f"topics have {wrong} partitions, expected {partitions}; say --partitions {next(iter(wrong.values()))}, "
            "or use a prefix that no topic has"
        )
    return topic_admin.create(bootstrap, partitions, prefix, configs=KEPT_FOR_EVER)


def check_retention(log: Log, retentions_ms: dict[str, int | None], now_ms: int) -> None:
    """Raise `ReplayError` where a topic's retention is too short for the log; by full name, None is for ever."""
    if not log.events:
        return
    oldest_ms = log.events[0].time_ms
    for name, kept_ms in retentions_ms.items():
        if kept_ms is not None and oldest_ms < now_ms - kept_ms:
            begins = datetime.fromtimestamp(oldest_ms / 1000, UTC).date()
            raise ReplayError(
                f"topic {name} keeps records for {kept_ms / topics.DAY_MS:.1f} days ({topics.RETENTION}={kept_ms}) and "
                f"would delete this log, which begins on {begins}. Leave --prefix away or name one that no topic has, "
                f"or keep its records: kafka-configs.sh --alter --topic {name} --add-config {topics.RETENTION}=-1"
            )


async def fill(
    log: Log,
    bootstrap: str,
    prefix: str = "",
    *,
    idempotent: bool = False,
    speed: float | None = None,
    progress: Callable[[int], None] = lambda _records: None,
) -> Filled:
    """Produce the ads, then the events, in order within every partition; return when all are delivered.

    ``idempotent``: a batch that is sent again, as after a cut between append and answer, is not appended again; the
    embedded broker knows no such producers. ``speed``: multiple of real time; None is as fast as the broker takes them.
    ``progress`` is called after every round with the number of its records.

    Raises aiokafka's ``KafkaError``, as where brokers go away for `DELIVERED_S`.
    """
    counts = await aside(topic_admin.partition_counts, bootstrap, [prefix + topics.CLICKS])
    if not counts:
        raise ReplayError(
            f"{bootstrap} has no topic {prefix + topics.CLICKS}; make it with: "
            f"salience topics create --bootstrap {bootstrap} --prefix '{prefix}'"
        )
    lanes = counts[prefix + topics.CLICKS]
    batch_bytes = min(BATCH_BYTES, REQUEST_BYTES // (lanes * len(topics.LANE_INPUTS)))
    to_send = AIOKafkaProducer(
        acks="all", enable_idempotence=idempotent, max_batch_size=batch_bytes, max_request_size=2 * BATCH_BYTES,
        **aiokafka_options(bootstrap),
    )  # fmt: skip
    async with sending(to_send) as producer:
        sender = _Sender(producer, prefix, lanes)
        for ads in in_rounds(log.ads):
            await sender.ads(ads)
            progress(len(ads))
        start = time.monotonic()
        async for events in _rounds(log.events, speed):
            await sender.events(events)
            progress(len(events))
        return Filled(len(log.ads), len(log.events), time.monotonic() - start)


async def _rounds(events: Sequence[Event], speed: float | None) -> AsyncIterator[Sequence[Event]]:
    if speed is not None:
        async for due in paced(events, speed, time.monotonic, asyncio.sleep):
            yield due
        return
    for each in in_rounds(events):
        yield each


def in_rounds(items: Sequence[T]) -> Iterable[Sequence[T]]:
    """``items`` in parts of `RECORDS_PER_ROUND`."""
    return (items[start : start + RECORDS_PER_ROUND] for start in range(0, len(items), RECORDS_PER_ROUND))


async def paced(
    events: Sequence[Event], speed: float, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
) -> AsyncIterator[Sequence[Event]]:
    """Events as they fall due at ``speed`` times real time, the first at once; late ones together, none early."""
    start, at = clock(), 0
    while at < len(events):
        now_ms = events[0].time_ms + (clock() - start) * 1000 * speed
        due = bisect_right(events, now_ms, lo=at, key=lambda event: event.time_ms)
        if due > at:
            due = min(due, at + RECORDS_PER_ROUND)
            yield events[at:due]
            at = due
        else:
            await sleep(max(TICK_S, (events[at].time_ms - now_ms) / 1000 / speed))


class _Sender:
    """Sends batches that it builds itself, one after the other in each partition."""

    def __init__(self, producer: AIOKafkaProducer, prefix: str, lanes: int) -> None:
        self._producer = producer
        self._prefix = prefix
        self._partition_of = partitioner(lanes)
        self._partitions: dict[str, int] = {}  # by user: murmur2 in Python costs more than all the rest

    async def ads(self, ads: Sequence[Ad]) -> None:
        await self._send(topics.ADS, 0, [(ad.ad_id.encode(), encode_json(ad), None) for ad in ads])

    async def events(self, events: Sequence[Event]) -> None:
        parts: dict[tuple[str, int], list[Produced]] = defaultdict(list)
        for event in events:
            name = topics.LANE_INPUTS[source_of(event)]
            user = event.user_id
            partition = self._partitions.get(user, -1)
            if partition < 0:
                partition = self._partitions[user] = self._partition_of(user.encode())
            parts[name, partition].append((user.encode(), encode_json(event), event.time_ms))
        await asyncio.gather(*(self._send(name, partition, part) for (name, partition), part in parts.items()))

    async def _send(self, name: str, partition: int, messages: Sequence[Produced]) -> None:
        topic = self._prefix + name
        deliveries = []
        batch = self._producer.create_batch()
        for key, value, time_ms in messages:
            if batch.append(key=key, value=value, timestamp=time_ms) is None:
                deliveries.append(await self._producer.send_batch(batch, topic, partition=partition))
                batch = self._producer.create_batch()
                batch.append(key=key, value=value, timestamp=time_ms)
        if batch.record_count():
            deliveries.append(await self._producer.send_batch(batch, topic, partition=partition))
        for delivery in deliveries:
            await asyncio.wait([delivery], timeout=DELIVERED_S)
            if not delivery.done():
                raise KafkaTimeoutError(f"no delivery to partition {partition} of {topic} for {DELIVERED_S:.0f} s")
        await asyncio.gather(*deliveries)
