"""``salience reviews``: how well the tone of reviews is read, and how soon a turn is noticed."""

import asyncio
import json
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from streams.cli.options import Bootstrap, Json, Prefix, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.wire import Tone

app = typer.Typer(help="The tone of reviews: followed live, and judged on a file.", no_args_is_help=True)

Data = Annotated[Path, typer.Option("--data", exists=True, file_okay=False, help="Folder of reviews.csv.gz.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="Of the order that the reviews come in.")]


@app.command(epilog="Example: salience reviews evaluate --data ./reviews --json")
def evaluate(data: Data, seed: Seed = 1, as_json: Json = False) -> None:
    """One pass over rated reviews, each predicted before it is learnt from; then a hundred simulated turns of tone."""
    from streams.logs import LogError
    from streams.logs.reviews import judge

    people = Console(stderr=True, highlight=False)
    try:
        with Progress(console=people, transient=True) as progress:
            task = progress.add_task("reviews", total=None)
            judged = judge(data, seed, lambda: progress.advance(task))
    except LogError as error:
        people.print(f"Error: {error}", markup=False)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps(asdict(judged)))
        return
    table = Table("figure", "value", title="The tone of reviews")
    for name, value in asdict(judged).items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.4g}")
    Console(highlight=False).print(table)


@app.command(epilog="Example: salience reviews follow")
def follow(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    once: Annotated[bool, typer.Option("--once", help="End when all that is there has been read.")] = False,
    as_json: Json = False,
) -> None:
    """Read the topic reviews until stopped, and put on tones how each ad and brand sounds; say when one turns.

    It learns from reviews with stars as they come, and hears those without. All reviews there are, a quarter's, are
    read at every start. A tone is said where it has moved by 0.01, or turned for the worse. With --json a line of JSON
    per tone.
    """
    from streams.review_feed import ReviewFeed

    people = Console(stderr=True, highlight=False)
    turned: dict[bytes, int | None] = {}

    def told(tones: "Sequence[Tone]") -> None:
        for tone in tones:
            if as_json:
                typer.echo(msgspec.json.encode(tone))
            if tone.turned_ms is not None and turned.get(tone.key) != tone.turned_ms:
                turned[tone.key] = tone.turned_ms
                people.print(f"{tone.of} {tone.name} has turned: {tone.tone:.2f} of late", markup=False)

    feed = ReviewFeed(settings_of(bootstrap=bootstrap, topic_prefix=prefix), told)

    async def run() -> None:
        work = asyncio.ensure_future(feed.run(follow=not once))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        await asyncio.wait([work])
        if not work.cancelled():
            work.result()

    asyncio.run(run())
    people.print(f"{feed.reviewer.reviews:,} reviews read, {feed.reviewer.refused:,} refused")
