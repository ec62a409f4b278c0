"""Local snapshots of lanes: so that a restart reads only what the changelog has gained since.

A snapshot is written between slices, some rows at a time, so that no slice waits for all of them; only what stands
beside rows is written at once (`Snapshots.begin`). Its rows are therefore of different moments, none older than its
``changelog_offset``: whoever loads it reads the changelog from there, which has the whole row of everybody who changed
since (a fuzzy checkpoint: Gray and Reuter, Transaction Processing, 1993, section 11.4). It holds committed slices only,
and is renamed once it is whole. It is refused, and the changelog read from its beginning, when it is of another topic
or layout, beyond the log's end, before its beginning, or older than half of the changelog's ``delete.retention.ms``:
tombstones compacted away since would otherwise bring erased users back. That old, it is deleted unasked. Its age is
its state's: a worker that was paused for days knows of nobody who was erased meanwhile, whenever it writes.
"""

import errno
import io
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import structlog

from scoring.rows import LAYOUT_VERSION, ROW, ROW_BYTES, RowStore
from streams.clock import wall_ms
from streams.lanes.clicks import person_key, spread
from streams.lanes.recovery import Recovered
from streams.own_files import own_file, own_folder
from streams.privacy.guests import guest_key
from streams.settings import Settings
from streams.step import LaneState
from streams.topics import TOMBSTONES_KEPT_MS
from streams.wire import UNREADABLE

log = structlog.get_logger()

