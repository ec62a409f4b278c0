"""What other people's producers send: any codec of the protocol reaches a worker's lanes."""

import signal
from pathlib import Path

import pytest
from confluent_kafka import Producer

from deploy.brokers import Broker
from streams.topics import AD_IMPRESSIONS
from streams.wire import encode_json
from tests.builders import START_MS, impression
from tests.integration.lanes import ADS, play, shop_on
from tests.integration.workers import Worker, until

pytestmark = pytest.mark.integration

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def test_batches_of_every_codec_are_read(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish(ADS)
        for at, codec in enumerate(CODECS):
            producer = Producer({"bootstrap.servers": kafka.bootstrap, "compression.type": codec, "linger.ms": 1_000})
            for number in range(50):  # a batch that is worth compressing
                event = impression(event_id=f"{codec}-{number}", time_ms=START_MS + 1_000 * at + number)
                key, value = event.user_id.encode(), encode_json(event)
                producer.produce(topic_prefix + AD_IMPRESSIONS, value, key, partition=0, timestamp=event.time_ms)
            assert producer.flush(30) == 0
        with Worker(shop, tmp_path / "worker.log") as worker:
            await until(lambda: shop.has_applied(50 * len(CODECS)), "every codec's events applied")
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said

    play(scenario)
