"""``salience bench``: speed beside references. The benchmarks are in ``tests/bench``, which only a checkout has."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streams.cli.ending import undone_when_told_to_end
from streams.cli.failing import fail
from streams.cli.hushed import hushed
from streams.cli.options import Json, answer
from streams.cli.screen import Table, coloured, screen

app = typer.Typer(help="Measure speed, as a ratio to a reference in the same run.", no_args_is_help=True)

Events = Annotated[int, typer.Option("--events", min=1_000, max=10_000_000, help="Events in the backlog.")]
Runs = Annotated[
    int, typer.Option("--runs", min=1, max=99, help="Number of runs; shows the median, least and most of several.")
]
Seconds = Annotated[float, typer.Option("--seconds", min=1, max=3_600, help="Seconds that each load lasts.")]
Users = Annotated[int, typer.Option("--users", min=1_000, max=2_000_000, help="Users whose state is restored.")]
Quick = Annotated[bool, typer.Option("--quick", help="Make a small, short run, to see that it works.")]
# `streams.settings.Guarantee`, written out: loading the settings would double what any command takes to start
OneGuarantee = Annotated[
    Literal["exactly_once", "at_least_once"] | None, typer.Option("--guarantee", help="Only this guarantee; else both.")
]
PeersPython = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Python interpreter with Quix Streams; else this one.")
]

Report = Mapping[str, Any]
Say = Callable[[str], None]
"""Told how far it is."""
Run = Callable[[Any, Say], Report]
"""Called with a benchmark's module."""

INGESTED = 500_000
RECOVERED = 1_000_000
"""Events and users that the goals assume; other sizes share fixed costs differently, and have no goals."""


@app.command(epilog="Example: salience bench ingest --events 100000 --runs 3 --json")
def ingest(events: Events = INGESTED, runs: Runs = 1, peers_python: PeersPython = None, as_json: Json = False) -> None:
    """Drain a backlog into state, unscored; compare with aiokafka alone, stock Faust and Quix Streams.

    Starts its own Apache Kafka, in a temporary folder (2 GB a run); worker and
    peers share one core.
    """
    python = str(peers_python or sys.executable)
    _measure(
        "ingest", lambda benchmark, say: benchmark.run(events, runs, say, python), as_json, whole=events == INGESTED
    )


@app.command(epilog="Example: salience bench e2e --runs 3 --json")
def e2e(events: Events = 100_000, runs: Runs = 1, as_json: Json = False) -> None:
    """Measure events to published placements: 100 candidates each of 20,000 ads, under both guarantees.

    Starts its own Apache Kafka, in a temporary folder; the worker has one core.
    """
    _measure("e2e", lambda benchmark, say: benchmark.run(events, runs, say), as_json)


@app.command(epilog="Example: salience bench latency --seconds 20 --guarantee exactly_once --json")
def latency(seconds: Seconds = 60, runs: Runs = 1, guarantee: OneGuarantee = None, as_json: Json = False) -> None:
    """Measure the time from event to placement at 50 % and 80 % of capacity, beside a plain echo.

    Starts its own Apache Kafka, in a temporary folder. The generator is a
    separate process, and counts from the moment that an event was due. A run
    takes nine times --seconds, half as long with one guarantee.
    """
    only = [(guarantee,)] if guarantee else []
    _measure("latency", lambda benchmark, say: benchmark.run(seconds, runs, say, *only), as_json)


@app.command(epilog="Example: salience bench overload --json")
def overload(seconds: Seconds = 120, runs: Runs = 1, as_json: Json = False) -> None:
    """Send 50 % more events than the worker can process: memory stays, lag grows, and then drains.

    Starts its own Apache Kafka, in a temporary folder.
    """
    _measure("overload", lambda benchmark, say: benchmark.run(seconds, runs, say), as_json)


@app.command(epilog="Example: salience bench swap --seconds 30 --json")
def swap(seconds: Seconds = 60, runs: Runs = 1, as_json: Json = False) -> None:
    """Measure latency while models are promoted and rolled back nonstop, beside the same load without.

    Starts its own Apache Kafka, in a temporary folder. A run takes about 2.5
    times --seconds.
    """
    _measure("swap", lambda benchmark, say: benchmark.run(seconds, runs, say), as_json)


@app.command(epilog="Example: salience bench scale --json")
def scale(quick: Quick = False, runs: Runs = 1, as_json: Json = False) -> None:
    """Measure how cost grows with workers, partitions, ads and users.

    Starts its own Apache Kafka, in a temporary folder (10 GB a run).
    """
    _measure("scale", lambda benchmark, say: benchmark.run(runs, say, quick=quick), as_json, whole=not quick)


