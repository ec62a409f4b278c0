"""The output of each lane: placements a second, and how old their events were. Arrays with a row per lane; no I/O."""

from collections.abc import Sequence

import msgspec
import numpy as np

from scoring.arrays import Ints
from streams.wire import TimeMs

LATENCIES_KEPT = 512
"""Newest placements of each lane that the percentiles cover: 2 KB a lane; five are beyond the 99th."""
RATE_OVER_TICKS = 5
"""Seconds over which a rate is averaged."""


class Placed(msgspec.Struct, frozen=True, gc=False):
    """The fields that the console reads of a placement."""

    placement_id: str
    user_id: str
    time_ms: TimeMs
    arm: str
    model: str
    context_only: bool = False


class LaneFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A lane's output. ``p50_ms`` and ``p99_ms``: from the event's own time until its placement was written.

    ``placements_per_s``: None while the backlog is still being read, since that goes at the reader's pace.
    """

    placements: int
    placements_per_s: float | None
    p50_ms: float | None
    p99_ms: float | None


class Flow:
    """Counts of ``lanes`` lanes."""

    def __init__(self, lanes: int) -> None:
        self._totals = np.zeros(lanes, dtype=np.int64)
        self._latency_ms = np.full((lanes, LATENCIES_KEPT), np.nan)
        self._ticks: list[tuple[int, Ints]] = []

    def take(self, lane: int, placed: Sequence[Placed], written_ms: Sequence[int]) -> None:
        """Take placements of a lane, oldest first, each with the time of its record.

        Those in a partition that clicks do not have, as where these were made anew with fewer, are not counted.
        """
        if lane >= len(self._totals):
            return
        late = np.array(written_ms, dtype=np.float64) - np.array([one.time_ms for one in placed], dtype=np.float64)
        latest = late[-LATENCIES_KEPT:]
        end = int(self._totals[lane]) + len(placed)
        self._latency_ms[lane, np.arange(end - len(latest), end) % LATENCIES_KEPT] = np.maximum(latest, 0)
        self._totals[lane] = end

    def tick(self, now_ms: int, *, caught_up: bool = True) -> list[LaneFlow]:
        """Each lane's output now. Call it once a second: rates are taken over the calls since it has caught up."""
        if self._ticks and now_ms <= self._ticks[-1][0]:  # the clock was set back: the age of former ticks is unknown
            self._ticks = []
        now = now_ms, self._totals.copy()
        self._ticks = [*self._ticks[-RATE_OVER_TICKS:], now] if caught_up else []
        then_ms, then = (self._ticks or [now])[0]
        seconds = max(now_ms - then_ms, 1) / 1000
        rates = ((self._totals - then) / seconds).round(2).tolist()
        return [
            LaneFlow(placements=total, placements_per_s=rate if caught_up else None, **self._percentiles(lane))
            for lane, (total, rate) in enumerate(zip(self._totals.tolist(), rates, strict=True))
        ]

    def _percentiles(self, lane: int) -> dict[str, float | None]:
        count = min(int(self._totals[lane]), LATENCIES_KEPT)
        if not count:
            return {"p50_ms": None, "p99_ms": None}
        p50, p99 = np.percentile(self._latency_ms[lane, :count], [50, 99]).round(1).tolist()
        return {"p50_ms": p50, "p99_ms": p99}
