"""The demo's shoppers on the topics of a broker: they act, look at what its workers publish, and are measured.

Whose the workers are does not matter, so that what they are set to does not either: who has a random ranking is their
``control_share``, and is told by each placement.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from aiokafka.errors import KafkaError

from streams import topics
from streams.client import PlacementView
from streams.demo.meter import Meter
from streams.demo.outbox import Outbox
from streams.demo.report import Report, Snapshot
from streams.demo.shop import Event, Shoppers
from streams.demo.stage import Stage
from streams.demo.tally import DeadLetters, Since, calibrations
from streams.settings import Settings
from streams.wire import Ad, Click, Impression, Placement, Tone

TICK_S = 0.01
"""Between two looks at what is due; adds as much to the latency at most."""
SHOW_EVERY_S, COUNT_EVERY_S = 0.25, 1.0
COUNT_WITHIN_S = 5.0
"""Counting dead letters takes 4 to 20 ms; a broker that takes so long is asked again."""
READY_WITHIN_S = 90.0
"""A worker on a busy two-core machine takes ten seconds."""
WARM_UP_USERS = 32
"""With four lanes, all but one in 2,000 draws of so many users reach every lane."""
SAID_MAX = 3
"""Ads that a message names; the first say whose they are."""

Show = Callable[[Snapshot], None]


class NoPlacementError(RuntimeError):
    """Shoppers act, and nobody publishes a placement for them."""


class StrangeAdsError(RuntimeError):
    """There are ads that the shoppers do not know; the message names some."""

    def __init__(self, topic: str, ad_ids: list[str]) -> None:
        more = "" if len(ad_ids) <= SAID_MAX else f" and {len(ad_ids) - SAID_MAX:,} more"
        super().__init__(
            f"{topic} holds ads that are not the demo's: {', '.join(ad_ids[:SAID_MAX])}{more}. "
            "Made-up shoppers do not mix with a real shop: they would be counted, learnt from and charged there"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """Who shops, for how long; ``seconds`` None: until stopped."""

    seconds: int | None
    users: int
    seed: int


class Shopping:
    """One run. ``broker`` and ``guarantee`` are what the report says; ``tones`` what customers have heard of ads.

    The same ``plan.seed`` and ``plan.users`` are the same crowd whenever it comes: people by name, and what they like.
    """

    def __init__(
        self, plan: Plan, settings: Settings, show: Show, *, broker: str, guarantee: str | None = None,
        tones: Mapping[str, Tone] | None = None,
    ) -> None:  # fmt: skip
        self._plan, self._settings, self._show = plan, settings, show
        self._began_ms = time.time_ns() // 1_000_000
        self._crowd, self._run = f"shopper-{plan.seed}", f"shopping-{self._began_ms}"
        self._shoppers = Shoppers(plan.seed, plan.users, crowd=self._crowd, run=self._run)
        self.ads: dict[str, Ad] = {ad.ad_id: ad for ad in self._shoppers.ads}
        self._meter = Meter()
        self._dead_letters = DeadLetters(settings)
        self._outcomes = Since(settings, topics.OUTCOMES)
        self._describe = partial(Report.of, self._meter, guarantee=guarantee, broker=broker)
        self._tones = {} if tones is None else tones
        self._stopped = asyncio.Event()
        self._answers_due = False
        """Whether events are to be answered: workers have shown that they are there, and more are sent."""
        self._now_s = self._seconds = 0.0

    def heed_signals(self) -> None:
        """Let SIGINT and SIGTERM end it early, in order; the second signal of its kind ends it at once, as ever."""
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            self._stopped.set()
            loop.remove_signal_handler(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)

    @property
    def silent_s(self) -> float:
        """How long events have been sent of late without any placement."""
        return self._meter.silent_s(time.monotonic()) if self._answers_due else 0.0

    async def run(self) -> None:
        """From the first click to the last event's delivery; the ads must be on their topic.

        Raises `NoPlacementError`, `StrangeAdsError`, `streams.client.ViewError`, `streams.reading.MissingTopicError`,
        `streams.topic_admin.TopicsError` or aiokafka's ``KafkaError``.
        """
        await self._dead_letters.begin()
        await self._outcomes.begin()
        counting = asyncio.create_task(self._count())
        try:
            async with Outbox(self._settings) as outbox:
                await self._play(outbox)
                await outbox.flush()
        finally:
            self._answers_due = False
            counting.cancel()
            await asyncio.wait([counting])

    async def report(self) -> Report:
        """What came of it, once it is over; what workers write of it later is not in it."""
        await self._dead_letters.look()
        return self._report(await calibrations(self._outcomes))

    async def _count(self) -> NoReturn:
        while True:
            with suppress(TimeoutError, KafkaError):  # it is asked again; whether the broker lives is seen elsewhere
                async with asyncio.timeout(COUNT_WITHIN_S):
                    await self._dead_letters.look()
            await asyncio.sleep(COUNT_EVERY_S)

    async def _play(self, outbox: Outbox) -> None:
        """Wait for workers, then let the shoppers in."""
        warming = [f"{self._crowd}-warm-up-{number}" for number in range(WARM_UP_USERS)]
        async with PlacementView(
            self._settings.bootstrap,
            topic_prefix=self._settings.topic_prefix,
            on_placement=self._arrived,
            only={*self._shoppers.names, *warming},
            fetch_wait_ms=self._settings.fetch_wait_ms,
        ) as view:
            await self._warm_up(outbox, warming, view)
            self._answers_due = True
            pending: list[Event] = []
            stage = Stage(self._shoppers, self._meter, partial(self._held, view), pending.append)
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

    def _held(self, view: PlacementView, user: str) -> Placement | None:
        """The placement that this run has brought the user. Raises `StrangeAdsError` rather than show another's ad."""
        placement = view.get(user)
        if placement is None or placement.time_ms < self._began_ms:
            return None
        if strange := [slot.ad_id for slot in placement.slots if slot.ad_id not in self.ads]:
            raise StrangeAdsError(self._settings.topic_prefix + topics.ADS, strange)
        return placement

    def _arrived(self, placement: Placement) -> None:
        if self._answers_due:  # what is there before, others and the warm-up have caused
            self._meter.arrived(placement.user_id, placement.time_ms, time.monotonic())

    async def _warm_up(self, outbox: Outbox, users: list[str], view: PlacementView) -> None:
        """Click once for some users outside the count, and wait until every one has a placement."""
        for user, ad in zip(users, self.ads, strict=False):
            click = Click(event_id=f"{self._run}-{user}", user_id=user, ad_id=ad, time_ms=time.time_ns() // 1_000_000)
            await outbox.send(topics.CLICKS, user, click)
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._stopped.is_set() and not all(self._held(view, user) for user in users):
            if time.monotonic() > deadline:
                raise NoPlacementError(f"No placements came within {READY_WITHIN_S:.0f} s of the first clicks.")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), SHOW_EVERY_S / 5)

    def _report(self, calibrations: tuple[float | None, float | None] = (None, None)) -> Report:
        return self._describe(
            self._now_s, calibrations=calibrations, dead_letters=self._dead_letters.count, seconds=self._seconds
        )

    def _snapshot(self, stage: Stage) -> Snapshot:
        of = "" if self._plan.seconds is None else f" of {self._plan.seconds}"
        return Snapshot(
            phase=f"{self._plan.users:,} shoppers, {self._seconds:.0f}{of} s",
            report=self._report(),
            events_per_s=self._meter.events.per_s(self._now_s),
            placements_per_s=self._meter.placements.per_s(self._now_s),
            sample=stage.sample.placement if stage.sample else None,
            ads=self.ads,
            tones=self._tones,
        )
