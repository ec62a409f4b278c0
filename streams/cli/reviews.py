"""``salience reviews``: follow the tone of reviews, and judge how well it is read and how soon a turn is noticed."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.progress import Progress

from streams.cli.ending import until_told
from streams.cli.options import Bootstrap, Json, LogJson, PagesPort, Prefix, a_folder_there, answer, settings_of
from streams.cli.screen import Table, screen
from streams.wire import Tone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streams.reviews.feed import ReviewFeed
    from streams.settings import Settings

app = typer.Typer(help="Follow the tone of reviews live, or judge it on a file.", no_args_is_help=True)

Data = Annotated[
    Path, typer.Option("--data", parser=a_folder_there, metavar="<folder>", help="Folder that holds reviews.csv.gz.")
]
Say = Callable[[str], None]
"""Prints a line for people, or logs it."""
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="Seed of the order of the reviews.")]


@app.command(epilog="Example: salience reviews evaluate --data ./reviews --json")
def evaluate(data: Data, seed: Seed = 1, as_json: Json = False) -> None:
    """Predict each rated review before learning from it, in one pass; then simulate a thousand turns of tone."""
    from streams.logs.reviews import judge

    with Progress(console=screen(stderr=True), transient=True) as progress:
        task = progress.add_task("reviews", total=None)
        judged = judge(data, seed, lambda: progress.advance(task))
    if as_json:
        answer(judged.as_json())
        return
    copies = f"{judged.copies:,} have the text of one before"
    screen().print(f"{judged.reviews:,} reviews, of which {copies}.", soft_wrap=True)
    table = Table("figure", "by text", "by text that is new", "by stars", title="The tone of reviews")
    table.add_row("told right", f"{judged.accuracy:.4f}", f"{judged.accuracy_new:.4f}", "")
    heard = [asdict(noticed) for noticed in (judged.by_text, judged.by_new_text, judged.by_stars)]
    for name in heard[0]:
        table.add_row(name.replace("_", " "), *(_figure(noticed[name]) for noticed in heard))
    screen().print(table)


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


@app.command(epilog="Example: salience reviews follow")
def follow(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    once: Annotated[bool, typer.Option("--once", help="End after the reviews that are there now.")] = False,
    port: PagesPort = None,
    log_json: LogJson = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each tone as a JSON object on one line of stdout.")
    ] = False,
) -> None:
    """Read the topic reviews until stopped, publish each ad's and brand's tone on tones, and say when one turns.

    It learns from reviews with stars, and reads the tone of those without from
    their text. It resumes where the last run ended (topic review-state); the
    first run reads all reviews. It publishes a tone that has moved by 0.01 or
    turned for the worse.
    """
    import structlog

    from streams.log_lines import configure_logging
    from streams.reviews.feed import ReviewFeed

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    configure_logging(log_json=log_json)
    people = screen(stderr=True)
    say: Say = structlog.get_logger().info if log_json else people.print
    progress = Progress(console=people, transient=True, disable=log_json or not people.is_terminal)

    def tell(tones: "Sequence[Tone]") -> None:
        for tone in tones if as_json else ():
            typer.echo(msgspec.json.encode(tone))
        for tone in feed.reviewer.newly_turned:
            say(f"{tone.of} {tone.name} has turned: {tone.tone:.2f} of late")

    feed = ReviewFeed(settings, tell)
    asyncio.run(until_told(_served(feed, settings, port, say, progress, follow=not once)))
    read = feed.reviewer
    say(f"{read.reviews:,} reviews read, {read.refused:,} refused, {read.repeated:,} sent again")


async def _served(
    feed: "ReviewFeed", settings: "Settings", port: int | None, say: Say, progress: Progress, *, follow: bool
) -> None:
    from streams.metrics.serve import serving
    from streams.reviews.exporter import ReviewCollector

    async with feed, serving(ReviewCollector(feed.reviewer), settings, port, say, feed.unwell):
        with progress:
            await feed.run(follow=follow, on_read=_Start(feed, say, progress))


class _Start:
    """Says where the reader resumes, how far it is, and when it has read all that was there."""

    def __init__(self, feed: "ReviewFeed", say: Say, progress: Progress) -> None:
        self._begin, self._end = feed.reviewer.next_offset, feed.end
        self._say, self._progress = say, progress
        where = f"goes on after what {self._begin:,} taught" if self._begin else "begins with the first review there is"
        say(f"{where}, up to review {self._end:,}")
        self._task = progress.add_task("reviews", total=max(self._end - self._begin, 0))
        self._waits = True

    def __call__(self, next_offset: int) -> None:
        self._progress.update(self._task, completed=next_offset - self._begin)
        if self._waits and next_offset >= self._end:
            self._waits = False
            self._progress.stop()
            self._say("has read what was there")
