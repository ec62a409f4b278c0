"""Blocking calls, librdkafka's above all, on threads that the end of the process does not wait for."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def aside(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``call`` on a daemon thread; return or raise what it does. If the caller is cancelled, nobody waits for it.

    librdkafka waits ten seconds for a broker that does not answer. On the loop's thread, Ctrl-C would not be heard
    meanwhile; a thread of `asyncio.to_thread` would hold up the end of the process.
    """
    return await asyncio.wrap_future(begun(call, *args, **kwargs))


def begun(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """What ``call`` will return or raise; it runs on a daemon thread."""
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # now a cancelled caller cannot cancel it: the thread can always set it

    def run() -> None:
        try:
            answer.set_result(call(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            answer.set_exception(error)

    Thread(target=run, name="aside", daemon=True).start()
    return answer
