"""Fetches records even if a header's name is not UTF-8: such a record must not stop its reader for ever.

A broker takes any bytes as a header's name. aiokafka decodes the names with the record, so it fails on such a record,
and at every further try. librdkafka returns the record, and parses its headers only on request.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import methodcaller
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from aiokafka.structs import ConsumerRecord

from streams.aside import aside
from streams.connection import librdkafka_options
from streams.mendable import MendableError

log = structlog.get_logger()

ANSWER_S = 40.0
"""As long as a request of the first connection may take, over the same link."""
BYTES_MAX = 2 * 1024 * 1024
"""Most bytes of one answer. One that takes longer than a request may (40 s) is given up and asked for again, for ever:
so each reader needs 53 KB/s. Larger answers are read no faster on loopback (400,000 to 600,000 records/s)."""
APART_BYTES_MAX = BYTES_MAX // 2
"""Of one answer over the second connection, which a worker's poll loop waits for: within 20 s over such a link, before
the watchdog takes it for silent (`SALIENCE_SILENCE_MS`). librdkafka takes no less than the largest message, a MB."""
RECORDS_MAX = 1_000
"""Most records read through librdkafka in one go, if the caller gives no bound."""

_headers = methodcaller("headers")
"""Gets a message's headers by a call from C. Where a name is not UTF-8, the method leaves an error set. Python raises
that at once after a call from C, but at some later line after a call from specialised bytecode."""
Batches = dict[TopicPartition, list[Any]]


class UnreadError(MendableError):
    """Records that aiokafka cannot read, and that came by no second connection in time."""


async def fetch(
    consumer: Any,
    partitions: Sequence[TopicPartition],
    bootstrap: str,
    *,
    timeout_ms: int,
    max_records: int | None = None,
    committed: bool = True,
    ours: Callable[[TopicPartition], bool] = lambda _: True,
) -> Batches:
    """Return aiokafka's ``getmany`` of ``partitions`` (none would mean all); unreadable headers are left out.

    ``committed``: whether the consumer reads only committed records. ``ours``: whether the consumer still reads a
    partition for the caller, asked after waiting; others are not returned, and their position does not change.
    Raises `UnreadError` where librdkafka gets none of the records in time.
    """
    positions: dict[TopicPartition, int] = {}
    for tp in partitions:
        with suppress(IllegalStateError):  # revoked while we asked
            positions[tp] = await consumer.position(tp)
    try:
        batches: Batches = await consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
    except UnicodeDecodeError:
        for tp in filter(ours, positions):  # the failed call may have moved other partitions' positions
            consumer.seek(tp, positions[tp])
        read = await aside(_read_apart, bootstrap, positions, max_records or RECORDS_MAX, committed)
        if not read:
            places = ", ".join(f"partition {tp.partition} of {tp.topic} at {at}" for tp, at in positions.items())
            raise UnreadError(
                f"{bootstrap} gave nothing within {ANSWER_S:.0f} s over a second connection, for which a header's name "
                f"calls that is not UTF-8 ({places}); try again. Look closer: salience doctor"
            ) from None
        batches = {tp: records for tp, records in read.items() if ours(tp)}
        for tp, records in batches.items():
            consumer.seek(tp, records[-1].offset + 1)
    return batches


def _read_apart(bootstrap: str, positions: Mapping[TopicPartition, int], most: int, committed: bool) -> Batches:
    """Read from ``positions`` by librdkafka, until an unreadable record and those already here are read; blocks."""
    from confluent_kafka import Consumer  # noqa: PLC0415 - an ad server that never meets such a record loads none of it
    from confluent_kafka import TopicPartition as Place  # noqa: PLC0415 - as above

    options = {
        "group.id": "none",  # required, but never joined
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed" if committed else "read_uncommitted",
        "fetch.max.bytes": APART_BYTES_MAX,  # its own 50 MB would not come in time over a slow link
        "log_level": 2,
    }
    consumer = Consumer({**librdkafka_options(bootstrap), **options})
    read: Batches = {}
    left_out: list[ConsumerRecord] = []
    deadline_s = time.monotonic() + ANSWER_S
    try:
        consumer.assign([Place(tp.topic, tp.partition, offset) for tp, offset in positions.items()])
        while most > 0 and (left_s := deadline_s - time.monotonic()) > 0:
            message = consumer.poll(0 if left_out else left_s)
            if message is None:
                break
            if message.error():  # about the group: it asks for it, and may lack the right
                continue
            record, readable = _record(message)
            read.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
            if not readable:
                left_out.append(record)
            most -= 1
    finally:
        consumer.close()
    for first in left_out[:1]:
        at = {"topic": first.topic, "partition": first.partition, "offset": first.offset}
        log.warning("headers left out, a name is not UTF-8", **at, records=len(left_out))
    return read


def _record(message: Any) -> tuple[ConsumerRecord, bool]:
    """A librdkafka message as aiokafka's record, and whether its headers could be read."""
    try:
        headers, readable = tuple(_headers(message) or ()), True
    except SystemError:
        headers, readable = (), False
    key, value = message.key(), message.value()
    timestamp_type, timestamp_ms = message.timestamp()
    sizes = [-1 if part is None else len(part) for part in (key, value)]
    place = message.topic(), message.partition(), message.offset()
    return ConsumerRecord(*place, timestamp_ms, timestamp_type, key, value, None, *sizes, headers), readable
