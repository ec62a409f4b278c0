"""On a signal, a command undoes what it has begun, as on Ctrl-C; one that runs until stopped just ends."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def undone_when_told_to_end() -> Iterator[None]:
    """In the main thread's block, SIGTERM and SIGHUP raise ``SystemExit`` with status 128 plus the signal's number.

    Only the first does: further ones must not interrupt the undoing. An ignored signal (``nohup``) stays ignored.
    """
    former = {number: signal.getsignal(number) for number in ENDING}
    heard = [number for number in ENDING if former[number] != signal.SIG_IGN]

    def leave(number: int, _frame: FrameType | None) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in heard:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, former[number])


async def until_told(work: Coroutine[None, None, None]) -> None:
    """Run ``work`` until it is done, or SIGINT, SIGTERM or SIGHUP cancels it; no ignored SIGHUP (``nohup``) does."""
    task = asyncio.create_task(work)
    hung_up = (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else ()
    for number in (signal.SIGINT, signal.SIGTERM, *hung_up):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
