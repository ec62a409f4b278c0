"""``salience export-log``: what is on the topics, as Parquet files to learn from."""

import asyncio
import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from streams.cli.failing import fail
from streams.cli.options import Bootstrap, Json, Prefix, settings_of
from streams.cli.screen import screen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from scoring.events import Source
    from streams.decode import Record
    from streams.learnable import Learnable
    from streams.logs.parquet import Writer
    from streams.reviews.reviewer import Reviewer
    from streams.settings import Settings
    from streams.wire import Tone

OutOption = Annotated[Path, typer.Option("--out", file_okay=False, help="Folder for the files; made where missing.")]

EPILOG = "Example: salience export-log --out log && salience train log --data log"


def export_log(out: OutOption, bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Write ads, impressions and clicks as they stand on the topics now, each to a Parquet file.

    What workers would not learn from is left out, and counted: records that they make dead letters, and what is of no
    time in milliseconds, for which the whole log would be refused (invalid), and events of people who are not
    remembered (refused), because they said no, on an event or on the control topic, have been erased, or said nothing
    where SALIENCE_CONSENT_PRESUMED is false. Give it the workers' settings.

    Of an ad the last version is written. A withdrawn one, which was shown before, has the status ended, until the
    broker has compacted it away. Of reviews how ads and brands sounded after each, and not what was said. The files
    take the place of those before once all are whole. Training reads them through the code that serves. Exit code 1
    where a topic is missing or the broker cannot be reached.
    """
    if find_spec("pyarrow") is None:
        fail("pyarrow is missing, which Parquet needs: pip install 'salience[evaluate]'")
    from streams.logs.parquet import FILES, Writer

    settings, console = settings_of(bootstrap=bootstrap, topic_prefix=prefix), screen(stderr=as_json)
    columns = (TextColumn("{task.description}: {task.completed:,.0f} records"), TimeElapsedColumn())
    try:
        with Progress(SpinnerColumn(), *columns, console=console) as progress, Writer(out) as writer:
            left_out = asyncio.run(_export(settings, writer, progress))
    except OSError as error:
        fail(error)
    counts = {FILES[kind].removesuffix(".parquet"): count for kind, count in writer.written.items()}
    if as_json:
        typer.echo(json.dumps({**counts, **left_out, "directory": str(out)}))
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    console.print(
        f"{told} are in {out}; left out: {left_out['invalid']:,} records that are no valid messages, "
        f"{left_out['refused']:,} events of people who are not remembered"
    )


async def _export(settings: "Settings", writer: "Writer", progress: Progress) -> dict[str, int]:
    """Every topic to its end as it is now; how many records were left out, by why."""
    from streams import topics
    from streams.learnable import Offered
    from streams.reviews.reviewer import Reviewer

    read = partial(_read, settings, progress)
    reviewer, offered = Reviewer(), Offered(for_log=True)
    async for records in read(topics.ADS):
        reviewer.take_ads(records)
        offered.take(records)
    for ad in offered.ads.values():
        writer.add(ad)
    learnable = await _events(settings, read, partial(_ends, settings), writer)
    tones = Tones(reviewer)
    async for records in read(topics.REVIEWS):
        for tone in tones.of(records):
            writer.add(tone)
    invalid = offered.invalid + learnable.invalid + reviewer.refused + tones.invalid
    return {"invalid": invalid, "refused": learnable.refused}


async def _events(
    settings: "Settings",
    read: "Callable[..., AsyncIterator[Sequence[Record]]]",
    ends: "Callable[[Iterable[str]], Awaitable[Mapping[tuple[str, int], int]]]",
    writer: "Writer",
) -> "Learnable":
    """Events: read to hear who says no, to recall what these did before, and to write them; what counted the others.

    Both topics end where they ended at one moment: a no on the one takes back what was done on the other. Requests are
    read again once all events have been heard, for the first reading is older than the newest of them.
    """
    from scoring.events import Source
    from streams import topics
    from streams.clock import wall_ms
    from streams.learnable import Learnable

    inputs = dict(zip(topics.LANE_INPUTS, Source, strict=True))
    learnable = Learnable(
        await ends(inputs),
        presumed=settings.consent_presumed,
        now_ms=wall_ms(),
        tolerance_ms=settings.time_tolerance_ms,
        entries_max=settings.control_entries_max,
    )
    async for records in read(topics.CONTROL):
        learnable.control.take(records)
    async for source, records in _each(inputs, read, " (consent)"):
        learnable.hear(source, records)
    async for records in read(topics.CONTROL, " (since)"):
        learnable.control.take(records)
    if learnable.settle():
        async for source, records in _each(inputs, read, " (before)"):
            learnable.recall(source, records)
    async for source, records in _each(inputs, read):
        for event in learnable.take(source, records):
            writer.add(event)
    return learnable


async def _each(
    inputs: "Mapping[str, Source]", read: "Callable[..., AsyncIterator[Sequence[Record]]]", *why: str
) -> "AsyncIterator[tuple[Source, Sequence[Record]]]":
    """The records of all inputs, one topic after the other."""
    for name, source in inputs.items():
        async for records in read(name, *why):
            yield source, records


async def _ends(settings: "Settings", names: "Iterable[str]") -> dict[tuple[str, int], int]:
    """Where topics end now, by full name and partition."""
    from streams.reading import ends_of

    return await ends_of(settings.bootstrap, [settings.topic_prefix + name for name in names])


async def _read(
    settings: "Settings", progress: Progress, name: str, why: str = ""
) -> "AsyncIterator[Sequence[Record]]":
    """A topic's records, counted on the screen."""
    from streams.reading import read_topic

    task = progress.add_task(name + why, total=None)
    async for records in read_topic(settings.bootstrap, settings.topic_prefix + name):
        yield records
        progress.update(task, advance=len(records))


class Tones:
    """What was told as each review came, at the time when it could be heard."""

    def __init__(self, reviewer: "Reviewer") -> None:
        self._reviewer = reviewer
        self.invalid = 0
        """Tones of a time that no log may hold, as of a record that does not tell when it was sent (-1)."""

    def of(self, records: "Sequence[Record]") -> "Iterator[Tone]":
        """Of further reviews."""
        from msgspec.structs import replace

        from streams.logs import mistimed

        for record in records:
            for _ in self._reviewer.take([record]):
                pass  # the reader of reviews has written its dead letter
            for tone in self._reviewer.news():
                told = replace(tone, time_ms=record.timestamp)
                if mistimed(told):
                    self.invalid += 1
                else:
                    yield told
