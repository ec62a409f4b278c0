"""Runs the demo: broker, topics, ads, reviews, a worker, shoppers; and takes all of it down again."""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from deploy.brokers.embedded import EmbeddedBroker
from scoring.policies import ENGINE_ARM
from streams import topic_admin, topics
from streams.client import PlacementView
from streams.connection import aiokafka_options
from streams.demo.meter import Meter
from streams.demo.report import Report, Snapshot
from streams.demo.reviews import reviews
from streams.demo.shop import SHOP, Event, Shoppers
from streams.demo.stage import Stage
from streams.demo.worker import WorkerProcess
from streams.layer_audit import decode_outcome
from streams.outcomes import columns
from streams.quality import Settled
from streams.reading import log_ends, read_topic
from streams.review_feed import ReviewFeed
from streams.settings import Guarantee, Settings
from streams.wire import Ad, Click, Impression, Outcome, Placement, Review, Tone, encode_json

GUARANTEE: Guarantee = "at_least_once"
BROKER = "embedded"
LANES = 4
"""More than one, to be a fair picture; one worker has them all."""
CONTROL_SHARE = 0.3
"""Of the users; so many that chance's click rate is known well within a minute."""
SESSION_TIMEOUT_MS, HEARTBEAT_MS = 4_000, 1_000
"""Joining a group takes half the session timeout on the embedded broker."""
WAIT_OTHER_TOPIC_MS = 10
"""On one machine, the two events of one moment are no further apart; it is most of the latency."""
FETCH_WAIT_MS = 10
"""The embedded broker answers a fetch after half of it, records or not."""
CLICK_WINDOW_MS = 5_000
"""Shoppers click within 3 s; with the usual window of minutes, a demo would end before the first non-click is known."""
TICK_S = 0.01
"""Between two looks at what is due; adds as much to the latency at most."""
SHOW_EVERY_S, CHECK_EVERY_S, COUNT_EVERY_S = 0.25, 0.1, 1.0
COUNT_WITHIN_S = 5.0
"""Counting dead letters takes 4 to 20 ms; a broker that takes so long is asked again."""
SILENT_MAX_S = 15.0
"""So long a worker may leave all events without a placement. At a load of ten for each processor p99 is 6 s."""
CLOSE_WITHIN_S = 2.0
"""What has failed is closed so long; a producer would wait for a dead broker for 40 s."""
READY_WITHIN_S = 90.0
"""A worker on a busy two-core machine takes ten seconds."""
WARM_UP_USERS = 32
"""With four lanes, all but one in 2,000 draws of so many users reach every lane."""
WARM_UP = "warm-up-"

