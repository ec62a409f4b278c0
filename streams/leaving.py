"""Leaving a broker: told of it where it answers, left without a word where it does not.

aiokafka waits for the answer to a farewell as long as a request may take, 40 s, or a rebalance, and for deliveries for
ever. A broker's own time-outs do what an unheard farewell would have done.
"""

import asyncio
from collections.abc import Awaitable

import structlog

log = structlog.get_logger()

FAREWELL_S = 5.0
"""A stop may take three of these, those of lanes side by side: of lanes being taken over, of lanes held, of the group's
member. With the stop deadline and `topic_admin.ANSWER_S`, for a question under way, `deploy/` must give it as much."""


async def leave(who: str, farewell: Awaitable[object]) -> None:
    """Await ``farewell``, for `FAREWELL_S` at most; then a warning names ``who`` has left without."""
    try:
        await asyncio.wait_for(farewell, FAREWELL_S)
    except TimeoutError:
        log.warning("left without an answer, the broker gave none", who=who, waited_s=FAREWELL_S)
