"""A reader is ended whatever its broker does, and whoever ends it may be cancelled."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from streams.leaving import end_reading


class Consumer:
    """Of aiokafka: its stop awaits a task that it has cancelled, or what the test lets it wait for."""

    def __init__(self, waits: Callable[[], Awaitable[object]] | None = None) -> None:
        self.closed = False
        self._client, self._waits = self, waits

    async def stop(self) -> None:
        fetch = asyncio.create_task(asyncio.sleep(600))
        await asyncio.sleep(0)
        if self._waits is not None:
            await self._waits()
        fetch.cancel()
        await fetch

    async def close(self) -> None:
        self.closed = True


def test_a_stop_that_ends_cancelled_by_nobody_is_done_to_its_end() -> None:
    consumer = Consumer()
    asyncio.run(end_reading(consumer))
    assert consumer.closed


def test_whoever_is_cancelled_while_a_reader_stops_is_cancelled() -> None:
    consumer = Consumer(asyncio.Event().wait)

    async def scenario() -> None:
        task = asyncio.create_task(end_reading(consumer))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert consumer.closed


def test_a_reader_that_ends_since_its_task_was_cancelled_leaves_no_connection() -> None:
    consumer = Consumer()

    async def scenario() -> None:
        async with asyncio.timeout(0):
            try:
                await asyncio.Event().wait()
            finally:
                await end_reading(consumer)

    with pytest.raises(TimeoutError):
        asyncio.run(scenario())
    assert consumer.closed
