"""Ads that the catalogue refused, held until the owner of lane 0 has made dead letters of them.

Every worker reads every ad, but each refused ad is to have one letter. So only the owner of lane 0 makes them. Its lane
row has the offset up to which it has, in the same transaction as the letters. A new owner reads the same ads and goes
on from that offset, as soon as it has read so far.
"""

from collections import deque

from streams.decode import Record
from streams.message import size_of
from streams.refusal import Refusal

LANE = 0
"""The lane whose owner makes the letters."""
HELD_MAX, HELD_BYTES_MAX = 10_000, 16 * 2**20
"""Bounds of what is held; beyond, the oldest are dropped. Where another worker owns lane 0, they have letters then."""
PER_SLICE = 200

Refused = tuple[Record, str, str, str]
"""What a dead letter is made of: the record, stage, error class and message."""


class RefusedAds:
    """The newest refused ads, by offset. For the compute thread alone, but for `beyond`: any thread may call that."""

    def __init__(self) -> None:
        self._held: deque[Refused] = deque()
        self._bytes = 0

    def refuse(self, record: Record, reason: Refusal) -> None:
        """Hold a refused ad; calls come in the order of the topic."""
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
        """At most `PER_SLICE` refused ads from ``offset`` on, and the offset after the last of them."""
        found = [refused for refused in self._held if refused[0].offset >= offset][:PER_SLICE]
        return found, found[-1][0].offset + 1 if found else offset


def _size(record: Record) -> int:
    return size_of(record.key, record.value, record.headers)
