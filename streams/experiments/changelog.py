"""A lane's changelog as the referee reads it: people's newest rows, and who leaves. No I/O."""

from collections.abc import Sequence
from typing import NamedTuple

from streams.decode import Record
from streams.privacy.consent import ERASED_KEY, Watermarks, watermark_key
from streams.wire import LANE_KEY, RESERVED

HELD_MAX = 20_000
"""Rows of a slice that are held until it ends, 1.5 kB each, twice as many as a slice has records where nothing is set:
beyond, they are handed on at once, and what is before and after an exposure in such a slice is not told apart."""


class Slice(NamedTuple):
    """What is to be taken of one, in this order: who is to be ``forgotten``, people's newest ``rows``, who is ``idle``.

    The next row of who was idle begins anew; of who is forgotten, nothing that was seen is kept.
    """

    forgotten: list[bytes]
    rows: dict[bytes, bytes]
    idle: list[bytes]


class Changelog:
    """What has been read of it, a slice at a time; ``erased``: watermarks of all lanes, which it raises.

    A slice is handed on once its end has been read, wherever fetches end: a part would make people's rows those of
    before or after an exposure, and who begins anew somebody else, by chance.

    Who refuses or is erased has a tombstone, or within the same slice a row that begins anew, and a watermark after
    it. Who has been idle has a tombstone alone, and stays in what was seen: their next row begins anew. Where
    compaction has been, which the gaps between offsets tell, slices are not told apart any more: rows are handed on as
    they are read, and whoever has a tombstone there and a watermark leaves.
    """

    def __init__(self, erased: Watermarks) -> None:
        self._erased = erased
        self.whole: int | None = None
        """Where the last whole slice ends, or reading began: who reads on from there misses nothing of the next."""
        self._next = 0
        self._begin()

    def _begin(self) -> None:
        """Nothing has been read of the slice yet."""
        self._held: dict[bytes, bytes] = {}
        """Rows that have not been handed on."""
        self._rows: set[bytes] = set()
        self._tombstones: set[bytes] = set()
        self._raised: set[bytes] = set()
        """Keys of watermarks."""
        self._torn = False

    def take(self, records: Sequence[Record]) -> list[Slice]:
        """The slices that end in ``records``, and what is not held of the next."""
        if self.whole is None and records:
            self.whole = records[0].offset  # until there is a lane's row: what follows a tombstone tells who leaves
        taken: list[Slice] = []
        for record in records:
            key, value = record.key or b"", record.value
            self._look_for_gap(record.offset)
            if key == LANE_KEY:
                self.whole = record.offset + 1
                taken.append(self._close())
            elif key.startswith(ERASED_KEY):
                self._erased.take(key, value)
                (self._raised.discard if value is None else self._raised.add)(key)
            elif key and not key.startswith(RESERVED):
                there, gone = (self._tombstones, self._rows) if value is None else (self._rows, self._tombstones)
                there.add(key)
                gone.discard(key)
                if value is not None:
                    self._held[key] = value
                if len(self._held) >= HELD_MAX:
                    taken.append(self._part())
        if self._torn and self._held:
            taken.append(self._part())
        return taken

    def _part(self) -> Slice:
        """What is held, before the slice has ended."""
        part, self._held = Slice([], self._held, []), {}
        return part

    def _look_for_gap(self, offset: int) -> None:
        """Rows before a gap may be of any slice, and as many as there are people."""
        if offset != self._next and (self._rows or self._tombstones):
            self._torn = True
            self._rows.clear()
        self._next = offset + 1

    def _close(self) -> Slice:
        """End the slice; who is forgotten in it has no row of before any more."""
        if self._torn:
            left = [user for user in self._tombstones if self._erased.of(user) >= 0]
        elif self._raised:
            left = [user for user in self._rows | self._tombstones if watermark_key(user) in self._raised]
        else:
            left = []
        for user in self._tombstones.intersection(left):
            self._held.pop(user, None)  # however late the request was dated
        # In a torn one a row may have been handed on that is of after the tombstone, and is read again after a restart.
        whole = Slice(left, self._held, [] if self._torn else [*self._tombstones.difference(left)])
        self._begin()
        return whole
