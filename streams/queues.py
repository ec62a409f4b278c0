"""What a lane has fetched and not yet taken: two bounded queues, and whether a slice can be cut from them."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from scoring.events import Source
from scoring.order import Taken, take
from streams.decode import Record
from streams.step import Slice


@dataclass(slots=True)
class SourceQueue:
    """Records of one topic, in offset order, with their bytes."""

    records: deque[Record] = field(default_factory=deque)
    bytes: int = 0
    caught_up: bool = False
    """Whether the broker had nothing more when it was last asked; false while that is unknown."""
    position: int = 0
    """The next offset that the consumer fetches, as it was last seen."""
    empty_since_ms: int = 0
    """When the queue was last seen to become empty, on the monotonic clock."""


class LaneQueues:
    """Both queues of a lane. Times called ``now_ms`` are the wall clock's, ``tick_ms`` the monotonic clock's."""

    def __init__(self, records_max: int, bytes_max: int, wait_ms: int) -> None:
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._wait_ms = wait_ms
        self.sources = (SourceQueue(), SourceQueue())

    def put(self, source: Source, records: Sequence[Record]) -> None:
        """Append fetched records."""
        queue = self.sources[source]
        queue.records.extend(records)
        queue.bytes += sum(_size(record) for record in records)

    def has_room(self, source: Source) -> bool:
        """Whether more may be fetched; one fetch may overshoot the bound by itself."""
        queue = self.sources[source]
        return len(queue.records) < self._records_max and queue.bytes < self._bytes_max

    def clear(self) -> None:
        """Drop everything: the lane is about to seek."""
        self.sources = (SourceQueue(), SourceQueue())

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

        While the other topic is known to be behind, or nothing is known of it, without limit; once it is caught
        up, ``wait_ms`` from when its queue became empty.
        """
        if not len(self):
            return None
        heads = [list(islice(queue.records, records_max)) for queue in self.sources]
        times = [np.array([record.timestamp for record in head], dtype=np.int64) for head in heads]
        taken = take((times[0], times[1]), watermarks_ms, self._complete(tick_ms), limit_ms, records_max)
        return self._pop(taken, tick_ms) if len(taken.order) else None

    def _pop(self, taken: Taken, tick_ms: int) -> Slice:
        records = []
        for source in taken.order.tolist():
            queue = self.sources[source]
            record = queue.records.popleft()
            queue.bytes -= _size(record)
            records.append(record)
            if not queue.records:
                queue.empty_since_ms = tick_ms
        return Slice(records, taken.order, taken.watermarks_ms)


def _size(record: Record) -> int:
    return len(record.key or b"") + len(record.value or b"")
