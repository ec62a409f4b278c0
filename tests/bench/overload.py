"""What an overload does: half as many events again as the worker can do, for two minutes, and then none.

Memory must not grow with what waits: the queues are bounded, so that lag grows, in the broker. Afterwards it drains.
The first minute fills the queues, 10,000 records a lane and topic by default; the second shows whether it ends there.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from streams import topics
from streams.lag.watch import Lag, LagWatch
from streams.settings import Guarantee
from tests.bench import drive
from tests.bench.bed import Bed, BenchError, Child, bed
from tests.bench.latency import CAPACITY_EVENTS, GRACE_S, capped, driving, plan_of
from tests.bench.load import Load
from tests.bench.proc import resident_bytes
from tests.bench.report import Report, Say, repeated, rounded

GUARANTEE: Guarantee = "exactly_once"
OVERLOAD = 1.5
USERS = 5_000
"""Few, so that all of them have their rows before the overload begins, and what grows is not state."""
CLICK_WINDOW_MS = 10_000
"""Impressions that wait for their outcome have their full number within the first minute, not only after five."""
LOOK_EVERY_S = 0.5
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Look:
    """Seconds since the overload began, the worker's memory, the records behind."""

    at_s: float
    resident: int
    behind: int


def run(seconds: float, runs: int, say: Say) -> Report:
    """The report, as its JSON has it. Raises `tests.bench.bed.BenchError` and `deploy.brokers.BrokerError`."""
    with tempfile.TemporaryDirectory(prefix="salience-bench-") as folder, bed(Path(folder), say) as there:
        once = partial(measure, there, seconds=seconds)
        return repeated("overload", runs, once, say, seconds=seconds, users=USERS, guarantee=GUARANTEE)


def measure(there: Bed, *, seconds: float, events: int = CAPACITY_EVENTS) -> Report:
    """Memory, lag and the time to drain it. Raises `BenchError` and `streams.lag.watch.StalledError`."""
    load = Load(events=events, users=USERS, exponent=0, start_ms=int(time.time() * 1000) - events)
    prefix, _ = there.filled(load)
    there.say("salience: capacity")
    with there.working(prefix, guarantee=GUARANTEE, click_window_ms=CLICK_WINDOW_MS) as (worker,):
        capacity = capped(there.pace_of(prefix, events, [worker]))
        plan = plan_of(there, prefix, topics.PLACEMENTS, OVERLOAD * capacity, seconds, 0.0, seed=2, users=USERS)
        there.say(f"salience: {OVERLOAD:.0%} of {capacity:,.0f} events/s for {seconds:.0f} s")
        generator = driving(there, plan)
        watch = LagWatch(there.bootstrap, prefix, f"{prefix}group")
        looks = asyncio.run(_watch(watch, worker, generator, events + plan.events))
        found = msgspec.json.decode(there.said(generator, drive.ANSWERED_WITHIN_S + GRACE_S), type=drive.Driven)
    if found.answered != plan.events:
        raise BenchError(f"of {plan.events:,} events sent at an overload {found.answered:,} were answered")
    return {"capacity_events_per_s": rounded(capacity), "events_per_s": rounded(plan.rate)} | _of(looks)


async def _watch(watch: LagWatch, worker: Child, generator: Child, events: int) -> list[Look]:
    """Looks, wherever the lag has changed, from the first event until all are consumed.

    Raises `BenchError` where one of the two has died, and `streams.lag.watch.StalledError` where the worker lives and
    does nothing.
    """
    seen: list[tuple[float, int, Lag]] = []

    def check() -> None:
        worker.check()
        if generator.process.poll() not in (None, 0):
            generator.check()

    def note(lag: Lag) -> None:
        seen.append((time.perf_counter(), resident_bytes(worker.process.pid) or 0, lag))

    async def pause(_seconds: float) -> None:
        await asyncio.sleep(LOOK_EVERY_S)

    await watch.until_zero(events, check, note, sleep=pause)
    _idle, *looks = seen
    began_s = looks[0][0]
    return [Look(at_s - began_s, resident, lag.behind) for at_s, resident, lag in looks]


def _of(looks: list[Look]) -> Report:
    """Memory while lag grows: its slope over the second half, when every queue is full, and its extremes."""
    peak = max(looks, key=lambda look: look.behind)
    growing = [look for look in looks if look.at_s <= peak.at_s]
    later = [look for look in growing if look.at_s >= peak.at_s / 2]
    times, memory = (np.array([read(look) for look in later], dtype=np.float64) for read in _READS)
    slope = float(np.polyfit(times, memory, 1)[0]) if len(later) > 2 else 0.0
    return {
        "resident_mb": {
            "first": rounded(looks[0].resident / MB),
            "half_way": rounded(later[0].resident / MB),
            "peak_lag": rounded(peak.resident / MB),
            "drained": rounded(looks[-1].resident / MB),
        },
        "memory_growth_mb_per_minute": rounded(60 * slope / MB),
        "lag_max": peak.behind,
        "drain_s": rounded(looks[-1].at_s - peak.at_s),
    }


_READS: tuple[Callable[[Look], float], ...] = (lambda look: look.at_s, lambda look: look.resident)
