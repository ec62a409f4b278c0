"""Leaving a broker: told of it where it answers, left without a word where it does not.

aiokafka waits for the answer to a farewell as long as a request may take, 40 s, or a rebalance, and for deliveries for
ever. A broker's own time-outs do what an unheard farewell would have done.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from aiokafka import AIOKafkaConsumer

if TYPE_CHECKING:
    from streams.settings import Settings

log = structlog.get_logger()

FAREWELL_S = 5.0
"""A stop may take three of these, those of lanes side by side: of lanes being taken over, of lanes held, of the group's
member. With the stop deadline and `topic_admin.ANSWER_S`, for a question under way, `deploy/` must give it as much."""


class MembershipLostError(RuntimeError):
    """A member with a name of its own was put out of its group; joining again would put out who has the name now."""


def check_member(consumer: AIOKafkaConsumer, settings: "Settings") -> None:
    """Raises `MembershipLostError` where the group no longer knows the member that has joined it under a name."""
    # aiokafka tells nobody: it forgets its id when the coordinator does not know it, and keeps it while lanes move.
    if settings.instance_id and not consumer._coordinator.member_id:  # noqa: SLF001 - as above
        raise MembershipLostError(
            f"the group {settings.group} no longer has this worker as {settings.instance_id!r}: another live process "
            "has the same SALIENCE_INSTANCE_ID, or this one was not heard for SALIENCE_SESSION_TIMEOUT_MS. "
            "Give each live worker a SALIENCE_INSTANCE_ID of its own, or none"
        )


async def leave(who: str, farewell: Awaitable[object]) -> None:
    """Await ``farewell``, for `FAREWELL_S` at most; then a warning names ``who`` has left without.

    It has a task of its own: aiokafka's clients cancel their parts when they close, and take a cancellation that comes
    meanwhile for one of these. Whoever awaited them would go on as if never cancelled, a loop for ever.
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


async def end_reading(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, also one that reads from a broker that is away, and where the caller is cancelled meanwhile."""
    await leave("a reader", _stop(consumer))


@asynccontextmanager
async def at_work(consumer: AIOKafkaConsumer) -> AsyncIterator[AIOKafkaConsumer]:
    """A reader, started, until it is left: its own ``async with`` leaves it open where its start is cancelled, and
    stops it otherwise than `end_reading`.
    """
    try:
        await consumer.start()
        yield consumer
    finally:
        await end_reading(consumer)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """As aiokafka does, which cancels a fetch that waits to ask again, and takes that for its caller's cancellation."""
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        await consumer._client.close()  # noqa: SLF001 - what the stop did not come to
        ours = asyncio.current_task()
        if ours is not None and ours.cancelling():
            raise
