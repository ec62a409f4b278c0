"""Parts of the demo on a broker of their own: there its topics have no prefix."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from deploy.brokers.embedded import EmbeddedBroker
from streams import topic_admin, topics
from streams.demo.run import LANES, count_dead_letters

pytestmark = pytest.mark.integration


@pytest.fixture
def bootstrap(tmp_path: Path) -> Iterator[str]:
    """Of an embedded broker with the topics and nothing on them."""
    with EmbeddedBroker(tmp_path / "broker") as broker:
        topic_admin.create(broker.bootstrap, LANES)
        yield broker.bootstrap


async def put(bootstrap: str, topic: str, partition: int, values: list[bytes]) -> None:
    """One batch."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        batch = producer.create_batch()
        for value in values:
            assert batch.append(key=b"k", value=value, timestamp=None)
        await (await producer.send_batch(batch, topic, partition=partition))


def test_every_dead_letter_of_a_batch_is_counted(bootstrap: str) -> None:
    assert asyncio.run(count_dead_letters(bootstrap)) == 0
    asyncio.run(put(bootstrap, topics.DEAD_LETTERS, 0, [b"bad"] * 50))
    assert asyncio.run(count_dead_letters(bootstrap)) == 50
    asyncio.run(put(bootstrap, topics.DEAD_LETTERS, LANES - 1, [b"bad"] * 7))
    assert asyncio.run(count_dead_letters(bootstrap)) == 57
