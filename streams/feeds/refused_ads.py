"""Ads that the catalogue refused, until the owner of lane 0 has made letters of them.

Every worker reads every ad, and one letter is wanted: lane 0 has one owner, whose lane row tells how far letters were
made, in the transaction that holds them. A worker that comes to own the lane reads the same ads, and goes on there,
be it only once it has read as far.
"""

from collections import deque

from streams.decode import Record, Refusal
from streams.message import size_of

LANE = 0
"""The lane whose owner makes the letters."""
HELD_MAX, HELD_BYTES_MAX = 10_000, 16 * 2**20
"""Refused ads held: the oldest are dropped, for which letters were made where this worker does not own the lane."""
PER_SLICE = 200

Refused = tuple[Record, str, str, str]
"""As a dead record: the record, stage, error class and message."""


class RefusedAds:
    """The newest of them, by offset. Written and read on the compute thread; `beyond` may be asked from any."""

    def __init__(self) -> None:
        self._held: deque[Refused] = deque()
        self._bytes = 0

    def refuse(self, record: Record, reason: Refusal) -> None:
        """An ad was read and refused, after those before it on the topic."""
        if record.partition != 0:  # the topic has one partition
            return
        self._held.append((record, "catalogue", *reason))
        self._bytes += _size(record)
        while len(self._held) > HELD_MAX or (self._bytes > HELD_BYTES_MAX and len(self._held) > 1):
            dropped, *_ = self._held.popleft()
            self._bytes -= _size(dropped)

    def beyond(self, offset: int) -> bool:
        """Whether letters are to be made from ``offset`` on."""
        held = self._held
        return bool(held) and held[-1][0].offset >= offset

    def take(self, offset: int) -> tuple[list[Refused], int]:
        """The next `PER_SLICE` refused from ``offset`` on, and the offset after them."""
        found = [refused for refused in self._held if refused[0].offset >= offset][:PER_SLICE]
        return found, found[-1][0].offset + 1 if found else offset


def _size(record: Record) -> int:
    return size_of(record.key, record.value, record.headers)
