"""``salience bench``: how fast, beside what. The benchmarks are in ``tests/bench``, which only a checkout has."""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.options import Json

app = typer.Typer(help="Measure speed, as ratios to a reference in the same run.", no_args_is_help=True)

Events = Annotated[int, typer.Option("--events", min=1_000, max=10_000_000, help="Events in the backlog.")]
Runs = Annotated[int, typer.Option("--runs", min=1, max=99, help="Every number is the median of so many runs.")]
Quick = Annotated[bool, typer.Option("--quick", help="A small and short run, to see that it works.")]
PeersPython = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="An interpreter that has Quix Streams; else this one.")
]


@app.command(epilog="Example: salience bench ingest --events 100000 --runs 3 --json")
def ingest(events: Events = 500_000, runs: Runs = 1, peers_python: PeersPython = None, as_json: Json = False) -> None:
    """Drain a backlog into state, unscored, beside aiokafka alone, stock Faust and Quix Streams.

    Starts Apache Kafka by itself, in a temporary folder (2 GB a run); worker and peers share one core.
    """
    with _measuring(as_json) as say:
        from tests.bench import ingest as benchmark

        python = str(peers_python or sys.executable)
        _tell(benchmark.run(events, runs, say, python), as_json)


@app.command(epilog="Example: salience bench e2e --runs 3 --json")
def e2e(events: Events = 100_000, runs: Runs = 1, as_json: Json = False) -> None:
    """Events to published placements: 100 candidates each out of 20,000 ads, under both guarantees.

    Starts Apache Kafka by itself, in a temporary folder; the worker has one core.
    """
    with _measuring(as_json) as say:
        from tests.bench import e2e as benchmark

        _tell(benchmark.run(events, runs, say), as_json)


@app.command(epilog="Example: salience bench score --json")
def score(quick: Quick = False, as_json: Json = False) -> None:
    """One placement, from the rows to the encoded messages, beside onnxruntime alone; no broker."""
    with _measuring(as_json):
        from tests.bench import score as benchmark

        _tell(benchmark.run(quick=quick), as_json)


@app.command(epilog="Example: salience bench state --json")
def state(quick: Quick = False, as_json: Json = False) -> None:
    """Bytes and recovery of a lane's state; no broker."""
    with _measuring(as_json):
        from tests.bench import state as benchmark

        _tell(benchmark.run(quick=quick), as_json)


@contextmanager
def _measuring(as_json: bool) -> Iterator[Callable[[str], None]]:
    """Make `tests` importable and lend a way to say what is going on; what cannot be done is exit code 1."""
    import streams

    root = Path(streams.__file__).parents[1]
    if not (root / "tests" / "bench").is_dir():
        _fail(
            "the benchmarks are in tests/bench, which is not installed with the package; "
            "clone the repository, `make setup`, and run .venv/bin/salience bench there",
            as_json,
        )
    sys.path.insert(0, str(root))
    from deploy.brokers import BrokerError
    from streams.lag.watch import StalledError
    from streams.topics import TopicsError
    from tests.bench.bed import BenchError

    logging.getLogger("aiokafka").setLevel(logging.ERROR)  # a topic just made has no leader yet: it tries again
    people = Console(stderr=True, highlight=False, markup=False)
    try:
        with people.status("measuring", spinner="line") as status:

            def say(line: str) -> None:
                status.update(line)
                people.print(f"[dim]{line}[/dim]", markup=True)

            yield say
    except (BenchError, BrokerError, StalledError, TopicsError) as error:
        _fail(str(error), as_json)


def _fail(error: str, as_json: bool) -> None:
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"Error: {error}")
    if as_json:
        typer.echo(json.dumps({"error": error}))
    raise typer.Exit(1)


def _tell(report: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report))
        return
    table = Table("", "", box=None, show_header=False)
    for name, value in report.items():
        if isinstance(value, Mapping):
            table.add_row(name.replace("_", " "), "", style="bold")
            for part, of_part in value.items():
                table.add_row(f"  {part}", _text(of_part))
        else:
            table.add_row(name.replace("_", " "), _text(value))
    Console(highlight=False).print(table)


def _text(value: object) -> str:
    if value is None:
        return "not measured"
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
