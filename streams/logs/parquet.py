"""A log of our own messages as Parquet: a file per kind, a column per field, as ``salience export-log`` writes them.

Columns are the fields of `streams.wire`; null stands for a field that was not set. Anything that reads Parquet reads
the files. `read` makes a `Log` of them again; it also takes files that something else wrote with these columns, and
ignores other columns. Times may also be Arrow timestamps of any unit and zone; integers are milliseconds, and seconds
are refused. Ids may be integers, and integers whole float64, as pandas writes a column of them that has gaps.
"""

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa
from msgspec import inspect
from pyarrow import parquet

from streams.logs import EXPECTED_TIME, Log, LogError, in_order, mistimed, shown, times_of
from streams.own_files import own_file, own_folder
from streams.wire import Ad, Click, Impression, Tone

EXPECTED_COLUMNS = "expected the columns that salience export-log writes"
ROWS_PER_GROUP = 20_000
"""Rows in memory while writing: some megabytes."""

FILES: dict[type[Ad | Impression | Click | Tone], str] = {
    Ad: "ads.parquet",
    Impression: "impressions.parquet",
    Click: "clicks.parquet",
    Tone: "tones.parquet",
}
_COLUMNS: dict[type[inspect.Type], pa.DataType] = {
    inspect.BoolType: pa.bool_(),
    inspect.IntType: pa.int64(),
    inspect.FloatType: pa.float64(),
    inspect.StrType: pa.string(),
    inspect.LiteralType: pa.string(),
}


def schema_of(kind: type[Any]) -> pa.Schema:
    """The columns of a kind of message. Raises `TypeError` where a field's type has no column type here."""
    told = inspect.type_info(kind)
    assert isinstance(told, inspect.StructType)
    return pa.schema([(field.name, _column(field.type, f"{kind.__name__}.{field.name}")) for field in told.fields])


def _column(told: inspect.Type, name: str) -> pa.DataType:
    if isinstance(told, inspect.UnionType) and told.includes_none and len(told.types) == 2:  # None is a null
        return _column(next(each for each in told.types if not isinstance(each, inspect.NoneType)), name)
    if isinstance(told, inspect.VarTupleType):
        return pa.list_(_column(told.item_type, name))
    if isinstance(told, inspect.Metadata):  # a type with extra words for its JSON schema
        return _column(told.type, name)
    if type(told) not in _COLUMNS:
        raise TypeError(f"{name} is of {told}, which has no column; expected one of those in _COLUMNS, or a new one")
    return _COLUMNS[type(told)]


SCHEMAS = {kind: schema_of(kind) for kind in FILES}


class Writer:
    """Writes messages of all kinds into a folder as they come; a context manager, which completes the files on exit.

    Until then they have temporary names beside the former files, which stay if the writer does not come to its end. The
    temporary names are always the same, so that the next writer overwrites what a killed one left. So only one may
    write at a time: raises `BlockingIOError` where another writes into the folder.
    """

    def __init__(self, directory: Path) -> None:
        own_folder(directory)
        self._held = _hold(directory)
        self._files = {directory / f"{name}.part": directory / name for name in FILES.values()}
        self._open = {kind: own_file(part) for kind, part in zip(FILES, self._files, strict=True)}
        self._writers = {
            kind: parquet.ParquetWriter(file, SCHEMAS[kind], compression="zstd") for kind, file in self._open.items()
        }
        self._waiting: dict[type[Any], list[dict[str, Any]]] = {kind: [] for kind in FILES}
        self.written = dict.fromkeys(FILES, 0)
        """Number of messages of each kind so far."""

    def add(self, message: Ad | Impression | Click | Tone) -> None:
        """Write a message, now or together with later ones."""
        waiting = self._waiting[type(message)]
        waiting.append(msgspec.structs.asdict(message))
        self.written[type(message)] += 1
        if len(waiting) >= ROWS_PER_GROUP:
            self._flush(type(message))

    def _flush(self, kind: type[Any]) -> None:
        self._writers[kind].write_table(pa.Table.from_pylist(self._waiting[kind], SCHEMAS[kind]))
        self._waiting[kind].clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with ExitStack() as closed:
                for each, writer in self._writers.items():
                    closed.enter_context(self._open[each])
                    closed.callback(writer.close)
                    if error is None:
                        self._flush(each)
            if error is None:
                for part, file in self._files.items():
                    part.replace(file)
        finally:
            for part in self._files:
                part.unlink(missing_ok=True)
            os.close(self._held)  # unlocks the folder, as does the end of the process


