"""Joining a group on a broker that has had none yet.

The first question for a group has the broker make the topic of all groups, and is refused until it is there and its
leader has read it. aiokafka asks again, as it should, and logs an error each time, of a start that is as good as any.
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
from streams.settings import Settings

NOT_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
COORDINATOR_S = 10.0
"""The topic takes half a second, and where it is to have three copies a few. aiokafka tells what lasts longer."""
ASK_AGAIN_S = 0.1


async def meet_coordinator(settings: Settings, stops: Callable[[], bool]) -> None:
    """Return when the group's coordinator answers, or the worker ``stops``.

    Returns as well where that takes more than `COORDINATOR_S` or fails of something else: to join then tells why.
    """
    admin = AIOKafkaAdminClient(**aiokafka_options(settings.bootstrap))
    try:
        with suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(COORDINATOR_S):
                await admin.start()
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
