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
"""Of a worker that a person must help before it can run: it is not started again by itself."""
GRACE_S = 5.0
"""What an orderly stop may take after a fatal error; a hanging one would keep a dead worker in the group."""


class CannotStartError(RuntimeError):
    """What keeps a worker from ever starting; the message says what a person must do."""


def status_of(error: BaseException) -> int:
    """With which a worker ends that the error ends."""
    return CANNOT_START if isinstance(error, CannotStartError) else EXIT_STATUS


async def guarded(
    who: str, work: Awaitable[None], fail: Callable[[BaseException], None], stopped: Callable[[], bool] = lambda: False
) -> None:
    """Await the background ``work`` of ``who``, which must not fail in silence: ``fail`` hears of it.

    A cancellation that nobody asked for is a failure, too, unless it is ``stopped`` by then: aiokafka cancels parts of
    its own, and who awaits one of them ends so.
    """
    try:
        await work
    except asyncio.CancelledError:
        ours = asyncio.current_task()
        if stopped() or ours is None or ours.cancelling():
            raise
        fail(RuntimeError(f"{who} was cancelled by nobody"))
    except BaseException as error:  # noqa: BLE001 - a worker that acts on what no longer holds: every failure is fatal
        fail(error)


def describe(error: BaseException) -> str:
    """The error's kind and message, as the last line of a log tells it; where it has none, what was being done."""
    name = type(error).__name__
    if str(error):
        return f"{name}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(Path(__file__).parent)]
    return f"{name} in {ours[-1].name} ({Path(ours[-1].filename).name}, line {ours[-1].lineno})" if ours else name


def say_end(error: BaseException) -> int:
    """The last line of a worker that has failed; its exit status."""
    status = status_of(error)
    log.error("the worker ended", status=status, reason=describe(error))
    return status


def end_now(error: BaseException) -> None:
    """Say why, and end the process without anything further, also where nothing can be said."""
    try:
        say_end(error)
    finally:
        os._exit(status_of(error))


def arm_exit(error: BaseException) -> None:
    """Say why, and end the process within `GRACE_S` whatever else hangs, the log too."""
    timer = threading.Timer(GRACE_S, end_now, (error,))
    timer.daemon = True
    timer.start()
    log.error("fatal, the worker ends", error=describe(error))
