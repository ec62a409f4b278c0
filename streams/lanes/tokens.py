"""Which lanes have a token out, and how long the pump leaves them alone while all have one."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

from streams.clock import tick_ms

FETCHES_A_STEP = 8
"""Fetches during a step, while all lanes are in step and records wait anyway. A record is in its lane's queue by the
second fetch after it came, within a quarter of a step: the first may return what was fetched ahead before it came."""
BUSY_MIN_MS = 8
"""Least pause between two of these fetches, unless a step ends: a fetch takes 1 ms, so at most an eighth of a core."""


class Tokens:
    """Lanes on the channel or in step, each once."""

    def __init__(self, clock: Callable[[], int] = tick_ms) -> None:
        self._clock = clock
        self._since_ms: dict[int, int] = {}
        self._step_ms = 0
        self._freed = asyncio.Event()

    def __contains__(self, lane: int) -> bool:
        return lane in self._since_ms

    def put(self, lane: int) -> None:
        """A lane's token goes on the channel."""
        self._since_ms[lane] = self._clock()

    def end(self, lane: int) -> None:
        """A lane's token has been used."""
        now_ms = self._clock()
        self._step_ms = now_ms - self._since_ms.pop(lane, now_ms)
        self._freed.set()

    @property
    def patience_ms(self) -> float:
        """The pause until the next fetch, unless a step ends: the longer steps take, the longer."""
        return max(BUSY_MIN_MS, self._step_ms / FETCHES_A_STEP)

    async def wait_for_one(self, lanes: Collection[int]) -> None:
        """Wait while all ``lanes`` have a token out, for `patience_ms` at most: none could take what a fetch brings."""
        if lanes and self._since_ms.keys() >= set(lanes):
            self._freed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.patience_ms / 1000):
                    await self._freed.wait()
