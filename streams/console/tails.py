"""Follows topics from the outside: some whole, of others only the newest records. No group, nothing committed.

A recreated topic ends it, which it would show as it was for ever, and so does one that has got more partitions.

A console must not be the slowest reader of a busy cluster: if it falls behind, it jumps ahead and says how many records
it has skipped.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.aside import aside
from streams.compute import Compute
from streams.decode import Record
from streams.fetching import fetch
from streams.followed import Followed
from streams.leaving import end_reading, start_reading
from streams.reading import MissingTopicError, groupless, log_ends, remedy
from streams.topic_admin import found

POLL_MS = 200
RECORDS_PER_READ = 2_000
"""Records taken in one call: some 10 ms of the compute thread."""
BEHIND_MAX = 100_000
"""Records of a partition that the reader may be behind. Further behind, it would show the past, so it jumps."""


@dataclass(frozen=True, slots=True)
class Tail:
    """``take`` is called with the records of ``topic`` (its full name), in order, on the compute thread.

    ``newest``: how many records of each partition to start with; None: all, read before any other topic. ``jumped`` is
    called, also there, with a partition whose records were skipped: what is known of it may be outdated. ``ahead`` is
    called with the records before ``take``, on a thread of its own, for work that would block the compute thread.
    ``at_once``: the most records per call of either.
    """

    topic: str
    take: Callable[[Sequence[Record]], None]
    newest: int | None = None
    jumped: Callable[[int], None] | None = None
    ahead: Callable[[Sequence[Record]], None] | None = None
    at_once: int = RECORDS_PER_READ


class Tails:
    """Follows ``tails`` within its ``async with`` block. ``skipped``: records jumped over, of all topics.

    ``task`` ends with `streams.followed.MadeAnewError` if a topic was deleted or recreated, with
    `streams.followed.MorePartitionsError` if one has got more partitions, and with `streams.topic_admin.ShutOutError`
    if the brokers do not let it in any more.
    """

    def __init__(self, bootstrap: str, tails: Sequence[Tail], compute: Compute) -> None:
        self._bootstrap = bootstrap
        self._tails = {tail.topic: tail for tail in tails}
        self._compute = compute
        self._followed = Followed(bootstrap, self._tails.keys())
        """Checks that the topics are those that existed when the block was entered."""
        self.skipped = 0
        self.caught_up = False
        """Whether everything that existed at the start has been read."""
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        there = await aside(found, self._bootstrap, self._tails.keys())
        if missing := sorted(self._tails.keys() - there.keys()):
            raise MissingTopicError(
                f"{self._bootstrap} has no topic {', '.join(missing)}; make it with: "
                f"{remedy(self._bootstrap, missing[0])}"
            )
        self._followed.ids = {name: topic.id for name, topic in there.items()}
        counts = self._followed.partitions = {name: topic.partitions for name, topic in there.items()}
        consumer = self._consumer = groupless(self._bootstrap, auto_offset_reset="earliest")
        await start_reading(consumer)
        self.task = asyncio.create_task(self._run(consumer, counts), name="tails")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self._followed.leave()
        await end_reading(self._consumer)

    async def _run(self, consumer: AIOKafkaConsumer, counts: Mapping[str, int]) -> None:
        partitions = [TopicPartition(name, number) for name in self._tails for number in range(counts[name])]
        whole = [tp for tp in partitions if self._tails[tp.topic].newest is None]
        consumer.assign(partitions)
        ends = await log_ends(self._bootstrap, partitions)
        begins = await consumer.beginning_offsets(partitions)
        for tp in partitions:
            newest = self._tails[tp.topic].newest
            consumer.seek(tp, begins[tp] if newest is None else max(begins[tp], ends[tp] - newest))
        await self._read_to(consumer, whole, ends)
        await self._read_to(consumer, partitions, ends)
        self.caught_up = True
        while True:
            await self._keep_up(consumer, partitions)
            await self._read(consumer, partitions)

    async def _read_to(
        self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition], ends: Mapping[TopicPartition, int]
    ) -> None:
        """Read until every position has reached the end; markers and compaction leave gaps."""
        while behind := [tp for tp in partitions if await consumer.position(tp) < ends[tp]]:
            await self._read(consumer, behind)

    async def _read(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._followed.look(consumer, partitions)
        batches = await fetch(consumer, partitions, self._bootstrap, timeout_ms=POLL_MS, max_records=RECORDS_PER_READ)
        for tp, records in batches.items():
            await self._give(tp.topic, records)

    async def _give(self, topic: str, records: Sequence[Record]) -> None:
        """Pass records of a partition to the tail of ``topic``."""
        tail = self._tails[topic]
        for at in range(0, len(records), tail.at_once):
            part = records[at : at + tail.at_once]
            if tail.ahead is not None:
                await asyncio.to_thread(tail.ahead, part)
            await self._compute.run(tail.take, part)

    async def _keep_up(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        """Jump to the newest records of partitions that are too far behind; topics read whole are never skipped."""
        for tp in partitions:
            newest, jumped = self._tails[tp.topic].newest, self._tails[tp.topic].jumped
            if newest is None:
                continue
            at, end = await consumer.position(tp), consumer.highwater(tp) or 0
            if end - at > max(BEHIND_MAX, newest):
                consumer.seek(tp, end - newest)
                self.skipped += end - newest - at
                if jumped is not None:
                    await self._compute.run(jumped, tp.partition)