Show = Callable[[Snapshot], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run; ``seconds`` None: until stopped."""

    seconds: int | None
    users: int
    seed: int


def run_demo(plan: Plan, folder: Path, show: Show) -> Report:
    """Run ``plan`` with all files in ``folder``; SIGINT and SIGTERM end it early, in order.

    Raises `WorkerFailedError`, `deploy.brokers.BrokerError`, `streams.client.ViewError`,
    `streams.topic_admin.TopicsError` or aiokafka's ``KafkaError``.
    """
    with EmbeddedBroker(folder / "broker") as broker:
        topic_admin.create(broker.bootstrap, LANES)
        return asyncio.run(Demo(plan, broker, folder, show).run())


class Outbox:
    """Sends events, keyed by user, without waiting for their delivery; a failed one ends the demo."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._failure: BaseException | None = None

    async def send(self, topic: str, key: str, value: Ad | Event | Review) -> None:
        """Hand one message to the producer. Raises what an earlier one failed with."""
        if self._failure is not None:
            raise self._failure
        future = await self._producer.send(topic, encode_json(value), key=key.encode())
        future.add_done_callback(self._delivered)

    def _delivered(self, future: "asyncio.Future[Any]") -> None:
        if not future.cancelled():
            self._failure = self._failure or future.exception()


async def count_dead_letters(bootstrap: str) -> int:
    """Records on the dead-letters topic, from where its logs end: there are no transactions here."""
    partitions = [TopicPartition(topics.DEAD_LETTERS, number) for number in range(LANES)]
    return sum((await log_ends(bootstrap, partitions)).values())


async def calibrations(bootstrap: str) -> tuple[float | None, float | None]:
    """Clicks predicted for every click, with the click layer and by attention alone; see `Report`."""
    told: list[Outcome] = []
    settled = Settled()
    async for records in read_topic(bootstrap, topics.OUTCOMES):
        read = columns([decode_outcome(record.value or b"") for record in records])
        told += settled.take(records[0].partition, read)["outcome"].tolist()
    known = [outcome for outcome in told if outcome.arm == ENGINE_ARM]
    known = sorted(known, key=lambda outcome: outcome.ends_ms)[len(known) // 2 :]
    clicks = sum(outcome.clicked for outcome in known)
    if not clicks:
        return None, None
    return (
        round(sum(outcome.predicted for outcome in known) / clicks, 3),
        round(sum(outcome.attention for outcome in known) / clicks, 3),
    )


class Demo:
    """One run against ``broker``."""

    def __init__(self, plan: Plan, broker: EmbeddedBroker, folder: Path, show: Show) -> None:
        self._plan = plan
        self._broker, self._bootstrap = broker, broker.bootstrap
        self._folder = folder
        self._worker = WorkerProcess(self._worker_settings(), folder / "worker.log")
        self._show = show
        self._shoppers = Shoppers(plan.seed, plan.users)
        self._meter = Meter()
        self._dead_letters = 0
        self._calibrations: tuple[float | None, float | None] = None, None
        self._stopped = asyncio.Event()
        self._answers_due = False
        """Whether the worker is to answer events: it is ready, and has not been told to end."""
        self._now_s = self._seconds = 0.0
        self._ads = {ad.ad_id: ad for ad in self._shoppers.ads}
        self._tones: dict[str, Tone] = {}

    async def run(self) -> Report:
        """Everything from the first ad to the last event, while broker and worker live.

        They are watched apart, for what is waited for from the dead may be waited for long.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        performing = loop.create_task(self._perform())
        tasks = [performing, loop.create_task(self._watch()), loop.create_task(self._count())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if any(task.exception() for task in done):
                self._check()  # whatever failed: of a death, if there was one
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

    def _stop(self, number: int) -> None:
        """End early, in order; the second signal of its kind ends it at once, as ever."""
        self._stopped.set()
        asyncio.get_running_loop().remove_signal_handler(number)

    async def _perform(self) -> Report:
        async with AIOKafkaProducer(acks="all", **aiokafka_options(self._bootstrap)) as producer:
            outbox = Outbox(producer)
            for ad in self._shoppers.ads:
                await outbox.send(topics.ADS, ad.ad_id, ad)
            now_ms = time.time_ns() // 1_000_000
            for review in reviews(SHOP, self._shoppers.ads, now_ms, now_ms):
                await outbox.send(topics.REVIEWS, review.ad_id, review)
            await producer.flush()
            settings = Settings(bootstrap=self._bootstrap, topic_prefix="", guarantee=GUARANTEE)
            async with ReviewFeed(settings, self._told) as feed:
                await feed.run(follow=False)
            with self._worker:
                await self._play(outbox)
                await producer.flush()
                self._answers_due = False
        self._dead_letters = await count_dead_letters(self._bootstrap)
        self._calibrations = await calibrations(self._bootstrap)
        return self._report()

    async def _watch(self) -> NoReturn:
        while True:
            self._check()
            await asyncio.sleep(CHECK_EVERY_S)

    def _check(self) -> None:
        """Raise what makes going on useless."""
        self._broker.check()
        self._worker.check()
        if self._answers_due and self._meter.silent_s(time.monotonic()) > SILENT_MAX_S:
            raise self._worker.failed(f"Events were sent, and no placement came for {SILENT_MAX_S:.0f} s.")

    async def _count(self) -> NoReturn:
        while True:
            with suppress(TimeoutError, KafkaError):  # it is asked again; whether the broker lives is watched
                async with asyncio.timeout(COUNT_WITHIN_S):
                    self._dead_letters = await count_dead_letters(self._bootstrap)
            await asyncio.sleep(COUNT_EVERY_S)

    def _told(self, tones: Sequence[Tone]) -> None:
        self._tones |= {tone.name: tone for tone in tones if tone.of == "ad"}

    def _worker_settings(self) -> dict[str, str]:
        return {
            "bootstrap": self._bootstrap,
            "guarantee": GUARANTEE,
            "group": "salience-demo",
            "home": str(self._folder / "worker"),
            "control_share": str(CONTROL_SHARE),
            "session_timeout_ms": str(SESSION_TIMEOUT_MS),
            "heartbeat_ms": str(HEARTBEAT_MS),
            "wait_other_topic_ms": str(WAIT_OTHER_TOPIC_MS),
            "fetch_wait_ms": str(FETCH_WAIT_MS),
            "click_window_ms": str(CLICK_WINDOW_MS),
        }

    async def _play(self, outbox: Outbox) -> None:
        """Wait for the worker, then let the shoppers in."""
        async with PlacementView(self._bootstrap, on_placement=self._arrived, fetch_wait_ms=FETCH_WAIT_MS) as view:
            await self._warm_up(outbox, view)
            self._answers_due = True
            pending: list[Event] = []
            stage = Stage(self._shoppers, self._meter, view.get, pending.append)
            began = shown = time.monotonic()
            while not self._over(began):
                stage.tick(time.time_ns() // 1_000_000)
                await self._send(outbox, pending)
                if self._now_s - shown >= SHOW_EVERY_S:
                    self._show(self._snapshot(stage))
                    shown = self._now_s
                await asyncio.sleep(TICK_S)
            self._show(self._snapshot(stage))

    def _over(self, began: float) -> bool:
        self._now_s = time.monotonic()
        self._seconds = self._now_s - began
        return self._stopped.is_set() or (self._plan.seconds is not None and self._seconds >= self._plan.seconds)

    async def _send(self, outbox: Outbox, events: list[Event]) -> None:
        for event in events:
            topic = topics.AD_IMPRESSIONS if isinstance(event, Impression) else topics.CLICKS
            self._meter.sent(event.user_id, event.time_ms, time.monotonic())
            await outbox.send(topic, event.user_id, event)
        events.clear()

    def _arrived(self, placement: Placement) -> None:
        if not placement.user_id.startswith(WARM_UP):
            self._meter.arrived(placement.user_id, placement.time_ms, time.monotonic())

    async def _warm_up(self, outbox: Outbox, view: PlacementView) -> None:
        """Click once for some users outside the count, and wait until every one has a placement."""
        users = [f"{WARM_UP}{number}" for number in range(WARM_UP_USERS)]
        now_ms = time.time_ns() // 1_000_000
        for user, ad in zip(users, self._shoppers.ads, strict=False):
            click = Click(event_id=user, user_id=user, ad_id=ad.ad_id, time_ms=now_ms)
            await outbox.send(topics.CLICKS, user, click)
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._stopped.is_set() and not all(map(view.get, users)):
            if time.monotonic() > deadline:
                raise self._worker.failed(f"The worker published nothing within {READY_WITHIN_S:.0f} s.")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), SHOW_EVERY_S / 5)

    def _report(self) -> Report:
        return Report.of(
            self._meter,
            self._now_s,
            calibrations=self._calibrations,
            dead_letters=self._dead_letters,
            seconds=self._seconds,
            guarantee=GUARANTEE,
            broker=BROKER,
        )

    def _snapshot(self, stage: Stage) -> Snapshot:
        of = "" if self._plan.seconds is None else f" of {self._plan.seconds}"
        return Snapshot(
            phase=f"{self._plan.users:,} shoppers, {self._seconds:.0f}{of} s",
            report=self._report(),
            events_per_s=self._meter.events.per_s(self._now_s),
            placements_per_s=self._meter.placements.per_s(self._now_s),
            sample=stage.sample.placement if stage.sample else None,
            ads=self._ads,
            tones=self._tones,
        )
