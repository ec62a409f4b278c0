"""A log of our own messages as Parquet: a file a kind, a column a field, as ``salience export-log`` writes them.

Columns are the fields of `streams.wire`; null stands for a field that was not told. Anything that reads Parquet reads
them; `read` makes a `Log` of them again, and so do files that something else has written with these columns.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa
from pyarrow import parquet

from streams.logs import Log, LogError, in_order
from streams.wire import Ad, Click, Impression, Tone

ROWS_PER_GROUP = 20_000
"""Rows in memory while writing: some megabytes."""

FILES: dict[type[Ad | Impression | Click | Tone], str] = {
    Ad: "ads.parquet",
    Impression: "impressions.parquet",
    Click: "clicks.parquet",
    Tone: "tones.parquet",
}
_NUMBERS = {
    "time_ms", "slot", "price_micros", "value_micros", "impression_time_ms", "bid_micros", "attention_micros",
    "budget_micros", "start_ms", "end_ms", "reviews", "turned_ms",
}  # fmt: skip
_OTHERS = {"viewed_s": pa.float64(), "tone": pa.float64(), "tags": pa.list_(pa.string())}


def schema_of(kind: type[Any]) -> pa.Schema:
    """The columns of a kind of message."""
    return pa.schema(
        [(name, pa.int64() if name in _NUMBERS else _OTHERS.get(name, pa.string())) for name in kind.__struct_fields__]
    )


class Writer:
    """Writes messages of all kinds into a folder as they come; a context manager, whole when left."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._writers = {
            kind: parquet.ParquetWriter(directory / name, schema_of(kind), compression="zstd")
            for kind, name in FILES.items()
        }
        self._waiting: dict[type[Any], list[dict[str, Any]]] = {kind: [] for kind in FILES}
        self.written = dict.fromkeys(FILES, 0)
        """Messages of each kind so far."""

    def add(self, message: Ad | Impression | Click | Tone) -> None:
        """Write a message, now or with those that follow."""
        waiting = self._waiting[type(message)]
        waiting.append(msgspec.structs.asdict(message))
        self.written[type(message)] += 1
        if len(waiting) >= ROWS_PER_GROUP:
            self._flush(type(message))

    def _flush(self, kind: type[Any]) -> None:
        self._writers[kind].write_table(pa.Table.from_pylist(self._waiting[kind], schema_of(kind)))
        self._waiting[kind].clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, writer in self._writers.items():
            if error is None:
                self._flush(each)
            writer.close()


def write(log: Log, directory: Path) -> None:
    """A whole log."""
    with Writer(directory) as writer:
        for message in (*log.ads, *log.events, *log.tones):
            writer.add(message)


def read(directory: Path) -> Log:
    """The log in ``directory``, its events in time order; of a log without reviews there need be no tones.

    Raises `LogError`.
    """
    ads: dict[str, Ad] = {ad.ad_id: ad for ad in _messages(directory, Ad)}
    events: Sequence[Impression | Click] = [*_messages(directory, Impression), *_messages(directory, Click)]
    tones = _messages(directory, Tone) if (directory / FILES[Tone]).exists() else ()
    return Log(list(ads.values()), in_order(events), sorted(tones, key=lambda tone: tone.time_ms))


def _messages(directory: Path, kind: type[Any]) -> Iterator[Any]:
    file = directory / FILES[kind]
    try:
        with parquet.ParquetFile(file) as rows:
            for batch in rows.iter_batches(ROWS_PER_GROUP):
                for row in batch.to_pylist():
                    yield msgspec.convert({name: value for name, value in row.items() if value is not None}, kind)
    except FileNotFoundError as error:
        raise LogError(f"{file} does not exist; write one with: salience export-log --out {directory}") from error
    except (OSError, pa.ArrowException, msgspec.ValidationError) as error:
        raise LogError(f"{file} cannot be read ({error}); expected the columns that salience export-log writes") from (
            error
        )
