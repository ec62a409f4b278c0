"""A lane's changelog as the referee reads it: people's newest rows, and the people who leave. No I/O."""

from collections.abc import Sequence
from typing import NamedTuple

from streams.decode import Record
from streams.privacy.consent import ERASED_KEY, Watermarks, watermark_key
from streams.wire import LANE_KEY, RESERVED

HELD_MAX = 20_000
"""Rows of a slice held until it ends, 1.5 kB each: twice as many as a slice has records by default. Beyond that, rows
are handed on at once, and before and after an exposure are not told apart in such a slice."""


class Slice(NamedTuple):
    """What to take of one slice, in this order: people to be ``forgotten``, people's newest ``rows``, ``idle`` people.

    Nothing seen of a forgotten person is kept. The counters of an idle person's next row begin anew.
    """

    forgotten: list[bytes]
    rows: dict[bytes, bytes]
    idle: list[bytes]


class Changelog:
    """Cuts the changelog into slices. ``erased``: watermarks of all lanes, which it raises.

    A slice is handed on once its end has been read, wherever fetches end. Otherwise it would depend on chance whether a
    row is from before or after an exposure, and who begins anew.

    A person who refuses or is erased has a tombstone (or, within the same slice, a row that begins anew) and after it a
    watermark. A person who has been idle has only a tombstone, and what was seen of them stays: their next row begins
    anew. After compaction, which gaps between offsets show, slices cannot be told apart: rows are handed on as they are
    read, and people with both a tombstone there and a watermark leave.
    """

    def __init__(self, erased: Watermarks) -> None:
        self._erased = erased
        self.whole: int | None = None
        """Offset where the last whole slice ends, or reading began: a restart from there misses nothing of the next."""
        self._next = 0
        self._begin()

    def _begin(self) -> None:
        """Begin a slice, of which nothing has been read."""
        self._held: dict[bytes, bytes] = {}
        """Rows that have not been handed on yet."""
        self._rows: set[bytes] = set()
        self._tombstones: set[bytes] = set()
        self._raised: set[bytes] = set()
        """Keys of watermarks."""
        self._torn = False

    def take(self, records: Sequence[Record]) -> list[Slice]:
        """The slices that end in ``records``, and those rows of the next that are not to be held.

        Raises `ValueError` where a watermark is of a layout that this version does not read.
        """
        if self.whole is None and records:
            self.whole = records[0].offset  # until the first slice ends: only what follows a tombstone tells who leaves
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
        """Mark the slice as torn at a gap: rows before it may be of any slice, and as many as there are people."""
        if offset != self._next and (self._rows or self._tombstones):
            self._torn = True
            self._rows.clear()
        self._next = offset + 1

    def _close(self) -> Slice:
        """End the slice. People forgotten in it lose the rows from before their tombstone."""
        if self._torn:
            left = [user for user in self._tombstones if self._erased.of(user) >= 0]
        elif self._raised:
            left = [user for user in self._rows | self._tombstones if watermark_key(user) in self._raised]
        else:
            left = []
        for user in self._tombstones.intersection(left):
            self._held.pop(user, None)  # whatever time the request has
        # In a torn slice, a row from after the tombstone may have been handed on, and is read again after a restart.
        whole = Slice(left, self._held, [] if self._torn else [*self._tombstones.difference(left)])
        self._begin()
        return whole
