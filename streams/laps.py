"""How long each stage of a slice took, in order."""

import time
from collections.abc import Callable


class Laps:
    """Call it with a stage's name when the stage has ended. ``times``: (stage, seconds), counted from its creation."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last = clock()
        self.times: list[tuple[str, float]] = []

    def __call__(self, stage: str) -> None:
        """``stage`` has just ended."""
        now = self._clock()
        self.times.append((stage, now - self._last))
        self._last = now
