"""Topics that become others under a running worker: it ends, and says what is to be done."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from deploy.brokers import Broker
from streams.lanes.adopt import WorkersRunError, adopt
from streams.wire import encode_json
from tests.builders import ad
from tests.integration.lanes import ADS, events, play, recreate, repartition, shop_on
from tests.integration.workers import Worker, until

pytestmark = pytest.mark.integration


def test_a_topic_recreated_under_a_running_worker_is_refused_with_a_clear_last_line(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*ADS, *events()])
        with Worker(shop, tmp_path / "log") as worker:
            await until(lambda: shop.has_applied(80), "80 events")
            await asyncio.to_thread(recreate, kafka.bootstrap, topic_prefix)
            shop.adopted = True
            assert worker.status() == 70
            last = worker.said.rstrip().splitlines()[-1]
            assert "the worker ended" in last
            assert "status=70" in last
        with Worker(shop, tmp_path / "next.log") as worker:
            assert worker.status() == 70
            assert "salience lanes adopt" in worker.said.rstrip().splitlines()[-1]
        assert await shop.applied() == 80

    play(scenario)


def test_partitions_of_ads_that_came_under_a_running_worker_are_read_by_the_next(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish(ADS)
        name = topic_prefix + "ads"
        with Worker(shop, tmp_path / "log") as worker:
            await until(_logs(worker, "topic caught up", name, f"records={len(ADS)}"), "a whole catalogue")
            await until(_logs(worker, "lane taken over"), "its lane")  # which looks at the topics itself
            await asyncio.to_thread(repartition, kafka.bootstrap, name, 2)
            assert worker.status() == 70
            assert "ads has 2 partitions and had 1" in worker.said
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
            await producer.send_and_wait(name, encode_json(ad("ad-new")), key=b"ad-new", partition=1)
        with Worker(shop, tmp_path / "next.log") as worker:
            await until(_logs(worker, "topic caught up", name, f"records={len(ADS) + 1}"), "a whole catalogue")

    play(scenario)


def test_lanes_are_not_adopted_from_under_a_running_worker(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*ADS, *events()])
        with Worker(shop, tmp_path / "log") as worker:
            await until(lambda: shop.has_applied(80), "80 events")
            with pytest.raises(WorkersRunError, match=f"workers of the group {shop.settings.group} still run"):
                await adopt(shop.settings)
            await shop.publish(events(15, start=60))
            await until(lambda: shop.has_applied(100), "the worker goes on")
            assert "the worker ended" not in worker.said

    play(scenario)


def _logs(worker: Worker, *words: str) -> Callable[[], Awaitable[bool]]:
    """Whether one line of its log holds all of ``words``."""

    async def logs() -> bool:
        return any(all(word in line for word in words) for line in worker.said.splitlines())

    return logs
