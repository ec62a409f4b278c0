"""What a lag monitor does beside the loop: nobody waits for a broker that is silent, nor for much to reckon with."""

import asyncio
from threading import Event

import pytest

from streams.lag.board import Observation, Report
from streams.lag.monitor import LagMonitor
from streams.lag.poller import LagError
from tests.unit.test_lag_monitor import DEADLINE_S, Broker, monitor_of


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


async def test_pages_are_answered_while_what_was_seen_is_reckoned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor, _ = monitor_of(100)
    reckon = monitor._board.observe
    loop, answered = asyncio.get_running_loop(), Event()

    def observe(seen: Observation) -> Report:
        loop.call_soon_threadsafe(answered.set)
        assert answered.wait(DEADLINE_S), "the loop stands still"
        return reckon(seen)

    monkeypatch.setattr(monitor._board, "observe", observe)
    await monitor.poll()
    assert monitor.latest.report.groups
