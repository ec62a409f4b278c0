"""Reads topics once, from their beginning to their present end, outside any group: for commands and checks."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.aside import aside
from streams.connection import aiokafka_options
from streams.decode import Record
from streams.fetching import BYTES_MAX, fetch
from streams.leaving import at_work
from streams.mendable import MendableError
from streams.topic_admin import partition_counts
from streams.topics import TABLE

READ_TIMEOUT_MS = 500
RECORDS_PER_READ = 5_000
Progress = Callable[[str, int, int], None]
"""Called with a topic, how many of its offsets have been read, and how many there are."""
OFFSETS_FIRST = 2_000
"""How far back from its end a partition is looked through at first. A lane's row is the last of every slice, so that
nothing follows it but what a slice that was given up has left."""
LAST_BATCH_MS = 100
"""Wait for the last batch, again until the broker has answered. None comes if the log ends in a transaction marker."""


CUT_S = 10.0
"""A log may seem shorter for a moment, while another broker becomes its leader."""


SILENT_S = 60.0
"""Longer than an election, a restart of a broker, or a request that one which is stuck leaves unanswered (40 s)."""


class MissingTopicError(MendableError):
    """A topic that does not exist."""


class CutLogError(MendableError):
    """A log that ends before its end when the reading began."""


class SilentLogError(MendableError):
    """No broker tells what a partition holds any more, and its end has not been reached."""


def groupless(bootstrap: str, *topics: str, committed: bool = True, **more: Any) -> AIOKafkaConsumer:
    """A consumer in no group, not started, that stores no offsets; ``more``: aiokafka's options."""
    return AIOKafkaConsumer(
        *topics,
        isolation_level="read_committed" if committed else "read_uncommitted",
        enable_auto_commit=False,
        fetch_max_bytes=BYTES_MAX,
        **aiokafka_options(bootstrap),
        **more,
    )


def remedy(bootstrap: str, topic: str) -> str:
    """The command that creates a topic. Its prefix is what precedes one of our names in ``topic``."""
    ours = max((one.name for one in TABLE if topic.endswith(one.name)), key=len, default=topic)
    prefix = topic.removesuffix(ours)
    return f"salience topics create --bootstrap {bootstrap}" + (f" --prefix {prefix}" if prefix else "")


def partitions_of(bootstrap: str, topic: str) -> list[TopicPartition]:
    """The topic's partitions. Raises `MissingTopicError`, and `TopicsError` where no broker answers."""
    counts = partition_counts(bootstrap, [topic])
    if topic not in counts:
        raise MissingTopicError(f"{bootstrap} has no topic {topic!r}; make it with: {remedy(bootstrap, topic)}")
    return [TopicPartition(topic, number) for number in range(counts[topic])]


async def log_ends(
    bootstrap: str, partitions: Sequence[TopicPartition], *, committed: bool = False
) -> dict[TopicPartition, int]:
    """Where each partition's log ends, open transactions included; ``committed``: before the first open one.

    The embedded broker gives the first offset of the last batch, plus one; so that batch is read to find its end.
    """
    async with at_work(groupless(bootstrap, committed=committed)) as consumer:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        unread = {tp for tp, end in ends.items() if end > 0}
        consumer.assign(unread)
        for tp in unread:
            consumer.seek(tp, ends[tp] - 1)
        patience, heard = Patience(consumer, bootstrap, {tp: ends[tp] for tp in unread}), set[TopicPartition]()
        while unread:
            batches = await fetch(consumer, [*unread], bootstrap, timeout_ms=LAST_BATCH_MS, committed=committed)
            ends |= {tp: max(ends[tp], records[-1].offset + 1) for tp, records in batches.items()}
            left = unread - batches.keys() - heard  # of what was answered before this fetch, all has come
            unread = {tp for tp in left if await consumer.position(tp) < ends[tp]}  # else a marker was the last
            heard = {tp for tp in unread if consumer.highwater(tp) is not None}
            await patience.bear(came=bool(batches))
    return ends


async def log_begins(bootstrap: str, topic: str) -> dict[int, int]:
    """Where the log of each of the topic's partitions begins: above 0 where records have been deleted.

    Raises `MissingTopicError`.
    """
    partitions = await aside(partitions_of, bootstrap, topic)
    async with reader(bootstrap, partitions, committed=True) as consumer:
        return {tp.partition: begin for tp, begin in (await consumer.beginning_offsets(partitions)).items()}


