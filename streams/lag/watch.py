"""Waiting until the workers have consumed everything, measured from the outside."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from streams import topic_admin, topics
from streams.aside import aside
from streams.lag.board import Partition
from streams.lag.poller import ANSWER_S, Poller
from streams.mendable import MendableError

LOOK_EVERY_S = 0.02
"""Two small requests each; a slice takes longer."""
STALL_S = 60.0
"""No progress for so long means a fault: a dead lane's transaction ends within 15 s, a session within 10."""


class StalledError(MendableError):
    """The workers make no progress."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Over all lanes: records committed as consumed, and records behind. ``lanes``: how many were ever taken over."""

    consumed: int
    behind: int
    lanes: int


class LagWatch:
    """Measures the lag of ``group`` on the event topics under ``prefix``."""

    def __init__(self, bootstrap: str, prefix: str, group: str) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._topics = [prefix + name for name in topics.LANE_INPUTS]
        self._partitions: list[Partition] = []
        self._poller = Poller(bootstrap)

    async def look(self) -> Lag:
        """The lag now. Raises `StalledError` where partitions have no leader."""
        return await aside(self._look)

    def _look(self) -> Lag:
        if not self._partitions:
            counts = topic_admin.partition_counts(self._bootstrap, self._topics)
            self._partitions = [Partition(name, number) for name in counts for number in range(counts[name])]
        deadline = time.monotonic() + ANSWER_S
        committed = self._poller.committed(self._group)
        while len(ends := self._poller.log_ends(self._partitions)) < len(self._partitions):
            if time.monotonic() > deadline:
                missing = sorted(set(self._partitions) - ends.keys())
                raise StalledError(f"{self._bootstrap} has no leader for {missing}; see the brokers' logs")
            time.sleep(LOOK_EVERY_S)
        consumed = {partition: offset for partition, offset in committed.items() if partition in ends}
        behind = sum(max(0, end - consumed.get(partition, 0)) for partition, end in ends.items())
        return Lag(sum(consumed.values()), behind, len({partition.number for partition in consumed}))

    async def until_zero(
        self,
        records: int,
        check: Callable[[], None] = lambda: None,
        progress: Callable[[Lag], None] = lambda _lag: None,
        *,
        stall_s: float = STALL_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> float:
        """Wait until lag 0; return the seconds since the first lane was seen taken over.

        ``records``: at least so many must be consumed, since the embedded broker's log ends omit the last batch.
        ``check`` is called at every look, and raises if waiting is in vain. Raises `StalledError` if nothing has moved
        for ``stall_s``.
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
            if now - moved > stall_s:
                raise StalledError(
                    f"group {self._group} has consumed {lag.consumed} records, is {lag.behind} behind, and has "
                    f"not moved for {stall_s:.0f} s; see the workers' logs"
                )
            await sleep(LOOK_EVERY_S)
