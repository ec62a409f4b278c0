"""What the command that follows reviews writes while it runs, to people and to machines, and how it ends."""

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from deploy.brokers import Broker
from deploy.brokers.embedded import EmbeddedBroker
from streams.reviews.feed import ReviewFeed
from tests.integration.lanes import DEADLINE_S, play, shop_on
from tests.integration.test_reviews import SHOP, command, followed, raw, tones
from tests.integration.workers import until
from tests.unit.test_review_feed import stream

pytestmark = pytest.mark.integration


def test_for_machines_every_line_that_a_reader_writes_is_an_object(
    embedded: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(embedded, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*SHOP, *raw(stream(400))])
        await followed(ReviewFeed(shop.settings, lambda _: None), follow=False)
        await shop.publish(raw(stream(50, share=0.1, seed=2, first=400)))
        made = await asyncio.to_thread(
            subprocess.run,
            command(shop, "--once", "--json", "--log-json", "--port", "0"),
            env=os.environ | {"SALIENCE_GUARANTEE": "at_least_once", "FORCE_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert {json.loads(line)["name"] for line in made.stdout.splitlines()} == {"shoe", "acme"}
        logged = [json.loads(line) for line in made.stderr.splitlines()]
        assert {line["level"] for line in logged} == {"info"}
        said = "\n".join(line["event"] for line in logged)
        for expected in ("/metrics", "up to review 450", "brand acme has turned", "50 reviews read, 0 refused"):
            assert expected in said

    play(scenario)


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


def test_a_reader_is_well_while_a_broker_answers_and_says_for_how_long_none_has(
    topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.reviews.feed.SILENT_MS", 2_000)

    async def scenario() -> None:
        with EmbeddedBroker(tmp_path / "broker") as broker:
            shop = shop_on(broker, topic_prefix, tmp_path, "at_least_once")
            await shop.publish([*SHOP, *raw(stream(10))])
            async with ReviewFeed(shop.settings, lambda _: None) as feed:
                looks = asyncio.Queue[str]()
                reading = asyncio.create_task(feed.run(on_read=lambda _: looks.put_nowait(feed.unwell())))
                async with asyncio.timeout(DEADLINE_S):
                    silent_at = time.monotonic() + 3  # no review has come for longer than a broker may be silent
                    while await looks.get() or time.monotonic() < silent_at:
                        pass
                (pid,) = broker.pids
                os.kill(pid, signal.SIGSTOP)
                try:

                    async def unwell() -> bool:
                        return bool(re.fullmatch("no broker has answered for [0-9]+ s", feed.unwell()))

                    await until(unwell, "it says so")
                finally:
                    os.kill(pid, signal.SIGCONT)
                    reading.cancel()
                    await asyncio.wait([reading])

    asyncio.run(scenario())
