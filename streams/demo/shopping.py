"""The demo's shoppers on the topics of a broker: they act, look at what its workers publish, and are measured.

The workers may be anybody's, with any settings: their ``control_share`` says who is ranked at random, and each
placement tells it.
"""

import asyncio
import itertools
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiokafka.errors import KafkaError

from streams import topics
from streams.client import PlacementView
from streams.clock import wall_ms
from streams.columns import source_of
from streams.demo.meter import Meter
from streams.demo.outbox import Outbox
from streams.demo.report import Report, Snapshot
from streams.demo.shop import Event, Shoppers
from streams.demo.stage import Stage
from streams.demo.tally import Calibrations, Since, dead_letters
from streams.mendable import MendableError
from streams.settings import Settings
from streams.wire import Ad, Click, Placement, Tone

TICK_S = 0.01
"""Time between two looks at what is due; adds at most so much to the latency."""
SHOW_EVERY_S, COUNT_EVERY_S = 0.25, 1.0
COUNT_WITHIN_S = 5.0
"""Counting dead letters takes 4 to 20 ms; after so long, the broker is asked again."""
OUTCOMES_EVERY = 30
"""Counts of dead letters for one of outcomes. The report tells of these, and could not read those of hours in time."""
READY_WITHIN_S = 90.0
"""Time for the first placements; a worker on a busy two-core machine takes ten seconds."""
SILENT_MAX_S = 30.0
"""How long a broker may be away: clients report a failed delivery after 40 s, so none fails by then."""
LOST_S = 10.0
"""A broker that has been away for so long is not waited for at a run's end; on a busy machine it answers in seconds."""
FLUSH_WITHIN_S = 10.0
"""Time for the last deliveries, which take milliseconds."""
REPORT_WITHIN_S = 10.0
"""Time for the report, besides waiting for open transactions: on a busy machine it takes a second of work."""
WARM_UP_USERS = 32
"""With four lanes, all but one in 2,000 draws of so many users reach every lane."""
SAID_MAX = 3
"""Ads that a message names: the first few show whose they are."""

Show = Callable[[Snapshot], None]


class NoPlacementError(RuntimeError):
    """Shoppers act, and no worker publishes a placement for them."""


