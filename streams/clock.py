"""The shell's clocks; the core is told the time."""

import time


def wall_ms() -> int:
    """UTC epoch milliseconds."""
    return time.time_ns() // 1_000_000


def tick_ms() -> int:
    """Milliseconds of a clock that never goes back; only differences mean something."""
    return time.monotonic_ns() // 1_000_000
