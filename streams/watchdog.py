"""A worker that makes no progress ends itself, so that its supervisor starts another.

Every `LOOK_S` it checks three things: the worker's own vitals (`streams.vitals`); the log ends, asked for by a consumer
of the watchdog's own, since a dead consumer's values freeze; and the topics' ids. A thread checks whether the event
loop runs at all, since a blocked loop could not say so itself.
"""

import asyncio
import faulthandler
import sys
import threading
from collections.abc import Callable, Collection

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from mode import Service

from streams import topic_admin
from streams.aside import aside
from streams.clock import tick_ms
from streams.connection import ConnectionSettingsError
from streams.fatal import end_now, guarded
from streams.identity import TopicIdentity, check_topics
from streams.lanes.recovery import RecoveryError
from streams.leaving import end_reading, start_reading
from streams.reading import groupless
from streams.settings import Settings
from streams.vitals import Judge, Vitals

log = structlog.get_logger()

LOOK_S = 2.0
"""Time between two looks, each of two small requests and a metadata request."""
ANSWER_S = 5.0
"""A broker that has not told its log ends by then counts as away: nothing is concluded from that."""
GONE_LOOKS = 3
"""Looks in a row that must miss a topic: a broker that has just started may not know every topic yet."""

Look = Callable[[dict[TopicPartition, int]], Vitals]
"""Vitals, given the log ends as far as they are known."""


class WatchdogError(RuntimeError):
    """The worker makes no progress."""


class Watchdog(Service):
    """Calls ``fail`` once it finds that the worker must end. ``partitions``: the inputs of the lanes held now."""

    def __init__(
        self,
        settings: Settings,
        identity: TopicIdentity,
        look: Look,
        partitions: Callable[[], Collection[TopicPartition]],
        fail: Callable[[BaseException], None],
    ) -> None:
        super().__init__()
        self._settings = settings
        self._identity = identity
        self._look = look
        self._partitions = partitions
        self._fail = fail
        self._judge = Judge(
            stall_ms=settings.stall_ms,
            silence_ms=settings.silence_ms,
            rebalance_limit_ms=settings.rebalance_limit_ms,
        )
        self._pulse = LoopPulse(settings.silence_ms)
        self._consumer: AIOKafkaConsumer | None = None
        self._gone = 0
        self._shut_out = ""

    @property
    def doubt(self) -> str:
        """What is wrong and may yet pass: brokers let in nobody new, or a lane stands still; empty where nothing is."""
        return self._shut_out or self._judge.doubt

    async def on_start(self) -> None:
        """Begin to watch."""
        self._pulse.start()
        self.add_future(self._beat())
        self.add_future(guarded("the watchdog", self._watch(), self._fail, lambda: self.should_stop))

    async def on_stop(self) -> None:
        """Stop watching."""
        self._pulse.stop()
        await self._leave()

    async def _beat(self) -> None:
        while not self.should_stop:
            self._pulse.beat()
            await self.sleep(LOOK_S / 2)

    async def _watch(self) -> None:
        last_ms = tick_ms()
        while not self.should_stop:
            await self.sleep(LOOK_S)
            ends = await self._log_ends()
            await self._check_identity()
            passed_ms = min(tick_ms() - last_ms, int(1000 * (LOOK_S + ANSWER_S)))
            last_ms = tick_ms()
            if verdict := self._judge.look(self._look(ends), passed_ms):
                raise WatchdogError(verdict)

    async def _log_ends(self) -> dict[TopicPartition, int]:
        """The ends that a read-committed reader can reach, by partition; nothing where no broker answers."""
        partitions = list(self._partitions())
        if not partitions:
            return {}
        try:
            async with asyncio.timeout(ANSWER_S):
                if self._consumer is None:
                    consumer = groupless(self._settings.bootstrap)
                    await start_reading(consumer)
                    self._consumer = consumer
                ends: dict[TopicPartition, int] = await self._consumer.end_offsets(partitions)
                return ends
        except (KafkaError, TimeoutError, ConnectionSettingsError) as error:
            log.warning("log ends unknown", error=f"{type(error).__name__}: {error}")
            await self._leave()  # the next may be let in, as where it has another password: then the lanes are judged
            return {}

    async def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await end_reading(consumer)

    async def _check_identity(self) -> None:
        """Raises `RecoveryError` where a topic was deleted or recreated since the worker started."""
        try:
            there = await aside(check_topics, self._settings, self._identity)
        except (topic_admin.TopicsError, ConnectionSettingsError) as error:  # the latter in the middle of a renewal
            self._shut_out = str(error) if isinstance(error, topic_admin.ShutOutError) else ""
            log.warning("topic ids unknown", error=str(error))
            return
        self._shut_out = ""
        self._gone = 0 if there else self._gone + 1
        if self._gone >= GONE_LOOKS:
            raise RecoveryError("a topic is gone, under a running worker; see: salience topics check")


class LoopPulse:
    """Ends the process when nobody has called `beat` for ``silence_ms``, counted in the thread's own looks."""

    def __init__(self, silence_ms: int) -> None:
        self._looks_max = max(2, round(silence_ms / 1000 / LOOK_S))
        self._beats = 0
        self._seen = -1
        self._silent = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def beat(self) -> None:
        """Note that the loop runs."""
        self._beats += 1

    def look(self) -> bool:
        """Look once; return whether the loop has been silent for too long."""
        self._silent = self._silent + 1 if self._beats == self._seen else 0
        self._seen = self._beats
        return self._silent >= self._looks_max

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_S):
            if self.look():
                faulthandler.dump_traceback(sys.stderr)
                end_now(WatchdogError(f"the event loop is blocked for {self._silent * LOOK_S:.0f} s"))
                return
