"""What operations see and do, on whole workers under load: one that freezes, and an upgrade of one after the other."""

import asyncio
import contextlib
import itertools
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from aiokafka import AIOKafkaProducer
from playwright.async_api import Page
from prometheus_client.parser import text_string_to_metric_families

from deploy.brokers import Broker
from streams.lag.arithmetic import Rules
from streams.lag.monitor import LagMonitor, News
from streams.lag.poller import Poller
from tests.integration.consoles import CHROMIUM, Console, chromium, level_is, page_on, screenshot
from tests.integration.lanes import ADS, Shop, events, play, record_of, shop_on
from tests.integration.workers import DEADLINE_S, Worker, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]  # a minute each, where the machine is idle

log = logging.getLogger(__name__)

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
PROMTOOL = shutil.which("promtool")
SCRAPE_S = 1.0
PENDING = 15
"""Scrapes for which the alert waits, as its rule says."""
WATCHED = ("salience_lag_status", "salience_lag_seconds", "salience_lag_poll_age_seconds")


class Load:
    """Some 100 events a second while the block lasts; ``sent`` of them."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.sent = 0

    @contextlib.asynccontextmanager
    async def on(self) -> AsyncIterator["Load"]:
        task = asyncio.create_task(self._produce())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _produce(self) -> None:
        settings = self._shop.settings
        async with AIOKafkaProducer(bootstrap_servers=settings.bootstrap) as producer:
            number = 0
            while True:
                for event in events(30, start=number):
                    name, key, value, time_ms = record_of(event)
                    # A record that was handed over is sent, whatever ends this task.
                    sending = producer.send_and_wait(settings.topic_prefix + name, value, key=key, timestamp_ms=time_ms)
                    await asyncio.shield(asyncio.ensure_future(self._count(sending)))
                number += 30
                await asyncio.sleep(0.3)

    async def _count(self, sending: Any) -> None:
        await sending
        self.sent += 1


def workers_of(kafka: Broker, prefix: str, home: Path, **settings: Any) -> Shop:
    if not kafka.transactions:
        pytest.skip("tried on Apache Kafka, and it could not be had")
    return shop_on(kafka, prefix, home, "exactly_once", partitions=2, **settings)


# --- a frozen worker ---------------------------------------------------------------------------------------------


class Exporter:
    """``salience lag serve`` on the workers' group, scraped once a second."""

    def __init__(self, shop: Shop, log_file: Path) -> None:
        self._log = log_file
        self._command = [sys.executable, "-m", "streams.cli", "lag", "serve", "--port", "0"]
        self._command += ["--bootstrap", shop.settings.bootstrap, "--group", shop.settings.group, "--every", "0.5"]
        self.series: dict[str, list[float]] = defaultdict(list)
        self.scrapes = 0

    @contextlib.contextmanager
    def running(self) -> Any:
        with self._log.open("wb") as output:
            process = subprocess.Popen(self._command, stdout=output, stderr=output)
        try:
            yield self
        finally:
            process.terminate()
            assert process.wait(DEADLINE_S) == 0, self._log.read_text()

    def _scrape(self) -> dict[str, float]:
        """Samples by series, as promtool writes them; nothing before the page is there."""
        found = re.search(r"http://[\d.:]+/metrics", self._log.read_text())
        if not found:
            return {}
        with urllib.request.urlopen(found[0], timeout=DEADLINE_S) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        samples = [sample for family in families for sample in family.samples if sample.name in WATCHED]
        return {
            f"{sample.name}{{{', '.join(f'{k}={v!r}' for k, v in sorted(sample.labels.items()))}}}".replace("'", '"'):
            sample.value
            for sample in samples
        }  # fmt: skip

    async def statuses(self) -> set[str]:
        """Scrape, keep what was seen, and tell the statuses of all partitions."""
        samples = await asyncio.to_thread(self._scrape)
        if not samples:
            return set()
        for name in self.series.keys() | samples.keys():
            told = self.series[name]
            told += [float("nan")] * (self.scrapes - len(told)) + [samples.get(name, float("nan"))]
        self.scrapes += 1
        return {
            re.findall(r'status="(\w+)"', name)[0] for name, value in samples.items() if "status=" in name and value
        }

    async def scrape_until(self, holds: Callable[[set[str]], object], scrapes: int = 0) -> None:
        """Scrape until the statuses are as wanted, then ``scrapes`` more times."""
        async with asyncio.timeout(DEADLINE_S):
            while not (seen := await self.statuses()) or not holds(seen):  # noqa: ASYNC110 - as Prometheus does
                await asyncio.sleep(SCRAPE_S)
        for _ in range(scrapes):
            await asyncio.sleep(SCRAPE_S)
            await self.statuses()

    def alerts_at(self, folder: Path, moments: dict[int, set[str]]) -> subprocess.CompletedProcess[str]:
        """Have promtool judge the recorded series: the topics[partition] stuck at each scrape of ``moments``."""
        tests = {
            "rule_files": [str(RULES)],
            "evaluation_interval": "1s",
            "tests": [
                {
                    "interval": "1s",
                    "input_series": [
                        {"series": name, "values": " ".join("_" if math.isnan(v) else f"{v:g}" for v in values)}
                        for name, values in self.series.items()
                    ],
                    "alert_rule_test": [
                        {
                            "eval_time": f"{at}s",
                            "alertname": "SaliencePartitionStuck",
                            "exp_alerts": list(map(self._alert, sorted(stuck))),
                        }
                        for at, stuck in moments.items()
                    ],
                }
            ],
        }
        path = folder / "frozen.test.yml"
        path.write_text(yaml.safe_dump(tests))
        return subprocess.run([str(PROMTOOL), "test", "rules", str(path)], capture_output=True, text=True, check=False)

    def _alert(self, name: str) -> dict[str, Any]:
        labels = dict(re.findall(r'(group|topic|partition)="([^"]*)"', name))
        return {
            "exp_labels": labels | {"severity": "critical"},
            "exp_annotations": {
                "summary": f"{labels['group']} makes no progress in {labels['topic']}[{labels['partition']}]",
                "runbook_url": "deploy/OPERATIONS.md#saliencepartitionstuck",
            },
        }

    def stuck(self) -> dict[str, int]:
        """A series of each partition that the last scrape saw stalled or stopped, and for how many it has been so."""
        named: dict[tuple[str, ...], str] = {}
        ill: dict[tuple[str, ...], list[bool]] = {}
        for name, values in self.series.items():
            if re.search(r'status="(STALL|STOP)"', name):
                place = tuple(re.findall(r'(?:group|topic|partition)="([^"]*)"', name))
                named[place] = name
                before = ill.get(place, [False] * len(values))
                ill[place] = [was or value == 1 for was, value in zip(before, values, strict=True)]
        since = {place: list(itertools.takewhile(bool, reversed(told))) for place, told in ill.items()}
        return {named[place]: len(told) for place, told in since.items() if told}

    async def scrape_until_all_are_stuck(self, scrapes: int) -> None:
        """Scrape until whatever stands still has done so for so many scrapes; they may begin one after the other."""
        async with asyncio.timeout(DEADLINE_S):
            while min(self.stuck().values(), default=0) < scrapes:
                await asyncio.sleep(SCRAPE_S)
                await self.statuses()


