"""The arithmetic of lag: samples in, lags, rates and status out. Nothing here asks a broker or a clock.

Times are milliseconds of one clock that never goes back. Offsets are "next" offsets: a consumer that has read
everything has its committed offset at the log end, and lag 0.
"""

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapify, heappop, heappush
from itertools import pairwise

import msgspec

POINTS_MAX = 256
"""Points of a log end's history, 4 KiB a partition: at one a second, two minutes exactly, and hours in outline."""
SAMPLES_MAX = 1_000
"""Samples per group and partition: a window of 30 s polled every 30 ms. With more polls, some are skipped."""
COMMITS_MIN = 5
"""Fewest commits whose lags may be called a trend: of five in random order, 1 in 120 never shrinks."""


class Status(StrEnum):
    """Burrow's status of a partition, worst last; UNKNOWN where nothing was ever committed."""

    OK = "OK"
    UNKNOWN = "UNKNOWN"
    WARN = "WARN"
    STALL = "STALL"
    STOP = "STOP"
    REWIND = "REWIND"


@dataclass(frozen=True, slots=True)
class Rules:
    """How far back to look. ``window_ms``: for rates and trends; some ten commits. ``stuck_ms``: a partition with lag
    that makes no progress for so long is stalled or stopped; at least two commit intervals.
    """

    window_ms: int = 30_000
    stuck_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Sample:
    """What one poll saw of a group's partition. ``owned``: by a live member of the group, as far as is known."""

    time_ms: int
    committed: int | None
    log_end: int | None
    owned: bool

    @property
    def lag(self) -> int | None:
        """Records behind; None where either offset is unknown."""
        if self.committed is None or self.log_end is None:
            return None
        return max(0, self.log_end - self.committed)


class PartitionLag(msgspec.Struct, frozen=True, kw_only=True):
    """A group's lag in one partition.

    ``lag`` is in records. ``time_lag_s``: age of the record at the committed offset; with ``time_lag_at_least`` the
    record is older than that: it was there before the monitor. ``catch_up_s``: at the present rates; None if never, or
    unknown. ``stuck_s``: how long polls have seen lag without progress. ``owner``: the member's client id and host.
    """

    topic: str
    partition: int
    status: Status
    committed: int | None
    log_end: int | None
    lag: int | None
    time_lag_s: float | None
    time_lag_at_least: bool
    consumed_per_s: float
    produced_per_s: float
    catch_up_s: float | None
    stuck_s: float
    owner: str | None


class LogEnds:
    """History of a partition's log end: points of (time, offset), interpolated between; old points are thinned out."""

    def __init__(self) -> None:
        self._times = array("q")
        self._ends = array("q")

    def __len__(self) -> int:
        return len(self._times)

    def add(self, time_ms: int, end: int) -> None:
        """Add a newer point. If the log end has gone back, it is another log, and the past is forgotten."""
        if self._ends and end < self._ends[-1]:
            self._times, self._ends = array("q"), array("q")
        if len(self._ends) > 1 and self._ends[-1] == self._ends[-2] == end:
            self._times[-1] = time_ms  # for a log at rest, the first and the last moment suffice
            return
        self._times.append(time_ms)
        self._ends.append(end)
        if len(self._ends) > POINTS_MAX:
            self._thin()

    def _thin(self) -> None:
        """Drop a quarter of the points, from the older half, one by one; never the first point.

        Each time the point goes whose loss shifts interpolated times least, relative to its age. So points stay where a
        rest or a burst begins or ends, and go where the pace is steady. The neighbours of a dropped point are judged
        anew, else all of them would go. It takes 0.2 ms per 64 points: 4 s if all partitions that may be watched do it
        in one poll, on average a twentieth of a poll's time.
        """
        times, ends = self._times.tolist(), self._ends.tolist()
        before, after = list(range(-1, len(times) - 1)), list(range(1, len(times) + 1))

        def moved(point: int) -> float:
            """Error of its time without it, relative to its age. No end occurs more than twice, so ends differ here."""
            first, last = before[point], after[point]
            share = (ends[point] - ends[first]) / (ends[last] - ends[first])
            off_ms = times[first] + share * (times[last] - times[first]) - times[point]
            return abs(off_ms) / max(1, times[-1] - times[point])

        half = POINTS_MAX // 2
        moves = {point: moved(point) for point in range(1, half)}
        queue = [(move, point) for point, move in moves.items()]
        heapify(queue)
        while len(moves) > half - 1 - POINTS_MAX // 4:
            move, point = heappop(queue)
            if moves.get(point) != move:
                continue  # it was dropped, or judged anew
            del moves[point]
            first, last = before[point], after[point]
            after[first], before[last] = last, first
            for beside in moves.keys() & {first, last}:
                moves[beside] = moved(beside)
                heappush(queue, (moves[beside], beside))
        kept = [0, *moves, *range(half, len(times))]
        self._times = array("q", [times[point] for point in kept])
        self._ends = array("q", [ends[point] for point in kept])

    def reached_ms(self, offset: int) -> tuple[int, bool]:
        """When the record at ``offset`` was appended, and True; (the first moment known, False) if before that.

        The time is interpolated, by offsets, between the last point before the record and the next. ``offset`` must be
        before the last end.
        """
        after = bisect_right(self._ends, offset)
        assert after < len(self._ends), f"offset {offset} is not before the log end {self._ends[-1]}"
        if after == 0:
            return self._times[0], False
        from_ms, from_end = self._times[after - 1], self._ends[after - 1]
        share = (offset - from_end) / (self._ends[after] - from_end)
        return round(from_ms + share * (self._times[after] - from_ms)), True


