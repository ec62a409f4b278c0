"""Ctrl-C while the lag is polled: nobody waits for a broker that is silent."""

import asyncio
from threading import Event

import pytest

from streams.lag.board import Observation
from streams.lag.monitor import LagMonitor
from streams.lag.poller import LagError
from tests.unit.test_lag_monitor import DEADLINE_S, Broker


def test_who_is_interrupted_does_not_wait_for_a_poll_that_no_broker_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, answer, answered = Broker([90]), Event(), Event()

    async def watch() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def silent() -> Observation:
            loop.call_soon_threadsafe(task.cancel)  # as Ctrl-C does
            answer.wait(DEADLINE_S)
            answered.set()
            raise LagError("nowhere:1 does not answer")

        monkeypatch.setattr(broker, "poll", silent)
        async with LagMonitor(broker) as monitor:
            await monitor.ended()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch())
    assert not answered.is_set()
    answer.set()
    assert answered.wait(DEADLINE_S)
