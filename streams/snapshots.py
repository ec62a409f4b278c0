"""Local snapshots of lanes: so that a restart reads only what the changelog has gained since.

A snapshot is of committed slices only, written to a temporary file and renamed. It is refused, and the changelog
read from its beginning, when it is of another topic or layout, beyond the log's end, before its beginning, or
older than half of the changelog's ``delete.retention.ms``: tombstones compacted away since would otherwise
bring erased users back.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import structlog

from scoring.rows import LAYOUT_VERSION, Rows, RowStore
from streams.clock import wall_ms
from streams.recovery import Recovered
from streams.settings import Settings
from streams.step import LaneState
from streams.topics import TOMBSTONES_KEPT_MS

log = structlog.get_logger()

_MAGIC = b"salience-2"
"""And the format's number: another one is no snapshot, and the changelog is read instead."""
_ROWS_PER_WRITE = 8_192
"""Rows copied at once where the store has free ones between: 12 MB."""
_HEADER_BYTES = struct.Struct("<I")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is of. It is followed by the 2-byte lengths of the keys, the keys, and the rows.

    ``parts``: what else the lane keeps in its changelog (`streams.recovery.Recovered`).
    """

    layout: int
    changelog_id: str
    changelog_offset: int
    written_ms: int
    users: int
    keys_bytes: int
    parts: dict[bytes, bytes]


class Snapshots:
    """Snapshots of this worker's lanes, one file each, under ``home/snapshots``."""

    def __init__(self, settings: Settings, changelog_id: str) -> None:
        self._directory = settings.home / "snapshots" / f"{settings.topic_prefix}{settings.group}"
        self._rows_max = settings.rows_per_lane_max
        self._changelog_id = changelog_id

    def path(self, lane: int) -> Path:
        """The lane's file."""
        return self._directory / f"lane-{lane}.snapshot"

    def save(self, state: LaneState, changelog_offset: int) -> None:
        """Write the lane's rows as of ``changelog_offset``. Blocks; about 1 GB/s."""
        store = state.store
        users = [user for user in store.users if user is not None]
        keys = np.fromiter(map(len, users), dtype="<u2", count=len(users)).tobytes() + b"".join(users)
        header = msgspec.msgpack.encode(
            Header(
                layout=LAYOUT_VERSION,
                changelog_id=self._changelog_id,
                changelog_offset=changelog_offset,
                written_ms=wall_ms(),
                users=len(users),
                keys_bytes=len(keys),
                parts=state.clicks.parts() | state.erased.parts() | state.ledger.parts(),
            )
        )
        path = self.path(state.lane)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        with temporary.open("wb") as file:
            file.write(_MAGIC + _HEADER_BYTES.pack(len(header)) + header + keys)
            for rows in _held(store):
                np.ascontiguousarray(rows).tofile(file)
            file.flush()
        temporary.replace(path)

    def load(self, lane: int, begin: int, end: int) -> Recovered:
        """The lane's snapshot, or an empty start where there is none to be believed.

        ``begin``, ``end``: the changelog's first offset and its end.
        """
        path = self.path(lane)
        empty = Recovered(RowStore(self._rows_max), None, 0)
        if not path.exists():
            return empty
        try:
            header, store = self._read(path)
        except (OSError, ValueError, msgspec.MsgspecError, struct.error) as error:
            log.warning("snapshot unreadable, read the changelog instead", lane=lane, error=str(error))
            return empty
        if reason := self._refusal(header, begin, end):
            log.info("snapshot refused and deleted, read the changelog instead", lane=lane, reason=reason)
            path.unlink()  # it may hold people who have been erased since
            return empty
        return Recovered(store, None, header.changelog_offset, parts=header.parts)

    def _refusal(self, header: Header, begin: int, end: int) -> str:
        age_ms = wall_ms() - header.written_ms
        if header.layout != LAYOUT_VERSION:
            return f"layout {header.layout}, this version has {LAYOUT_VERSION}"
        if header.changelog_id != self._changelog_id:
            return "of another changelog topic"
        if not begin <= header.changelog_offset <= end:
            return f"offset {header.changelog_offset} is outside the changelog's {begin} to {end}"
        if not 0 <= age_ms <= TOMBSTONES_KEPT_MS // 2:
            return f"{age_ms} ms old, at most {TOMBSTONES_KEPT_MS // 2}"
        return ""

    def _read(self, path: Path) -> tuple[Header, RowStore]:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("not a snapshot")
            (size,) = _HEADER_BYTES.unpack(file.read(_HEADER_BYTES.size))
            header = msgspec.msgpack.decode(file.read(size), type=Header)
            if header.layout != LAYOUT_VERSION:
                return header, RowStore(self._rows_max)
            store = RowStore.of(_keys(file.read(header.keys_bytes), header.users), self._rows_max)
            if file.readinto(store.rows.view(np.uint8).data) != store.rows.nbytes or file.read(1):
                raise ValueError("cut short, or too long")
        return header, store


def _held(store: RowStore) -> Iterator[Rows]:
    """The rows of all users, in their order."""
    if len(store) == len(store.users):
        yield store.rows[: len(store)]
        return
    held = np.flatnonzero(np.fromiter((user is not None for user in store.users), dtype=np.bool_))
    for start in range(0, len(held), _ROWS_PER_WRITE):
        yield store.rows[held[start : start + _ROWS_PER_WRITE]]


def _keys(data: bytes, count: int) -> list[bytes]:
    ends = 2 * count + np.cumsum(np.frombuffer(data, dtype="<u2", count=count), dtype=np.int64)
    starts = np.concatenate([[2 * count], ends])
    return [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=False)]
