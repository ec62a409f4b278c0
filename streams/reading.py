"""Topics read from the outside, once, from their beginning to their end as it is now: for commands and checks."""

from collections.abc import AsyncIterator, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.decode import Record
from streams.topics import partition_counts

READ_TIMEOUT_MS = 500
RECORDS_PER_READ = 5_000


class MissingTopicError(RuntimeError):
    """A topic that does not exist."""


async def read_topic(bootstrap: str, topic: str, *, committed: bool = True) -> AsyncIterator[Sequence[Record]]:
    """Batches of records of one partition each, up to the end taken first; read-committed unless told otherwise.

    Done when every *position* reaches the end: markers and compaction leave holes. Raises `MissingTopicError`.
    """
    counts = partition_counts(bootstrap, [topic])
    if topic not in counts:
        raise MissingTopicError(
            f"{bootstrap} has no topic {topic!r}; make it with: salience topics create --bootstrap {bootstrap}"
        )
    partitions = [TopicPartition(topic, number) for number in range(counts[topic])]
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as watcher:
        ends = await watcher.end_offsets(partitions)
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed" if committed else "read_uncommitted",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    ) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        batches: dict[TopicPartition, Sequence[Record]] = {}
        # The embedded broker's end is that of its last batch's first record, so what still comes is read as well.
        while batches or any([await consumer.position(tp) < end for tp, end in ends.items()]):
            batches = await consumer.getmany(timeout_ms=READ_TIMEOUT_MS, max_records=RECORDS_PER_READ)
            for records in batches.values():
                yield records
