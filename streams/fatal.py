"""The end of a process that must not go on: crash-only, since a restart recovers from the log."""

import asyncio
import os
import threading
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

log = structlog.get_logger()

EXIT_STATUS = 70
"""EX_SOFTWARE of sysexits.h."""
CANNOT_START = 1
"""Status of a worker that cannot run until a person has helped; it is not started again by itself."""
GRACE_S = 5.0
"""Longest orderly stop after a fatal error; if it hung, a dead worker would stay in the group."""


class CannotStartError(RuntimeError):
    """What keeps a worker from ever starting; the message says what a person must do."""


def status_of(error: BaseException) -> int:
    """The exit status of a worker that ``error`` ends."""
    return CANNOT_START if isinstance(error, CannotStartError) else EXIT_STATUS


async def guarded(
    who: str, work: Awaitable[None], fail: Callable[[BaseException], None], stopped: Callable[[], bool] = lambda: False
) -> None:
    """Await the background ``work`` of ``who``; call ``fail`` with its error, so that it never fails silently.

    A cancellation that nobody asked for is a failure, too, unless ``stopped``: aiokafka cancels its own parts, and
    thereby whoever awaits them.
    """
    try:
        await work
    except asyncio.CancelledError:
        ours = asyncio.current_task()
        if stopped() or ours is None or ours.cancelling():
            raise
        fail(RuntimeError(f"{who} was cancelled by nobody"))
    except BaseException as error:  # noqa: BLE001 - every failure is fatal, else the worker would act on stale facts
        fail(error)


def describe(error: BaseException) -> str:
    """The error's type and message, for the last line of a log; without a message, where in our code it was raised."""
    name = type(error).__name__
    if str(error):
        return f"{name}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(Path(__file__).parent)]
    return f"{name} in {ours[-1].name} ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else name


def say_end(error: BaseException) -> int:
    """Log the last line of a failed worker; return its exit status."""
    status = status_of(error)
    log.error("the worker ended", status=status, reason=describe(error))
    return status


def end_now(error: BaseException) -> None:
    """Log why, and end the process at once, even if logging fails."""
    try:
        say_end(error)
    finally:
        os._exit(status_of(error))


def arm_exit(error: BaseException) -> None:
    """Log why, and end the process within `GRACE_S`, even if something hangs, the log included."""
    timer = threading.Timer(GRACE_S, end_now, (error,))
    timer.daemon = True
    timer.start()
    log.error("fatal, the worker ends", error=describe(error))
