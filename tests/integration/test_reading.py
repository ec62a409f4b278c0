"""Topics read whole by commands: how far they have come, and what was odd, is told beside what was asked for."""

import asyncio
import json
import os
import re
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from typer.testing import CliRunner, Result

from deploy.brokers import Broker
from deploy.brokers.embedded import EmbeddedBroker
from streams import reading, topic_admin
from streams.cli import app
from streams.experiments.service import RefereeService
from streams.message import Message
from streams.reading import CutLogError, SilentLogError, log_ends, read_between, read_topic
from streams.reviews.feed import ReviewError, ReviewFeed
from streams.settings import Settings
from tests.cancelling import cancelled_after
from tests.integration.lanes import DEADLINE_S

pytestmark = pytest.mark.integration

PREFIX, RECORDS = "reading-", 7_000
"""Of two looks at the topic, at least."""
STEPS, CLOSING_STEPS = 30, 3
"""Steps of the event loop: more than a client's closing takes, and some that it does at least."""


@pytest.fixture(scope="package")
def shop(embedded: Broker) -> Broker:
    """Clicks of two lanes, and a control message that is none."""
    topic_admin.create(embedded.bootstrap, 2, prefix=PREFIX)

    async def fill() -> None:
        async with AIOKafkaProducer(bootstrap_servers=embedded.bootstrap) as producer:
            for number in range(RECORDS):
                await producer.send(f"{PREFIX}clicks", b"{}", key=b"ann", partition=number % 2)
            await producer.send(f"{PREFIX}control", b"{", key=b"experiment/warmth")

    asyncio.run(fill())
    return embedded


@pytest.mark.parametrize(("latest", "there"), [(None, RECORDS), (10, 20)])
def test_who_reads_a_topic_is_told_of_all_offsets_how_many_have_been_read(
    shop: Broker, latest: int | None, there: int
) -> None:
    told: list[tuple[int, int]] = []

    async def read() -> int:
        batches = read_topic(
            shop.bootstrap, f"{PREFIX}clicks", latest=latest, progress=lambda *numbers: told.append(numbers)
        )
        return sum([len(records) async for records in batches])

    assert asyncio.run(read()) == there
    assert (told[0], told[-1]) == ((0, there), (there, there))
    assert all(before <= after for before, after in pairwise(told))


