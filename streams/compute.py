"""The compute thread: it alone touches rows, catalogue and model, and leaves the event loop to I/O.

CPU work in the event loop would delay heartbeats, and a missed heartbeat causes a rebalance. With one thread, every
reader also sees whole updates without a lock; onnxruntime and numpy release the GIL while they work.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Compute:
    """Runs calls one after the other, in the order in which they were made."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")
        self.turn = asyncio.Lock()
        """Held from the cut of a slice to the end of its computation. Lanes get it in the order in which they ask."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of ``function``, computed off the event loop. A call once begun is never cut short."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))

    def soon(self, function: Callable[[], None]) -> None:
        """Run ``function`` after all calls made before; nobody waits for it, and what it raises is lost."""
        self._thread.submit(function)

    def stop(self) -> None:
        """Wait for calls under way."""
        self._thread.shutdown(wait=True)
