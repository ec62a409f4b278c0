"""Every record that came in has one fate: asserted of every shop, at the end of every integration test."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.connection import aiokafka_options
from streams.conservation import unaccounted
from streams.reading import MissingTopicError, read_topic
from streams.settings import Settings
from streams.topic_admin import partition_counts
from streams.topics import AD_IMPRESSIONS, CHANGELOG, CLICKS
from streams.wire import LANE_KEY, LaneRow

if TYPE_CHECKING:
    from tests.integration.lanes import Shop


async def assert_conserved(shop: "Shop") -> None:
    """The totals of every lane row balance, those of the last count the records that its offsets have passed.

    A lane without a row has passed none: what the group is done with there has no fate.

    Where topics were made anew (``shop.adopted``), totals speak of records that are no longer there, and only balance.
    """
    settings = shop.settings
    rows: dict[int, LaneRow] = {}
    try:
        async for records in read_topic(settings.bootstrap, settings.topic_prefix + CHANGELOG):
            for record in records:
                if record.key == LANE_KEY and record.value is not None:
                    row = rows[record.partition] = msgspec.msgpack.decode(record.value, type=LaneRow)
                    assert unaccounted(row.totals) == row.totals.get("unaccounted", 0) == 0, (record.partition, row)
    except MissingTopicError:
        return
    if shop.adopted:
        return
    passed: Counter[int] = Counter()
    for source, name in enumerate((AD_IMPRESSIONS, CLICKS)):
        done = await _done(settings, settings.topic_prefix + name)
        done |= {lane: row.next_offsets[source] for lane, row in rows.items()}
        async for records in read_topic(settings.bootstrap, settings.topic_prefix + name):
            passed.update(record.partition for record in records if record.offset < done[record.partition])
    assert Counter({lane: row.totals["events_in"] for lane, row in rows.items()}) == passed


async def _done(settings: Settings, topic: str) -> dict[int, int]:
    """The offset of each partition before which the group says that it is done; 0 where it has said nothing."""
    partitions = await asyncio.to_thread(partition_counts, settings.bootstrap, [topic])
    async with AIOKafkaConsumer(
        group_id=settings.group, enable_auto_commit=False, **aiokafka_options(settings.bootstrap)
    ) as asking:
        return {each: await asking.committed(TopicPartition(topic, each)) or 0 for each in range(partitions[topic])}