AGE_MAX_MS = TOMBSTONES_KEPT_MS // 2
"""Of a snapshot that is believed."""
_AHEAD_MAX_MS = 60_000
"""How far the clock of who has written a snapshot may be ahead of ours."""
_MAGIC = b"salience-4"
"""And the format's number: another one is no snapshot, and the changelog is read instead."""
_ROWS_PER_WRITE = 1_024
"""1.5 MB, which a slice waits for: 1.2 ms, at the 99th percentile 2.7. What stands beside rows takes longer."""
_PART = ".part"
"""Suffix of one that is being written."""
_SIZE = struct.Struct("<I")
_OFFSET = struct.Struct("<Q")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is of.

    Chunks follow it: how many users (4 bytes), the 2-byte lengths of their keys, the keys, and the rows. After the last
    come a chunk of none and the changelog offset that no row is newer than (8 bytes).
    ``as_of_ms``: of the state, from which its age counts, whenever it was written.
    ``parts``: what else the lane keeps in its changelog (`streams.lanes.recovery.Recovered`).
    """

    layout: int
    changelog_id: str
    changelog_offset: int
    as_of_ms: int = msgspec.field(name="written_ms")
    parts: dict[bytes, bytes]


_decode_header = msgspec.msgpack.Decoder(Header).decode


class Writing:
    """A snapshot under way; `advance` it until it is whole, or `abandon` it. One that fails abandons itself.

    Its own file, open all the while, whatever stands under its name: where somebody has put another there, as a worker
    that the lane has moved to, that one is theirs, and this one is given up.
    """

    def __init__(self, path: Path, header: Header, places: int) -> None:
        """``places``: rows of the store. Whoever comes later has a row in the changelog, beyond the header's offset."""
        self._path, self._part = path, path.with_suffix(_PART)
        self._next, self._end = 0, places
        self._as_of_ns = header.as_of_ms * 1_000_000
        own_folder(path.parent)
        encoded = msgspec.msgpack.encode(header)
        self._file = own_file(self._part)
        self._made = os.fstat(self._file.fileno())
        with self._or_abandoned():
            self._file.write(_MAGIC + _SIZE.pack(len(encoded)) + encoded)
            self._flush()

    def advance(self, store: RowStore, changelog_offset: int) -> bool:
        """Write the next rows, as they are now at ``changelog_offset``; whether that was all. Blocks for 1 or 2 ms.

        Raises `OSError`, as at its end where what was written is not under its name any more.
        """
        first, self._next = self._next, min(self._next + _ROWS_PER_WRITE, self._end)
        held = {at: user for at, user in enumerate(store.users[first : self._next], first) if user is not None}
        whole = self._next == self._end
        with self._or_abandoned():
            if held:
                lengths = np.fromiter(map(len, held.values()), dtype="<u2", count=len(held))
                self._file.write(_SIZE.pack(len(held)) + lengths.tobytes() + b"".join(held.values()))
                self._file.write(store.rows[list(held)].tobytes())
            if whole:
                self._file.write(_SIZE.pack(0) + _OFFSET.pack(changelog_offset))
            self._flush()
            if whole:
                self._publish()
        return whole

    def abandon(self) -> None:
        """Delete what was written, where that is possible and it is there; the snapshot before stays."""
        with suppress(OSError):
            self._require_ours()
            self._part.unlink()
        with suppress(OSError):
            self._file.close()

    def _flush(self) -> None:
        """What is buffered is in the file, and that is dated as its header: not by a file server's clock."""
        self._file.flush()
        os.utime(self._file.fileno(), ns=(self._as_of_ns, self._as_of_ns))

    def _publish(self) -> None:
        self._file.close()  # first: a file server may take its time, and tell only now that it has no room
        self._require_ours()
        self._part.replace(self._path)

    def _require_ours(self) -> None:
        """Raise `FileNotFoundError` where the name does not lead to what was written."""
        if not os.path.samestat(self._made, self._part.lstat()):
            raise FileNotFoundError(errno.ENOENT, "replaced by another while it was written", str(self._part))

    @contextmanager
    def _or_abandoned(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abandon()
            raise


class Snapshots:
    """Snapshots of this worker's lanes, one file each, under ``home/snapshots``."""

    def __init__(self, settings: Settings, changelog_id: str) -> None:
        self._directory = settings.home / "snapshots" / f"{settings.topic_prefix}{settings.group}"
        self._rows_max = settings.rows_per_lane_max
        self._changelog_id = changelog_id
        self._warned = False

    def path(self, lane: int) -> Path:
        """The lane's file."""
        return self._directory / f"lane-{lane}.snapshot"

    def begin(self, state: LaneState, changelog_offset: int, as_of_ms: int) -> Writing:
        """Begin a snapshot of the lane as of ``changelog_offset``, whose state surely was the lane's at ``as_of_ms``.

        A slice waits for it: watermarks, guests and ads stand in the header, some 0.7 ms for each thousand of them, and
        so a third of a second for 500,000.
        """
        header = Header(
            layout=LAYOUT_VERSION,
            changelog_id=self._changelog_id,
            changelog_offset=changelog_offset,
            as_of_ms=as_of_ms,
            parts=state.clicks.parts() | state.erased.parts() | state.guests.parts() | state.ledger.parts(),
        )
        return Writing(self.path(state.lane), header, len(state.store.users))

    def save(self, state: LaneState, changelog_offset: int, as_of_ms: int) -> None:
        """Write the whole at once. Blocks; about 1 GB/s."""
        writing = self.begin(state, changelog_offset, as_of_ms)
        while not writing.advance(state.store, changelog_offset):
            pass

    def remove_old(self) -> None:
        """Delete what would be refused for its age, where that is possible: who was erased since may be in it.

        So goes what a lane leaves that moves to another worker, where nobody writes or loads the next. A disk that does
        not answer is told of once, and asked again the next time.
        """
        now_ms = wall_ms()
        try:
            for path in listed(self._directory):
                with suppress(OSError):  # as where a worker finishes one meanwhile
                    age_ms = now_ms - path.stat().st_mtime_ns // 1_000_000
                    if not _is_of_an_age(age_ms):
                        path.unlink()
                        log.info("snapshot deleted for its age", file=str(path), age_ms=age_ms, at_most=AGE_MAX_MS)
        except OSError as error:
            if not self._warned:
                self._warned = True
                log.warning("old snapshots not looked for, they may hold who was erased since", error=str(error))

    def load(self, lane: int, begin: int, end: int) -> Recovered:
        """The lane's snapshot, or an empty start where there is none to be believed.

        ``begin``, ``end``: the changelog's first offset and its end.
        """
        path = self.path(lane)
        empty = Recovered(RowStore(self._rows_max))
        try:
            header, end_offset, store = self._read(path)
        except FileNotFoundError:
            return empty
        except (OSError, MemoryError, struct.error, *UNREADABLE) as error:
            log.warning("snapshot unreadable, read the changelog instead", lane=lane, error=str(error))
            return empty
        if reason := self._refusal(header, end_offset, begin, end):
            log.info("snapshot refused, read the changelog instead", lane=lane, reason=reason)
            try:
                path.unlink()  # it may hold people who have been erased since
            except OSError as error:
                log.warning("snapshot not deleted", lane=lane, error=str(error))
            return empty
        return Recovered(store, offset=header.changelog_offset, parts=spread(header.parts))

    def _refusal(self, header: Header, newest: int, begin: int, end: int) -> str:
        age_ms = wall_ms() - header.as_of_ms
        if header.layout != LAYOUT_VERSION:
            return f"layout {header.layout}, this version has {LAYOUT_VERSION}"
        if header.changelog_id != self._changelog_id:
            return "of another changelog topic"
        if not begin <= header.changelog_offset <= newest <= end:
            return f"offsets {header.changelog_offset} to {newest} are outside the changelog's {begin} to {end}"
        if not _is_of_an_age(age_ms):
            return f"{age_ms} ms old, at most {AGE_MAX_MS}"
        return ""

    def _read(self, path: Path) -> tuple[Header, int, RowStore]:
        """The header, the offset that no row is newer than, and the rows."""
        with path.open("rb") as file:
            header = _header(file)
            if header.layout != LAYOUT_VERSION:
                return header, header.changelog_offset, RowStore(self._rows_max)
            chunks = list(_chunks(file))
            (newest,) = _OFFSET.unpack(file.read())
            users = [user for named, _, _ in chunks for user in named]
            # Somebody who was forgotten and came back meanwhile may be there twice; the changelog has the last word.
            store = RowStore.of(list(dict.fromkeys(users)), self._rows_max)
            places, start = store.find_all(users), 0
            for _, at, count in chunks:
                file.seek(at)
                store.rows[places[start : start + count]] = np.fromfile(file, ROW, count)
                start += count
        return header, newest, store


def _is_of_an_age(age_ms: int) -> bool:
    """Whether a snapshot so old is believed, and kept."""
    return -_AHEAD_MAX_MS <= age_ms <= AGE_MAX_MS


def listed(directory: Path) -> list[Path]:
    """Snapshots in ``directory``, unfinished ones too; none where it is not there. Raises `OSError`.

    By `os.scandir`, as `Path.glob` takes a folder that it may not read for an empty one.
    """
    try:
        with os.scandir(directory) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.name.startswith("lane-"))
    except FileNotFoundError:
        return []


