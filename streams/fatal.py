"""The end of a process that must not go on: crash-only, since a restart recovers from the log."""

import os
import threading
import traceback
from pathlib import Path

import structlog

log = structlog.get_logger()

EXIT_STATUS = 70
"""EX_SOFTWARE of sysexits.h."""
GRACE_S = 5.0
"""What an orderly stop may take after a fatal error; a hanging one would keep a dead worker in the group."""


def describe(error: BaseException) -> str:
    """The error's kind and message, as the last line of a log tells it; where it has none, what was being done."""
    name = type(error).__name__
    if str(error):
        return f"{name}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(Path(__file__).parent)]
    return f"{name} in {ours[-1].name} ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else name


def say_end(reason: str) -> None:
    """The last line of a worker that has failed."""
    log.error("the worker ended", status=EXIT_STATUS, reason=reason)


def end_now(error: BaseException) -> None:
    """Say why, and end the process without anything further."""
    say_end(describe(error))
    os._exit(EXIT_STATUS)


def arm_exit(error: BaseException) -> None:
    """Say why, and end the process within `GRACE_S` whatever else hangs."""
    log.error("fatal, the worker ends", error=describe(error))
    timer = threading.Timer(GRACE_S, end_now, (error,))
    timer.daemon = True
    timer.start()
