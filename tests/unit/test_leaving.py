"""A reader is ended whatever its broker does, and whoever ends it may be cancelled."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from aiokafka.errors import ProducerFenced

from streams.leaving import end_reading, leave, start
from streams.message import Message
from streams.reviews.feed import ReviewFeed, _whole
from streams.settings import Settings
from streams.topics import DEAD_LETTERS
from tests.cancelling import cancelled_after
from tests.unit.lanes import Outbox, turns, within_deadline


class Consumer:
    """Of aiokafka: its stop awaits a task that it has cancelled, or what the test lets it wait for."""

    def __init__(self, waits: Callable[[], Awaitable[object]] | None = None) -> None:
        self.closed = False
        self._client, self._waits = self, waits

    async def start(self) -> None:
        pass

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


async def test_whoever_is_cancelled_while_a_reader_stops_is_cancelled() -> None:
    consumer = Consumer(asyncio.Event().wait)
    task = asyncio.create_task(end_reading(consumer))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
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


async def takes_a_cancellation_for_its_own() -> None:
    """As a client of aiokafka does that closes, and goes on."""
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.sleep(0)


async def test_whoever_is_cancelled_during_a_farewell_that_takes_it_for_its_own_is_cancelled() -> None:
    assert await cancelled_after(2, asyncio.create_task(leave("a producer", takes_a_cancellation_for_its_own())))


def test_a_farewell_that_is_late_is_ended_and_one_that_fails_then_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def late(failure: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(failure)
            if failure:
                raise ConnectionError(failure)

    monkeypatch.setattr("streams.leaving.FAREWELL_S", 0.0)
    asyncio.run(leave("a producer", late("")))
    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(leave("a producer", late("gone")))
    assert ended == ["", "gone"]


@pytest.mark.parametrize("answered", [True, False])
async def test_a_reader_of_reviews_told_to_end_while_it_writes_waits_for_a_broker_that_answers_and_for_no_other(
    answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not answered:
        monkeypatch.setattr("streams.leaving.FAREWELL_S", 0.0)
    feed, outbox = ReviewFeed(Settings(), lambda _: None), Outbox()
    feed._outbox = outbox  # type: ignore[assignment]  # stands in for one on a broker
    outbox.answers.clear()
    task = asyncio.create_task(_whole(feed._write({DEAD_LETTERS: [Message(b"shoe", b"{")]})))
    await within_deadline(outbox.begun.wait())
    task.cancel()
    if answered:
        await turns()
        assert not task.done()
        outbox.answers.set()
    with pytest.raises(asyncio.CancelledError):
        await within_deadline(task)
    assert outbox.did[2:] == (["delivered", "commit"] if answered else [])


@pytest.mark.parametrize(
    ("error", "task", "told"),
    [
        (ProducerFenced(), False, []),
        (ProducerFenced(), True, ["Task exception was never retrieved"]),
        (ValueError("of ours"), False, ["Future exception was never retrieved"]),
    ],
)
def test_of_errors_that_nobody_asked_for_only_those_of_a_clients_own_futures_are_not_told(
    caplog: pytest.LogCaptureFixture, error: Exception, task: bool, told: list[str]
) -> None:
    async def failing() -> None:
        raise error

    async def scenario() -> None:
        await start(Consumer())  # type: ignore[arg-type]  # as above
        if task:
            unasked: asyncio.Future[None] = asyncio.create_task(failing())
            await asyncio.wait([unasked])
        else:
            unasked = asyncio.get_running_loop().create_future()
            unasked.set_exception(error)

    asyncio.run(scenario())
    gc.collect()
    records = [record for record in caplog.records if record.name == "asyncio"]
    assert [record.getMessage().splitlines()[0] for record in records] == told