def holds(path: Path, users: Sequence[bytes]) -> bool:
    """Whether a snapshot, or what is written of one, has something of ``users``.

    Of another format or layout their names anywhere count.
    """
    content = path.read_bytes()
    try:
        file = io.BytesIO(content)
        header = _header(file)
        parts = spread(header.parts)
        if any(key in parts for user in users for key in (person_key(user), guest_key(user))):
            return True
        if header.layout != LAYOUT_VERSION:
            raise ValueError("rows of another size")
        return any(set(users) & set(named) for named, _, _ in _chunks(file))
    except (struct.error, *UNREADABLE):
        return any(user in content for user in users)


def _header(file: BinaryIO) -> Header:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("not a snapshot")
    (size,) = _SIZE.unpack(file.read(_SIZE.size))
    return _decode_header(file.read(size))


def _chunks(file: BinaryIO) -> Iterator[tuple[list[bytes], int, int]]:
    """Of each chunk its users, where their rows stand and how many they are; `ValueError` where it is cut short.

    Leaves ``file`` behind the last.
    """
    while len(size := file.read(_SIZE.size)) == _SIZE.size and (count := _SIZE.unpack(size)[0]):
        lengths = np.frombuffer(file.read(2 * count), dtype="<u2")
        ends = np.cumsum(lengths, dtype=np.int64).tolist()
        if len(ends) < count:
            raise ValueError("cut short")
        keys = file.read(ends[-1])
        yield [keys[start:end] for start, end in zip([0, *ends], ends, strict=False)], file.tell(), count
        file.seek(count * ROW_BYTES, os.SEEK_CUR)
