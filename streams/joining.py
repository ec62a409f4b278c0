"""Joining a group on a broker that has had none yet.

The first request about a group makes the broker create the offsets topic, and is refused until the topic exists and its
leader has read it. aiokafka rightly tries again, but logs an error each time, although nothing is wrong.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
    for_code,
)

from streams.connection import aiokafka_options
from streams.leaving import start
from streams.settings import Settings

NOT_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
COORDINATOR_S = 10.0
"""Creating the topic takes half a second, with three copies a few. If it lasts longer, aiokafka's log tells."""
ASK_AGAIN_S = 0.1


async def meet_coordinator(settings: Settings, stops: Callable[[], bool]) -> None:
    """Return when the group's coordinator answers, or the worker ``stops``.

    Returns as well after `COORDINATOR_S`, or on another failure: joining then tells why.
    """
    admin = AIOKafkaAdminClient(**aiokafka_options(settings.bootstrap))
    try:
        with suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(COORDINATOR_S):
                await start(admin)
                while not (await _answers(admin, settings.group) or stops()):  # noqa: ASYNC110 - of a broker: no event to await
                    await asyncio.sleep(ASK_AGAIN_S)
    finally:
        await admin.close()


async def _answers(admin: AIOKafkaAdminClient, group: str) -> bool:
    try:
        (told,) = await admin.describe_consumer_groups([group])
    except NOT_YET:
        return False
    return not any(issubclass(for_code(code), NOT_YET) for code, *_ in told.groups)
