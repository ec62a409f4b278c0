"""The log's lines, which end nobody who writes them: a full disk or a dead pipe costs the lines and no more."""

import contextlib

import structlog


class Lines(structlog.PrintLogger):
    """Writes to a stream, and goes on where that cannot be written, as the standard library's logging does."""

    def msg(self, message: str) -> None:
        """Write the line, or lose it."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: of a stream that is closed
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg
