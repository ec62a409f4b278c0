"""The group's committed offsets, for lag tools: written after the slices, of all lanes together, and only the newest.

A lane resumes from its lane row, so these offsets need neither delay a slice nor be in its transaction. There they
would take two of its five requests, and would be accepted from a worker that has lost the lane. A plain group commit
carries the generation, so from such a worker it is refused.
"""

import asyncio
from collections.abc import Collection

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.leaving import leave

log = structlog.get_logger()

PAUSE_S = 0.1
"""Pause between two writes; lag tools see offsets that are at most this old."""
AGAIN_S = 1.0
"""Pause after a refused write: a rebalance is under way, and each refusal may have aiokafka join once more."""


class GroupOffsets:
    """Writes the offsets given to `put`, one request at a time for all lanes; `leave` before a lane is left."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._due: dict[TopicPartition, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._leaving: set[TopicPartition] = set()

    def put(self, offsets: dict[TopicPartition, int]) -> None:
        """Have ``offsets``, which must be of committed slices, written soon; newer ones replace them."""
        self._due |= offsets
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def leave(self, partitions: Collection[TopicPartition]) -> None:
        """Write what is due of a lane, unless no broker answers. From then on its next owner writes them.

        Lanes that are left together share one request. What is refused is given up: written later, it could set back
        what the next owner has written.
        """
        self._leaving |= {*partitions}
        try:
            await leave("the group's offsets", self._commit(self._leaving, again=False))
        finally:
            self._leaving -= {*partitions}
            self._forget(partitions)
            if not self._due and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _write(self) -> None:
        while self._due:
            accepted = await self._commit(self._due, again=True)
            await asyncio.sleep(PAUSE_S if accepted else AGAIN_S)

    async def _commit(self, partitions: Collection[TopicPartition], *, again: bool) -> bool:
        """Write what is due of these by the time it is their turn; whether that was accepted.

        ``again``: what was refused is still due.
        """
        async with self._turn:
            ours = self._consumer.assignment()  # one that was given away would have them all refused
            offsets = {tp: self._due[tp] for tp in partitions if tp in self._due and tp in ours}
            try:
                if offsets:
                    await self._consumer.commit(offsets)
            except KafkaError as error:
                log.warning("the group's offsets were not written; the lane rows hold", error=str(error))
                return False
            finally:
                if not again:
                    self._forget(offsets)
            self._due = dict(self._due.items() - offsets.items())  # but for newer ones
        return True

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._due.pop(tp, None)
