"""What a lane has fetched and not yet taken: two bounded queues, and whether a slice can be cut from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from scoring.events import Source
from scoring.order import Taken, take
from scoring.units import HOUR_MS
from streams.decode import Record
from streams.message import size_of
from streams.step import Slice

Numbers = npt.NDArray[np.int64]


def _none() -> Numbers:
    return np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class SourceQueue:
    """Records of one topic, in offset order; beside them their times and sizes, taken from each record once."""

    records: list[Record] = field(default_factory=list)
    times_ms: Numbers = field(default_factory=_none)
    sizes: Numbers = field(default_factory=_none)
    bytes: int = 0
    caught_up: bool = False
    """Whether the broker had nothing more when it was last asked; false while that is unknown."""
    position: int = 0
    """The next offset that the consumer fetches, as it was last seen."""
    empty_since_ms: int = 0
    """When the queue was last seen to become empty, on the monotonic clock."""

    def put(self, records: Sequence[Record]) -> None:
        """Append records."""
        times = np.fromiter((record.timestamp for record in records), dtype=np.int64, count=len(records))
        sizes = np.fromiter(map(_size, records), dtype=np.int64, count=len(records))
        self.records.extend(records)
        self.times_ms = np.concatenate([self.times_ms, times])
        self.sizes = np.concatenate([self.sizes, sizes])
        self.bytes += int(sizes.sum())

    def pop(self, count: int) -> list[Record]:
        """Take the first ``count`` records."""
        taken = self.records[:count]
        self.bytes -= int(self.sizes[:count].sum())
        del self.records[:count]
        self.times_ms, self.sizes = self.times_ms[count:], self.sizes[count:]
        return taken


class LaneQueues:
    """Both queues of a lane. Times called ``now_ms`` are the wall clock's, ``tick_ms`` the monotonic clock's."""

    def __init__(self, records_max: int, bytes_max: int, wait_ms: int) -> None:
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._wait_ms = wait_ms
        self.sources = (SourceQueue(), SourceQueue())

    def put(self, source: Source, records: Sequence[Record]) -> None:
        """Append fetched records."""
        self.sources[source].put(records)

    def has_room(self, source: Source) -> bool:
        """Whether more may be fetched; one fetch may overshoot the bound by itself."""
        queue = self.sources[source]
        return len(queue.records) < self._records_max and queue.bytes < self._bytes_max

    def clear(self) -> None:
        """Drop everything: the lane is about to seek."""
        self.sources = (SourceQueue(), SourceQueue())

    @property
    def passed(self) -> tuple[int, int]:
        """Offsets of each topic before which no record is queued or still to be fetched; 0 where some are queued."""
        first, second = (0 if queue.records else queue.position for queue in self.sources)
        return first, second

    def __len__(self) -> int:
        return len(self.sources[0].records) + len(self.sources[1].records)

    def _complete(self, tick_ms: int) -> tuple[bool, bool]:
        first, second = (
            not queue.records and queue.caught_up and tick_ms - queue.empty_since_ms >= self._wait_ms
            for queue in self.sources
        )
        return first, second

    def take(self, watermarks_ms: tuple[int, int], limit_ms: int, tick_ms: int, records_max: int) -> Slice | None:
        """Cut the next slice, or None where the other topic has to be waited for.

        The wait has no limit while the other topic is behind, or nothing is known of it; once it is caught up, the
        limit is ``wait_ms`` since its queue became empty. A slice lies within one hour, since what it charges and shows
        is counted in the day and hour of its end: else a whole backlog would be counted in its last hour.
        """
        if not len(self):
            return None
        first, second = (queue.times_ms[:records_max] for queue in self.sources)
        taken = take((first, second), watermarks_ms, self._complete(tick_ms), limit_ms, records_max, HOUR_MS)
        return self._pop(taken, tick_ms) if len(taken.order) else None

    def _pop(self, taken: Taken, tick_ms: int) -> Slice:
        parts = []
        for queue, count in zip(self.sources, taken.counts, strict=True):
            parts.append(iter(queue.pop(count)))
            if count and not queue.records:
                queue.empty_since_ms = tick_ms
        records = [next(parts[source]) for source in taken.order.tolist()]
        return Slice(records, taken.order, taken.watermarks_ms)


def _size(record: Record) -> int:
    return size_of(record.key, record.value, record.headers)
