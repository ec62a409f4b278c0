"""Log lines: they never end the process that writes them, and libraries' lines are limited to one of a kind in a while.

A full disk or a dead pipe costs only the lines. A client repeats over and over that a broker is away. Commands that are
no workers log as workers do, so this loads nothing that only those need.
"""

import contextlib
import faulthandler
import logging
import sys
from collections.abc import Callable

import structlog

from streams.clock import tick_ms

REPEAT_MS = 10_000
KINDS_MAX = 1_000
"""Kinds of lines remembered; a kind is a logger and a message without its arguments."""


class Lines(structlog.PrintLogger):
    """Writes to a stream, and goes on if that fails, as the standard library's logging does."""

    def msg(self, message: str) -> None:
        """Write the line, or lose it."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class Repeats(logging.Filter):
    """Lets a line of a kind through once in `REPEAT_MS`, with the number of lines kept back since.

    A line with an exception always passes.
    """

    def __init__(self, now_ms: Callable[[], int] = tick_ms) -> None:
        super().__init__()
        self._now_ms = now_ms
        self._said: dict[tuple[str, str], tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line passes."""
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


def configure_logging(*, log_json: bool) -> None:
    """Log structured lines on stderr, the libraries' warnings too; those are not repeated over and over.

    A crash in a library's C code writes where each thread was, in plain lines: nothing is left then to make JSON.
    """
    with contextlib.suppress(ValueError):  # a stream without a descriptor, as where output is captured
        faulthandler.enable()
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if log_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(processors=[*shared, renderer], logger_factory=lambda *_: Lines(sys.stderr))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(Repeats())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