def time_lag(ends: LogEnds, committed: int, log_end: int, now_ms: int) -> tuple[int, bool]:
    """Milliseconds since the record at ``committed`` was appended (0 at the log end), and whether that is exact."""
    if committed >= log_end:
        return 0, True
    since_ms, exact = ends.reached_ms(committed)
    return max(0, now_ms - since_ms), exact


def rates(samples: Sequence[Sample]) -> tuple[float, float]:
    """Records per second consumed and produced from the first to the last sample; steps back count as 0."""
    if len(samples) < 2 or samples[-1].time_ms <= samples[0].time_ms:
        return 0.0, 0.0
    seconds = (samples[-1].time_ms - samples[0].time_ms) / 1000
    return (
        _gained([sample.committed for sample in samples]) / seconds,
        _gained([sample.log_end for sample in samples]) / seconds,
    )


def _gained(offsets: Sequence[int | None]) -> int:
    known = [offset for offset in offsets if offset is not None]
    return sum(max(0, after - before) for before, after in pairwise(known))


def catch_up_s(lag: int | None, consumed_per_s: float, produced_per_s: float) -> float | None:
    """Seconds until lag 0 at these rates; None: never, or unknown."""
    if lag is None:
        return None
    if lag == 0:
        return 0.0
    gain = consumed_per_s - produced_per_s
    return lag / gain if gain > 0 else None


def status(samples: Sequence[Sample], stuck_ms: int, rules: Rules) -> Status:
    """Burrow's rules, in its order, on what polls can see; ``samples`` cover the window, oldest first, not empty.

    ``stuck_ms``: how long lag has been seen without progress. Polls that lack an offset are ignored.

    Burrow tells a consumer that is alive but makes no progress (STALL) from one that is gone (STOP) by repeated commits
    of one offset. A poll cannot see those, so the group decides: does a live member own the partition? A rewind is
    reported until the group has caught up or the window has passed. See Burrow's wiki, "Consumer Lag Evaluation Rules".
    """
    now = samples[-1]
    if now.lag is None:
        return Status.UNKNOWN
    if now.lag == 0:
        return Status.OK
    if stuck_ms >= rules.stuck_ms:
        return Status.STALL if now.owned else Status.STOP
    known = [sample for sample in samples if sample.lag is not None]
    behind = _since_lag_0(known)
    commits = [after for before, after in pairwise(behind) if before.committed != after.committed]
    if any((after.committed or 0) < (before.committed or 0) for before, after in pairwise(behind)):
        return Status.REWIND
    lags = [sample.lag or 0 for sample in commits]
    never_shrinks = all(later >= earlier for earlier, later in pairwise(lags))
    if len(behind) == len(known) and len(commits) >= COMMITS_MIN and never_shrinks:
        return Status.WARN
    return Status.OK


def _since_lag_0(samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples after the last without lag; that one, too, if a rewind follows it, so that it is seen."""
    for place in range(len(samples) - 1, 0, -1):
        before, after = samples[place - 1], samples[place]
        if before.lag == 0:
            went_back = (after.committed or 0) < (before.committed or 0)
            return samples[place - 1 :] if went_back else samples[place:]
    return samples


class Track:
    """A group's partition over time: the samples of the window, and since when it is stuck."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._moved_ms = 0
        self._behind = False
        self._committed: int | None = None

    def add(self, sample: Sample) -> None:
        """Add a newer sample; drop those before the window, except the one at its edge."""
        samples = self._samples
        came = bool(sample.lag) and not self._behind  # lag began since the last poll, however long ago that was
        if came or sample.committed not in (None, self._committed):
            self._moved_ms = sample.time_ms
        if sample.lag is not None:
            self._behind = sample.lag > 0
        if sample.committed is not None:  # a poll without it has seen no progress
            self._committed = sample.committed
        if len(samples) > 1 and self._too_many(samples[-2], samples[-1]):
            samples.pop()  # so that samples reach back to the window's edge, however many polls it has
        samples.append(sample)
        while len(samples) > 2 and samples[1].time_ms <= sample.time_ms - self._rules.window_ms:
            samples.popleft()

    def _too_many(self, earlier: Sample, later: Sample) -> bool:
        """Whether ``later`` may be dropped. It stays if it has caught up: a group may do so only now and then."""
        apart_ms = later.time_ms - earlier.time_ms
        return apart_ms < self._rules.window_ms / (SAMPLES_MAX // 2) and not (later.lag == 0 and earlier.lag)

    def lag(self, topic: str, partition: int, ends: LogEnds, owner: str | None = None) -> PartitionLag:
        """The lag now. ``ends``: the partition's, up to the last sample's."""
        samples = list(self._samples)
        now = samples[-1]
        consumed, produced = rates(samples)
        since_ms, exact = 0, True
        if now.committed is not None and now.log_end is not None:
            since_ms, exact = time_lag(ends, now.committed, now.log_end, now.time_ms)
        stuck_ms = now.time_ms - self._moved_ms if now.lag else 0
        return PartitionLag(
            topic=topic,
            partition=partition,
            status=status(samples, stuck_ms, self._rules),
            committed=now.committed,
            log_end=now.log_end,
            lag=now.lag,
            time_lag_s=None if now.lag is None else since_ms / 1000,
            time_lag_at_least=not exact,
            consumed_per_s=round(consumed, 3),
            produced_per_s=round(produced, 3),
            catch_up_s=catch_up_s(now.lag, consumed, produced),
            stuck_s=stuck_ms / 1000,
            owner=owner,
        )