def test_who_fails_in_the_middle_of_a_topic_is_told_of_that_alone(
    shop: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async def read() -> None:
        async for _ in read_topic(shop.bootstrap, f"{PREFIX}clicks"):
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        asyncio.run(read())
    assert caplog.messages == []


def test_what_is_read_between_two_places_ends_where_it_was_told_though_more_is_there(shop: Broker) -> None:
    lanes = [TopicPartition(f"{PREFIX}clicks", number) for number in range(2)]

    async def read(begins: tuple[int, int], ends: tuple[int, int]) -> list[tuple[int, int]]:
        places = dict(zip(lanes, begins, strict=True)), dict(zip(lanes, ends, strict=True))
        batches = [records async for records in read_between(shop.bootstrap, *places)]
        return [(record.partition, record.offset) for records in batches for record in records]

    assert sorted(asyncio.run(read((2, 7), (5, 8)))) == [(0, 2), (0, 3), (0, 4), (1, 7)]
    assert asyncio.run(read((5, 8), (5, 8))) == []


def test_the_newest_record_under_a_key_is_sought_from_the_end_and_only_as_far_back_as_it_takes(
    embedded: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changelog holds millions of rows, and its last slice the row that tells where the lane stands."""
    topic_admin.create(embedded.bootstrap, 4, prefix="newest-")
    topic, begun = "newest-state-changelog", list[dict[int, int]]()
    of_rows, of_lanes = [(b"ann", b"row")] * 400, [(b"lane", b"former"), (b"lane", b"last")]
    logs: list[list[tuple[bytes, bytes | None]]] = [
        [*of_rows, *of_lanes], [*of_lanes, *of_rows, (b"lane", None)], [*of_rows], []
    ]  # fmt: skip

    async def fill() -> None:
        async with AIOKafkaProducer(bootstrap_servers=embedded.bootstrap) as producer:
            for number, log in enumerate(logs):
                for key, value in log:
                    await producer.send(topic, value, key=key, partition=number)

    def noted(bootstrap: str, begins: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> Any:
        begun.append({tp.partition: begin for tp, begin in begins.items()})
        return read_between(bootstrap, begins, ends)

    asyncio.run(fill())
    monkeypatch.setattr(reading, "OFFSETS_FIRST", 10)
    monkeypatch.setattr(reading, "read_between", noted)
    found = asyncio.run(reading.newest(embedded.bootstrap, topic, b"lane"))
    assert {number: (record.offset, record.value) for number, record in found.items()} == {
        0: (401, b"last"),
        1: (1, b"last"),
    }
    assert begun == [{0: 392, 1: 393, 2: 390}, {1: 293, 2: 290}, {1: 0, 2: 0}]


def test_a_log_that_has_become_shorter_while_it_is_read_is_told_and_not_waited_for(
    shop: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.reading.CUT_S", 0.0)
    lane = TopicPartition(f"{PREFIX}clicks", 0)

    async def read() -> None:
        async with asyncio.timeout(DEADLINE_S):
            async for _ in read_between(shop.bootstrap, {lane: RECORDS // 2 - 5}, {lane: RECORDS}):
                pass

    with pytest.raises(CutLogError, match=f"partition 0 of {PREFIX}clicks has become shorter"):
        asyncio.run(read())


def test_where_a_log_ends_is_found_though_the_broker_is_slow_to_give_its_last_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else of all that stands in one batch, as after a backlog, a reader takes the first record alone."""
    lane, asked = TopicPartition("clicks", 0), reading.fetch

    async def scenario(broker: EmbeddedBroker) -> dict[TopicPartition, int]:
        async def slow(*of: Any, **how: Any) -> Any:
            os.kill(broker.pids[0], signal.SIGSTOP)
            try:
                return await asked(*of, **how)
            finally:
                os.kill(broker.pids[0], signal.SIGCONT)
                monkeypatch.setattr(reading, "fetch", asked)

        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            batch = producer.create_batch()
            for _ in range(9):
                batch.append(key=None, value=b"{}", timestamp=None)
            await (await producer.send_batch(batch, lane.topic, partition=lane.partition))
        monkeypatch.setattr(reading, "fetch", slow)
        async with asyncio.timeout(DEADLINE_S):
            return await log_ends(broker.bootstrap, [lane])

    with EmbeddedBroker(tmp_path) as broker:
        topic_admin.create(broker.bootstrap, 1)
        assert asyncio.run(scenario(broker)) == {lane: 9}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_broker_that_answers_no_more_while_a_topic_is_read_is_told_and_not_waited_for_for_ever(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.reading.SILENT_S", 1.0)
    monkeypatch.setattr("streams.leaving.FAREWELL_S", 0.5)

    async def scenario(broker: EmbeddedBroker) -> None:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            for _ in range(8):
                await producer.send_and_wait("clicks", bytes(1_000_000))  # more than one fetch gives
        async with asyncio.timeout(DEADLINE_S):
            async for _ in read_topic(broker.bootstrap, "clicks"):
                os.kill(broker.pids[0], number)

    with EmbeddedBroker(tmp_path) as broker:
        topic_admin.create(broker.bootstrap, 1)
        with pytest.raises(SilentLogError, match="has answered for 1 s about partition 0 of clicks"):
            asyncio.run(scenario(broker))


@pytest.mark.parametrize("reader", ["reviews", "ad-impressions"])
def test_who_reads_once_ends_where_no_broker_answers_any_more_and_does_not_wait_as_who_follows(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.reading.SILENT_S", 1.0)
    monkeypatch.setattr("streams.reviews.feed.SILENT_MS", 1_000)
    monkeypatch.setattr("streams.leaving.FAREWELL_S", 0.5)

    async def scenario(broker: EmbeddedBroker) -> None:
        settings = Settings(bootstrap=broker.bootstrap, guarantee="at_least_once", home=tmp_path / "home")
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            for _ in range(8):
                await producer.send_and_wait(reader, bytes(1_000_000), partition=0)  # more than one fetch gives

        def taken(_: object) -> list[Message]:
            os.kill(broker.pids[0], signal.SIGKILL)
            return []

        async with asyncio.timeout(DEADLINE_S):
            if reader == "reviews":
                async with ReviewFeed(settings, lambda _: None) as feed:
                    monkeypatch.setattr(feed, "_take", taken)
                    await feed.run(follow=False)
            else:
                referee = RefereeService(settings, 1_000, lambda _: None)
                monkeypatch.setattr(referee, "_take_impressions", taken)
                await referee.run(follow=False)

    with EmbeddedBroker(tmp_path) as broker:
        topic_admin.create(broker.bootstrap, 1)
        with pytest.raises((ReviewError, SilentLogError), match=r"no broker.*has answered for"):
            asyncio.run(scenario(broker))


def test_who_reads_is_cancelled_at_whatever_step_of_its_client_s_closing_that_comes(
    shop: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = [TopicPartition(f"{PREFIX}clicks", number) for number in range(2)]
    stop, closing = AIOKafkaConsumer.stop, asyncio.Event()

    async def told(consumer: AIOKafkaConsumer) -> None:
        closing.set()
        await stop(consumer)

    async def closing_reader() -> asyncio.Task[Any]:
        closing.clear()
        reading = asyncio.create_task(log_ends(shop.bootstrap, lanes))
        await closing.wait()
        return reading

    async def scenario() -> list[bool | None]:
        return [await cancelled_after(steps, await closing_reader()) for steps in range(STEPS)]

    monkeypatch.setattr(AIOKafkaConsumer, "stop", told)
    ended = asyncio.run(scenario())
    assert False not in ended
    assert ended.count(True) > CLOSING_STEPS


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


@pytest.mark.parametrize("command", [["prove", "--no-snapshots"], ["export"]])
def test_people_at_a_terminal_see_which_topic_is_read_for_privacy_and_others_do_not(
    shop: Broker, command: list[str]
) -> None:
    def asked(*options: str, terminal: bool) -> Result:
        at = ["--bootstrap", shop.bootstrap, "--prefix", PREFIX]
        shown = {"FORCE_COLOR": "1" if terminal else None, "COLUMNS": "100"}
        return CliRunner().invoke(app, ["privacy", *command, "bob", *at, *options], env=shown)

    assert re.search(rf"Reading clicks.* {RECORDS}/{RECORDS} ", without_colours(asked(terminal=True).stderr))
    assert "Reading" not in asked(terminal=False).stderr
    machines = asked("--json", terminal=True)
    assert machines.stderr == ""
    json.loads(machines.stdout)


@pytest.mark.parametrize("command", [["experiment", "list"], ["lanes", "show"], ["doctor"]])
def test_people_at_a_terminal_see_that_brokers_are_asked_and_machines_are_told_the_same(
    shop: Broker, command: list[str]
) -> None:
    """Over a slow link a command is silent for a minute, and looks like one that hangs."""

    def asked(terminal: bool) -> Result:
        at = ["--bootstrap", shop.bootstrap, "--prefix", PREFIX, "--json"]
        return CliRunner().invoke(app, [*command, *at], env={"FORCE_COLOR": "1" if terminal else None})

    seen, unseen = asked(terminal=True), asked(terminal=False)
    assert "Asking brokers" in seen.stderr
    assert "Asking brokers" not in unseen.stderr
    assert json.loads(seen.stdout) == json.loads(unseen.stdout)


def test_what_a_command_logs_stands_on_stderr_and_not_among_what_machines_are_told(shop: Broker) -> None:
    told = CliRunner().invoke(app, ["experiment", "list", "--bootstrap", shop.bootstrap, "--prefix", PREFIX, "--json"])
    assert json.loads(told.stdout) == {}
    assert "control message refused" in told.stderr
