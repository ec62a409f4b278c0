"""To whom the console's server answers, and with what."""

import asyncio
import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, get_args

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiokafka.errors import NodeNotReadyError
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs
from typer.testing import CliRunner

from scoring.market import Fate
from scoring.text import TextEncoderError
from streams.cli import app
from streams.compute import Compute
from streams.console.desk import Desk
from streams.console.flow import Placed
from streams.console.people import Found as Person
from streams.console.serve import HEADERS, Live, WhyNot, _engine, _healthz, make_app
from streams.console.tails import Tails
from streams.lag.monitor import LagMonitor
from streams.lag.poller import Poller
from streams.settings import Settings
from streams.topic_admin import Found, TopicsError
from streams.wire import Decision
from tests.builders import START_MS
from tests.unit.test_console import receipt

PLACED = Placed(placement_id="p", user_id="placed", time_ms=START_MS, arm="engine", model="m")


def ask(path: str, headers: dict[str, str] | None = None, **settings: Any) -> tuple[int, Any, Any]:
    """Status, headers and body of an answer of the console's server, with no broker behind it."""

    async def scenario() -> tuple[int, Any, Any]:
        given, compute = Settings(bootstrap="127.0.0.1:1", **settings), Compute()
        desk = Desk(given, 2)
        desk.people.add(Person(PLACED, 0))
        live = Live(
            given, LagMonitor(Poller("127.0.0.1:1")), desk, Tails("127.0.0.1:1", desk.tails(), compute), compute
        )
        running = asyncio.create_task(live.run())
        runner = web.AppRunner(make_app(live, given), shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await live.next()  # the first snapshot
        try:
            async with aiohttp.ClientSession() as client, client.get(url + path, headers=headers) as response:
                body = await (response.content.readline() if "events" in path else response.read())
                return response.status, response.headers, body
        finally:
            running.cancel()
            await runner.cleanup()
            compute.stop()

    return asyncio.run(scenario())


def test_a_console_without_a_broker_says_so_in_red() -> None:
    status, _, body = ask("/api/snapshot")
    told = json.loads(body)
    assert (status, told["level"], told["caught_up"]) == (200, "red", False)
    assert told["alarms"][0]["name"] == "SalienceLagUnknown"
    assert ask("/api/events")[2] == b"event: history\n"


def test_a_container_may_ask_whether_it_lives_and_learns_nothing_else() -> None:
    status, _, body = ask("/healthz", web_host="0.0.0.0", web_token="s3cret")
    assert (status, json.loads(body)) == (200, {"healthy": True})


async def test_a_console_that_makes_no_snapshots_is_not_healthy_whatever_its_clock_is_set_to_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks_ms, now_ms = 5_000, START_MS
    monkeypatch.setattr("streams.console.serve.tick_ms", lambda: ticks_ms, raising=False)
    monkeypatch.setattr("streams.console.serve.wall_ms", lambda: now_ms)
    given, compute, request = Settings(), Compute(), make_mocked_request("GET", "/healthz")
    desk = Desk(given, 2)
    monitor, tails = LagMonitor(Poller("127.0.0.1:1")), Tails("127.0.0.1:1", desk.tails(), compute)
    live = Live(given, monitor, desk, tails, compute)
    found = [(await _healthz(live)(request)).status]
    running = asyncio.create_task(live.run())
    await live.next()
    running.cancel()
    compute.stop()
    for passed_ms, set_by_ms in ((0, 3_600_000), (9_999, 0), (1, -7_200_000)):
        ticks_ms, now_ms = ticks_ms + passed_ms, now_ms + passed_ms + set_by_ms
        found.append((await _healthz(live)(request)).status)
    assert found == [503, 200, 200, 503]


@pytest.mark.parametrize("path", ["/", "/console.js", "/i18n/zh.json", "/vendor/uPlot.iife.min.js", "/icon.svg"])
def test_the_page_is_for_everyone_and_kept_to_itself(path: str) -> None:
    status, headers, body = ask(path, web_host="0.0.0.0", web_token="s3cret")
    assert status == 200
    assert body
    assert {name: headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("path", ["/api/snapshot", "/api/events", "/api/why?user=u"])
def test_what_it_shows_is_for_the_tokens_bearer(path: str) -> None:
    beyond = {"web_host": "0.0.0.0", "web_token": "s3cret"}
    status, headers, _ = ask(path, **beyond)
    assert (status, headers["Cache-Control"]) == (401, "no-store")
    assert ask(path, {"Authorization": "Bearer s3cret"}, **beyond)[0] in (200, 404)


def test_on_loopback_a_foreign_name_is_refused() -> None:
    assert ask("/api/snapshot", {"Host": "evil.example:9309"})[0] == 403
    assert ask("/api/snapshot", {"Host": "localhost:9309"})[0] == 200
    assert ask("/api/snapshot", {"Host": "[::1]:9309"})[0] == 200


def test_a_user_who_has_no_placement_and_a_question_without_one_get_a_clear_answer() -> None:
    status, _, body = ask("/api/why?user=nobody")
    assert (status, json.loads(body)["error"]) == (404, "nobody")
    for user, length in (("", 0), ("u" * 65, 65)):
        status, _, body = ask(f"/api/why?user={user}")
        assert (status, json.loads(body)) == (
            400, {"error": "length", "said": f"user has {length} characters, expected 1 to 64"},
        )  # fmt: skip
    assert ask("/../pyproject.toml")[0] == 404


def mangled() -> Decision:
    return receipt([1.0], [Fate.WON])  # it names no model


def of_a_broker_that_is_silent() -> Decision:
    raise TimeoutError


def of_a_broker_that_goes_away() -> Decision:
    raise NodeNotReadyError


def of_a_broker_that_is_away() -> Decision:
    raise TopicsError("127.0.0.1:1 does not answer")


def of_a_topic_that_is_gone() -> Decision:
    raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))


