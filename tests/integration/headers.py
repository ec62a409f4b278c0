"""Records with a header whose name is not UTF-8, as clients in other languages can send them."""

from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy


class _Bytes(str):
    """A name that is sent as bytes which are no text."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


async def send_unreadable(
    bootstrap: str, topic: str, partition: int, records: Sequence[tuple[bytes, bytes, int]], unreadable: int = 0
) -> None:
    """Send (key, value, time) in one batch; one of them has a header whose name is no text."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        batch = producer.create_batch()
        builder = batch._builder = _DefaultRecordBatchBuilderPy(2, 0, False, -1, -1, -1, 100_000)
        for offset, (key, value, time_ms) in enumerate(records):
            headers = [(_Bytes(), b"1"), ("plain", b"2")] if offset == unreadable else []
            builder.append(offset, time_ms, key, value, headers)
        batch._relative_offset = len(records)
        await (await producer.send_batch(batch, topic, partition=partition))
