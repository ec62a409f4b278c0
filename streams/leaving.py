"""Leaving a broker: told of it where it answers, left without a word where it does not.

aiokafka waits as long as a request may take, 40 s and more, for the answer to a farewell, and for deliveries for ever.
A broker's own time-outs do what an unheard farewell would have done.
"""

import asyncio
from collections.abc import Awaitable

import structlog

log = structlog.get_logger()

FAREWELL_S = 5.0
"""A stop may take the stop deadline, three of these, and `topics.ANSWER_S`; `deploy/` gives it as much."""


async def leave(who: str, farewell: Awaitable[object]) -> None:
    """Await ``farewell``, for `FAREWELL_S` at most; then a warning names ``who`` has left without."""
    try:
        await asyncio.wait_for(farewell, FAREWELL_S)
    except TimeoutError:
        log.warning("left without an answer, the broker gave none", who=who, waited_s=FAREWELL_S)
