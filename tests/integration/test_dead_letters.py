"""Letters listed, shown and sent back by the command, on a real broker."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from deploy.brokers import Broker
from streams import dead_letters
from streams.cli.screen import moment
from streams.dead_letters import REQUEUE_ID, Filter, RequeueError, requeue
from streams.reading import log_ends
from tests.builders import START_MS, click, impression
from tests.integration.lanes import Shop, play, shop_on, stepped
from tests.integration.test_commands import at, salience
from tests.integration.workers import until

pytestmark = pytest.mark.integration

GUARANTEES = pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])


async def asked(shop: Shop, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ["dead-letters", *arguments, *at(shop)]
    given = {"SALIENCE_GUARANTEE": shop.settings.guarantee}
    if arguments[0] != "requeue":
        return await asyncio.to_thread(salience, *words, **given)
    # It heeds signals, which only a process's first thread may.
    command = [sys.executable, "-m", "streams.cli", *words]
    return await asyncio.to_thread(
        subprocess.run, command, env=os.environ | given, capture_output=True, text=True, timeout=120, check=False
    )


async def command(shop: Shop, *arguments: str, status: int = 0) -> Any:
    done = await asked(shop, *arguments, "--json")
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@GUARANTEES
def test_a_record_whose_cause_was_mended_is_sent_back_once_and_counts(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee, rows_per_lane_max=1)
        await shop.publish([impression("user-1"), click("user-2", "ad-7", START_MS + 5)])
        assert (await stepped(shop))["dead"] == 1
        listed = await command(shop, "list", "--topic", "clicks")
        assert listed["kinds"] == [
            {"topic": f"{topic_prefix}clicks", "stage": "state", "error": "LaneFull", "count": 1}
        ]
        (letter,) = listed["letters"]
        shown = (await asked(shop, "list")).stdout.split()
        assert set(moment(letter["timestamp_ms"]).split()) <= set(shown)
        assert json.loads((await command(shop, "show", letter["letter"]))["value"])["ad_id"] == "ad-7"

        assert await command(shop, "requeue", "--error", "ValidationError") == {"requeued": 0, "refused": {}}
        assert (await command(shop, "requeue", "--error", "LaneFull", "--dry-run"))["requeued"] == 0
        assert await command(shop, "requeue", "--error", "LaneFull") == {"requeued": 1, "refused": {}}
        again = await command(shop, "requeue", "--error", "LaneFull", status=1)
        assert again == {"requeued": 0, "refused": {letter["letter"]: "was sent back already"}}

        larger = Shop(shop.settings.model_copy(update={"rows_per_lane_max": 10}))
        assert (await stepped(larger))["applied"] == 1
        assert set(await shop.state()) == {b"user-1", b"user-2"}

    play(scenario)


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError, asyncio.CancelledError])
def test_a_requeue_that_ends_half_way_leaves_no_transaction_for_which_lanes_would_wait(
    kafka: Broker, topic_prefix: str, tmp_path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    send = AIOKafkaProducer.send

    async def no_note(producer: AIOKafkaProducer, topic: str, *values: object, **fields: object) -> object:
        if topic == f"{topic_prefix}dead-letters":
            raise error
        return await send(producer, topic, *values, **fields)

    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once", transaction_timeout_ms=600_000)
        await shop.publish([("clicks", b"user-1", b"{poison", START_MS)])
        assert (await stepped(shop))["dead"] == 1
        clicks = [TopicPartition(f"{topic_prefix}clicks", 0)]

        async def readable() -> bool:
            return await log_ends(kafka.bootstrap, clicks, committed=True) == await log_ends(kafka.bootstrap, clicks)

        with monkeypatch.context() as patched:
            patched.setattr(AIOKafkaProducer, "send", no_note)
            with pytest.raises(error):
                await requeue(shop.settings, Filter())
        await until(readable, "whoever reads committed clicks comes to their end")
        assert await command(shop, "requeue", "--all") == {"requeued": 1, "refused": {}}
        assert (await stepped(shop))["dead"] == 1

    play(scenario)


def test_a_requeue_whose_transaction_brokers_end_says_why_and_how_many_letters_were_sent(
    kafka: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PER_TRANSACTION", 1)
    send, sent = dead_letters._send, list[str]()

    async def fenced_at_the_second(*how: Any) -> None:
        if sent:
            transactional_id = f"{topic_prefix}{REQUEUE_ID}"
            async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=transactional_id):
                pass
        await send(*how)
        sent.append("one")

    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish([("clicks", f"user-{number}".encode(), b"{poison", START_MS) for number in range(3)])
        assert (await stepped(shop))["dead"] == 3
        with monkeypatch.context() as patched:
            patched.setattr(dead_letters, "_send", fenced_at_the_second)
            with pytest.raises(RequeueError, match=r"^1 letters were sent back.* 13 bytes .*_MS=15000"):
                await requeue(shop.settings, Filter())
        assert (await command(shop, "requeue", "--all", status=1))["requeued"] == 2

    play(scenario)


def test_a_record_that_is_bad_for_good_is_sent_back_three_times_and_no_more(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([("clicks", b"user-1", b"{poison", START_MS)])
        for time in range(4):
            assert (await stepped(shop))["dead"] == 1
            newest = (await command(shop, "list"))["letters"][-1]
            assert newest["requeued"] == time
            told = await command(shop, "requeue", newest["letter"], status=int(time == 3))
            assert told["requeued"] == int(time < 3)
        assert "mend it at its producer" in told["refused"][newest["letter"]]
        assert (await stepped(shop))["events_in"] == 0

    play(scenario)


def test_without_a_word_of_which_nothing_is_sent_and_a_missing_letter_is_said_to_be(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        nothing, missing = await asked(shop, "requeue"), await asked(shop, "show", "0:7")
        assert (nothing.returncode, missing.returncode) == (2, 1)
        unsent = await command(shop, "requeue", "0:7", status=1)
        assert unsent == {"requeued": 0, "refused": {"0:7": "no such letter, or not of what else was asked for"}}
        assert "--all" in nothing.stderr
        assert "There is no letter 0:7" in missing.stderr
        assert await command(shop, "list") == {"total": 0, "kinds": [], "letters": []}

    play(scenario)
