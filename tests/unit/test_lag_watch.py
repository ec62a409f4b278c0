"""Waiting for lag 0: what ends it, and what it measures."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from streams.lag.watch import LOOK_EVERY_S, STALL_S, Lag, LagWatch, StalledError


class Script(LagWatch):
    """Tells one lag after another, the last for ever; a look takes no time, a sleep what it says."""

    def __init__(self, lags: Sequence[Lag]) -> None:
        super().__init__("nowhere:1", "t-", "group")
        self.lags = list(lags)
        self.now_s = 100.0

    async def look(self) -> Lag:
        return self.lags.pop(0) if len(self.lags) > 1 else self.lags[0]

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def wait(self, records: int = 0, check: Callable[[], None] = lambda: None) -> tuple[float, list[int]]:
        """The seconds measured, and the progress told."""
        told: list[int] = []
        waited = self.until_zero(
            records, check, lambda lag: told.append(lag.consumed), clock=lambda: self.now_s, sleep=self.sleep
        )
        return asyncio.run(waited), told


def test_the_time_runs_from_the_first_lane_taken_over_to_lag_0() -> None:
    unstarted, taken, halfway, done = Lag(0, 10, 0), Lag(0, 10, 1), Lag(4, 6, 2), Lag(10, 0, 2)

    seconds, told = Script([unstarted, unstarted, taken, halfway, halfway, done]).wait()

    assert seconds == pytest.approx(3 * LOOK_EVERY_S)
    assert told == [0, 0, 4, 10]


def test_lag_0_is_not_believed_before_the_known_number_of_records() -> None:
    seconds, told = Script([Lag(0, 1, 1), Lag(9, 0, 1), Lag(10, 0, 1)]).wait(records=10)

    assert seconds == pytest.approx(2 * LOOK_EVERY_S)
    assert told[-1] == 10


def test_nothing_to_consume_takes_no_time() -> None:
    assert Script([Lag(0, 0, 0)]).wait() == (0.0, [0])


def test_no_progress_is_told_with_where_it_stopped() -> None:
    script = Script([Lag(0, 10, 0), Lag(4, 6, 2)])

    with pytest.raises(StalledError, match="group group has consumed 4 records, is 6 behind"):
        script.wait()

    assert script.now_s == pytest.approx(100 + STALL_S, abs=3 * LOOK_EVERY_S)


def test_what_the_check_raises_ends_the_wait() -> None:
    def died() -> None:
        raise RuntimeError("the worker ended")

    with pytest.raises(RuntimeError, match="the worker ended"):
        Script([Lag(0, 10, 0)]).wait(check=died)