async def ends_of(bootstrap: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """Where topics end at one moment, by name and partition: for callers that read related topics one after the other.
    Raises `MissingTopicError`.
    """
    partitions = [tp for topic in topics for tp in await aside(partitions_of, bootstrap, topic)]
    return {(tp.topic, tp.partition): end for tp, end in (await log_ends(bootstrap, partitions)).items()}


async def read_topic(
    bootstrap: str,
    topic: str,
    *,
    committed: bool = True,
    latest: int | None = None,
    progress: Callable[[int, int], None] = lambda _read, _there: None,
) -> AsyncGenerator[Sequence[Record], None]:
    """Batches of records of one partition each, up to the end at the start; read-committed unless told otherwise.

    ``latest``: read only the last so many offsets of each partition. ``progress`` is called with how many offsets have
    been read, of how many, at the start and after each read.

    Done when every *position* reaches the end: markers and compaction leave gaps. Raises `MissingTopicError`.
    """
    # Aside, since the call blocks, and a worker sends its heartbeats on this loop.
    partitions = await aside(partitions_of, bootstrap, topic)
    ends = await log_ends(bootstrap, partitions)
    async with reader(bootstrap, partitions, committed) as consumer:
        await consumer.seek_to_beginning(*partitions)
        if latest is not None:
            for tp, begin in (await consumer.beginning_offsets(partitions)).items():
                consumer.seek(tp, max(begin, ends[tp] - latest))
        async for records in _until(consumer, bootstrap, ends, committed, progress):
            yield records


async def read_between(
    bootstrap: str, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> AsyncGenerator[Sequence[Record], None]:
    """Batches of committed records of one partition each, from ``begins`` on and before ``ends``."""
    begun = {tp: begin for tp, begin in begins.items() if begin < ends[tp]}
    if not begun:
        return
    async with reader(bootstrap, [*begun], committed=True) as consumer:
        for tp, begin in begun.items():
            consumer.seek(tp, begin)
        async for records in _until(consumer, bootstrap, {tp: ends[tp] for tp in begun}):
            end = ends[TopicPartition(records[0].topic, records[0].partition)]
            if told := [record for record in records if record.offset < end]:
                yield told


async def newest(bootstrap: str, topic: str, key: bytes) -> dict[int, Record]:
    """The newest committed record under ``key`` in each partition that has one; tombstones are none.

    Partitions are read from their ends backwards, ten times as far each time: what is told often stands near the end of
    a log that may hold millions of rows. Raises `MissingTopicError`.
    """
    partitions = await aside(partitions_of, bootstrap, topic)
    begins, ends = await log_begins(bootstrap, topic), await log_ends(bootstrap, partitions)
    found: dict[int, Record] = {}
    unread, offsets = {tp: end for tp, end in ends.items() if end > begins[tp.partition]}, OFFSETS_FIRST
    while unread:
        start = {tp: max(begins[tp.partition], end - offsets) for tp, end in unread.items()}
        async for records in read_between(bootstrap, start, unread):
            told = [record for record in records if record.key == key and record.value is not None]
            found |= {record.partition: record for record in told[-1:]}
        unread = {tp: at for tp, at in start.items() if tp.partition not in found and at > begins[tp.partition]}
        offsets *= 10
    return found


def reader(
    bootstrap: str, partitions: Sequence[TopicPartition], committed: bool
) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """A consumer of these partitions, in no group, for the block."""
    return at_work(groupless(bootstrap, committed=committed, auto_offset_reset="earliest"), partitions)


async def _until(
    consumer: AIOKafkaConsumer,
    bootstrap: str,
    ends: Mapping[TopicPartition, int],
    committed: bool = True,
    progress: Callable[[int, int], None] = lambda _read, _there: None,
) -> AsyncIterator[Sequence[Record]]:
    there = left = await _left(consumer, ends)
    progress(0, there)
    patience = Patience(consumer, bootstrap, ends)
    while left:
        batches = await fetch(
            consumer, [*ends], bootstrap,
            timeout_ms=READ_TIMEOUT_MS, max_records=RECORDS_PER_READ, committed=committed,
        )  # fmt: skip
        for records in batches.values():
            yield records
        left = await _left(consumer, ends)
        progress(there - left, there)
        await patience.bear(came=bool(batches))


class Patience:
    """How long a reader waits for what is before ``ends``, and does not come.

    Not for ever while no broker answers, nor while all of a log that has become shorter is read. An open transaction
    holds records back for as long as its timeout.
    """

    def __init__(self, consumer: AIOKafkaConsumer, bootstrap: str, ends: Mapping[TopicPartition, int]) -> None:
        self._consumer, self._bootstrap, self._ends = consumer, bootstrap, ends
        self._clock = asyncio.get_running_loop().time
        self._whole_s = self._clock()
        self._heard: dict[TopicPartition, tuple[int | None, float]] = {}
        """What aiokafka calls the last answer about each partition, and when that was new here."""

    async def bear(self, *, came: bool) -> None:
        """After each fetch; ``came``: whether it gave records. Raises `CutLogError` and `SilentLogError`."""
        now_s = self._clock()
        behind = [tp for tp, end in self._ends.items() if await self._consumer.position(tp) < end]
        for tp in behind:
            answer = self._consumer.last_poll_timestamp(tp)
            if came or tp not in self._heard or answer != self._heard[tp][0]:  # else others' records may be before its
                self._heard[tp] = answer, now_s
        if silent := [tp for tp in behind if now_s - self._heard[tp][1] >= SILENT_S]:
            raise SilentLogError(
                f"no broker of {self._bootstrap} has answered for {SILENT_S:.0f} s about {_named(silent)}, of which "
                "more was to be read; try again when it does. Look closer: salience doctor"
            )
        if came or not (cut := [tp for tp in behind if await is_cut(self._consumer, tp, self._ends[tp])]):
            self._whole_s = now_s
        elif now_s - self._whole_s >= CUT_S:
            raise CutLogError(
                f"{_named(cut)} has become shorter while it was read: it was made anew, or a broker lost its end; "
                "try again"
            )


def _named(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"partition {tp.partition} of {tp.topic}" for tp in partitions)


async def is_cut(consumer: AIOKafkaConsumer, tp: TopicPartition, end: int) -> bool:
    """Whether the log ends before ``end``, and all of it has been read; open transactions are of the log."""
    there = consumer.highwater(tp)
    return there is not None and there <= await consumer.position(tp) < end


async def _left(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> int:
    """Offsets before ``ends`` that have not been read."""
    return sum([max(0, end - await consumer.position(tp)) for tp, end in ends.items()])
