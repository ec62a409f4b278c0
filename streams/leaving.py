"""Leaving a broker: with a farewell where the broker answers, without one where it does not.

aiokafka waits for the answer to a farewell as long as a request (40 s) or a rebalance may take, and for deliveries for
ever. Without a farewell, the broker's own timeouts do the same.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

    from streams.settings import Settings

log = structlog.get_logger()

FAREWELL_S = 5.0
"""A stop may take three of these in a row: lanes being taken over (in parallel), lanes held (in parallel), the group's
member. `deploy/` must allow for them, the stop deadline, `START_S`, and `topic_admin.ANSWER_S` for a request under
way."""
START_S = 1.0
"""What is left to a client's start whose caller is cancelled: some round trips over a slow link."""


class _ToldAlready(logging.Filter):
    """Keeps back that nobody asked for the error of one of aiokafka's own futures.

    Its producer fails them together with the deliveries, which we await: the error is told where it is raised. Without
    this, each that the garbage collector finds would be logged once more, as an error, with its traceback. A task that
    ended by an error is told still.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, KafkaError) and record.getMessage().startswith("Future exception was never"))


_told_already = _ToldAlready()


class MembershipLostError(RuntimeError):
    """The group has dropped this static member (it has a name). Joining again would oust who has the name now."""


def check_member(consumer: AIOKafkaConsumer, settings: "Settings") -> None:
    """Raises `MembershipLostError` where the group no longer knows this static member."""
    # aiokafka reports it nowhere, but drops its member id when the coordinator does not know it; a rebalance keeps it.
    if settings.instance_id and not consumer._coordinator.member_id:  # noqa: SLF001 - as above
        raise MembershipLostError(
            f"the group {settings.group} no longer has this worker as {settings.instance_id!r}: another live process "
            "has the same SALIENCE_INSTANCE_ID, or this one was not heard for SALIENCE_SESSION_TIMEOUT_MS. "
            "Give each live worker a SALIENCE_INSTANCE_ID of its own, or none"
        )


async def leave(who: str, farewell: Awaitable[object]) -> None:
    """Await ``farewell`` for at most `FAREWELL_S`; then log that ``who`` has left without an answer.

    It runs in a task of its own. When aiokafka's clients close, they cancel their parts, and mistake a cancellation
    that comes meanwhile for one of these. A caller that awaited them directly would go on as if never cancelled; a loop
    would run for ever.
    """
    leaving = asyncio.ensure_future(farewell)
    try:
        await asyncio.wait([leaving], timeout=FAREWELL_S)
    finally:
        late = leaving.cancel()
        await asyncio.wait([leaving])
        failure = None if leaving.cancelled() else leaving.exception()
    if failure is not None:
        raise failure
    if late:
        log.warning("left without an answer, the broker gave none", who=who, waited_s=FAREWELL_S)


async def start(client: "AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient") -> None:
    """Start a client that the caller stops, also if this fails or is cancelled; a start under way then gets `START_S`.

    The connection by which a client first asks for the nodes is known to that request alone: cut off, it stays open.
    """
    logging.getLogger("asyncio").addFilter(_told_already)  # a logger has the same filter but once
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        try:
            await asyncio.wait([starting], timeout=START_S)
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)  # nobody asks for its failure now
        raise


async def end_reading(consumer: AIOKafkaConsumer, who: str = "a reader") -> None:
    """Stop a consumer, even if its broker is away, or the caller is cancelled meanwhile."""
    await leave(who, _stop(consumer))


async def start_reading(consumer: AIOKafkaConsumer) -> None:
    """Start a consumer that the caller ends by `end_reading`; here, if its start fails or is cancelled."""
    try:
        await start(consumer)
    except BaseException:
        await end_reading(consumer)
        raise


def at_work(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition] | None = None
) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """A started consumer, of these ``partitions`` if given, stopped by `end_reading` on exit.

    Its own ``async with`` would stop it in another way, and would leave it open if its start were cancelled.
    """
    return _AtWork(consumer, partitions)


class _AtWork:
    """No generator: one around which a generator is left in the middle would be closed by two at once.

    The event loop closes all generators at its end, so that both closings would fail, and say so on stderr.
    """

    def __init__(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition] | None) -> None:
        self._consumer, self._partitions = consumer, partitions

    async def __aenter__(self) -> AIOKafkaConsumer:
        await start_reading(self._consumer)
        if self._partitions is not None:
            self._consumer.assign(self._partitions)
        return self._consumer

    async def __aexit__(self, *_: object) -> None:
        await end_reading(self._consumer)


@asynccontextmanager
async def sending(producer: AIOKafkaProducer) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer, stopped on exit. Its own ``async with`` would wait for ever for a broker that is away."""
    try:
        await start(producer)
        yield producer
    finally:
        await leave("a producer", producer.stop())


@asynccontextmanager
async def transaction(producer: AIOKafkaProducer) -> AsyncIterator[None]:
    """A transaction of ``producer``, committed at the block's end, or aborted where that fails or is cancelled.

    An open one would hold back all who read committed records of its topics, lanes among them, until its timeout.
    """
    await producer.begin_transaction()
    try:
        yield
    except BaseException:
        # As where brokers, or another that has fenced this one, ended it: aiokafka then fails an assertion of its own.
        with suppress(KafkaError, IllegalOperation, AssertionError):
            await leave("a transaction", producer.abort_transaction())
        raise
    await producer.commit_transaction()


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Stop, though aiokafka cancels a fetch that waits to retry, and mistakes that for its caller's cancellation."""
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        await consumer._client.close()  # noqa: SLF001 - the stop did not reach it
        ours = asyncio.current_task()
        if ours is not None and ours.cancelling():
            raise
