"""How fresh the monitor says it is, whom it tells that polls fail, and how many may listen to it."""

import asyncio
import contextlib
import re
import socket
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.cli.options import named
from streams.lag import serve
from streams.lag.arithmetic import Rules
from streams.lag.monitor import LagMonitor, News
from tests.unit.test_lag_monitor import Broker, Client, after, browse, monitor_of


def test_a_report_is_stale_from_beyond_five_polls_on_and_never_within_a_second() -> None:
    for every_s, most_ms in ((1.0, 5_000), (10.0, 50_000), (0.01, 1_000), (0.0, 1_000)):
        monitor, broker = monitor_of(90)
        monitor.every_s = every_s
        after(1, monitor)
        broker.now_ms += most_ms
        assert not monitor.latest.stale
        broker.now_ms += 1
        assert monitor.latest.stale


def test_before_the_first_poll_the_age_is_that_of_the_monitor() -> None:
    monitor, broker = monitor_of(None)
    broker.now_ms += 2_500
    assert (monitor.latest.age_s, monitor.latest.time_ms) == (2.5, 0)


def test_a_poll_tells_how_long_it_took() -> None:
    monitor, _ = monitor_of(90)
    assert after(1, monitor).poll_s == 1.0


def test_that_polls_fail_is_told_when_they_begin_to_and_not_at_each() -> None:
    broker, told = Broker([90, None, None, None, 95, None]), list[str]()
    monitor = LagMonitor(broker, Rules(), clock=lambda: broker.now_ms, failing=told.append)
    counts = [(after(1, monitor).failed, len(told)) for _ in range(7)]
    assert counts == [(0, 0), (1, 1), (2, 1), (3, 1), (3, 1), (4, 2), (5, 2)]
    assert told == ["nowhere:1 does not answer"] * 2


def test_whoever_waits_for_news_learns_at_once_that_polling_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, broker = monitor_of(1)
    monitor.every_s = 3_600.0  # in which nobody would wake
    broker.poll = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]  # stands in for a defect

    async def run() -> list[News]:
        heard = []
        async with asyncio.timeout(60):
            async with monitor:
                async for news in monitor.news():
                    heard.append(news)  # noqa: PERF401 - those before the error
        return heard

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())


async def test_news_end_with_the_monitor_for_whoever_still_listens() -> None:
    monitor, _ = monitor_of(90)
    monitor.every_s = 3_600.0
    heard, polled = list[int](), asyncio.Event()

    async def listen() -> None:
        async for news in monitor.news():
            heard.append(news.polls)
            assert len(heard) <= 2, "the same news again and again, without a pause"
            if news.polls:
                polled.set()

    async with asyncio.timeout(60):
        async with monitor:
            listening = asyncio.create_task(listen())
            await polled.wait()
        await listening
    assert heard == [0, 1]


def test_the_exporter_ends_with_what_ended_the_polling() -> None:
    monitor, broker = monitor_of(1)
    broker.poll = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]  # stands in for a defect

    async def run() -> None:
        async with asyncio.timeout(30):
            await serve.serve(monitor, ("127.0.0.1", 0), None, lambda _: None)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())


def served(host: str) -> str:
    """The address of an exporter on ``host`` that is told to end as soon as it serves."""

    async def run() -> str:
        url = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve.serve(monitor_of(90)[0], (host, 0), None, url.set_result))
        await asyncio.wait([url, serving], return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        await asyncio.wait([serving])
        assert serving.cancelled()
        return await url

    return asyncio.run(run())


def ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


def test_the_exporter_ends_when_it_is_told_to() -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", served("127.0.0.1"))


@pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")
def test_the_address_of_the_exporter_is_a_url_on_ipv6_too() -> None:
    assert re.fullmatch(r"http://\[::1\]:\d+", served("::1"))


@pytest.mark.parametrize("command", [["lag"], ["lag", "serve"], ["console"]])
def test_a_group_without_a_name_is_refused_as_an_options_value(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--bootstrap", "127.0.0.1:1", "--group", ""])
    assert result.exit_code == 2
    assert "expected a group's name" in result.stderr


@pytest.mark.parametrize("given", [None, "shop", [], ["shop", "reviews"]])
def test_groups_that_have_names_are_taken_as_they_are_given(given: str | list[str] | None) -> None:
    assert named(given) == given


def test_no_more_pages_listen_than_may_and_one_that_is_closed_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "LISTENERS_MAX", 1)
    monitor, _ = monitor_of(90)

    async def visit(client: Client) -> None:
        assert client.app is not None
        listeners = client.app[serve.LISTENERS]
        async with client.get("/events") as events:
            assert events.headers["Cache-Control"] == "no-store"
            assert await events.content.readline() == b"event: lag\n"
            refused = await client.get("/events")
            assert (refused.status, await refused.text()) == (503, "1 listen already\n")
        for _ in range(1_000):  # the page is found closed when it is next told of a poll
            await monitor.poll()
            await asyncio.sleep(0)
            if not listeners:
                break
        assert not listeners
        async with client.get("/events") as events:
            assert events.status == 200

    browse(monitor, visit)


def test_a_monitor_that_has_not_polled_yet_is_not_well_and_one_with_a_failed_poll_may_be() -> None:
    monitor, broker = monitor_of(None, 90, None)

    async def visit(client: Client) -> None:
        unstarted = await client.get("/healthz")
        assert (unstarted.status, await unstarted.text()) == (503, "no poll for 0.0 s: not yet\n")
        await monitor.poll()
        assert "nowhere:1 does not answer" in await (await client.get("/healthz")).text()
        await monitor.poll()
        await monitor.poll()
        assert monitor.latest.error
        assert (await client.get("/healthz")).status == 200
        broker.now_ms += 60_000
        assert (await client.get("/healthz")).status == 503

    browse(monitor, visit)


def test_a_monitor_that_is_told_a_part_is_well_and_says_what_is_lacking_in_its_health_and_once_in_its_log() -> None:
    said: list[str] = []
    broker = Broker([90])
    monitor = LagMonitor(broker, Rules(), clock=lambda: broker.now_ms, failing=said.append)
    whole = broker.poll
    why = "the coordinator of g does not answer"
    broker.poll = lambda: replace(whole(), lacking=why)  # type: ignore[method-assign]  # as where one broker is away

    async def visit(client: Client) -> None:
        for _ in range(2):
            await monitor.poll()
        health = await client.get("/healthz")
        assert (health.status, await health.text()) == (200, "ok, but the coordinator of g does not answer\n")
        assert (await (await client.get("/lag")).json())["lacking"] == "the coordinator of g does not answer"
        broker.poll = whole  # type: ignore[method-assign]  # as where it is back
        await monitor.poll()
        assert await (await client.get("/healthz")).text() == "ok\n"

    browse(monitor, visit)
    assert said == ["not all of it: the coordinator of g does not answer"]


@pytest.mark.parametrize("version", ["abc", "", "1.x", "1.0.0", "9.9.9"])
def test_a_scraper_that_asks_for_a_version_that_is_none_gets_the_metrics_all_the_same(version: str) -> None:
    monitor, _ = monitor_of(90)

    async def visit(client: Client) -> None:
        for kind in ("text/plain", "application/openmetrics-text"):
            told = await client.get("/metrics", headers={"Accept": f"{kind};version={version}"})
            assert told.status == 200
            assert "salience_lag_poll_age_seconds" in await told.text()

    browse(monitor, visit)