class SilentBrokerError(MendableError):
    """The broker does not answer."""

    def __init__(self, bootstrap: str, seconds: float) -> None:
        super().__init__(
            f"{bootstrap} has not answered for {seconds:.0f} s; what was sent last may be lost. "
            f"Is the broker up, and can it be reached? salience doctor --bootstrap {bootstrap}"
        )


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
    """One run. ``broker`` and ``guarantee`` are for the report; ``tones`` are of the ads' reviews, for the view.

    The same ``plan.seed`` and ``plan.users`` always give the same crowd: the same names and tastes.
    """

    def __init__(
        self, plan: Plan, settings: Settings, show: Show, *, broker: str, guarantee: str | None = None,
        tones: Mapping[str, Tone] | None = None,
    ) -> None:  # fmt: skip
        self._plan, self._settings, self._show = plan, settings, show
        self._began_ms = wall_ms()
        self._crowd, self._run = f"shopper-{plan.seed}", f"shopping-{self._began_ms}"
        self._shoppers = Shoppers(plan.seed, plan.users, crowd=self._crowd, run=self._run)
        self.ads: dict[str, Ad] = {ad.ad_id: ad for ad in self._shoppers.ads}
        self._meter = Meter()
        self._letters = Since(settings, topics.DEAD_LETTERS)
        self._dead = 0
        """Dead letters so far."""
        self._outcomes = Since(settings, topics.OUTCOMES)
        self._calibrations = Calibrations()
        self._describe = partial(Report.of, self._meter, guarantee=guarantee, broker=broker)
        self._tones = {} if tones is None else tones
        self._stopped = asyncio.Event()
        self._answers_due = False
        """Whether placements are expected: workers have shown that they are there, and events are being sent."""
        self._asked_s: float | None = None
        """Since when the broker has not answered; None where it has."""
        self._began_s: float | None = None
        self._now_s = self._seconds = 0.0

    def heed_signals(self) -> None:
        """Let SIGINT and SIGTERM end the run early, with an orderly stop; a second one ends it at once, as usual.

        So does SIGHUP, however often: shell and kernel both send it where a terminal goes. Ignored (``nohup``), it
        stays ignored.
        """
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            self._stopped.set()
            loop.remove_signal_handler(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self._stopped.set)

    @property
    def silent_s(self) -> float:
        """How long events have been sent lately without any placement."""
        return self._meter.silent_s(time.monotonic()) if self._answers_due else 0.0

    async def run(self) -> None:
        """Shop from the first click to the last event's delivery; the ads must be on their topic.

        Raises `NoPlacementError`, `SilentBrokerError`, `StrangeAdsError`, `streams.client.ViewError`,
        `streams.reading.MissingTopicError`, `streams.topic_admin.TopicsError` or aiokafka's ``KafkaError``.
        """
        await self._letters.begin()
        await self._outcomes.begin()
        counting = asyncio.create_task(self._count())
        try:
            async with Outbox(self._settings) as outbox:
                await self._play(outbox)
                await self._flush(outbox)
        finally:
            self._answers_due = False
            counting.cancel()
            await asyncio.wait([counting])

    async def report(self) -> Report:
        """The report, once the run is over; what workers write later is not in it.

        It waits for open transactions as `Since.settles` does, and takes `REPORT_WITHIN_S` besides at most;
        `Report.unread` names what could not be read by then.
        """
        within_s = self._settings.transaction_timeout_ms / 1000 + REPORT_WITHIN_S
        looked_at = self._letters, self._outcomes
        unread = tuple(since.topic for since in looked_at)
        with suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(within_s):
                settled = await asyncio.gather(*(since.settles() for since in looked_at))
                await self._look_at_letters()
                await self._look_at_outcomes()
                unread = tuple(since.topic for since, whole in zip(looked_at, settled, strict=True) if not whole)
        return self._report(self._calibrations.told(), unread)

    async def _look_at_letters(self) -> None:
        async for records in self._letters.news():
            self._dead += dead_letters(records)

    async def _look_at_outcomes(self) -> None:
        async for records in self._outcomes.news():
            self._calibrations.take(records)

    async def _count(self) -> None:
        """Count dead letters, again and again, and outcomes; this also shows whether the broker answers."""
        for count in itertools.count(1):
            self._asked_s = self._asked_s or time.monotonic()
            with suppress(TimeoutError, KafkaError):  # it is asked again
                async with asyncio.timeout(COUNT_WITHIN_S):
                    await self._look_at_letters()
                    self._asked_s = None
                    if count % OUTCOMES_EVERY == 0:
                        await self._look_at_outcomes()
            await asyncio.sleep(COUNT_EVERY_S)

    @property
    def _unheard_s(self) -> float:
        """How long the broker has not answered."""
        return 0.0 if self._asked_s is None else time.monotonic() - self._asked_s

    def _check_broker(self, silent_max_s: float = SILENT_MAX_S) -> None:
        if self._unheard_s > silent_max_s:
            raise SilentBrokerError(self._settings.bootstrap, self._unheard_s)

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
            pending: list[Event] = []
            stage = Stage(self._shoppers, self._meter, partial(self._held, view), pending.append)
            await self._watched(self._warm_up(outbox, warming, view), stage)
            self._answers_due = True
            await self._watched(self._act(outbox, stage, pending), stage)

    async def _watched(self, work: Coroutine[Any, Any, None], stage: Stage) -> None:
        """Do ``work``, and meanwhile show how it stands: while the broker is away, sending waits.

        Raises what the work raises, and `SilentBrokerError` when the broker has been away for too long: `SILENT_MAX_S`,
        or `LOST_S` once the work is to end.
        """
        doing = asyncio.create_task(work)
        try:
            while not doing.done():
                await asyncio.wait([doing], timeout=SHOW_EVERY_S)
                self._show(self._snapshot(stage))
                if not doing.done():
                    self._check_broker(LOST_S if self._over() else SILENT_MAX_S)
            doing.result()
        finally:
            doing.cancel()
            await asyncio.wait([doing])

    async def _act(self, outbox: Outbox, stage: Stage, pending: list[Event]) -> None:
        """Let the shoppers act, each act when it is due, until the run is over."""
        self._began_s = time.monotonic()
        while not self._over():
            stage.tick(wall_ms())
            await self._send(outbox, pending)
            await asyncio.sleep(TICK_S)

    async def _flush(self, outbox: Outbox) -> None:
        try:
            async with asyncio.timeout(FLUSH_WITHIN_S):
                await outbox.flush()
        except TimeoutError as error:
            raise SilentBrokerError(self._settings.bootstrap, max(FLUSH_WITHIN_S, self._unheard_s)) from error

    def _over(self) -> bool:
        self._now_s = time.monotonic()
        if self._began_s is not None:
            self._seconds = self._now_s - self._began_s
        return self._stopped.is_set() or (self._plan.seconds is not None and self._seconds >= self._plan.seconds)

    async def _send(self, outbox: Outbox, events: list[Event]) -> None:
        for event in events:
            topic = topics.LANE_INPUTS[source_of(event)]
            self._meter.sent(event.user_id, event.time_ms, time.monotonic())
            await outbox.send(topic, event.user_id, event)
        events.clear()

    def _held(self, view: PlacementView, user: str) -> Placement | None:
        """The user's placement of this run, if any. Raises `StrangeAdsError` where it has an ad of another shop."""
        placement = view.get(user)
        if placement is None or placement.time_ms < self._began_ms:
            return None
        if strange := [slot.ad_id for slot in placement.slots if slot.ad_id not in self.ads]:
            raise StrangeAdsError(self._settings.topic_prefix + topics.ADS, strange)
        return placement

    def _arrived(self, placement: Placement) -> None:
        if self._answers_due:  # earlier placements are of other runs, or of the warm-up
            self._meter.arrived(placement.user_id, placement.time_ms, time.monotonic())

    async def _warm_up(self, outbox: Outbox, users: list[str], view: PlacementView) -> None:
        """Click once for some users who do not count, and wait until each of them has a placement."""
        for user, ad in zip(users, self.ads, strict=False):
            click = Click(event_id=f"{self._run}-{user}", user_id=user, ad_id=ad, time_ms=wall_ms())
            await outbox.send(topics.CLICKS, user, click)
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._stopped.is_set() and not all(self._held(view, user) for user in users):
            if time.monotonic() > deadline:
                self._check_broker(LOST_S)
                raise NoPlacementError(f"No placements came within {READY_WITHIN_S:.0f} s of the first clicks.")
            with suppress(TimeoutError):
                async with asyncio.timeout(SHOW_EVERY_S / 5):
                    await self._stopped.wait()

    def _report(
        self, calibrations: tuple[float | None, float | None] = (None, None), unread: tuple[str, ...] = ()
    ) -> Report:
        return self._describe(
            self._now_s, calibrations=calibrations, dead_letters=self._dead, seconds=self._seconds,
            unread=unread,
        )  # fmt: skip

    def _snapshot(self, stage: Stage) -> Snapshot:
        of = "" if self._plan.seconds is None else f" of {self._plan.seconds}"
        shopping = f"{self._plan.users:,} shoppers, {self._seconds:.0f}{of} s"
        return Snapshot(
            phase="waiting for first placements" if self._began_s is None else shopping,
            report=self._report(),
            events_per_s=self._meter.events.per_s(self._now_s),
            placements_per_s=self._meter.placements.per_s(self._now_s),
            sample=stage.sample.placement if stage.sample else None,
            ads=self.ads,
            tones=self._tones,
            unheard_s=self._unheard_s,
        )
