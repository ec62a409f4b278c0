"""``salience report``: what people did, as one HTML file and as numbers."""

import asyncio
import re
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from streams.cli.failing import fail, writing
from streams.cli.options import Bootstrap, Json, Prefix, answer, settings_of
from streams.cli.screen import screen, spinner
from streams.clock import wall_ms

if TYPE_CHECKING:
    from streams.behaviour.gathered import Gatherer
    from streams.logs import Log
    from streams.settings import Settings

OutOption = Annotated[
    Path, typer.Option("--out", dir_okay=False, help="HTML file to write; a missing folder is created.")
]
LogOption = Annotated[
    str, typer.Option("--log", help="Source: topics, kuairand:DIR, or parquet:DIR (from salience export-log).")
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", help="Leave out older events: 2026-11-01 or 2026-11-01T12:00 (UTC), or an age: 90m, 24h, 7d."
    ),
]
NEEDS = ("matplotlib", "jinja2")
A_FILE = "name a file in a folder that is yours"
EPILOG = "Example: salience report --out report.html --since 7d --json"
_AGO = re.compile(r"(\d{1,6})([mhd])")
_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


def report(
    out: OutOption = Path("report.html"),
    log: LogOption = "topics",
    since: SinceOption = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Write one HTML file on what people did: funnels, return, attention, drift of interest, effect of
    personalisation, slots looked at, campaigns, fairness of exposure.

    The file holds sums over people and no person's id, loads nothing from the
    network, and has a table behind every picture. Impressions, clicks and
    charges are counted by the rules of billing; give it the workers'
    SALIENCE_SEAL_SECRET to verify prices. --json also prints the numbers.

    Exit status 1 if there is nothing to report, a topic is missing or the broker
    cannot be reached; 2 if an option is wrong.
    """
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        fail(f"{', '.join(missing)} missing, which draws the page: pip install 'salience[report]'")

    from scoring.seal import Seal
    from streams.behaviour.gathered import Gatherer
    from streams.behaviour.page import page
    from streams.behaviour.report import report as report_of

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    gatherer = Gatherer(
        since_ms=since_ms(since, datetime.now(UTC)),
        latest_ms=wall_ms() + settings.time_tolerance_ms,
        late_ms=settings.late_ms,
        seal=Seal.of(settings.sealing_secret()),
    )
    console = screen(stderr=as_json)
    with writing(out, A_FILE):
        out.parent.mkdir(parents=True, exist_ok=True)  # before the log is read, which may take minutes
    try:
        with spinner(console) as progress:
            source = _gather(gatherer, log, settings, progress)
            progress.add_task("Counting and drawing")
            found = report_of(gatherer.gathered(), source)
            drawn = page(found)
    except OSError as error:
        fail(error)
    with writing(out, A_FILE):
        out.write_text(drawn, encoding="utf-8")
    if as_json:
        answer(found)
    about = found.about
    console.print(f"{out}: {about.impressions:,} impressions and {about.actions:,} actions of {about.people:,} people")
    console.print(found.campaigns.prices)


def since_ms(text: str | None, now: datetime) -> int:
    """The moment of ``--since``, ms since the epoch; 0 without one. Ends the command with status 2 if it is no time."""
    if text is None:
        return 0
    if ago := _AGO.fullmatch(text):
        return max(round(now.timestamp() * 1000) - int(ago[1]) * _UNITS_MS[ago[2]], 0)
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--since {text}: expected a date as 2026-11-01, a moment as 2026-11-01T12:00, or 90m, 24h, 7d", 2)
    return max(round((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp() * 1000), 0)


def _gather(gatherer: "Gatherer", log: str, settings: "Settings", progress: Progress) -> str:
    """Read the log into ``gatherer``; return what it was, without a path or a host."""
    kind, _, place = log.partition(":")
    if log == "topics":
        from streams.behaviour.gathered import read_topics

        task = progress.add_task("Reading")

        def told(name: str, records: int) -> None:
            progress.update(task, description=f"Reading {name}", advance=records)

        asyncio.run(read_topics(settings.bootstrap, settings.topic_prefix, gatherer, told))
        return "the topics"
    if not place or kind not in ("kuairand", "parquet"):
        fail(f"--log {log}: expected topics, kuairand:DIR or parquet:DIR", 2)
    progress.add_task(f"Reading {kind}", total=None)
    recorded = _recorded(kind, Path(place))
    gatherer.offer(recorded.ads)
    gatherer.add(recorded.events)
    return f"a recorded log ({kind})"


def _recorded(kind: str, directory: Path) -> "Log":
    from streams.logs import LogError

    if kind == "kuairand":
        from streams.logs import kuairand

        return kuairand.read(directory)
    if find_spec("pyarrow") is None:
        raise LogError("pyarrow is missing, which Parquet needs: pip install 'salience[evaluate]'")
    from streams.logs import parquet

    return parquet.read(directory)
