"""Finds a placement's receipt on the topic decisions by its id: some twenty reads, however long the topic is.

An id tells the lane, which is the partition, and the ends of the user's events on both input topics
(`streams.placement_ids`). Along a lane's log the ends grow from slice to slice: who is placed has an event of that
slice, so one of the two ends is newer than all before, while the other may be old. The larger ends of a few receipts
in a row are therefore as good as sorted, and a binary search comes close. From there receipts are read in ever wider
rings, until the right one is among them or all have been read: what the order does not hold for, such as a lane whose
input topics were made anew, is found too, only later.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress

import msgspec
from aiokafka import TopicPartition

from streams.aside import aside
from streams.decode import Record
from streams.fetching import fetch
from streams.placement_ids import Origin
from streams.reading import log_ends, partitions_of, read_between, reader
from streams.topics import DECISIONS
from streams.wire import UNREADABLE, Decision

WINDOW = 64
"""Receipts looked at together, a megabyte: among so many, somebody has clicked and somebody was shown something."""
WIDER = 8
"""How many times as wide each ring is as the one before."""
POLL_MS = 500
Read = Callable[[int], Awaitable[Sequence[Record]]]
"""The first records from an offset on, a `WINDOW` at most; none at the log's end."""


class _Head(msgspec.Struct):
    """What the search needs of a receipt; the rest, some 18 KB, is not decoded."""

    placement_id: str
    offsets: tuple[int, int]


_head = msgspec.json.Decoder(_Head).decode
_decision = msgspec.json.Decoder(Decision).decode


async def find_receipt(bootstrap: str, prefix: str, placement_id: str) -> Decision | None:
    """The receipt of a placement, if it is on the topic.

    Raises `MissingTopicError` without the topic, and `TopicsError` where no broker answers.
    """
    sought = Origin.of(placement_id)
    if sought is None:
        return None
    partitions = await aside(partitions_of, bootstrap, prefix + DECISIONS)
    if sought.lane >= len(partitions):
        return None
    tp = partitions[sought.lane]
    end = (await log_ends(bootstrap, [tp], committed=True))[tp]
    begin, near = await _approach(bootstrap, tp, end, sought)
    for low, high in rings(begin, near, end):
        async with aclosing(read_between(bootstrap, {tp: low}, {tp: high})) as batches:
            async for records in batches:
                if (decision := receipt_among(records, placement_id)) is not None:
                    return decision
    return None


def receipt_among(records: Iterable[Record], placement_id: str) -> Decision | None:
    """The first receipt of a placement; a record that is none hides no other."""
    wanted = placement_id.encode()
    for record in records:
        if record.value is not None and wanted in record.value:
            with suppress(*UNREADABLE):
                if (decision := _decision(record.value)).placement_id == placement_id:
                    return decision
    return None


async def _approach(bootstrap: str, tp: TopicPartition, end: int, sought: Origin) -> tuple[int, int]:
    """Where the log begins, and where the receipt may be."""
    async with reader(bootstrap, [tp], committed=True) as consumer:
        begin: int = (await consumer.beginning_offsets([tp]))[tp]

        async def read(offset: int) -> Sequence[Record]:
            consumer.seek(tp, offset)
            while await consumer.position(tp) < end:
                if batch := (await fetch(consumer, [tp], bootstrap, timeout_ms=POLL_MS, max_records=WINDOW)).get(tp):
                    return batch
            return ()

        return begin, await approach(read, begin, end, sought)


async def approach(read: Read, begin: int, end: int, sought: Origin) -> int:
    """Past the first window whose ends reach those sought, by binary search over ``begin`` to ``end``."""
    low, high = begin, end
    while low < high:
        middle = (low + high) // 2
        if reached(await read(middle), sought):
            high = middle
        else:
            low = middle + 1
    return min(low + WINDOW, end)


def reached(records: Sequence[Record], sought: Origin) -> bool:
    """Whether both ends of the events behind these receipts are as far as those sought; so it is for none."""
    ends = [head.offsets for record in records if (head := _head_of(record)) is not None]
    return not ends or all(max(of) >= end for of, end in zip(zip(*ends, strict=True), sought.offsets, strict=True))


def _head_of(record: Record) -> _Head | None:
    with suppress(*UNREADABLE):
        return _head(record.value or b"")
    return None


def rings(begin: int, near: int, end: int) -> Sequence[tuple[int, int]]:
    """Ranges of offsets that together are all from ``begin`` to ``end``, those closest to ``near`` first."""
    found, low, high, reach = list[tuple[int, int]](), near, near, WINDOW
    while low > begin or high < end:
        further = min(end, near + reach)
        if high < further:
            found.append((high, further))
            high = further
        further = max(begin, near - reach)
        if further < low:
            found.append((further, low))
            low = further
        reach *= WIDER
    return found
