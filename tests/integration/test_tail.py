import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import RequestTimedOutError
from typer.testing import CliRunner, Result

from deploy.brokers import Broker
from deploy.brokers.embedded import EmbeddedBroker
from streams import fetching, topic_admin
from streams.cli import app, tail
from streams.followed import MadeAnewError
from streams.wire import Attended, Placement, Slot, encode_json
from tests.integration.lanes import DEADLINE_S, recreate

pytestmark = pytest.mark.integration

SLOT = Slot(
    slot=0,
    ad_id="ad-1",
    campaign_id="c",
    pctr=0.125,
    ecpm_micros=34_000,
    price_micros=3,
    propensity=1.0,
    attention=(Attended(ad_id="ad-7", weight=0.7),),
)


def placement(user: str) -> Placement:
    return Placement(
        placement_id=f"p-{user}",
        user_id=user,
        time_ms=1_760_000_000_123,
        valid_until_ms=1_760_000_001_000,
        arm="engine",
        model="m",
        slots=(SLOT,),
    )


class Shop:
    """Topics with a few records."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._where = ("--bootstrap", bootstrap, "--prefix", prefix)
        topic_admin.create(bootstrap, 1, prefix=prefix)
        asyncio.run(self._fill(bootstrap, prefix))

    async def _fill(self, bootstrap: str, prefix: str) -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            for user in ("a", "b", "a"):
                await producer.send_and_wait(f"{prefix}placements", encode_json(placement(user)), key=user.encode())
            await producer.send_and_wait(f"{prefix}placements", None, key=b"b")
            origin = [("salience.stage", b"decode")]
            await producer.send_and_wait(f"{prefix}dead-letters", b"\x00[red]", key=b"a", headers=origin)

    def tail(self, *options: str) -> Result:
        return CliRunner().invoke(app, ["tail", *options, *self._where])

    def tailing(self, *options: str) -> subprocess.Popen[str]:
        """One that runs meanwhile."""
        command = [sys.executable, "-m", "streams.cli", "tail", *options, *self._where]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def shop(embedded: Broker) -> Shop:
    return Shop(embedded.bootstrap, "tail-")


def test_json_is_one_object_a_line_of_the_user_asked_for(shop: Shop) -> None:
    done = shop.tail("placements", "--from-beginning", "--limit", "2", "--user", "a", "--json")
    assert done.exit_code == 0
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["key"], each["offset"]) for each in found] == [("a", 0), ("a", 2)]
    assert found[0]["topic"] == "tail-placements"
    assert found[0]["value"]["slots"][0]["attention"] == [{"ad_id": "ad-7", "weight": 0.7}]


def test_people_see_slots_with_their_reasons_and_tombstones(shop: Shop) -> None:
    done = shop.tail("placements", "--from-beginning", "--limit", "4")
    assert done.exit_code == 0
    assert "12.50%" in done.stdout
    assert "ad-7 70%" in done.stdout
    assert "b (tombstone)" in done.stdout


def test_a_dead_letter_shows_its_origin_and_raw_bytes(shop: Shop) -> None:
    people = shop.tail("dead-letters", "--from-beginning", "--limit", "1").stdout
    assert "stage=decode" in people
    assert r"b'\x00[red]'" in people
    machines = json.loads(shop.tail("dead-letters", "--from-beginning", "--limit", "1", "--json").stdout)
    assert machines["headers"] == {"salience.stage": "decode"}
    assert machines["value"] == {"base64": "AFtyZWRd"}


def test_who_waits_for_records_is_told_so_once_and_not_among_them(shop: Shop, embedded: Broker) -> None:
    async def click(key: bytes) -> None:
        async with AIOKafkaProducer(bootstrap_servers=embedded.bootstrap) as producer:
            await producer.send_and_wait("tail-clicks", b"{}", key=key)

    with shop.tailing("clicks", "--user", "ann", "--limit", "2", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stderr.readline()
        for key in (b"ann", b"bob", b"ann"):
            asyncio.run(click(key))
        printed, more = process.communicate(timeout=60)
    assert said == "waits for records of tail-clicks with key ann; Ctrl-C ends it\n"
    assert more == ""
    assert [json.loads(line)["key"] for line in printed.splitlines()] == ["ann", "ann"]


def test_it_waits_when_all_that_is_there_has_been_told_and_says_so_once_however_long_it_does(
    shop: Shop, embedded: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    said: list[int] = []
    sent: list[asyncio.Task[None]] = []

    async def send(value: bytes) -> None:
        async with AIOKafkaProducer(bootstrap_servers=embedded.bootstrap) as producer:
            await producer.send_and_wait("tail-outcomes", value)

    def tell(_: str) -> None:
        said.append(len(seen))
        monkeypatch.setattr(tail, "POLL_MS", 1)  # a producer takes longer to begin than many looks from now on
        sent.append(asyncio.create_task(send(b"second")))

    async def scenario() -> None:
        await send(b"first")
        async with aclosing(tail._records(embedded.bootstrap, "tail-outcomes", True, "waits", tell)) as records:
            while len(seen) < 2:
                seen.append((await anext(records)).value)
        await asyncio.gather(*sent)

    asyncio.run(scenario())
    assert (seen, said) == ([b"first", b"second"], [1])


def test_what_is_still_on_its_way_over_a_slow_link_is_not_waited_for_as_if_it_were_yet_to_come(
    embedded: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    told, fetch, fetches = asyncio.Event(), fetching.fetch, count()

    async def late(*args: Any, **more: Any) -> fetching.Batches:
        return await fetch(*args, **more) if next(fetches) else {}

    def tell(_: str) -> None:
        assert seen == [b"there"]
        told.set()

    async def scenario() -> None:
        async with AIOKafkaProducer(bootstrap_servers=embedded.bootstrap) as producer:
            await producer.send_and_wait("tail-late-events", b"there")
        monkeypatch.setattr(fetching, "fetch", late)
        async with aclosing(tail._records(embedded.bootstrap, "tail-late-events", True, "waits", tell)) as records:
            seen.append((await anext(records)).value)
            following = asyncio.create_task(anext(records))
            async with asyncio.timeout(DEADLINE_S):
                await told.wait()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    topic_admin.create(embedded.bootstrap, 1, prefix="tail-")
    asyncio.run(scenario())


def test_a_broker_whose_answer_waits_behind_a_long_one_is_not_told_as_away(
    embedded: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "ASK_AFTER_S", 0.0)
    said: list[str] = []

    async def stuck(_: AIOKafkaConsumer) -> set[str]:
        raise RequestTimedOutError

    def tell(line: str) -> None:
        said.append(line)
        monkeypatch.setattr(AIOKafkaConsumer, "topics", stuck)
        sent.append(asyncio.create_task(send()))

    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=embedded.bootstrap) as producer:
            await producer.send_and_wait("tail-ads", b"{}")

    async def scenario() -> None:
        async with aclosing(tail._records(embedded.bootstrap, "tail-ads", False, "waits", tell)) as records:
            await anext(records)
        await asyncio.gather(*sent)

    sent: list[asyncio.Task[None]] = []
    topic_admin.create(embedded.bootstrap, 1, prefix="tail-")
    asyncio.run(scenario())
    assert said == ["waits"]


def test_who_waits_is_told_that_the_broker_is_away_and_then_that_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "ASK_AFTER_S", 0.0)
    monkeypatch.setattr("streams.followed.LOOK_S", 0.0)
    said: list[str] = []

    async def scenario(broker: EmbeddedBroker) -> None:
        def tell(line: str) -> None:
            said.append(line)
            if line == "waits":
                monkeypatch.setattr("streams.topic_admin.ANSWER_S", 1.0)  # a slow one before is not away
                os.kill(broker.pids[0], signal.SIGSTOP)
            elif line == tail.AWAY.format(broker.bootstrap):
                os.kill(broker.pids[0], signal.SIGCONT)
            else:
                told.set()

        told = asyncio.Event()
        async with aclosing(tail._records(broker.bootstrap, "clicks", False, "waits", tell)) as records:
            following = asyncio.create_task(anext(records))
            async with asyncio.timeout(DEADLINE_S):
                await told.wait()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    with EmbeddedBroker(tmp_path) as broker:
        topic_admin.create(broker.bootstrap, 1)
        asyncio.run(scenario(broker))
        assert said[:3] == [
            "waits",
            f"no answer from {broker.bootstrap}; goes on when it is back",
            f"{broker.bootstrap} answers again",
        ]


def test_a_topic_that_is_made_anew_is_told_and_not_read_from_the_middle(
    embedded: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.followed.LOOK_S", 0.0)
    anew: list[asyncio.Task[None]] = []

    def tell(_: str) -> None:
        anew.append(asyncio.create_task(asyncio.to_thread(recreate, embedded.bootstrap, "anew-", "clicks")))

    async def scenario() -> None:
        async with AIOKafkaProducer(bootstrap_servers=embedded.bootstrap) as producer:
            await producer.send_and_wait("anew-clicks", b"{}", key=b"ann")
        async with asyncio.timeout(DEADLINE_S):
            async with aclosing(tail._records(embedded.bootstrap, "anew-clicks", True, "waits", tell)) as records:
                assert (await anext(records)).key == b"ann"
                await anext(records)

    topic_admin.create(embedded.bootstrap, 1, prefix="anew-")
    with pytest.raises(MadeAnewError, match="anew-clicks: deleted or made anew"):
        asyncio.run(scenario())
    assert anew


def test_a_name_that_is_no_topic_is_wrong_usage_and_the_names_are_told() -> None:
    done = CliRunner().invoke(app, ["tail", "clickz"])
    assert done.exit_code == 2
    assert "dead-letters" in done.output


def test_a_missing_topic_or_broker_fails_with_the_command_that_helps(embedded: Broker) -> None:
    missing = CliRunner().invoke(app, ["tail", "clicks", "--bootstrap", embedded.bootstrap, "--prefix", "no-"])
    assert missing.exit_code == 1
    assert "salience topics create" in missing.output
    silent = CliRunner().invoke(app, ["tail", "clicks", "--bootstrap", "127.0.0.1:1"])
    assert silent.exit_code == 1
    assert "salience broker apache up" in silent.output
