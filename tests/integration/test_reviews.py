"""Reviews followed through a broker: tones on their topic, dead letters, and nothing said twice."""

import asyncio
import itertools
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from deploy.brokers import Broker
from deploy.brokers.embedded import EmbeddedBroker
from scoring.ids import id64
from scoring.rates import RATES_DIM, TONED
from streams.clock import wall_ms
from streams.decode import Record
from streams.letters import PREFIX
from streams.reading import read_topic
from streams.review_feed import Reviewer, ReviewFeed
from streams.wire import Decision, Review, Tone, encode_json
from tests.builders import START_MS, ad, impression
from tests.integration.lanes import Shop, play, shop_on
from tests.integration.test_commands import at, salience
from tests.integration.workers import Worker, until
from tests.unit.test_review_feed import stream

pytestmark = pytest.mark.integration

SHOP = [ad("shoe", brand="acme"), ad("boot", brand="acme")]


def raw(reviews: Sequence[Review]) -> list[tuple[str, bytes, bytes, int]]:
    """As a producer sends them today."""
    return [("reviews", one.ad_id.encode(), encode_json(one), wall_ms()) for one in reviews]


def command(shop: Shop, *words: str) -> list[str]:
    at = ("--bootstrap", shop.settings.bootstrap, "--prefix", shop.settings.topic_prefix)
    return [sys.executable, "-m", "streams.cli", "reviews", "follow", *words, *at]


async def once(shop: Shop) -> tuple[list[Tone], str]:
    """What one look at all that is there says, as JSON and to people."""
    made = await asyncio.to_thread(
        subprocess.run, command(shop, "--once", "--json"), capture_output=True, text=True, timeout=120, check=False
    )
    assert made.returncode == 0, made.stderr
    return [msgspec.json.decode(line, type=Tone) for line in made.stdout.splitlines()], made.stderr


async def tones(shop: Shop) -> dict[bytes, Tone]:
    """What stands on the topic."""
    return {key: msgspec.json.decode(value, type=Tone) for key, value in await shop.read("tones") if value is not None}


async def letters(shop: Shop) -> list[tuple[str, str]]:
    """Stage and error of every dead letter."""
    batches = read_topic(shop.settings.bootstrap, shop.settings.topic_prefix + "dead-letters")
    headers = [dict(record.headers) async for records in batches for record in records]
    return [tuple(each[PREFIX + name].decode() for name in ("stage", "error")) for each in headers]  # type: ignore[misc] # two


def test_a_turn_is_told_once_and_a_reader_goes_on_where_it_stood(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*SHOP, *raw(stream(400)), ("reviews", b"shoe", b"{", wall_ms())])
        said, people = await once(shop)
        assert {tone.key for tone in said} == {b"ad/shoe", b"brand/acme"}
        assert "400 reviews read, 1 refused" in people
        assert "has turned" not in people
        assert await letters(shop) == [("review", "DecodeError")]

        await shop.publish(raw(stream(50, share=0.1, seed=2, first=400)))
        said, people = await once(shop)
        assert "brand acme has turned" in people
        found = await tones(shop)
        assert found == {tone.key: tone for tone in said}
        turned_ms = found[b"brand/acme"].turned_ms
        assert turned_ms is not None
        assert START_MS + 400 <= turned_ms < START_MS + 450

        said, people = await once(shop)
        assert (said, len(await letters(shop))) == ([], 1)
        assert "has turned" not in people

    play(scenario)


def test_a_broker_without_idempotent_producers_is_read_as_well_where_no_more_is_asked_of_it(
    embedded: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(embedded, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*SHOP, *raw(stream(40)), ("reviews", b"shoe", b"{", wall_ms())])
        said: list[Tone] = []
        await ReviewFeed(shop.settings, said.extend).run(follow=False)
        assert {tone.key: tone for tone in said} == await tones(shop)
        assert await letters(shop) == [("review", "DecodeError")]

    play(scenario)


