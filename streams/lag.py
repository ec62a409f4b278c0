"""How far the workers are behind, measured from the outside: the group's committed offsets against the log ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streams import topics
from streams.connection import aiokafka_options

LOOK_EVERY_S = 0.02
"""Two small requests each; a slice takes longer."""
STALL_S = 60.0
"""Without any progress for so long something is wrong: a dead lane's transaction ends within 15 s, a session in 10."""


class StalledError(RuntimeError):
    """The workers do not get on."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Over all lanes: records committed as consumed, and records behind. ``lanes``: those ever taken over."""

    consumed: int
    behind: int
    lanes: int


class LagWatch:
    """Looks at the lag of ``group`` on the event topics under ``prefix``, as an async context manager."""

    def __init__(self, bootstrap: str, prefix: str, group: str) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._topics = [prefix + topics.AD_IMPRESSIONS, prefix + topics.CLICKS]
        self._partitions: list[TopicPartition] = []

    async def __aenter__(self) -> Self:
        counts = await asyncio.to_thread(topics.partition_counts, self._bootstrap, self._topics)
        self._partitions = [TopicPartition(name, number) for name in counts for number in range(counts[name])]
        self._admin = AIOKafkaAdminClient(**aiokafka_options(self._bootstrap))
        self._consumer = AIOKafkaConsumer(**aiokafka_options(self._bootstrap))
        await self._admin.start()
        await self._consumer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def look(self) -> Lag:
        """The lag now. Nothing is consumed where the group's coordinator does not answer: it moves, or is yet to be."""
        ends = await self._consumer.end_offsets(self._partitions)
        found = {}
        with suppress(KafkaError):
            found = await self._admin.list_consumer_group_offsets(self._group, partitions=self._partitions)
        committed = {tp: found[tp].offset for tp in self._partitions if tp in found and found[tp].offset >= 0}
        behind = sum(max(0, end - committed.get(tp, 0)) for tp, end in ends.items())
        return Lag(sum(committed.values()), behind, len({tp.partition for tp in committed}))

    async def until_zero(
        self,
        records: int = 0,
        check: Callable[[], None] = lambda: None,
        progress: Callable[[Lag], None] = lambda _lag: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> float:
        """Wait until nothing is behind; the seconds since the first lane was seen taken over.

        ``records``: at least so many are to be consumed. Say it where it is known: the embedded broker tells a log
        end that is short of its last batch. ``check`` is called at every look and raises where waiting is in vain.
        Raises `StalledError`.
        """
        since: float | None = None
        last: Lag | None = None
        moved = clock()
        while True:
            check()
            lag = await self.look()
            now = clock()
            if lag != last:
                last, moved = lag, now
                progress(lag)
            if since is None and lag.lanes:
                since = now
            if lag.consumed >= records and not lag.behind:
                return 0.0 if since is None else now - since
            if now - moved > STALL_S:
                raise StalledError(
                    f"group {self._group} has consumed {lag.consumed} records, is {lag.behind} behind, and has "
                    f"not moved for {STALL_S:.0f} s; see the workers' logs"
                )
            await sleep(LOOK_EVERY_S)
