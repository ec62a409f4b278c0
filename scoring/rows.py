"""A lane's users: each is one fixed-size row of a structured array. The row's bytes are its changelog record.

The key is the only Python object per user; a batch is applied and scored with fancy indexing.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ids, Ints
from scoring.events import TIME_MS_MAX, Kind
from scoring.features import FEATURE_DIM

LAYOUT_VERSION = 5
RING_SIZE = 50
"""H: items remembered per user, the history that attention looks at."""
SEEN_SIZE = 12
"""Event ids remembered per user and source: a producer's retries come within a few events of the original."""
KIND_MASK = 0x07
"""In ``ring_kind``: the strongest `scoring.events.Kind` of all events of the entry's ad and second."""
ANSWER_SHIFT = 3
ANSWER_MASK = 0x38
"""In ``ring_kind``: the strongest kind among those events that name the impression they answer, 0 where none does."""
SHOWN_BIT = 0x80
"""In ``ring_kind``: the impression itself has arrived, not only an event that claims to answer it."""
PLACES = 15
"""Places in the app that a ring tells apart, by hash: as many as half a byte holds beside "not said"."""
USERS_MAX = 2_000_000
"""Default bound on a lane's users: 3.2 GB of rows and index."""
HORIZONS = 2
"""Interest vectors per user: the session's and the long one."""

INTEREST_MAX = 1e9
"""Bound on each element of an interest vector: what 250 million purchases at one moment would leave."""

