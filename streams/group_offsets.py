"""A lane's committed group offsets, for lag tools: written after the slices, and only the newest.

A lane resumes from its lane row, so these offsets need neither delay a slice nor be in its transaction. There they
would take two of its five requests, and would be accepted from a worker that has lost the lane. A plain group commit
carries the generation, so from such a worker it is refused.
"""

import asyncio

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.leaving import leave

log = structlog.get_logger()

PAUSE_S = 0.1
"""Pause between two writes; lag tools see offsets that are at most this old."""


class GroupOffsets:
    """Writes the offsets given to `put`, one request at a time; `flush` before leaving the lane."""

    def __init__(self, consumer: AIOKafkaConsumer, lane: int) -> None:
        self._consumer = consumer
        self._lane = lane
        self._due: dict[TopicPartition, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()

    def put(self, offsets: dict[TopicPartition, int]) -> None:
        """Have ``offsets``, which must be of committed slices, written soon; newer ones replace them."""
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
