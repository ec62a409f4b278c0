"""Runs the demo: broker, topics, ads, reviews, a worker and shoppers; then stops all of them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from deploy.brokers.embedded import EmbeddedBroker
from streams import topic_admin, topics
from streams.clock import wall_ms
from streams.demo.outbox import Outbox, put_ads
from streams.demo.report import Report
from streams.demo.reviews import reviews
from streams.demo.sealed import sealed
from streams.demo.shop import SHOP
from streams.demo.shopping import NoPlacementError, Plan, Shopping, Show
from streams.demo.worker import WorkerProcess
from streams.reviews.feed import ReviewFeed
from streams.settings import Guarantee, Settings
from streams.wire import Tone

GUARANTEE: Guarantee = "at_least_once"
BROKER = "embedded"
LANES = 4
"""More than one, as in production; one worker has all of them."""
CONTROL_SHARE = 0.3
"""Share of the users ranked at random: enough to know their click rate well within a minute."""
SESSION_TIMEOUT_MS, HEARTBEAT_MS = 4_000, 1_000
"""On the embedded broker, joining a group takes half the session timeout."""
WAIT_OTHER_TOPIC_MS = 10
"""On one machine, the two events of one moment are no further apart. This wait is most of the latency."""
FETCH_WAIT_MS = 10
"""The embedded broker answers a fetch after half of this time, with records or without."""
CLICK_WINDOW_MS = 5_000
"""Shoppers click within 3 s; with the usual window of minutes, a demo would end before the first non-click is known."""
CHECK_EVERY_S = 0.1
SILENT_MAX_S = 15.0
"""How long a worker may leave all events without a placement. At a load of ten for each processor p99 is 6 s."""
CLOSE_WITHIN_S = 2.0
"""Time to close what has failed; a producer would wait 40 s for a dead broker."""


def run_demo(plan: Plan, folder: Path, show: Show) -> Report:
    """Run ``plan`` with all files in ``folder``; SIGINT and SIGTERM end it early, with an orderly stop.

    The caller's settings (``SALIENCE_<NAME>``) are ignored.

    Raises `WorkerFailedError`, `deploy.brokers.BrokerError`, `streams.client.ViewError`,
    `streams.topic_admin.TopicsError` or aiokafka's ``KafkaError``.
    """
    with sealed(), EmbeddedBroker(folder / "broker") as broker:
        topic_admin.create(broker.bootstrap, LANES)
        return asyncio.run(Demo(plan, broker, folder, show).run())


class Demo:
    """One run: ads and reviews on ``broker``, a worker, and shoppers."""

    def __init__(self, plan: Plan, broker: EmbeddedBroker, folder: Path, show: Show) -> None:
        self._broker = broker
        self._settings = Settings(
            bootstrap=broker.bootstrap, topic_prefix="", guarantee=GUARANTEE, fetch_wait_ms=FETCH_WAIT_MS
        )
        self._worker = WorkerProcess(self._worker_settings(folder), folder / "worker.log")
        self._tones: dict[str, Tone] = {}
        self._shopping = Shopping(plan, self._settings, show, broker=BROKER, guarantee=GUARANTEE, tones=self._tones)

    async def run(self) -> Report:
        """Everything from the first ad to the last event, while broker and worker live.

        A task of its own watches these two: if one is dead, waiting for it would take long.
        """
        self._shopping.heed_signals()
        performing = asyncio.create_task(self._perform())
        tasks = [performing, asyncio.create_task(self._watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if any(task.exception() for task in done):
                self._check()  # if the broker or the worker died, raise that rather than what failed of it
            for task in done:
                task.result()
            return performing.result()
        except BaseException:
            self._worker.kill()
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CLOSE_WITHIN_S)

    async def _perform(self) -> Report:
        await self._furnish()
        with self._worker:
            try:
                await self._shopping.run()
            except NoPlacementError as error:
                raise self._worker.failed(str(error)) from error
        return await self._shopping.report()

    async def _furnish(self) -> None:
        """Publish the ads, their reviews, and the tones of those."""
        ads = self._shopping.ads
        await put_ads(self._settings, ads)
        now_ms = wall_ms()
        async with Outbox(self._settings) as outbox:
            for review in reviews(SHOP, list(ads.values()), now_ms, now_ms):
                await outbox.send(topics.REVIEWS, review.ad_id, review)
            await outbox.flush()
        async with ReviewFeed(self._settings, self._told) as feed:
            await feed.run(follow=False)

    async def _watch(self) -> NoReturn:
        while True:
            self._check()
            await asyncio.sleep(CHECK_EVERY_S)

    def _check(self) -> None:
        """Raise if the broker or the worker has failed."""
        self._broker.check()
        self._worker.check()
        if self._shopping.silent_s > SILENT_MAX_S:
            raise self._worker.failed(f"Events were sent, and no placement came for {SILENT_MAX_S:.0f} s.")

    def _told(self, tones: Sequence[Tone]) -> None:
        self._tones |= {tone.name: tone for tone in tones if tone.of == "ad"}

    def _worker_settings(self, folder: Path) -> dict[str, str]:
        return {
            "bootstrap": self._broker.bootstrap,
            "guarantee": GUARANTEE,
            "group": "salience-demo",
            "home": str(folder / "worker"),
            "control_share": str(CONTROL_SHARE),
            "session_timeout_ms": str(SESSION_TIMEOUT_MS),
            "heartbeat_ms": str(HEARTBEAT_MS),
            "wait_other_topic_ms": str(WAIT_OTHER_TOPIC_MS),
            "fetch_wait_ms": str(FETCH_WAIT_MS),
            "click_window_ms": str(CLICK_WINDOW_MS),
        }
