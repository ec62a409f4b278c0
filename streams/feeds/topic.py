"""A compacted topic read whole by every worker: caught up before the worker is ready, then followed live.

The consumer has no group, since every worker needs every record. Batches are taken on the compute thread, so that no
slice sees half of one.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from mode import Service

from streams.aside import aside
from streams.compute import Compute
from streams.decode import Record
from streams.fatal import guarded
from streams.fetching import fetch
from streams.leaving import end_reading, start
from streams.reading import groupless, log_ends, partitions_of
from streams.settings import Settings

log = structlog.get_logger()

POLL_MS = 200


class TopicFeed(Service):
    """Follows ``topic`` (without prefix).

    ``take`` gets records of one partition, in order, on the compute thread, and returns how many it refused.
    """

    def __init__(
        self,
        settings: Settings,
        compute: Compute,
        fail: Callable[[BaseException], None],
        topic: str,
        take: Callable[[Sequence[Record]], int],
        records_per_read: int,
    ) -> None:
        """``records_per_read``: most in one call, which a slice may wait for. ``fail``: ends the process."""
        super().__init__()
        self._settings = settings
        self.topic = settings.topic_prefix + topic
        self._compute = compute
        self._fail = fail
        self.take = take
        self._records_per_read = records_per_read
        self._consumer: AIOKafkaConsumer | None = None
        self._starting: asyncio.Future[tuple[AIOKafkaConsumer, int]] | None = None
        self._partitions: Sequence[TopicPartition] = ()
        self.refused = 0
        self.caught_up = False

    async def prepare(self, records: Sequence[Record]) -> None:
        """Do slow work before ``take``, off the compute thread. By default there is none."""

    async def on_start(self) -> None:
        """Read to the topic's present end. Raises `MissingTopicError` where the topic is not known yet.

        Raises `RuntimeError` where the reading is cancelled but the service is not: it would run without any updates.
        """
        # A task of its own, so that `on_stop` can end it: aiokafka waits 40 s for an offset once its reader is closed.
        starting = self._starting = asyncio.ensure_future(self._catch_up())
        await asyncio.wait([starting])
        if starting.cancelled():
            if self.should_stop:
                return
            raise RuntimeError(f"the reading of {self.topic} ended before its end")
        consumer, records = starting.result()
        self.caught_up = True
        log.info("topic caught up", topic=self.topic, records=records, refused=self.refused)
        who = f"the reading of {self.topic}"
        self.add_future(guarded(who, self._follow(consumer), self._fail, lambda: self.should_stop))

    async def _catch_up(self) -> tuple[AIOKafkaConsumer, int]:
        """A consumer that has read the topic to its end, and the number of records read."""
        bootstrap = self._settings.bootstrap
        partitions = self._partitions = await aside(partitions_of, bootstrap, self.topic)
        consumer = self._consumer = groupless(bootstrap, auto_offset_reset="earliest")
        await start(consumer)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await log_ends(bootstrap, partitions)
        records = 0
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            records += await self._read(consumer)
        return consumer, records

    async def _read(self, consumer: AIOKafkaConsumer) -> int:
        batches = await fetch(
            consumer, self._partitions, self._settings.bootstrap,
            timeout_ms=POLL_MS, max_records=self._records_per_read,
        )  # fmt: skip
        for records in batches.values():
            await self.prepare(records)
            self.refused += await self._compute.run(self.take, records)
        return sum(map(len, batches.values()))

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while not self.should_stop:
            await self._read(consumer)

    async def on_stop(self) -> None:
        """Cancel the start if it still runs, since nobody waits for it now; then close the consumer."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._consumer is not None:
            await end_reading(self._consumer)
