"""The monitor's freshness, its pages and its metrics, on a scripted broker."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from confluent_kafka import KafkaError
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from streams.cli import app
from streams.lag import serve
from streams.lag.arithmetic import Rules, Status
from streams.lag.board import GroupSeen, Observation, Partition
from streams.lag.monitor import LagMonitor, News
from streams.lag.poller import LagError, Poller
from tests.cancelling import cancelled_after

HERE = Partition("clicks", 0)
DEADLINE_S = 60.0


class Broker(Poller):
    """Answers with a script, of what a group has committed (None: it does not answer); the last for ever.

    ``told``: whether it tells members.
    """

    def __init__(self, committed: list[int | None], *, told: bool = True) -> None:
        self.committed_s, self.told = committed, told
        self.now_ms = 1_000_000

    def poll(self) -> Observation:
        self.now_ms += 1_000
        committed = self.committed_s.pop(0) if len(self.committed_s) > 1 else self.committed_s[0]
        if committed is None:
            raise LagError("nowhere:1 does not answer")
        members, owners = (1, {HERE: "worker@10.0.0.1"}) if self.told else (None, None)
        seen = GroupSeen("stable", members, {HERE: committed}, owners)
        return Observation(self.now_ms, {"salience": seen}, {HERE: 100})


def monitor_of(*committed: int | None) -> tuple[LagMonitor, Broker]:
    broker = Broker(list(committed))
    return LagMonitor(broker, Rules(), clock=lambda: broker.now_ms), broker


def after(polls: int, monitor: LagMonitor) -> News:
    async def run() -> News:
        for _ in range(polls):
            await monitor.poll()
        return monitor.latest

    return asyncio.run(run())


Client = TestClient[web.Request, web.Application]


def browse(monitor: LagMonitor, visit: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with TestClient(TestServer(serve.make_app(monitor))) as client:
            await visit(client)

    asyncio.run(run())


def test_before_the_first_poll_nothing_is_known_and_that_is_said() -> None:
    news = monitor_of(1)[0].latest

    assert (news.stale, news.time_ms, news.report.worst) == (True, 0, Status.UNKNOWN)


def test_a_report_that_is_not_renewed_grows_stale_and_says_why() -> None:
    monitor, broker = monitor_of(90, None)

    assert not after(1, monitor).stale
    assert not after(3, monitor).stale
    news = after(4, monitor)
    assert (news.stale, news.age_s, news.polls, news.failed) == (True, 7.0, 8, 7)
    assert news.error == "nowhere:1 does not answer"
    assert news.report.groups[0].total.lag == 10, "the last that was known"
    broker.committed_s = [95]
    assert (after(1, monitor).stale, monitor.latest.error) == (False, "")


class SilentAdmin:
    """An admin client whose one broker does not answer: groups that it may know cannot be listed."""

    def list_consumer_groups(self, **_: object) -> Future[Any]:
        listed: Future[Any] = Future()
        listed.set_result(SimpleNamespace(valid=[], errors=[KafkaError(KafkaError._TIMED_OUT)]))
        return listed

    describe_cluster = list_consumer_groups


def test_a_broker_that_cannot_list_its_groups_is_a_poll_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.lag.poller.AdminClient", lambda _: SilentAdmin())

    with pytest.raises(LagError, match="nowhere:1 does not tell the groups' lag"):
        Poller("nowhere:1").poll()


def test_polls_go_on_after_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.lag.monitor.POLL_MAX_S", 0.01)
    monitor, broker = monitor_of(90)
    answers, release = broker.poll, Event()

    async def run() -> tuple[News, News]:
        broker.poll = lambda: release.wait(DEADLINE_S)  # type: ignore[method-assign, assignment, return-value]  # hangs
        await monitor.poll()
        hung = monitor.latest
        release.set()
        broker.poll = answers  # type: ignore[method-assign]  # answers again
        monkeypatch.setattr("streams.lag.monitor.POLL_MAX_S", DEADLINE_S)
        await monitor.poll()
        return hung, monitor.latest

    hung, after_it = asyncio.run(run())
    assert (hung.failed, hung.error) == (1, "the poll got no answer in time")
    assert (after_it.polls, after_it.failed, after_it.error) == (2, 1, "")


def test_news_comes_at_once_and_after_every_poll() -> None:
    monitor, _ = monitor_of(90, 95, 100)

    async def run() -> list[int]:
        lags = []
        async with monitor:
            async for news in monitor.news():
                if news.polls:
                    lags.append(news.report.groups[0].total.lag)
                if len(lags) == 3:
                    return lags
        return lags

    monitor.every_s = 0.0
    assert asyncio.run(run())[-1] == 0


def test_what_ends_the_polling_is_raised_and_not_taken_for_silence() -> None:
    monitor, broker = monitor_of(1)
    broker.poll = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]  # stands in for a defect

    async def run() -> None:
        async with monitor:
            async for _news in monitor.news():
                pass

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())


def test_the_pages_tell_the_lag_and_health() -> None:
    monitor, broker = monitor_of(90)

    async def visit(client: Client) -> None:
        assert (await client.get("/healthz")).status == 503
        await monitor.poll()
        assert (await client.get("/healthz")).status == 200
        told = await (await client.get("/lag")).json()
        assert told["report"]["groups"][0]["partitions"][0]["lag"] == 10
        async with client.get("/events") as events:
            assert events.content_type == "text/event-stream"
            assert await events.content.readline() == b"event: lag\n"
            data = json.loads((await events.content.readline()).removeprefix(b"data: "))
            assert data["report"] == told["report"]
        broker.now_ms += 60_000
        assert "no poll for 60.0 s" in await (await client.get("/healthz")).text()

    browse(monitor, visit)


def test_on_loopback_a_foreign_name_is_refused() -> None:
    monitor, _ = monitor_of(90)

    async def visit(client: Client) -> None:
        assert (await client.get("/lag", headers={"Host": "rebound.example"})).status == 403
        assert (await client.get("/lag", headers={"Host": "localhost:9308"})).status == 200

    browse(monitor, visit)


def test_beyond_loopback_only_the_bearer_of_the_token_is_told() -> None:
    monitor, _ = monitor_of(90)

    async def run() -> list[int]:
        async with TestClient(TestServer(serve.make_app(monitor, lambda: "secret"))) as client:
            given = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer secret"}]
            return [(await client.get("/metrics", headers=headers)).status for headers in given]

    assert asyncio.run(run()) == [401, 401, 200]
    refused = CliRunner().invoke(app, ["lag", "serve", "--host", "0.0.0.0"], env={"SALIENCE_WEB_TOKEN": ""})
    assert refused.exit_code == 2
    assert "SALIENCE_WEB_TOKEN" in refused.output


def test_options_before_serve_are_refused_since_it_would_serve_without_them() -> None:
    asked = ["lag", "--bootstrap", "prod:9092", "--group", "mine", "serve", "--host", "0.0.0.0"]
    refused = CliRunner().invoke(app, [*asked, "--log-json"], env={"SALIENCE_WEB_TOKEN": ""})
    assert refused.exit_code == 2
    assert "options of serve come after it: salience lag serve --bootstrap ..." in refused.stderr


def test_a_stale_report_is_not_exported_but_its_age_is() -> None:
    monitor, broker = monitor_of(90)

    async def visit(client: Client) -> None:
        await monitor.poll()
        fresh = await _samples(client)
        labels = (("group", "salience"), ("partition", "0"), ("topic", "clicks"))
        assert fresh["salience_lag_records", labels] == 10
        assert fresh["salience_lag_group_members", (("group", "salience"),)] == 1
        statuses = {name[1][2][1]: value for name, value in fresh.items() if name[0] == "salience_lag_status"}
        assert {status for status, value in statuses.items() if value} == {"OK"}
        assert statuses.keys() == {status.value for status in Status}
        assert fresh["salience_lag_polls_total", (("outcome", "ok"),)] == 1
        broker.now_ms += 60_000
        stale = await _samples(client)
        assert not [name for name, given in stale if "group" in dict(given)]
        assert stale["salience_lag_poll_age_seconds", ()] == 60

    browse(monitor, visit)


def test_of_members_that_the_broker_does_not_tell_none_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, broker = monitor_of(90)
    broker.told = False

    async def visit(client: Client) -> None:
        await monitor.poll()
        assert {name for name, _ in await _samples(client)} >= {"salience_lag_records", "salience_lag_status"}
        assert "salience_lag_group_members" not in {name for name, _ in await _samples(client)}
        told = await (await client.get("/lag")).json()
        assert told["report"]["groups"][0]["members"] is None

    browse(monitor, visit)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("streams.cli.lag._monitor", lambda *_: LagMonitor(broker, clock=lambda: broker.now_ms))
    for by in ("group", "topic", "partition"):
        shown = CliRunner().invoke(app, ["lag", "--seconds", "0", "--by", by])
        (line,) = [
            line for line in shown.stdout.splitlines() if "OK" in line and ("salience" in line or "clicks" in line)
        ]
        assert "nobody" not in line
        assert " - " in line


async def _samples(client: Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = await (await client.get("/metrics")).text()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_command_shows_a_row_per_partition_and_ends_with_1_where_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: str, committed: list[int | None]) -> tuple[int, str]:
        broker = Broker(committed)
        monkeypatch.setattr("streams.cli.lag._monitor", lambda *_: LagMonitor(broker, clock=lambda: broker.now_ms))
        result = CliRunner().invoke(app, ["lag", "--seconds", "0", *arguments])
        return result.exit_code, result.stdout

    status, said = run(committed=[90])
    assert status == 0
    assert all(word in said for word in ("salience", "clicks", "OK", "10", "worker@10.0.0.1"))
    status, said = run("--json", committed=[100])
    told = json.loads(said)
    assert (status, told["worst"], told["report"]["groups"][0]["total"]["lag"]) == (0, "OK", 0)
    assert run("--by", "group", committed=[90])[0] == 0
    assert run("--by", "topic", committed=[90])[0] == 0
    status, said = run("--group", "salience", "--group", "salence", committed=[90])
    assert (status, "clicks" in said) == (1, True)
    status, said = run("--json", committed=[None])
    assert (status, json.loads(said)["error"]) == (1, "nowhere:1 does not answer")


def test_of_a_group_that_is_not_there_alone_nothing_is_said_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker([90])
    monkeypatch.setattr(broker, "poll", lambda: Observation(1_000_000, {}, {}))
    monkeypatch.setattr("streams.cli.lag._monitor", lambda *_: LagMonitor(broker, clock=lambda: broker.now_ms))
    result = CliRunner().invoke(app, ["lag", "--seconds", "0", "--group", "salence"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: 'salence' has committed no offset that is there, or does not exist;")


def test_ctrl_c_is_how_a_watch_ends_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Observation:
        raise KeyboardInterrupt

    broker = Broker([90])
    monkeypatch.setattr(broker, "poll", interrupted)
    monkeypatch.setattr("streams.cli.lag._monitor", lambda *_: LagMonitor(broker, clock=lambda: broker.now_ms))
    assert CliRunner().invoke(app, ["lag", "--watch", "--json"]).exit_code == 0


def test_without_a_broker_the_command_ends_with_1_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.lag.poller.ANSWER_S", 0.2)

    result = CliRunner().invoke(app, ["lag", "--bootstrap", "127.0.0.1:1", "--seconds", "0"])

    assert result.exit_code == 1
    assert "127.0.0.1:1 does not tell the groups' lag" in result.stderr
    assert "salience broker apache up" in result.stderr


def test_what_is_well_is_not_said_never_to_catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(polls_before: int) -> str:
        broker = Broker([90])
        monitor = LagMonitor(broker, Rules(stuck_ms=1_000), clock=lambda: broker.now_ms)
        after(polls_before, monitor)
        monkeypatch.setattr("streams.cli.lag._monitor", lambda *_: monitor)
        return CliRunner().invoke(app, ["lag", "--seconds", "0"], env={"COLUMNS": "160"}).stdout

    said = {"OK": told(0), "STALL": told(2)}
    assert "OK" in said["OK"]
    assert "never" not in said["OK"]
    assert "STALL" in said["STALL"]
    assert "never" in said["STALL"]


def test_a_stuck_partition_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker([90])
    monitor = LagMonitor(broker, Rules(window_ms=3_000, stuck_ms=1_000), clock=lambda: broker.now_ms)
    after(2, monitor)
    monkeypatch.setattr("streams.cli.lag._monitor", lambda *_: monitor)

    result = CliRunner().invoke(app, ["lag", "--seconds", "0"])

    assert result.exit_code == 1
    assert "STALL" in result.stdout


@pytest.mark.parametrize("polls_before", [1, 9])
def test_a_lag_that_can_no_longer_be_told_is_a_failed_check_and_what_is_known_of_it_is_shown(
    polls_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, _ = monitor_of(90, None)
    after(polls_before, monitor)
    monkeypatch.setattr("streams.cli.lag._monitor", lambda *_: monitor)

    result = CliRunner().invoke(app, ["lag", "--seconds", "0"])

    assert (result.exit_code, result.stderr) == (1, "Error: nowhere:1 does not answer\n")
    assert "OK" in result.stdout


def test_a_report_that_has_grown_old_without_an_error_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, broker = monitor_of(90)
    poll = broker.poll

    def slow() -> Observation:
        seen = poll()
        broker.now_ms += 60_000
        return seen

    monkeypatch.setattr(broker, "poll", slow)
    monkeypatch.setattr("streams.cli.lag._monitor", lambda *_: monitor)

    result = CliRunner().invoke(app, ["lag", "--seconds", "0"])

    assert (result.exit_code, result.stderr) == (1, "Error: the lag is not told for 60 s\n")


async def test_whoever_is_cancelled_while_a_monitor_ends_is_cancelled() -> None:
    monitor, _ = monitor_of(90)
    await monitor.__aenter__()
    assert await cancelled_after(1, asyncio.create_task(monitor.__aexit__(None, None, None)))
