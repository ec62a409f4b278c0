"""Impressions that wait for their outcome: a bounded queue in the order in which their windows end.

An impression comes in with the layer's clock, which never goes back, so arrival order is the order of windows' ends. A
click finds its impression by the hash of (user, ad, second shown), as in the ring.
"""

from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.arrays import Ids, Ints
from scoring.clicks import NUMBERS
from scoring.ids import mix64

Row = tuple[float, ...]

PENDING = np.dtype(
    [
        ("key", "<u8"),  # of (user, ad, second shown)
        ("ad", "<u8"),
        ("event", "<u8"),  # the id of the impression
        ("person", "<u8"),
        ("shown_ms", "<i8"),
        ("due_ms", "<i8"),  # the end of the window, by the layer's clock
        *((name, "<f8") for name in NUMBERS),
        ("examined", "<f8"),  # how likely the slot is looked at, relative to the first, as known when it was shown
        ("predicted", "<f8"),  # the chance of a click there, predicted when it was shown; NaN in `LOST`
        ("expected", "<f8"),  # the same without lifts
        ("surface", "u1"),
        ("control", "u1"),  # shown by the control arm
        ("open", "u1"),  # 0 where a click has answered
        ("slot", "u1"),  # where it was shown, or `NOWHERE`
        ("model", "<u4"),  # the attention model that scored it, by number
        ("shadow", "<u4"),  # the shadow that scored it, too, by number, or 0
        ("shadow_logit", "<f4"),
        ("shadow_predicted", "<f4"),  # the shadow's chance of a click; NaN where unknown
        ("closeness", "<f4"),  # of the ad to the person's interest; NaN where there was none
    ]
)
"""152 bytes."""
_CODES = {"<u8": "Q", "<i8": "q", "<f8": "d", "<u4": "I", "<f4": "f", "|u1": "B"}
_RECORD = Struct("<" + "".join(_CODES[PENDING[name].str] for name in PENDING.names or ()))
"""A record's bytes from a `Row` and back: numpy takes more than twice as long for each."""
LOST = np.zeros((), dtype=PENDING)
"""A record whose content is lost: not open, so that nothing is learned from it or reported, and not judged."""
LOST["predicted"] = np.nan
_PLACE = {name: place for place, name in enumerate(PENDING.names or ())}
KEY, AD, EVENT, PERSON = (_PLACE[name] for name in ("key", "ad", "event", "person"))
SHOWN, DUE = (_PLACE[name] for name in ("shown_ms", "due_ms"))
FIRST, LAST = _PLACE[NUMBERS[0]], _PLACE[NUMBERS[-1]] + 1
EXAMINED, PREDICTED, EXPECTED = (_PLACE[name] for name in ("examined", "predicted", "expected"))
SURFACE, CONTROL, OPEN, SLOT, MODEL = (_PLACE[name] for name in ("surface", "control", "open", "slot", "model"))
SHADOW, SHADOW_LOGIT, SHADOW_PREDICTED = (_PLACE[name] for name in ("shadow", "shadow_logit", "shadow_predicted"))
CLOSENESS = _PLACE["closeness"]
"""Places in a `Row`, which is a record as a tuple."""
NEVER_MS = np.iinfo(np.int64).max


def keys_of(users: Ids, ads: Ids, shown_ms: Ints) -> Ids:
    """What a click and its impression have in common, ``[E]``: a hash of user, ad and the second of the impression."""
    second = (shown_ms // 1000).astype(np.uint64)
    return mix64(mix64(users) ^ ads) ^ mix64(second)


class Pending:
    """The queue. A record keeps its number for ever: ``head`` is the oldest's, ``tail`` that of the next to come.

    Each is asked for (`ask`) once, in order, unless it is popped before; ``asked`` is the next one's number.
    """

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self.head = self.asked = self.tail = 0
        self.due_ms = self.asked_due_ms = NEVER_MS
        """When the window of the oldest ends, and that of the next to be asked for; `NEVER_MS` where there is none."""
        self._keep(np.zeros(min(1024, size_max), dtype=PENDING))
        self._at: dict[int, int] = {}

    def __len__(self) -> int:
        return self.tail - self.head

    @property
    def full(self) -> bool:
        """Whether it holds as many as it may."""
        return len(self) >= self.size_max

    def holds(self, key: int) -> bool:
        """Whether an open record has this key."""
        return key in self._at

    def push(self, row: Row) -> int:
        """Add a record, whose key no open one has, to a queue that is not full; returns its number."""
        if len(self) == len(self._rows):
            self._grow()
        if self.head == self.tail:
            self.due_ms = int(row[DUE])
        if self.asked == self.tail:
            self.asked_due_ms = int(row[DUE])
        _RECORD.pack_into(self._bytes, self.tail % len(self._rows) * _RECORD.size, *row)
        number = self._at[int(row[KEY])] = self.tail
        self.tail += 1
        return number

    def _grow(self) -> None:
        held = self.between(self.head, self.tail)
        self._keep(np.zeros(min(2 * len(held), self.size_max), dtype=PENDING))
        self._rows[np.arange(self.head, self.tail) % len(self._rows)] = held

    def _keep(self, rows: npt.NDArray[Any]) -> None:
        """Hold records in ``rows`` of `PENDING`, the record of number n at n modulo ``len(rows)``."""
        self._rows, self._bytes = rows, rows.view(np.uint8).data

    def _row(self, number: int) -> Row:
        return _RECORD.unpack_from(self._bytes, number % len(self._rows) * _RECORD.size)

    def pop(self) -> Row:
        """Take the oldest out of a queue that is not empty."""
        row = self._row(self.head)
        if row[OPEN]:
            del self._at[int(row[KEY])]
        self.head += 1
        if self.asked < self.head:
            self.asked = self.head
            self.asked_due_ms = self._due_of(self.asked)
        self.due_ms = self._due_of(self.head)
        return row

    def ask(self) -> tuple[int, Row]:
        """The next record not yet asked for, which must exist: its number and its row."""
        number = self.asked
        self.asked += 1
        self.asked_due_ms = self._due_of(self.asked)
        return number, self._row(number)

    def _due_of(self, number: int) -> int:
        return NEVER_MS if number == self.tail else int(self._rows["due_ms"][number % len(self._rows)])

    def answer(self, key: int) -> tuple[int, Row] | None:
        """Close the record that a click answers; returns its number and former row, or None where none is open."""
        number = self._at.pop(key, None)
        if number is None:
            return None
        row = self._row(number)
        self._rows["open"][number % len(self._rows)] = 0
        return number, row

    def between(self, start: int, end: int) -> npt.NDArray[Any]:
        """The records numbered from ``start`` to before ``end``, a copy."""
        rows: npt.NDArray[Any] = self._rows[np.arange(start, end) % len(self._rows)]
        return rows

    def restore(self, head: int, rows: npt.NDArray[Any], asked: int) -> None:
        """Hold ``rows``, numbered from ``head``, instead; those before ``asked`` have been asked for."""
        self.head, self.tail = head, head + len(rows)
        self._keep(np.zeros(max(len(rows), min(1024, self.size_max)), dtype=PENDING))
        self._rows[np.arange(self.head, self.tail) % len(self._rows)] = rows
        self.asked = min(max(asked, head), self.tail)
        self.due_ms, self.asked_due_ms = self._due_of(self.head), self._due_of(self.asked)
        still = np.flatnonzero(rows["open"])
        self._at = dict(zip(rows["key"][still].tolist(), (head + still).tolist(), strict=True))