def well(statuses: set[str]) -> bool:
    """Nothing is wrong anywhere."""
    return statuses == {"OK"}


def ill(statuses: set[str]) -> bool:
    """Some partition stands still; one that nobody writes to does not."""
    return bool(statuses & {"STALL", "STOP"})


def test_a_frozen_worker_shows_raises_the_alert_and_all_is_well_when_it_goes_on(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = workers_of(kafka, topic_prefix, tmp_path)
        await shop.publish(ADS)
        exporter = Exporter(shop, tmp_path / "lag.log")
        with (
            exporter.running(),
            Console(shop, tmp_path / "console.log") as console,
            Worker(shop, tmp_path / "worker.log", "--supervise") as worker,
        ):
            async with Load(shop).on() as load, Watched.on(console) as page:
                await until(lambda: shop.has_applied(50), "50 events")
                await exporter.scrape_until(well, scrapes=3)
                await page.is_("ok")
                before = exporter.scrapes - 1
                frozen = [worker.process.pid, *_descendants(worker.process.pid)]
                for pid in frozen:
                    os.kill(pid, signal.SIGSTOP)
                reddens = asyncio.create_task(page.is_("red"))
                await exporter.scrape_until(ill)
                log.info("frozen: STALL or STOP %d s after SIGSTOP", exporter.scrapes - 1 - before)
                log.info("the console: red %.1f s after SIGSTOP", await reddens)
                await page.names("SaliencePartitionStuck")
                await exporter.scrape_until_all_are_stuck(PENDING + 3)
                stuck, during = set(exporter.stuck()), exporter.scrapes - 1
                for pid in reversed(frozen):
                    os.kill(pid, signal.SIGCONT)
                await exporter.scrape_until(well, scrapes=2)
                await page.is_("ok")
                log.info("well again %d s after SIGCONT", exporter.scrapes - 1 - during)
            await until(lambda: shop.has_applied(load.sent), "every event that was sent")
            assert await shop.applied() == load.sent
        assert stuck
        if PROMTOOL is None:
            log.warning("no promtool: whether the alert fires was not judged")
            return
        judged = exporter.alerts_at(tmp_path, {before: set(), during: stuck, exporter.scrapes - 1: set()})
        assert judged.returncode == 0, judged.stdout + judged.stderr

    play(scenario)


class Watched:
    """The console's page in a browser; where this machine has none, nothing, which the log says."""

    def __init__(self, page: Page | None) -> None:
        self._page = page

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, console: Console) -> AsyncIterator[Self]:
        if CHROMIUM is None:
            log.warning("no Chromium: whether the console turns red was not seen")
            yield cls(None)
            return
        async with chromium() as browser, page_on(browser, await console.url()) as page:
            yield cls(page)

    async def is_(self, level: str) -> float:
        """Wait until the page shows this level; the seconds it took."""
        return 0.0 if self._page is None else await level_is(self._page, level)

    async def names(self, alarm: str) -> None:
        """The page names the alert, and the lane is not said to keep up; it is photographed as it is."""
        if self._page is not None:
            await self._page.wait_for_selector(f"#alarms [data-name={alarm}]")
            statuses = await self._page.eval_on_selector_all(
                "#lanes .status", "nodes => nodes.map(node => node.dataset.status)"
            )
            assert ill(set(statuses))
            await screenshot(self._page, "en-light-red")


