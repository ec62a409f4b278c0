"""What the topics tell of a run, besides the meter: from the records that have come since it began."""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence

import numpy as np
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

LOOK_AGAIN_S = 0.1


class Since:
    """Reads a topic from its end at `begin`, each record once.

    It does not wait for open transactions: their records come once the transaction has ended.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = settings.topic_prefix + topic
        self._bootstrap = settings.bootstrap
        self._settle_s = settings.transaction_timeout_ms / 1000
        self._read_to: dict[TopicPartition, int] = {}

    async def begin(self) -> None:
        """Skip what is there now. Raises `streams.reading.MissingTopicError`."""
        partitions = await aside(partitions_of, self._bootstrap, self.topic)
        self._read_to = await log_ends(self._bootstrap, partitions)

    async def news(self) -> AsyncGenerator[Sequence[Record], None]:
        """The records that have come since, of one partition each time; one call goes on where another was cut."""
        ends = await log_ends(self._bootstrap, [*self._read_to], committed=True)
        ends = {tp: max(end, self._read_to[tp]) for tp, end in ends.items()}
        async for records in read_between(self._bootstrap, self._read_to.copy(), ends):
            self._read_to[TopicPartition(self.topic, records[0].partition)] = records[-1].offset + 1
            yield records
        self._read_to = ends

    async def settles(self) -> bool:
        """Wait until no open transaction holds back what is there now. Returns whether that is so.

        It waits for as long as a living worker's may be open, ``SALIENCE_TRANSACTION_TIMEOUT_MS``.
        """
        there = await log_ends(self._bootstrap, [*self._read_to])
        deadline = time.monotonic() + self._settle_s
        while await self._holds_back(there):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)
        return True

    async def _holds_back(self, there: Mapping[TopicPartition, int]) -> bool:
        ends = await log_ends(self._bootstrap, [*there], committed=True)
        return any(ends[tp] < end for tp, end in there.items())


def dead_letters(records: Sequence[Record]) -> int:
    """How many of the records are letters; the others are notes of letters that were sent back."""
    return sum(letter_of(record) is not None for record in records)


class Calibrations:
    """Clicks for every predicted click of the engine's later half, with the click layer and by attention alone.

    Of each second in which windows ended it keeps sums, 230 bytes: 20 MB for a run of a day.
    """

    def __init__(self) -> None:
        self._settled = Settled()
        self._sums: defaultdict[int, tuple[float, ...]] = defaultdict(lambda: (0.0, 0.0, 0.0, 0.0))

    def take(self, records: Sequence[Record]) -> None:
        """Count records of the outcomes topic, of one partition; those that are no outcomes are left out."""
        came, _ = outcomes_in(records)
        for outcome in self._settled.take(records[0].partition, columns(came))["outcome"].tolist():
            if outcome.arm == ENGINE_ARM:
                second = outcome.ends_ms // 1_000
                count, clicks, predicted, attention = self._sums[second]
                self._sums[second] = (
                    count + 1, clicks + outcome.clicked, predicted + outcome.predicted, attention + outcome.attention
                )  # fmt: skip

    def told(self) -> tuple[float | None, float | None]:
        """Both, see `Report`; None where no outcome is known. The half begins with the second in which it lies."""
        if not self._sums:
            return None, None
        sums = np.array([self._sums[second] for second in sorted(self._sums)])
        until = sums[:, 0].cumsum()
        _, clicks, predicted, attention = sums[2 * until > until[-1]].sum(axis=0).tolist()
        return _rounded(calibration(clicks, predicted)), _rounded(calibration(clicks, attention))


def _rounded(ratio: float) -> float | None:
    return None if math.isnan(ratio) else round(ratio, 3)