class _WhileItStarts(Reviewer):
    """Of a shop that publishes another ad when its ads are being read."""

    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self._topic, self._waiting = shop.settings.topic_prefix + "ads", [SHOP[1]]
        self._producer = Producer({"bootstrap.servers": shop.settings.bootstrap})

    def take_ads(self, records: Sequence[Record]) -> None:
        super().take_ads(records)
        while self._waiting:
            one = self._waiting.pop()
            self._producer.produce(self._topic, encode_json(one), one.ad_id)
            self._producer.flush()


def test_an_ad_that_is_published_while_the_reader_starts_is_known(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([SHOP[0], *raw(stream(5))])
        said: list[Tone] = []
        feed = ReviewFeed(shop.settings, said.extend)
        feed.reviewer = _WhileItStarts(shop)
        following, numbers = asyncio.create_task(feed.run()), itertools.count(100)

        async def heard() -> bool:
            assert not following.done()
            await shop.publish(raw(stream(1, ad_id="boot", first=next(numbers))))
            return b"ad/boot" in {tone.key for tone in said}

        try:
            await until(heard, "the tone of the new ad")
        finally:
            following.cancel()

    play(scenario)


def test_a_worker_goes_by_reviews_and_its_receipt_holds_when_they_have_changed(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """What it was told by then is in the receipt; ads and brands that nobody has reviewed are told nothing of."""
    shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
    ads = [*SHOP, ad("sock")]
    found: list[Decision] = []

    async def scenario() -> None:
        good, bad = stream(30, share=1.0), stream(30, ad_id="boot", share=0.0, first=30)
        await shop.publish([*ads, *raw([*good, *bad])])
        await once(shop)
        with Worker(shop, tmp_path / "log") as worker:

            async def decided() -> bool:
                await shop.publish([impression("user-1", "shoe", wall_ms())])
                decisions = [value for _, value in await shop.read("decisions") if value is not None]
                found.extend(msgspec.json.decode(value, type=Decision) for value in decisions[-1:])
                return bool(found)

            await until(decided, "a decision")
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        await shop.publish(raw(stream(90, share=0.0, first=60)))
        await once(shop)

    play(scenario)
    (decision,) = found
    told = np.frombuffer(decision.rates, dtype=np.float16).reshape(len(ads), RATES_DIM)[:, TONED:]
    of = dict(zip(np.frombuffer(decision.candidates, dtype=np.uint64).tolist(), told.tolist(), strict=True))
    shoe, boot, sock = (of[id64(each.ad_id)] for each in ads)
    assert shoe[0] > 0.2
    assert boot[0] < -0.2
    assert shoe[1] == boot[1] == pytest.approx(np.log1p(30) / 5, abs=1e-3)
    assert sock == [0, 0]
    told_again = salience("explain", decision.placement_id, *at(shop), "--json")
    assert told_again.returncode == 0, told_again.stdout + told_again.stderr
    assert json.loads(told_again.stdout)["identical"] is True


def test_a_reader_that_follows_hears_of_new_ads_and_reviews_and_ends_when_told(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([SHOP[0], *raw(stream(100, share=1.0))])
        process = await asyncio.create_subprocess_exec(
            *command(shop, "--json", "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        url = (await process.stderr.readline()).decode().strip()
        assert url.startswith("http://127.0.0.1:")

        async def stands(key: bytes) -> bool:
            assert process.returncode is None
            return key in await tones(shop)

        await until(lambda: stands(b"ad/shoe"), "the first tone")
        await shop.publish([SHOP[1]])
        numbers = itertools.count(100)

        async def heard() -> bool:  # the ad and its reviews come by two topics
            await shop.publish(raw(stream(1, ad_id="boot", share=0.0, first=next(numbers))))
            return await stands(b"ad/boot")

        await until(heard, "the tone of the new ad")
        page = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()
        assert 'salience_tones_turned_total{of="brand"} 0.0' in page
        (read,) = re.findall(r'salience_reviews_total\{outcome="read"\} (\S+)', page)
        assert float(read) > 100
        process.send_signal(signal.SIGTERM)
        told, _ = await process.communicate()
        assert process.returncode == 0
        assert {json.loads(line)["name"] for line in told.splitlines()} == {"shoe", "boot", "acme"}

    play(scenario)