ROW = np.dtype(
    [
        ("version", "<u2"),
        ("surface", "<u2"),  # where the user acted last
        ("seen_next", "u1", (2,)),  # per source: where in `seen` the next id goes
        ("unshown", "<u2"),  # events on `rate_minute`'s day that answer an impression which was not seen
        ("time_ms", "<i8"),  # newest event time
        ("interest_ms", "<i8"),  # reference time of the interest vectors
        ("viewed_ms", "<i8"),
        ("value_micros", "<i8"),
        ("answered_value_micros", "<i8"),  # the part that answers impressions, as in the other `answered_` fields
        ("offset", "<i8", (2,)),  # per source: last offset applied
        ("impressions", "<u4"),
        ("views", "<u4"),
        ("clicks", "<u4"),
        ("carts", "<u4"),
        ("purchases", "<u4"),
        ("long_views", "<u4"),
        ("answered_clicks", "<u4"),  # impressions that led to one, as in the next (`scoring.answers`)
        ("answered_purchases", "<u4"),
        ("interest", "<f4", (HORIZONS, FEATURE_DIM)),
        ("seen", "<u8", (2, SEEN_SIZE)),  # per source: ids of the latest events
        ("ring_ad", "<u8", (RING_SIZE,)),  # oldest first, filled from the end: [-1] is the newest
        ("ring_s", "<u4", (RING_SIZE,)),  # impression time or own time, seconds
        ("answered_viewed_cs", "<u4"),  # hundredths of a second, at most a minute's per view; 497 days in all
        ("showings", "<u4", (SEEN_SIZE,)),  # for each impression in `seen`: hash of (ad, time)
        ("rate_minute", "<u4"),  # the minute since the epoch that `minute_count` counts; `day_count` counts its day
        ("minute_count", "<u2", (2,)),  # per source: events of that minute, at most 65,535
        ("day_count", "<u2", (2,)),
        ("ring_kind", "u1", (RING_SIZE,)),  # `KIND_MASK`, `ANSWER_MASK` and `SHOWN_BIT`
        ("ring_place", "u1", (RING_SIZE // 2,)),  # `places_of`, two to a byte
    ]
)
ROW_BYTES = ROW.itemsize
"""1,539 bytes: 512 of interest, 675 of ring, 240 of event ids and showings."""

_LAYOUT_4 = np.dtype([field for field in ROW.descr if not field[0].startswith("answered")])
_LAYOUT_3 = np.dtype(_LAYOUT_4.descr[:-1])
_SINCE_2 = "showings", "rate_minute", "minute_count", "day_count"
_LAYOUT_1 = np.dtype(
    [("free" if name == "unshown" else name, *of) for name, *of in _LAYOUT_3.descr if name not in _SINCE_2]
)
_LAYOUTS = {
    _LAYOUT_1.itemsize: (_LAYOUT_1, (1,)),
    _LAYOUT_3.itemsize: (_LAYOUT_3, (2, 3)),
    _LAYOUT_4.itemsize: (_LAYOUT_4, (4,)),
    ROW_BYTES: (ROW, (LAYOUT_VERSION,)),
}
"""Each row size's layout and versions. Version 2 has the fields of 3, but its ``ring_kind`` marks no answers.

Version 4 has no ``answered_`` fields: events from before the migration count as unprompted.
"""

Rows = npt.NDArray[Any]
Kinds = npt.NDArray[np.uint8]


def answered(ring_kind: Kinds) -> Kinds:
    """The strongest `Kind` that answered each entry's impression, from ``ring_kind`` of any shape."""
    kind: Kinds = np.right_shift(ring_kind & ANSWER_MASK, ANSWER_SHIFT, dtype=np.uint8)
    return kind


def ring_key(seconds: npt.NDArray[np.uint32], ad: Ids) -> Ids:
    """What a ring is sorted by: seconds, then the id's high half. Empty places come first. Any shape."""
    return (seconds.astype(np.uint64) << np.uint64(32)) | (ad >> np.uint64(32))


def held(rows: Rows, row: npt.NDArray[np.integer], ad: Ids, seconds: npt.NDArray[np.uint32]) -> Bools:
    """Which place of its row's ring holds each of the entries ``row, ad, seconds [N]``, ``[N, RING_SIZE]``."""
    same: Bools = (rows["ring_ad"][row] == ad[:, None]) & (rows["ring_s"][row] == seconds[:, None])
    return same


def place_of(surface: npt.NDArray[np.uint16]) -> Kinds:
    """The place in the app as rings tell it, 1 to `PLACES`; 0 where it is not said. Any shape."""
    return np.where(surface > 0, 1 + surface % PLACES, 0).astype(np.uint8)


def places_of(ring_place: Kinds) -> Kinds:
    """The place of each ring item, as in `place_of`, ``[N, RING_SIZE]``, unpacked from ``ring_place``."""
    places = np.empty((len(ring_place), RING_SIZE), dtype=np.uint8)
    places[:, 0::2], places[:, 1::2] = ring_place >> 4, ring_place & 15
    return places


def packed(places: Kinds) -> Kinds:
    """``places [N, RING_SIZE]`` packed as ``ring_place``: the inverse of `places_of`."""
    both: Kinds = places[:, 0::2] * np.uint8(16) + places[:, 1::2]
    return both


class RowError(ValueError):
    """A changelog record that is not a row."""


def decode_rows(values: Iterable[bytes]) -> Rows:
    """Rows from changelog values, ``[N]`` of `ROW`; rows of former layouts are migrated.

    Raises `RowError` where a value's layout is unknown to this version, or a field is outside its range.
    """
    rows = _decode(list(values))
    kind = rows["ring_kind"] & KIND_MASK
    for name, sound in (
        ("time_ms", _is_time(rows["time_ms"])),
        ("interest_ms", _is_time(rows["interest_ms"])),
        ("seen_next", (rows["seen_next"] < SEEN_SIZE).all()),
        ("interest", (np.abs(rows["interest"]) <= INTEREST_MAX).all()),  # false for NaN, too
        ("ring_kind", ((answered(rows["ring_kind"]) <= kind) & (kind <= max(Kind))).all()),
    ):
        if not sound:
            raise RowError(f"a state row's {name} is outside what it can be: the changelog was written by another hand")
    return rows


def _is_time(ms: Ints) -> bool:
    """Whether all are valid times; the difference of two others may overflow."""
    return bool(((ms >= 0) & (ms <= TIME_MS_MAX)).all())


def _decode(values: list[bytes]) -> Rows:
    if all(len(value) == ROW_BYTES for value in values):
        return _migrated(_of_size(values, ROW_BYTES))
    out = np.zeros(len(values), dtype=ROW)
    sizes = np.array([len(value) for value in values])
    for size in np.unique(sizes).tolist():
        at = np.flatnonzero(sizes == size)
        if size not in _LAYOUTS:
            known = ", ".join(f"{number:,}" for number in _LAYOUTS)
            raise RowError(f"a state row has {size:,} bytes; the layouts that this version reads have {known}")
        out[at] = _migrated(_of_size([values[place] for place in at.tolist()], size))
    return out


def _of_size(values: list[bytes], size: int) -> Rows:
    layout, versions = _LAYOUTS[size]
    rows = np.frombuffer(b"".join(values), dtype=layout)
    if strange := sorted(set(np.unique(rows["version"]).tolist()) - set(versions)):
        expected = " or ".join(map(str, versions))
        raise RowError(f"state rows of {size:,} bytes have layouts {strange}; expected {expected}")
    return rows


def _migrated(rows: Rows) -> Rows:
    """Rows of any layout as `ROW`: fields that a former layout lacks are zero, or what its version assumed."""
    if rows.dtype == ROW:
        return rows
    out = np.zeros(len(rows), dtype=ROW)
    for name in rows.dtype.names or ():
        if name in (ROW.names or ()):
            out[name] = rows[name]
    out["version"] = LAYOUT_VERSION
    if rows.dtype == _LAYOUT_1:
        out["ring_kind"] |= np.where(out["ring_kind"] > 0, SHOWN_BIT, 0).astype(np.uint8)  # assumed: they were shown
    kind = out["ring_kind"] & KIND_MASK
    acted = (rows["version"] < 3)[:, None] & (kind > Kind.SHOWN)
    out["ring_kind"] |= np.where(acted, kind << ANSWER_SHIFT, 0).astype(np.uint8)  # assumed: all acts were answers
    return out


def row_bytes(rows: Rows) -> list[bytes]:
    """The bytes of each row, in one conversion."""
    values: list[bytes] = np.ascontiguousarray(rows).view(f"V{rows.itemsize}").tolist()
    return values


def _full(users: int) -> str:
    return f"the lane holds {users:,} users, its bound; raise SALIENCE_ROWS_PER_LANE_MAX or add partitions"


class RowStore:
    """User → row, and the rows. Grows by slabs; reuses the rows of users who left.

    ``rows`` may move in memory when the store grows: after `row_of` read it again, and keep no view of it.
    ``rows_max``: most users; recovery sets it at its end, when the store may already hold more.
    """

    def __init__(self, rows_max: int = USERS_MAX) -> None:
        self.rows_max = rows_max
        self.users: list[bytes | None] = []
        self._index: dict[bytes, int] = {}
        self._free: list[int] = []
        self._rows = np.zeros(0, dtype=ROW)

    @classmethod
    def of(cls, users: list[bytes], rows_max: int = USERS_MAX) -> Self:
        """A store of ``users``, in this order, whose ``rows [N]`` are zero, for the caller to fill.

        Raises `MemoryError` where they are too many, `ValueError` where one is named twice.
        """
        store = cls(rows_max)
        store._index = dict(zip(users, range(len(users)), strict=True))
        if len(users) > rows_max:
            raise MemoryError(_full(len(users)))
        if len(store._index) != len(users):
            raise ValueError(f"{len(users) - len(store._index):,} of {len(users):,} users are named twice")
        store.users.extend(users)
        store._rows = np.zeros(len(users), dtype=ROW)
        return store

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, user: bytes) -> bool:
        return user in self._index

    @property
    def rows(self) -> Rows:
        """All rows, free ones included, ``[capacity]`` of `ROW`."""
        return self._rows

    def find(self, user: bytes) -> int:
        """The user's row, or -1."""
        return self._index.get(user, -1)

    def find_all(self, users: Sequence[bytes | None]) -> Ints:
        """`find` of each user, ``[N]``; None is nobody."""
        index: dict[bytes | None, int] = self._index  # type: ignore[assignment]  # asked only, never written to
        return np.fromiter(map(index.get, users, repeat(-1)), dtype=np.int64, count=len(users))

    def row_of(self, user: bytes) -> int:
        """The user's row, made where there is none. Raises `MemoryError` when the lane is full."""
        if user not in self._index and not self.add([user]):
            raise MemoryError(self.full)
        return self._index[user]

    def add(self, users: Sequence[bytes]) -> int:
        """Make rows for ``users``, distinct and not yet in the store, in order; returns how many found room."""
        users = users[: max(self.rows_max - len(self), 0)]
        again, start = self._free[: -1 - len(users) : -1], len(self.users)
        end = start + len(users) - len(again)
        while len(self._rows) < end:  # first, so that running out of memory changes nothing
            self._grow()
        del self._free[len(self._free) - len(again) :]
        rows = [*again, *range(start, end)]
        for row, user in zip(again, users, strict=False):
            self.users[row] = user
        self.users.extend(users[len(again) :])
        self._index.update(zip(users, rows, strict=True))
        self._rows["version"][rows] = LAYOUT_VERSION
        self._rows["offset"][rows] = -1
        return len(rows)

    @property
    def full(self) -> str:
        """What to do when there is no more room."""
        return _full(len(self))

    def _grow(self) -> None:
        """Add one slab, a thirty-second of the capacity: at most 3 % of the rows stand empty."""
        capacity = len(self._rows) + max(256, len(self._rows) // 32)
        self._rows.resize(min(capacity, self.rows_max), refcheck=False)  # realloc: no second copy, new rows zero

    def put(self, users: list[bytes], rows: Rows) -> None:
        """Set whole rows, as recovery does; a user's last row counts. Raises `MemoryError` as `row_of`."""
        new = [user for user in dict.fromkeys(users) if user not in self._index]
        if self.add(new) < len(new):
            raise MemoryError(self.full)
        self._rows[self.find_all(users)] = rows

    def remove(self, user: bytes) -> bool:
        """Forget a user; true if there was one."""
        row = self._index.pop(user, -1)
        if row < 0:
            return False
        self.users[row] = None
        self._rows[row] = np.zeros((), dtype=ROW)
        self._free.append(row)
        return True

    def idle_users(self, before_ms: int) -> list[bytes]:
        """Users whose newest event is older than ``before_ms``."""
        held = np.flatnonzero(self._rows["time_ms"][: len(self.users)] < before_ms)
        return [user for row in held.tolist() if (user := self.users[row]) is not None]

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and, by CPython's sizes, of the index (dict entry, key object, list place)."""
        keys = sum(33 + len(user) for user in self._index)
        return self._rows.nbytes + self._index.__sizeof__() + keys + 8 * len(self.users)
