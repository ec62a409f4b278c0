"""A plain echo through the broker, a process of its own: ``python -m tests.bench.echo PLAN``. Runs until it is ended.

What any engine on aiokafka does at the very least: consume both event topics, produce each record back, commit; in
``exactly_once`` in a transaction with the offsets in it. It decodes, keeps and computes nothing.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams import topics
from streams.settings import Guarantee
from tests.bench.drive import ECHO

RETRY_MS = 20
"""As our lanes: a transaction's first batch finds the one before still closing."""
READY = "echoing"
FETCH_BYTES = 4 * 1024 * 1024
"""Per partition and fetch, as our intake asks for."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Which topics, and whether in transactions."""

    bootstrap: str
    prefix: str
    lanes: int
    guarantee: Guarantee


async def echo(plan: Plan) -> None:
    """Consume and produce back, whatever has come at a time."""
    inputs = [
        TopicPartition(plan.prefix + name, lane)
        for name in (topics.AD_IMPRESSIONS, topics.CLICKS)
        for lane in range(plan.lanes)
    ]
    group = plan.prefix + ECHO
    transactional = plan.guarantee == "exactly_once"
    async with (
        AIOKafkaConsumer(
            bootstrap_servers=plan.bootstrap,
            group_id=group,
            enable_auto_commit=False,
            isolation_level="read_committed",
            max_partition_fetch_bytes=FETCH_BYTES,
        ) as consumer,
        AIOKafkaProducer(
            bootstrap_servers=plan.bootstrap,
            acks="all",
            transactional_id=group if transactional else None,
            retry_backoff_ms=RETRY_MS,
        ) as producer,
    ):
        consumer.assign(inputs)
        await consumer.seek_to_end(*inputs)
        for tp in inputs:
            await consumer.position(tp)
        sys.stdout.write(READY + "\n")
        sys.stdout.flush()
        while True:
            if batches := await consumer.getmany(timeout_ms=1_000):
                offsets = {tp: records[-1].offset + 1 for tp, records in batches.items()}
                if transactional:
                    async with producer.transaction():
                        await _produce(producer, plan.prefix + ECHO, batches)
                        await producer.send_offsets_to_transaction(offsets, group)
                else:
                    await _produce(producer, plan.prefix + ECHO, batches)
                    await consumer.commit(offsets)


async def _produce(producer: AIOKafkaProducer, topic: str, batches: dict[TopicPartition, Sequence[Any]]) -> None:
    """Every record to the partition that it came from, and every delivery awaited."""
    sent = [
        await producer.send(topic, record.value, key=record.key, partition=tp.partition)
        for tp, records in batches.items()
        for record in records
    ]
    await asyncio.gather(*sent)


if __name__ == "__main__":
    asyncio.run(echo(msgspec.json.decode(sys.argv[1], type=Plan)))
