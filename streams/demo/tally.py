"""What the topics tell of a run, besides the meter: from the records that have come since it began."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from aiokafka import TopicPartition

from scoring.evidence import calibration
from scoring.policies import ENGINE_ARM
from streams.aside import aside
from streams.dead_letters import letter_of
from streams.decode import Record
from streams.outcomes import columns, outcomes_in
from streams.quality import Settled
from streams.reading import log_ends, partitions_of, read_between
from streams.settings import Settings
from streams.wire import Outcome

SETTLE_S = 5.0
"""Time for open transactions to end: a slice commits within milliseconds, but a killed worker's stays open for long."""
LOOK_AGAIN_S = 0.1


class Since:
    """Reads a topic from its end at `begin`, each record once.

    It does not wait for open transactions: their records come once the transaction has ended.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = settings.topic_prefix + topic
        self._bootstrap = settings.bootstrap
        self._read_to: Mapping[TopicPartition, int] = {}

    async def begin(self) -> None:
        """Skip what is there now. Raises `streams.reading.MissingTopicError`."""
        partitions = await aside(partitions_of, self._bootstrap, self.topic)
        self._read_to = await log_ends(self._bootstrap, partitions)

    async def news(self) -> AsyncIterator[Sequence[Record]]:
        """The records since the last call that was read to its end."""
        ends = await log_ends(self._bootstrap, [*self._read_to], committed=True)
        ends = {tp: max(end, self._read_to[tp]) for tp, end in ends.items()}
        async for records in read_between(self._bootstrap, self._read_to, ends):
            yield records
        self._read_to = ends

    async def settles(self) -> bool:
        """Wait up to `SETTLE_S` until no open transaction holds back what is there now. Returns whether that is so."""
        there = await log_ends(self._bootstrap, [*self._read_to])
        deadline = time.monotonic() + SETTLE_S
        while await self._holds_back(there):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)
        return True

    async def _holds_back(self, there: Mapping[TopicPartition, int]) -> bool:
        ends = await log_ends(self._bootstrap, [*there], committed=True)
        return any(ends[tp] < end for tp, end in there.items())


async def dead_letters(since: Since) -> int:
    """How many there are since the last call."""
    return sum([letter_of(record) is not None async for records in since.news() for record in records])


async def calibrations(since: Since) -> tuple[float | None, float | None]:
    """Clicks over predicted clicks, with the click layer and by attention alone; see `Report`."""
    told: list[Outcome] = []
    settled = Settled()
    async for records in since.news():
        came, _ = outcomes_in(records)
        told += settled.take(records[0].partition, columns(came))["outcome"].tolist()
    known = [outcome for outcome in told if outcome.arm == ENGINE_ARM]
    known = sorted(known, key=lambda outcome: outcome.ends_ms)[len(known) // 2 :]
    clicks = sum(outcome.clicked for outcome in known)
    if not known:
        return None, None
    return (
        _rounded(calibration(clicks, sum(outcome.predicted for outcome in known))),
        _rounded(calibration(clicks, sum(outcome.attention for outcome in known))),
    )


def _rounded(ratio: float) -> float | None:
    return None if math.isnan(ratio) else round(ratio, 3)