def _hold(directory: Path) -> int:
    """The folder, opened and locked: while it is open, nobody else can lock it. Raises `BlockingIOError`."""
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        message = f"another export writes to {directory}; wait until it has ended, or give a folder of its own"
        raise BlockingIOError(message) from error
    except OSError:  # a file system that cannot lock folders, as NFS: there, writers do not notice each other
        pass
    return held


def write(log: Log, directory: Path) -> None:
    """Write a whole log."""
    with Writer(directory) as writer:
        for message in (*log.ads, *log.events, *log.tones):
            writer.add(message)


def read(directory: Path) -> Log:
    """The log in ``directory``, its events in time order; the file of tones may be missing.

    Raises `LogError`.
    """
    ads: dict[str, Ad] = {ad.ad_id: ad for ad in _messages(directory, Ad)}
    events: Sequence[Impression | Click] = [*_messages(directory, Impression), *_messages(directory, Click)]
    tones = _messages(directory, Tone) if (directory / FILES[Tone]).exists() else ()
    return Log(list(ads.values()), in_order(events), sorted(tones, key=lambda tone: tone.time_ms))


def _messages(directory: Path, kind: type[Any]) -> Iterator[Any]:
    file = directory / FILES[kind]
    for number, row in enumerate(_rows(file, kind), 1):
        try:
            message = msgspec.convert({name: value for name, value in row.items() if value is not None}, kind)
        except msgspec.ValidationError as error:
            wrong = {name: value for name, value in row.items() if f"$.{name}" in re.split(r"[`\[]", str(error))}
            expected = f"; expected {EXPECTED_TIME}" if wrong.keys() & set(times_of(kind)) else ""
            raise LogError(f"{file}, row {number}: {error}, in {shown(wrong or row)}{expected}") from error
        if wrong := mistimed(message):  # the type takes times in seconds, too
            raise LogError(f"{file}, row {number}: a time in seconds, in {shown(wrong)}; expected {EXPECTED_TIME}")
        yield message


def _rows(file: Path, kind: type[Any]) -> Iterator[dict[str, Any]]:
    if file.is_dir():
        raise LogError(f"{file} is a folder; expected one file, with the rows of all that are in it")
    try:
        with parquet.ParquetFile(file) as table:
            wanted = _wanted(file, table, kind)
            for batch in table.iter_batches(ROWS_PER_GROUP, columns=wanted):
                told = [_as_told(batch[name], SCHEMAS[kind].field(name).type) for name in wanted]
                yield from pa.RecordBatch.from_arrays(told, wanted).to_pylist()
    except FileNotFoundError as error:
        raise LogError(f"{file} does not exist; write one with: salience export-log --out {file.parent}") from error
    except LogError:
        raise
    except (OSError, pa.ArrowException, OverflowError, ValueError) as error:  # such as dates that Python cannot hold
        raise LogError(f"{file} cannot be read ({shown(error)}); {EXPECTED_COLUMNS}") from error


def _wanted(file: Path, table: parquet.ParquetFile, kind: type[Any]) -> list[str]:
    """The columns that are fields of ``kind``; others may have values that Python cannot hold, and are not read."""
    names, fields = table.schema_arrow.names, msgspec.structs.fields(kind)
    if len(set(names)) < len(names):
        raise LogError(f"{file} has the columns {shown(names)}, one of them twice; {EXPECTED_COLUMNS}")
    missing = [field.name for field in fields if field.required and field.name not in names]
    if missing and table.metadata.num_rows:
        raise LogError(f"{file} has the columns {shown(names)}, but not {shown(missing)}; {EXPECTED_COLUMNS}")
    return [field.name for field in fields if field.name in names]


def _as_told(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """A column in the type ``wanted``, where that loses nothing but parts of a millisecond; any other as it is."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
    if pa.types.is_integer(column.type) and pa.types.is_string(wanted):
        return column.cast(wanted)
    if pa.types.is_float64(column.type) and pa.types.is_integer(wanted):
        with suppress(pa.ArrowInvalid):  # it has a fraction, or NaN: the row is told
            return column.cast(wanted)
    return column
