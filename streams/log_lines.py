"""The log's lines: they end nobody who writes them, and libraries' are said once in a while.

A full disk or a dead pipe costs the lines and no more. A client says again and again that a broker is away.
"""

import contextlib
import logging
from collections.abc import Callable

import structlog

from streams.clock import tick_ms

REPEAT_MS = 10_000
KINDS_MAX = 1_000
"""Kinds of lines remembered; a kind is a logger and a message without what is filled in."""


class Lines(structlog.PrintLogger):
    """Writes to a stream, and goes on where that cannot be written, as the standard library's logging does."""

    def msg(self, message: str) -> None:
        """Write the line, or lose it."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: of a stream that is closed
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class Repeats(logging.Filter):
    """Lets a line of a kind through once in `REPEAT_MS`, with the number of those that were kept back since.

    A line with an exception is always said.
    """

    def __init__(self, now_ms: Callable[[], int] = tick_ms) -> None:
        super().__init__()
        self._now_ms = now_ms
        self._said: dict[tuple[str, str], tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be said."""
        if record.exc_info:
            return True
        kind, now_ms = (record.name, str(record.msg)), self._now_ms()
        last_ms, kept = self._said.get(kind, (now_ms - REPEAT_MS, 0))
        if now_ms - last_ms < REPEAT_MS:
            self._said[kind] = last_ms, kept + 1
            return False
        if len(self._said) >= KINDS_MAX:
            self._said.clear()
        self._said[kind] = now_ms, 0
        if kept:
            record.msg = f"{record.msg} ({kept:,} more like it since the last)"
        return True
