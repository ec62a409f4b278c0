"""Finds a placement's receipt on the decisions topic by its time: a few reads, however long the topic is."""

import asyncio

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.connection import aiokafka_options
from streams.console.people import Found
from streams.fetching import fetch
from streams.topics import DECISIONS
from streams.wire import Decision

BEFORE_MS, AFTER_MS = 1_000, 60_000
"""Time searched around the placement's own: a slice writes receipts right after placements, or within its deadline."""
FIND_S = 10.0
"""As long as a person waits for an answer."""
POLL_MS = 500
_decode = msgspec.json.Decoder(Decision).decode


async def find_receipt(bootstrap: str, prefix: str, found: Found) -> Decision | None:
    """The decision behind a placement; None where the topic no longer has it.

    Raises `TimeoutError` if the broker does not answer in time, and the clients' own errors.
    """
    tp = TopicPartition(prefix + DECISIONS, found.lane)
    async with (
        asyncio.timeout(FIND_S),
        AIOKafkaConsumer(
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **aiokafka_options(bootstrap),
        ) as consumer,
    ):
        consumer.assign([tp])
        since = (await consumer.offsets_for_times({tp: found.written_ms - BEFORE_MS}))[tp]
        if since is None:
            return None
        end = (await consumer.end_offsets([tp]))[tp]
        consumer.seek(tp, since.offset)
        user, wanted = found.placed.user_id.encode(), found.placed.placement_id
        while await consumer.position(tp) < end:
            for record in (await fetch(consumer, [tp], bootstrap, timeout_ms=POLL_MS)).get(tp, []):
                if record.timestamp > found.written_ms + AFTER_MS:
                    return None
                if record.key == user and record.value is not None:
                    decision = _decode(record.value)
                    if decision.placement_id == wanted:
                        return decision
    return None
