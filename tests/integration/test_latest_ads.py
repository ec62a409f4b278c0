"""The ads topic read from its end on, as doctor does: what is older is not read, and not said to be missing."""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer

from deploy.brokers import Broker
from streams import latest_ads, topic_admin
from streams.checkup import ads
from streams.latest_ads import stock
from streams.settings import Settings
from streams.wire import encode_json
from tests.builders import START_MS, ad

pytestmark = pytest.mark.integration

LATEST = 20


@pytest.mark.parametrize(
    ("newer", "known", "whole"), [(LATEST - 5, 20, True), (LATEST - 4, 20, False), (LATEST, 20, False)]
)
def test_of_a_topic_that_holds_more_than_is_read_the_newest_are_told_of_and_nothing_is_wrong(
    embedded: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, newer: int, known: int, whole: bool
) -> None:
    """Ads that may be shown, and behind them as many as are read, or almost, that have ended."""
    settings = Settings(bootstrap=embedded.bootstrap, topic_prefix=topic_prefix)
    topic_admin.create(embedded.bootstrap, 1, topic_prefix)
    live = [ad(f"live-{number}") for number in range(5)]
    ended = [ad(f"ended-{number}", end_ms=START_MS) for number in range(newer)]

    async def fill() -> None:
        async with AIOKafkaProducer(bootstrap_servers=embedded.bootstrap) as producer:
            for one in [*live, *ended]:  # each a batch of its own: where the last begins, the embedded broker ends
                await producer.send_and_wait(f"{topic_prefix}ads", encode_json(one), key=one.ad_id.encode())

    asyncio.run(fill())
    monkeypatch.setattr(latest_ads, "LATEST", LATEST)
    seen = stock(settings)
    assert (seen.known, seen.placeable, seen.whole) == (known, max(0, known - newer), whole)
    assert ads(seen, events=14, topic=f"{topic_prefix}ads").ok


@pytest.mark.parametrize("older", [0, 1])
def test_what_is_behind_a_hole_as_wide_as_what_is_read_was_read_whole_unless_something_is_before_it(
    kafka: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, older: int
) -> None:
    """A hole is what transactions that were given up, or compaction, leave; behind it are ads that have ended."""
    if not kafka.transactions:
        pytest.skip("the embedded broker shows what was given up")
    settings = Settings(bootstrap=kafka.bootstrap, topic_prefix=topic_prefix)
    topic_admin.create(kafka.bootstrap, 1, topic_prefix)

    async def send(producer: AIOKafkaProducer, *names: str) -> None:
        await producer.begin_transaction()
        for name in names:
            await producer.send(f"{topic_prefix}ads", encode_json(ad(name, end_ms=START_MS)), key=name.encode())

    async def fill() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic_prefix) as producer:
            await send(producer, *["older"] * older)
            await producer.commit_transaction()
            await send(producer, *["given up"] * LATEST)
            await producer.abort_transaction()
            await send(producer, "newer")
            await producer.commit_transaction()

    asyncio.run(fill())
    monkeypatch.setattr(latest_ads, "LATEST", LATEST)
    seen = stock(settings)
    assert (seen.records, seen.known, seen.whole) == (1, 1, not older)
    assert ads(seen, events=14, topic=f"{topic_prefix}ads").ok is bool(older)
