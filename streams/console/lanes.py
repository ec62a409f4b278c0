"""Lanes as the page shows them: lag and throughput from the monitor, placements and latency from the topic. No I/O."""

from collections import deque
from collections.abc import Collection, Sequence

import msgspec

from streams.console.alarms import GROWING_S, TIME_LAG_S
from streams.console.flow import LaneFlow
from streams.lag.arithmetic import PartitionLag, Status
from streams.lag.board import GroupLag, time_lag_of, worst

LANES_SHOWN = 64
"""Lanes on the page: the worst ones, since whoever looks at 512 lanes looks for those."""
POINTS = 180
"""Seconds of history for a page that is opened: 6 KB a lane."""
SERIES = ("consumed_per_s", "time_lag_s", "placements_per_s", "p99_ms")
"""What is drawn over time."""


class LaneState(msgspec.Struct, frozen=True, kw_only=True):
    """A lane: partition ``lane`` of clicks and of ad-impressions together. Times and statuses are the worse of the two.

    ``consumed`` and ``end`` are sums of offsets; their difference, ``behind``, is None where one is unknown.
    """

    lane: int
    status: Status
    behind: int | None
    consumed: int
    end: int
    time_lag_s: float | None
    time_lag_at_least: bool
    consumed_per_s: float
    produced_per_s: float
    stuck_s: float
    owner: str | None
    placements: int
    placements_per_s: float | None
    p50_ms: float | None
    p99_ms: float | None


def lane_states(group: GroupLag | None, inputs: Sequence[str], flows: Sequence[LaneFlow]) -> list[LaneState]:
    """Every lane, in the order of their numbers; ``inputs``: the event topics' full names."""
    lags: dict[int, list[PartitionLag]] = {}
    for lag in group.partitions if group is not None else ():
        if lag.topic in inputs:
            lags.setdefault(lag.partition, []).append(lag)
    return [_state(lane, lags.get(lane, []), flow) for lane, flow in enumerate(flows)]


def _state(lane: int, lags: list[PartitionLag], flow: LaneFlow) -> LaneState:
    behind = [lag.lag for lag in lags if lag.lag is not None]
    time_lag_s, at_least = time_lag_of(lags)
    return LaneState(
        lane=lane,
        status=worst(lag.status for lag in lags) if lags else Status.UNKNOWN,
        behind=sum(behind) if lags and len(behind) == len(lags) else None,
        consumed=sum(lag.committed or 0 for lag in lags),
        end=sum(lag.log_end or 0 for lag in lags),
        time_lag_s=time_lag_s,
        time_lag_at_least=at_least,
        consumed_per_s=round(sum(lag.consumed_per_s for lag in lags), 2),
        produced_per_s=round(sum(lag.produced_per_s for lag in lags), 2),
        stuck_s=max((lag.stuck_s for lag in lags), default=0.0),
        owner=next((lag.owner for lag in lags if lag.owner), None),
        placements=flow.placements,
        placements_per_s=flow.placements_per_s,
        p50_ms=flow.p50_ms,
        p99_ms=flow.p99_ms,
    )


def shown(states: Sequence[LaneState], before: Collection[int] = ()) -> list[LaneState]:
    """All lanes in order; if there are more than `LANES_SHOWN`, the worst of them.

    Among lanes equal by status and alarms, those shown ``before`` stay. Time lag alone differs every second if all is
    well, so by it most rows of the page would change each time.
    """
    if len(states) <= LANES_SHOWN:
        return list(states)
    order = list(Status)
    worst_first = sorted(states, key=lambda one: (-order.index(one.status), -(one.time_lag_s or 0.0)))

    def rank(one: LaneState) -> tuple[int, int, bool]:
        alarms = sum((one.time_lag_s or 0.0) > most for most in (GROWING_S, TIME_LAG_S))
        return -order.index(one.status), -alarms, one.lane not in before

    chosen = {one.lane for one in sorted(worst_first, key=rank)[:LANES_SHOWN]}
    return [one for one in worst_first if one.lane in chosen]


class History:
    """The newest `POINTS` values of `SERIES` for each lane."""

    def __init__(self, lanes: int) -> None:
        self._points: list[dict[str, deque[float | None]]] = [
            {name: deque(maxlen=POINTS) for name in SERIES} for _ in range(lanes)
        ]

    def add(self, states: Sequence[LaneState]) -> None:
        """Add one second."""
        for state in states:
            for name in SERIES:
                self._points[state.lane][name].append(getattr(state, name))

    def of(self, states: Sequence[LaneState]) -> dict[int, dict[str, list[float | None]]]:
        """Values by lane and series, oldest first."""
        return {
            state.lane: {name: list(points) for name, points in self._points[state.lane].items()} for state in states
        }
