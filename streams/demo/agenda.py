"""A queue of things to happen later, each taken out when its time has come."""

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Agenda(Generic[Thing]):
    """A queue by time; for equal times, first in, first out."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Thing]] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, time_ms: int, thing: Thing) -> None:
        """Let ``thing`` be due at ``time_ms``."""
        heapq.heappush(self._heap, (time_ms, self._added, thing))
        self._added += 1

    def due(self, now_ms: int) -> Iterator[Thing]:
        """Take out what is due at ``now_ms``, in order."""
        while self._heap and self._heap[0][0] <= now_ms:
            yield heapq.heappop(self._heap)[2]
