"""Calls that block, and that nobody has to wait for: librdkafka's above all."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def aside(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``call`` returns, or raises, on a thread that nobody waits for once whoever asked has been interrupted.

    For ten seconds librdkafka waits for a broker that does not answer. On the loop's thread Ctrl-C is not heard
    meanwhile, and threads of `asyncio.to_thread` are waited for at the end.
    """
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # from here on it cannot be taken from the thread that will tell it

    def run() -> None:
        try:
            answer.set_result(call(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - whoever asked gets it
            answer.set_exception(error)

    Thread(target=run, name="aside", daemon=True).start()
    return await asyncio.wrap_future(answer)
