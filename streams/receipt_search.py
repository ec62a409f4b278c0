"""Finds a placement's receipt on the topic decisions by its id: some twenty reads, however long the topic is.

An id tells the lane, which is the partition, and how far the lane's inputs had to be read for it; a receipt's header
tells how far its slice had read them (`streams.placement_ids`). Who is placed has an event of that very slice, so that
the receipt is in the first slice that had read far enough: a binary search finds its beginning. From there receipts
are looked through in ever wider rings, until the right one is among them or all have been seen: so the receipts of
former versions, which have no such header, are found too, and those of slices that were run again, or of a lane whose
input topics were made anew. There an id may be given a second time; then either receipt may be the one found, and its
time tells which. Nothing reads the inputs at a receipt's offsets: its own row is what was known of the user.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress

import msgspec
from aiokafka import TopicPartition

from streams.aside import aside
from streams.decode import Record
from streams.fetching import fetch
from streams.placement_ids import Origin, slice_end_of
from streams.reading import is_cut, log_ends, partitions_of, read_between, reader
from streams.topics import DECISIONS
from streams.wire import UNREADABLE, Decision

SLICE = 512
"""Receipts of the first ring, seven megabytes: a slice that is full of waiting events may leave more, others fewer."""
WIDER = 8
"""How many times as wide each ring is as the one before."""
LOOKED_AT = 16
"""Receipts whose headers one read of the binary search looks at: one tells, unless it is of a former version."""
POLL_MS = 500
Read = Callable[[int], Awaitable[Sequence[Record]]]
"""The first records from an offset on; none at the log's end."""

_decision = msgspec.json.Decoder(Decision).decode


async def find_receipt(
    bootstrap: str,
    prefix: str,
    placement_id: str,
    *,
    most: int | None = None,
    progress: Callable[[int, int], None] = lambda _read, _there: None,
) -> Decision | None:
    """The receipt of a placement, if it is on the topic.

    ``most``: look through no more than so many receipts before and after its place. ``progress`` is called with how
    many have been looked through, of how many.

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
    if most is not None:
        begin, end = max(begin, near - most), min(end, near + most)
    looked = 0
    for low, high in rings(begin, near, end):
        async with aclosing(read_between(bootstrap, {tp: low}, {tp: high})) as batches:
            async for records in batches:
                if (decision := receipt_among(records, placement_id)) is not None:
                    return decision
                progress(looked + records[-1].offset + 1 - low, end - begin)
        looked += high - low
        progress(looked, end - begin)
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
    """Where the log begins, and where the receipt's slice does."""
    async with reader(bootstrap, [tp], committed=True) as consumer:
        begin: int = (await consumer.beginning_offsets([tp]))[tp]

        async def read(offset: int) -> Sequence[Record]:
            consumer.seek(tp, offset)
            while await consumer.position(tp) < end:
                if batch := (await fetch(consumer, [tp], bootstrap, timeout_ms=POLL_MS, max_records=LOOKED_AT)).get(tp):
                    return batch
                if await is_cut(consumer, tp, end):  # whoever reads it next says so
                    break
            return ()

        return begin, await approach(read, begin, end, sought)


async def approach(read: Read, begin: int, end: int, sought: Origin) -> int:
    """Where the first slice that had read far enough begins, by binary search over ``begin`` to ``end``."""
    low, high = begin, end
    while low < high:
        middle = (low + high) // 2
        if reached(await read(middle), sought):
            high = middle
        else:
            low = middle + 1
    return low


def reached(records: Sequence[Record], sought: Origin) -> bool:
    """Whether the slice of these receipts had read far enough; at the log's end it had, and where none tells, not."""
    for record in records:
        if (ends := slice_end_of(record.headers)) is not None:
            return all(end >= wanted for end, wanted in zip(ends, sought.next_offsets, strict=True))
    return not records


def rings(begin: int, near: int, end: int) -> Sequence[tuple[int, int]]:
    """Ranges of offsets that together are all from ``begin`` to ``end``, those closest to ``near`` first."""
    found, low, high, reach = list[tuple[int, int]](), near, near, SLICE
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
