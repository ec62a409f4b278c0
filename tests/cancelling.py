"""Tasks cancelled at a step of one's choice."""

import asyncio
from typing import Any


async def cancelled_after(steps: int, task: asyncio.Task[Any]) -> bool | None:
    """Cancel ``task`` after so many turns of the loop; whether it then ends as cancelled, None where it was over."""
    for _ in range(steps):
        await asyncio.sleep(0)
    if not task.cancel():
        return None
    await asyncio.wait([task])
    return task.cancelled()