@pytest.mark.parametrize(
    ("found", "expected", "code", "said"),
    [
        (mangled, 500, "version", "the receipt is not of this version: ValueError"),
        (of_a_broker_that_is_silent, 504, "silent", "placed: no broker has answered in time"),
        (of_a_broker_that_goes_away, 504, "silent", "placed: no broker has answered: NodeNotReadyError"),
        (of_a_broker_that_is_away, 504, "silent", "placed: no broker has answered: TopicsError"),
        (of_a_topic_that_is_gone, 504, "silent", "placed: no broker has answered: KafkaException"),
    ],
)
def test_a_receipt_that_cannot_be_had_is_told_by_a_code_that_the_page_has_a_sentence_for(
    found: Callable[[], Decision], expected: int, code: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find_receipt(*_: object, **__: object) -> Decision:
        return found()

    monkeypatch.setattr("streams.console.serve.find_receipt", find_receipt)
    status, _, body = ask("/api/why?user=placed")
    assert (status, json.loads(body)) == (expected, {"error": code, "said": said})
    assert code in get_args(WhyNot)


@pytest.mark.parametrize("error", [TextEncoderError("pip install salience[text]"), PermissionError("read-only")])
def test_without_vectors_of_titles_the_console_shows_receipts_as_they_are_and_says_why(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def text_encoder() -> None:
        raise error

    monkeypatch.setattr("streams.app.text_encoder", text_encoder)
    with capture_logs() as said:
        assert _engine(Settings(text=True)) is None
    assert [one["error"] for one in said] == [str(error)]


class Slow:
    """A consumer; one of those that are made after the first does not get on with its start."""

    made: list["Slow"]
    began: asyncio.Event

    def __init__(self, **_: object) -> None:
        self.made.append(self)
        self.stopped = False

    async def start(self) -> None:
        if self is not self.made[0]:
            self.began.set()
            await asyncio.Event().wait()

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, _partitions: object) -> None: ...


@pytest.mark.parametrize("began", [False, True])
async def test_a_console_that_cannot_listen_leaves_no_consumer_open(
    began: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Slow.made, Slow.began = [], asyncio.Event()
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", Slow)
    monkeypatch.setattr("streams.console.tails.found", lambda _, names: dict.fromkeys(names, Found("an-id", 1)))
    compute = Compute()
    with contextlib.suppress(OSError):
        async with Tails("127.0.0.1:1", Desk(Settings(), 2).tails(), compute):
            if began:
                await Slow.began.wait()
            raise OSError("the port is taken")
    compute.stop()
    assert [one.stopped for one in Slow.made] == [True] * (1 + began)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_console_that_is_told_to_end_while_it_starts_waits_for_no_broker(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    def silent(*_: object) -> dict[str, int]:
        os.kill(os.getpid(), number)
        assert not answers.wait(10), "it was waited for"
        return {}

    monkeypatch.setattr("streams.reading.partition_counts", silent)
    told = CliRunner().invoke(app, ["console", "--port", "0", "--bootstrap", "127.0.0.1:1"])
    answers.set()
    assert (told.exit_code, told.stdout) == (0, "")


async def test_a_console_whose_reader_is_cancelled_in_its_start_leaves_none_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Slow.made, Slow.began = [Slow.__new__(Slow)], asyncio.Event()
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", Slow)
    monkeypatch.setattr("streams.console.tails.found", lambda _, names: dict.fromkeys(names, Found("an-id", 1)))
    compute = Compute()
    entering = asyncio.create_task(Tails("127.0.0.1:1", Desk(Settings(), 2).tails(), compute).__aenter__())
    await Slow.began.wait()
    entering.cancel()
    await asyncio.wait([entering])
    compute.stop()
    assert [one.stopped for one in Slow.made[1:]] == [True]
