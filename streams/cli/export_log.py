"""``salience export-log``: what is on the topics, as Parquet files to learn from."""

import asyncio
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from streams.cli.failing import fail
from streams.cli.options import Bootstrap, Json, Prefix, settings_of
from streams.cli.screen import screen

if TYPE_CHECKING:
    from streams.logs.parquet import Writer
    from streams.review_feed import Reviewer

OutOption = Annotated[Path, typer.Option("--out", file_okay=False, help="Folder for the files; made where missing.")]

EPILOG = "Example: salience export-log --out log && salience train log --data log"


def export_log(out: OutOption, bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Write ads, impressions and clicks as they stand on the topics now, each to a Parquet file.

    Of reviews how ads and brands sounded after each, and not what was said. Records that are no valid messages are left
    out and counted, as the worker's dead letters are. Training reads the files through the code that serves. Exit code
    1 where a topic is missing or the broker cannot be reached.
    """
    if find_spec("pyarrow") is None:
        fail("pyarrow is missing, which Parquet needs: pip install 'salience[evaluate]'")
    from streams.logs.parquet import FILES, Writer

    settings, console = settings_of(bootstrap=bootstrap, topic_prefix=prefix), screen(stderr=as_json)
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:,.0f} records"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as progress, Writer(out) as writer:
            invalid = asyncio.run(_export(settings.bootstrap, settings.topic_prefix, writer, progress))
    except OSError as error:
        fail(error)
    counts = {FILES[kind].removesuffix(".parquet"): count for kind, count in writer.written.items()}
    if as_json:
        typer.echo(json.dumps({**counts, "invalid": invalid, "directory": str(out)}))
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    console.print(f"{told} are in {out}; {invalid:,} records were no valid messages")


async def _export(bootstrap: str, prefix: str, writer: "Writer", progress: Progress) -> int:
    """Every topic to its end as it is now; the records that were left out."""
    import msgspec

    from streams import topics
    from streams.reading import read_topic
    from streams.review_feed import Reviewer
    from streams.wire import UNREADABLE, Ad, Click, Impression

    invalid, reviewer = 0, Reviewer()
    kinds: dict[str, Any] = {topics.ADS: Ad, topics.AD_IMPRESSIONS: Impression, topics.CLICKS: Click}
    for name, kind in kinds.items():
        task, decode = progress.add_task(name, total=None), msgspec.json.Decoder(kind).decode
        async for records in read_topic(bootstrap, prefix + name):
            if kind is Ad:
                reviewer.take_ads(records)
            for record in records:
                if record.value is None:
                    continue  # a withdrawn ad
                try:
                    writer.add(decode(record.value))
                except UNREADABLE:
                    invalid += 1
            progress.update(task, advance=len(records))
    return invalid + await _tones(bootstrap, prefix, reviewer, writer, progress)


async def _tones(bootstrap: str, prefix: str, reviewer: "Reviewer", writer: "Writer", progress: Progress) -> int:
    """What was told as each review came; the records that are none."""
    import msgspec

    from streams import topics
    from streams.reading import read_topic

    task = progress.add_task(topics.REVIEWS, total=None)
    async for records in read_topic(bootstrap, prefix + topics.REVIEWS):
        for record in records:
            for _ in reviewer.take([record]):
                pass  # the reader of reviews has written its dead letter
            for tone in reviewer.news():
                writer.add(msgspec.structs.replace(tone, time_ms=record.timestamp))  # when it could be heard
        progress.update(task, advance=len(records))
    return reviewer.refused
