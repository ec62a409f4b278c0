"""A header's name that is not UTF-8: brokers take it, and no reader may stop at it, lose it or pass over others."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.brokers import Broker
from streams import fetching
from streams.connection import aiokafka_options
from streams.fetching import fetch
from streams.mendable import MendableError
from streams.reading import read_topic
from streams.wire import encode_json
from tests.builders import click
from tests.integration.headers import send_unreadable
from tests.integration.lanes import ADS, LAST_MS, Shop, events, play, shop_on
from tests.integration.test_placement_view import NOW_MS, Topic, placement
from tests.integration.workers import Worker, until

pytestmark = pytest.mark.integration


@pytest.fixture(params=["kafka", "embedded"])
def bootstrap(request: pytest.FixtureRequest) -> str:
    """Of either broker."""
    return str(request.getfixturevalue(request.param).bootstrap)


def record(name: str) -> tuple[bytes, bytes, int]:
    return name.encode(), b"{" + name.encode(), LAST_MS


async def send_between(shop: Shop) -> None:
    """Three records on each of two partitions; of the second of each the headers are unreadable."""
    topic = shop.settings.topic_prefix + "clicks"
    for partition in (0, 1):
        records = [record(f"{partition}-{n}") for n in range(3)]
        await send_unreadable(shop.settings.bootstrap, topic, partition, records, unreadable=1)


def test_every_record_of_every_partition_is_read_once_and_in_order(
    bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = Shop.open(bootstrap, topic_prefix, tmp_path, partitions=2)
        await send_between(shop)
        partitions = [TopicPartition(topic_prefix + "clicks", number) for number in (0, 1)]
        read: dict[int, list[tuple[int, bytes]]] = {0: [], 1: []}
        async with AIOKafkaConsumer(enable_auto_commit=False, **aiokafka_options(bootstrap)) as consumer:
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            while sum(map(len, read.values())) < 6:
                batches = await fetch(consumer, partitions, bootstrap, timeout_ms=100, committed=False)
                for tp, records in batches.items():
                    read[tp.partition] += [(each.offset, each.key) for each in records]
            assert [await consumer.position(tp) for tp in partitions] == [3, 3]
        assert read == {at: [(n, f"{at}-{n}".encode()) for n in range(3)] for at in (0, 1)}

    asyncio.run(scenario())


def test_of_partitions_that_are_no_longer_ours_nothing_is_taken(
    bootstrap: str, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = Shop.open(bootstrap, topic_prefix, tmp_path, partitions=2)
        await send_between(shop)
        kept, lost = (TopicPartition(topic_prefix + "clicks", number) for number in (0, 1))
        async with AIOKafkaConsumer(enable_auto_commit=False, **aiokafka_options(bootstrap)) as consumer:
            consumer.assign([kept, lost])
            await consumer.seek_to_beginning(kept, lost)

            def ours(tp: TopicPartition) -> bool:
                consumer.seek(lost, 0)  # by who has it now
                return tp == kept

            count = 0
            while count < 3:
                batches = await fetch(consumer, [kept, lost], bootstrap, timeout_ms=100, ours=ours)
                assert lost not in batches
                count += len(batches.get(kept, []))
            assert await consumer.position(lost) == 0

    asyncio.run(scenario())


def test_commands_read_a_topic_to_its_end(bootstrap: str, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> list[Any]:
        Shop.open(bootstrap, topic_prefix, tmp_path)
        clicks = topic_prefix + "clicks"
        await send_unreadable(bootstrap, clicks, 0, [record("a"), record("b")], unreadable=1)
        await send_unreadable(bootstrap, clicks, 0, [record("c")])
        return [each.key async for records in read_topic(bootstrap, clicks) for each in records]

    assert asyncio.run(scenario()) == [b"a", b"b", b"c"]


def test_records_that_a_slow_link_does_not_bring_in_time_end_a_command_with_a_message(
    bootstrap: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        Shop.open(bootstrap, topic_prefix, tmp_path)
        clicks = topic_prefix + "clicks"
        await send_unreadable(bootstrap, clicks, 0, [record("a")], unreadable=0)
        with pytest.raises(MendableError, match=f"partition 0 of {clicks} at 0.*try again"):
            async for _ in read_topic(bootstrap, clicks):
                pass

    monkeypatch.setattr(fetching, "ANSWER_S", 0.0)
    asyncio.run(scenario())


def test_a_view_holds_the_placement_and_goes_on(bootstrap: str, topic_prefix: str) -> None:
    async def scenario() -> None:
        topic = Topic(bootstrap, topic_prefix)
        sent = encode_json(placement("u", "p1"))
        await send_unreadable(bootstrap, f"{topic_prefix}placements", 0, [(b"u", sent, NOW_MS)])
        async with topic.producer() as producer:
            await topic.send(producer, placement("v", "p2"))
        async with topic.view() as view:
            assert view.get("u", NOW_MS) == placement("u", "p1")
            assert view.get("v", NOW_MS) == placement("v", "p2")

    asyncio.run(scenario())


def test_a_worker_applies_the_event_and_buries_what_is_none(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        bootstrap = kafka.bootstrap
        first = ADS[0]
        await send_unreadable(bootstrap, topic_prefix + "ads", 0, [(first.ad_id.encode(), encode_json(first), LAST_MS)])
        await shop.publish([*ADS[1:], *events()])
        event = click(event_id="unreadable", user_id="user-1", time_ms=LAST_MS)
        clicks = topic_prefix + "clicks"
        await send_unreadable(bootstrap, clicks, 0, [(b"user-1", encode_json(event), LAST_MS)])
        await send_unreadable(bootstrap, clicks, 0, [(b"user-1", b"{poison", LAST_MS)])
        with Worker(shop, tmp_path / "log"):
            await until(lambda: shop.has_applied(81), "81 events")
            await until(lambda: _has_buried(shop, 1), "a dead letter")

    play(scenario)


async def _has_buried(shop: Shop, count: int) -> bool:
    return len(await shop.read("dead-letters")) == count
