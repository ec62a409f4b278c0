"""Vectors of titles, each encoded once per machine: in a file that its workers share, and off the hot path.

The encoder takes 6 ms a title. So the feed of ads first has titles encoded on a thread of its own (`learn`). Then the
catalogue takes the ads on the compute thread, which also scores people, and finds the vectors here. One worker learns
at a time, and first takes in what others have written; no other thread waits for it. A lock is held only for a moment,
to append rows. A title is encoded again if its row was cut off or damaged, or found no room.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import structlog
import xxhash

from scoring.arrays import Singles
from scoring.ids import EMPTY, id64s
from scoring.text import TEXT_DIM, TEXT_ENCODER, TextOf, Vectors
from streams.own_files import own_folder, shared_file

log = structlog.get_logger()

TITLES_MAX = 1_000_000
"""Most rows of the file, 2 GB: as many as a catalogue has ads. A file that would grow longer is begun anew."""
_ROW = np.dtype([("title", "<u8"), ("check", "<u8"), ("vector", "<f4", (TEXT_DIM,))])
_ROWS_PER_READ = 4_096
"""8 MB."""


class Titles:
    """A `scoring.text.TextOf` that keeps the vectors of titles, and encodes those it does not have. Thread-safe.

    ``encode``: a title's vector must not depend on the other titles. Raises `OSError` where ``folder`` cannot be
    written at the start; if the disk is full later, titles are encoded again each time.
    """

    def __init__(self, folder: Path, encode: TextOf, most: int = TITLES_MAX) -> None:
        own_folder(folder)
        self._encode, self._most = encode, most
        self._lock, self._turn = Lock(), Lock()
        self._warned = False
        self._turns = shared_file(folder / f"{TEXT_ENCODER}.turn")
        self._file = shared_file(folder / f"{TEXT_ENCODER}.vectors")
        self._places: dict[int, int] = {}
        self._end = 0
        """How far the file has been read, or written here."""
        self._first = b""
        """Title id of the file's first row: it differs once the file has been begun anew."""
        with self._alone():
            if os.fstat(self._file).st_size > most * _ROW.itemsize:
                os.ftruncate(self._file, 0)
            self._take_in()

    def __len__(self) -> int:
        return len(self._places)

    def __call__(self, titles: Sequence[str]) -> Vectors:
        """Vectors ``[N, TEXT_DIM]``, zero where a title is blank."""
        out = np.zeros((len(titles), TEXT_DIM), dtype=np.float32)
        numbers = dict(enumerate(_numbers(titles)))
        if missing := self._found(numbers, out):
            with self._alone():
                self._take_in()
            missing = self._found(missing, out)
        if missing:
            rows = self._encoded([titles[at] for at in missing])  # without a lock: the caller may be in a hurry
            with self._alone():
                self._take_in()
                self._keep(rows)
            vectors = dict(zip(rows["title"].tolist(), rows["vector"], strict=True))
            out[list(missing)] = [vectors[number] for number in missing.values()]
        return out

    def learn(self, titles: Sequence[str]) -> None:
        """Encode and keep missing titles. Other workers that learn wait meanwhile: their titles are likely the same."""
        if not self._missing(titles):
            return
        with nullcontext() if self._warned else self._in_turn():  # where nothing is kept, there is nothing to wait for
            with self._alone():
                self._take_in()
            if missing := self._missing(titles):
                rows = self._encoded(missing)
                with self._alone():
                    self._take_in()
                    self._keep(rows)

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._turns)

    def _found(self, numbers: Mapping[int, int], out: Vectors) -> dict[int, int]:
        """Fill ``out`` with the vectors of titles, by place and id (``numbers``); return those that have none yet."""
        missing: dict[int, int] = {}
        for at, number in numbers.items():
            row = self._read(number) if number else None
            if row is not None:
                out[at] = row
            elif number:
                missing[at] = number
        return missing

    def _missing(self, titles: Sequence[str]) -> list[str]:
        numbered = zip(titles, _numbers(titles), strict=True)
        return [title for title, number in numbered if number and self._read(number) is None]

    def _encoded(self, titles: Sequence[str]) -> npt.NDArray[np.void]:
        """Encode ``titles``, none of them blank, into rows, one per distinct title."""
        told = list(dict.fromkeys(titles))
        rows = np.zeros(len(told), dtype=_ROW)
        rows["title"], rows["vector"] = _numbers(told), self._encode(told)
        rows["check"] = [_check(row) for row in rows]
        return rows

    def _take_in(self) -> None:
        """Index the rows that others have appended, or all if one has begun the file anew. Call it under `_alone`."""
        end = os.fstat(self._file).st_size
        end -= end % _ROW.itemsize  # without a last row that a process did not finish
        first = os.pread(self._file, _ROW["title"].itemsize, 0)
        if end < self._end or (self._end and first != self._first):
            self._places.clear()
            self._end = 0
        self._first = first
        self._places |= _kept(self._file, self._end)
        self._end = end

    def _keep(self, rows: npt.NDArray[np.void]) -> None:
        """Append missing rows, as far as there is room. Call it under `_alone`, after `_take_in`."""
        rows = rows[[self._read(number) is None for number in rows["title"].tolist()]]
        if max(self._end // _ROW.itemsize, len(self._places)) + len(rows) > self._most:
            os.ftruncate(self._file, 0)  # others find their rows gone, and go on
            self._places.clear()
            self._end = 0
        kept = rows["title"][: self._append(rows.tobytes(), self._end) // _ROW.itemsize].tolist()
        self._places |= {number: self._end + at * _ROW.itemsize for at, number in enumerate(kept)}
        self._end += len(kept) * _ROW.itemsize
        self._first = os.pread(self._file, _ROW["title"].itemsize, 0)

    def _append(self, content: bytes, end: int) -> int:
        """Write; return how many bytes found room. A full disk is no error: the file only saves time.

        It is logged once: if there is no room for a title, there is none for the next ones.
        """
        written, error = 0, "only a part was written"
        try:
            written = os.pwrite(self._file, content, end)
        except OSError as raised:
            error = str(raised)
        if written < len(content) and not self._warned:
            self._warned = True
            log.warning("vectors of titles not kept; they are encoded again whenever they are needed", error=error)
        return written

    def _read(self, number: int) -> Singles | None:
        """The kept vector of a title; None where there is none, or it is damaged."""
        if (place := self._places.get(number)) is None:
            return None
        content = os.pread(self._file, _ROW.itemsize, place)
        if len(content) < _ROW.itemsize:
            return None
        row = np.frombuffer(content, dtype=_ROW)[0]
        vector: Singles = row["vector"]
        return vector if int(row["title"]) == number and int(row["check"]) == _check(row) else None

    def _alone(self) -> AbstractContextManager[None]:
        """A lock on writing, against all threads and processes."""
        return _locked(self._lock, self._file)

    def _in_turn(self) -> AbstractContextManager[None]:
        """A lock on learning, against all threads and processes; held for as long as the encoder takes."""
        return _locked(self._turn, self._turns)


@contextmanager
def _locked(lock: Lock, file: int) -> Iterator[None]:
    with lock:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _numbers(titles: Sequence[str]) -> list[int]:
    """64-bit ids of titles; `EMPTY` for blank ones."""
    ids = id64s(titles)
    ids[[not title.strip() for title in titles]] = EMPTY
    numbers: list[int] = ids.tolist()
    return numbers


def _check(row: np.void) -> int:
    return xxhash.xxh3_64_intdigest(row["vector"].tobytes(), seed=int(row["title"]))


def _kept(file: int, place: int) -> Iterator[tuple[int, int]]:
    """Title ids and offsets of the rows from ``place`` on; a later row replaces an earlier one. `_read` checks rows."""
    size = os.fstat(file).st_size
    while place + _ROW.itemsize <= size:
        content = os.pread(file, _ROWS_PER_READ * _ROW.itemsize, place)
        rows = np.frombuffer(content[: len(content) - len(content) % _ROW.itemsize], dtype=_ROW)
        for at, number in enumerate(rows["title"].tolist()):
            yield number, place + at * _ROW.itemsize
        place += rows.nbytes
