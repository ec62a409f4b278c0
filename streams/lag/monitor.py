"""The lag monitor: polls for ever, keeps the latest report, and tells listeners. Importable, for a console.

async with LagMonitor(Poller("127.0.0.1:9092")) as monitor:
    async for news in monitor.news():
        print(news.report.worst, news.age_s)
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Self

import msgspec

from streams.aside import aside
from streams.clock import tick_ms, wall_ms
from streams.lag.arithmetic import Rules
from streams.lag.board import Board, Report
from streams.lag.poller import LagError, Poller

POLL_EVERY_S = 1.0
"""Time between polls of three small requests; time lag is as exact as this."""
POLL_MAX_S = 60.0
"""The client ends each request of a poll within seconds. A poll that lasts longer than this hangs: the next begins."""
STALE_POLLS = 5
"""A report older than so many polls is stale; whoever shows it must say so."""


class News(msgspec.Struct, frozen=True, kw_only=True):
    """The latest report with its freshness. ``time_ms``: of the last successful poll, UTC; 0 before the first.

    ``stale``: too old to be believed. ``error``: why the latest poll failed; "" if it did not. ``lacking``: what the
    report lacks, and why, for example while one broker of several is away; "" if it is complete.
    """

    time_ms: int
    age_s: float
    stale: bool
    polls: int
    failed: int
    poll_s: float
    error: str
    report: Report
    lacking: str = ""


class LagMonitor:
    """Polls every ``every_s`` seconds within its ``async with`` block. ``failing`` is called with the reason when polls
    begin to fail, or to lack something.
    """

    def __init__(
        self,
        poller: Poller,
        rules: Rules = Rules(),
        every_s: float = POLL_EVERY_S,
        clock: Callable[[], int] = tick_ms,
        failing: Callable[[str], None] = lambda _why: None,
    ) -> None:
        self._poller = poller
        self._failing = failing
        self._board = Board(rules)
        self.every_s = every_s
        self._clock = clock
        self._started_ms = clock()
        self._report = Report(watched_s=0.0, groups=())
        self._time_ms = 0
        self._tick_ms: int | None = None
        self._polls = self._failed = 0
        self._poll_ms = 0
        self._error = self._lacking = ""
        self._turn = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    @property
    def latest(self) -> News:
        """What is known now. Raises the error that ended the polling, if one did."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()
        age_ms = self._clock() - (self._started_ms if self._tick_ms is None else self._tick_ms)
        return News(
            time_ms=self._time_ms,
            age_s=age_ms / 1000,
            stale=self._tick_ms is None or age_ms > 1000 * max(STALE_POLLS * self.every_s, 1.0),
            polls=self._polls,
            failed=self._failed,
            poll_s=self._poll_ms / 1000,
            error=self._error,
            report=self._report,
            lacking=self._lacking,
        )

    async def ended(self) -> None:
        """Wait until polling has ended by itself; `latest` and the end of the block raise the reason."""
        assert self._task is not None
        await asyncio.wait([self._task])

    async def news(self) -> AsyncIterator[News]:
        """The latest news at once, then after every poll until the monitor's block ends.

        While a poll hangs, the old news comes at the same pace. Raises the error that ended the polling, if one did.
        """
        yield self.latest
        while True:
            turn = self._turn
            with suppress(TimeoutError):
                async with asyncio.timeout(max(2 * self.every_s, 1.0)):
                    await turn.wait()
            if self._task is not None and self._task.cancelled():
                return  # no turn will come
            yield self.latest

    async def poll(self) -> None:
        """Poll once now; a failure is kept, not raised."""
        began_ms = self._clock()
        try:
            async with asyncio.timeout(POLL_MAX_S):
                seen = await aside(self._poller.poll)
            self._report = await aside(self._board.observe, seen)  # takes seconds with thousands of partitions
            self._tick_ms, self._time_ms, self._error = seen.time_ms, wall_ms(), ""
            if seen.lacking and not self._lacking:
                self._failing(f"not all of it: {seen.lacking}")
            self._lacking = seen.lacking
        except (LagError, TimeoutError) as error:
            why = str(error) or "the poll got no answer in time"
            if not self._error:  # once, not every second of an outage
                self._failing(why)
            self._failed += 1
            self._error = why
        self._polls += 1
        self._poll_ms = self._clock() - began_ms
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    async def _run(self) -> None:
        try:
            while True:
                began_ms = self._clock()
                await self.poll()
                await asyncio.sleep(max(0.0, self.every_s - (self._clock() - began_ms) / 1000))
        finally:
            self._turn.set()  # wakes those who wait for news
