"""The group's offsets of a lane, for lag tools: written behind the slices, the newest alone.

Where a lane resumes is in its lane row, so these need not hold a slice up, nor be in its transaction: there they would
take two of its five requests, and would be accepted from a worker that has lost the lane. A commit of the group
carries the generation, and is refused.
"""

import asyncio

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.leaving import leave

log = structlog.get_logger()

PAUSE_S = 0.1
"""Between two writes: a lag is seen this much too large at most."""


class GroupOffsets:
    """Writes what `put` is given, one request at a time; `flush` before the lane is left."""

    def __init__(self, consumer: AIOKafkaConsumer, lane: int) -> None:
        self._consumer = consumer
        self._lane = lane
        self._due: dict[TopicPartition, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()

    def put(self, offsets: dict[TopicPartition, int]) -> None:
        """Have ``offsets`` written soon, unless newer ones come first. They must be of committed slices."""
        self._due = offsets
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def flush(self) -> None:
        """Write what is due, without further pauses, unless no broker answers."""
        self._leaving.set()
        if self._task is not None:
            await leave(f"group offsets of lane {self._lane}", self._task)

    async def _write(self) -> None:
        while self._due:
            offsets, self._due = self._due, {}
            try:
                await self._consumer.commit(offsets)
            except KafkaError as error:  # a rebalance is under way: the lane's next owner writes them
                log.warning(
                    "the group's offsets were not written; the lane row holds", lane=self._lane, error=str(error)
                )
            try:
                async with asyncio.timeout(PAUSE_S):
                    await self._leaving.wait()
            except TimeoutError:
                continue
