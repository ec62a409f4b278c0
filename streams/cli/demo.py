"""``salience demo``: the whole engine with simulated shoppers; ``salience shoppers``: the shoppers alone."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from streams.cli.failing import fail
from streams.cli.hushed import hushed
from streams.cli.options import Bootstrap, Json, Prefix, answer, settings_of
from streams.cli.screen import screen

if TYPE_CHECKING:
    from streams.demo.report import Report, Snapshot
    from streams.demo.shopping import Show

SECONDS_MAX = 300
"""The demo's broker keeps all that was sent, and finds what is new the more slowly: p99 grew from 0.2 s in 45 s to
2.5 s in 207 s."""
SecondsOption = Annotated[
    int | None, typer.Option("--seconds", min=1, help="Seconds to run once the worker is ready; else until Ctrl-C.")
]
DemoSecondsOption = Annotated[
    int, typer.Option("--seconds", min=1, max=SECONDS_MAX, help="Seconds to run once the worker is ready.")
]
UsersOption = Annotated[int, typer.Option("--users", min=1, max=100_000, help="Number of shoppers.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the shoppers: another seed, another crowd.")]

EPILOG = "Example: salience demo --seconds 45 --json"
SHOPPERS_EPILOG = "Example: salience shoppers --seconds 60 --users 2000"


def demo(
    seconds: DemoSecondsOption = 120, users: UsersOption = 500, seed: SeedOption = 1, as_json: Json = False
) -> None:
    """Start a broker, a worker and a shop full of simulated shoppers, and watch salience beat chance.

    Everything runs on loopback, with all files in a temporary folder, for
    --seconds or until Ctrl-C. The broker inside keeps all records in memory, 4 MB
    more each second, and gets slower with them. For longer, let the same shoppers
    in on a broker of yours: salience broker apache up, and salience shoppers.

    Exit status 1 if something failed, or nothing was shown to anybody.
    """
    from streams.demo.run import run_demo
    from streams.demo.shopping import Plan

    people = screen(stderr=as_json)
    people.print("Starting a broker and a worker, for a few seconds ...")
    with tempfile.TemporaryDirectory(prefix="salience-demo-") as folder, _live(people) as show:
        report = run_demo(Plan(seconds, users, seed), Path(folder), show)
    _tell(report, people, as_json)


def shoppers(
    seconds: SecondsOption = None,
    users: UsersOption = 500,
    seed: SeedOption = 1,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Let simulated shoppers in on a broker of yours, to see what your workers do for them.

    Publishes the demo's ads on the topic ads, sends the impressions and clicks
    that answer the workers' placements, and shows the demo's screen, until
    Ctrl-C or --seconds. At the end it withdraws the ads; the events stay. It
    needs the rights of admin (salience topics acls).

    The workers' SALIENCE_CONTROL_SHARE sets how many people are ranked at
    random: 25 of 500. Let in more, or wait longer, for a sure comparison.

    Run one at a time. If the demo's ads are there already, it listens for six
    seconds and ends if it hears other shoppers; if not, a killed run has left
    the ads. (Two that begin in the same second do not hear each other.) It
    refuses to begin beside ads that are not the demo's, and ends when the
    workers place one.

    Exit status 1 if something failed, no worker answers at first, or nothing was
    shown to anybody. For a worker that falls silent later it waits, and counts
    the shoppers who wait for an answer.
    """
    import asyncio

    from streams.demo.shopping import NoPlacementError, Plan, StrangeAdsError
    from streams.demo.visit import OthersShopError, visit

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    at, prefixed = f"--bootstrap {settings.bootstrap}", settings.topic_prefix
    people = screen(stderr=as_json)
    people.print(f"Waiting for the workers of {settings.bootstrap} to place ads for the first shoppers ...")
    try:
        with _live(people) as show:
            report = asyncio.run(visit(Plan(seconds, users, seed), settings, show))
    except (OthersShopError, StrangeAdsError) as error:
        other = f"{at} --prefix {prefixed}demo-"
        fail(
            f"{error}. Or give these shoppers topics and a worker of their own: salience topics create {other}; "
            f"SALIENCE_GROUP=demo salience worker {other}; salience shoppers {other}"
        )
    except NoPlacementError as error:
        here = f"{at} --prefix {prefixed}" if prefixed else at
        fail(f"{error} Does a worker run? salience worker {here}. If one does: salience doctor {here}")
    _tell(report, people, as_json)


def _tell(report: "Report", people: Console, as_json: bool) -> None:
    """The end, for people and for machines."""
    if report.calibration is not None and report.calibration_attention is not None:
        people.print(
            f"For every predicted click there were {report.calibration:.2f} with the online click layer, "
            f"{report.calibration_attention:.2f} with the attention model alone; 1 is right."
        )
    if report.unread:
        people.print(
            f"Not all of {', '.join(report.unread)} could be read in time: the broker is slow or away, or a "
            "transaction stays open there, as of a worker that was killed. Dead letters and predictions are told of "
            "what could be."
        )
    if as_json:
        answer(report)
    if not report.impressions_engine + report.impressions_random:
        people.print("Nothing was shown to anybody, so this says nothing of salience: run it longer.")
        raise typer.Exit(1)


@contextmanager
def _live(people: Console) -> Iterator["Show"]:
    """Where frames are shown; off a terminal the last alone, and a line when the first ads are."""
    from streams.demo.view import render

    frames = Live(console=people, auto_refresh=False, vertical_overflow="visible")
    quiet = not people.is_terminal

    def show(snapshot: "Snapshot") -> None:
        nonlocal quiet
        if quiet and snapshot.report.impressions_engine + snapshot.report.impressions_random:
            quiet = False
            live.console.print("The first ads are shown. How it went follows at the end.")
        live.update(render(snapshot), refresh=True)

    try:
        with hushed("aiokafka", "asyncio"), frames as live:  # failures are raised, and the command reports them
            yield show
    finally:
        if not people.is_terminal:
            people.print()  # elsewhere rich leaves the last line open