@app.command(epilog="Example: salience bench learn --runs 5 --json")
def learn(runs: Runs = 1, as_json: Json = False) -> None:
    """Measure the online click layer without a broker: predicting, learning, building features."""
    _measure("learn", _repeated("learn", runs), as_json)


@app.command(epilog="Example: salience bench receipts --events 20000 --json")
def receipts(events: Events = 100_000, runs: Runs = 1, as_json: Json = False) -> None:
    """Measure finding a placement's receipt by its id, beside looking through the topic.

    Starts its own Apache Kafka, in a temporary folder (2 GB a run); a worker
    makes the receipts.
    """
    _measure("receipts", lambda benchmark, say: benchmark.run(events, runs, say), as_json)


@app.command(epilog="Example: salience bench score --runs 5 --json")
def score(quick: Quick = False, runs: Runs = 1, as_json: Json = False) -> None:
    """Measure one placement without a broker, from rows to encoded messages, beside onnxruntime alone."""
    _measure("score", _repeated("score", runs, quick=quick), as_json, whole=not quick)


@app.command(epilog="Example: salience bench state --users 100000 --json")
def state(users: Users = RECOVERED, runs: Runs = 1, as_json: Json = False) -> None:
    """Measure the bytes of a user's state, and the time to restore it: in memory, and from a broker on one core.

    Starts its own Apache Kafka, in a temporary folder (6 GB for a million
    users).
    """
    _measure("recovery", lambda benchmark, say: benchmark.run(users, runs, say), as_json, whole=users == RECOVERED)


def _measure(name: str, run: Run, as_json: bool, *, whole: bool = True) -> None:
    """``run`` a benchmark of ``tests/bench``; print its report as one object, or as tables for people.

    These show medians, the range of several runs, and goals. ``whole``: the run has the size that the goals assume.
    """
    import streams

    root = Path(streams.__file__).parents[1]
    if not (root / "tests" / "bench").is_dir():
        fail(
            "the benchmarks are in tests/bench, which is not installed with the package; "
            "clone the repository, `make setup`, and run .venv/bin/salience bench there"
        )
    sys.path.insert(0, str(root))
    from tests.bench.goals import judged

    people = screen(stderr=True)
    retried = hushed("aiokafka", below=logging.ERROR)  # a new topic has no leader yet: aiokafka retries
    with retried, undone_when_told_to_end(), people.status("measuring", spinner="line") as status:

        def say(line: str) -> None:
            status.update(coloured(line))
            people.print(coloured(line, "dim"))

        report = run(import_module(f"tests.bench.{name}"), say)
    goals = judged(report) if whole else {}
    if as_json:
        answer({**report, "goals": goals})
        return
    screen().print(_table(report))
    if goals:
        screen().print(_goals_table(goals))


def _repeated(name: str, runs: int, **how: bool) -> Run:
    """A benchmark that measures once, so many times."""

    def run(benchmark: Any, say: Say) -> Report:
        from tests.bench.report import repeated

        return repeated(name, runs, lambda: benchmark.run(**how), say)

    return run


def _table(report: Report) -> Table:
    ranged = "min" in report
    table = Table("", *(["median", "least", "most"] if ranged else [""]), box=None, show_header=ranged)
    for at, depth, value in _rows({name: part for name, part in report.items() if name not in ("min", "max")}):
        label = "  " * depth + at[-1].replace("_", " ")
        if isinstance(value, Mapping):
            table.add_row(label, style="bold" if not depth else None)
        else:
            others = [_text(found) if (found := _at(report.get(end), at)) is not None else "" for end in ("min", "max")]
            table.add_row(label, _text(value), *(others if ranged else []))
    return table


def _goals_table(goals: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("goal", "found", "wanted", "", box=None)
    for at, goal in goals.items():
        words = {True: coloured("reached", "green"), False: coloured("not reached", "red")}
        table.add_row(
            at.replace("_", " ").replace(".", ", "), _text(goal["found"]), goal["wanted"], words.get(goal["reached"])
        )
    return table


def _rows(report: Report, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int, Any]]:
    """Every part of a report: the names that lead to it, its depth, and its value."""
    for name, value in report.items():
        at = (*above, name)
        yield at, len(above), value
        if isinstance(value, Mapping):
            yield from _rows(value, at)


def _at(report: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        report = report.get(name) if isinstance(report, Mapping) else None
    return report


def _text(value: object) -> str:
    if value is None:
        return "not measured"
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