def _descendants(pid: int) -> list[int]:
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [below for child in children for below in _descendants(child)]


# --- a rolling upgrade -------------------------------------------------------------------------------------------


def test_two_workers_rolled_one_after_the_other_under_load_lose_and_double_nothing(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = workers_of(kafka, topic_prefix, tmp_path)
        await shop.publish(ADS)
        settings = shop.settings
        poller = Poller(settings.bootstrap, [settings.group])
        seen: list[News] = []
        async with LagMonitor(poller, Rules(), every_s=0.25) as monitor:

            async def note() -> None:
                async for news in monitor.news():
                    seen.append(news)  # noqa: PERF401 - read while it grows

            noting = asyncio.create_task(note())
            with contextlib.ExitStack() as running:
                old = [running.enter_context(_worker(shop, tmp_path, f"old-{number}")) for number in range(2)]
                async with Load(shop).on() as load:
                    await until(lambda: shop.has_applied(50), "50 events")
                    for worker in old:
                        await until(_is_ready(worker), "the old worker is ready")
                    begin = len(seen)
                    for number, worker in enumerate(old):
                        worker.signal(signal.SIGTERM)
                        assert await asyncio.to_thread(worker.status) == 0, worker.said
                        new = running.enter_context(_worker(shop, tmp_path, f"new-{number}"))
                        await until(_is_ready(new), "the new worker is ready")
                    before = load.sent
                    await until(lambda: shop.has_applied(before + 100), "events after the upgrade")
                await until(lambda: shop.has_applied(load.sent), "every event that was sent")
                assert await shop.applied() == load.sent
            noting.cancel()
            await asyncio.gather(noting, return_exceptions=True)
        worst_s = max(group.total.time_lag_s for news in seen[begin:] for group in news.report.groups)
        log.info("rolled two workers under load: time lag at most %.2f s over %d looks", worst_s, len(seen) - begin)
        assert set((await shop.placement_ids()).values()) == {1}

    play(scenario)


def _worker(shop: Shop, folder: Path, name: str) -> Worker:
    return Worker(shop, folder / f"{name}.log", home=folder / name)


def _is_ready(worker: Worker) -> Any:
    async def ready() -> bool:
        if not re.search(r"url=http://", worker.said):
            return False
        return (await asyncio.to_thread(worker.ask, "/readyz"))[0] == 200

    return ready
