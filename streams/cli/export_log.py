"""``salience export-log``: the topics as Parquet files to train on."""

import asyncio
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from streams.cli.failing import fail
from streams.cli.options import Bootstrap, Json, Prefix, a_folder, answer, settings_of
from streams.cli.screen import screen
from streams.clock import wall_ms
from streams.wire import Tone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from scoring.events import Source
    from streams.decode import Record
    from streams.learnable import Learnable
    from streams.logs.parquet import Writer
    from streams.reviews.reviewer import Reviewer
    from streams.settings import Settings

OutOption = Annotated[
    Path, typer.Option("--out", parser=a_folder, metavar="<folder>", help="Folder for the files; created if missing.")
]

EPILOG = "Example: salience export-log --out log && salience train log --data log"


def export_log(out: OutOption, bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Write ads, impressions, clicks and tones, as the topics hold them now, each to a Parquet file.

    It leaves out and counts what workers would not learn from. Invalid: records
    that become dead letters, and records whose time is not in milliseconds, for
    which training would refuse the whole log. Refused: events of people who said
    no, on an event or on the control topic, who were erased, or who said nothing
    while SALIENCE_CONSENT_PRESUMED is false. Give it the workers' settings.

    It writes the last version of each ad; a withdrawn ad has the status ended
    until the broker has compacted it away. For reviews it writes the tone of ads
    and brands after each, and not the text. The files replace older ones once
    all are complete. Training reads them through the serving code. Exit status 1
    if a topic is missing or the broker cannot be reached.
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
        answer({**counts, **left_out, "directory": str(out)})
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    console.print(
        f"{told} are in {out}; left out: {left_out['invalid']:,} records that are no valid messages, "
        f"{left_out['refused']:,} events of people who are not remembered"
    )


async def _export(settings: "Settings", writer: "Writer", progress: Progress) -> dict[str, int]:
    """Export every topic up to its present end; return how many records were left out, by reason."""
    from streams import topics
    from streams.learnable import Offered
    from streams.reading import ends_of
    from streams.reviews.reviewer import Reviewer

    read = partial(_read, settings, progress)
    reviewer, offered = Reviewer(), Offered(for_log=True)
    async for records in read(topics.ADS):
        reviewer.take_ads(records)
        offered.take(records)
    for ad in offered.ads.values():
        writer.add(ad)
    ends = await ends_of(settings.bootstrap, [settings.topic_prefix + name for name in topics.LANE_INPUTS])
    learnable = await _events(settings, read, ends, writer)
    tones = Tones(reviewer)
    async for records in read(topics.REVIEWS):
        for tone in tones.of(records):
            writer.add(tone)
    invalid = offered.invalid + learnable.invalid + reviewer.refused + tones.invalid
    return {"invalid": invalid, "refused": learnable.refused}


async def _events(
    settings: "Settings",
    read: "Callable[..., AsyncIterator[Sequence[Record]]]",
    ends: "Mapping[tuple[str, int], int]",
    writer: "Writer",
) -> "Learnable":
    """Read events to learn who said no, to recall what they did before, and to write the rest; return the counts.

    Both topics are read up to their ``ends`` at one moment: a no on one takes back events on the other. Requests are
    read again after all events: the first reading is older than the newest event.
    """
    from scoring.events import Source
    from streams import topics
    from streams.learnable import Learnable

    inputs = dict(zip(topics.LANE_INPUTS, Source, strict=True))
    learnable = Learnable(
        ends,
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
    """The tones after each review, with the time of its record."""

    def __init__(self, reviewer: "Reviewer") -> None:
        self._reviewer = reviewer
        self.invalid = 0
        """Tones whose time no log may hold, such as the -1 of a record without a timestamp."""

    def of(self, records: "Sequence[Record]") -> "Iterator[Tone]":
        """The tones after further reviews."""
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
