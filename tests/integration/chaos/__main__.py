"""The harness as a command: ``make chaos ARGS="--minutes 20 --seed 7"``."""

import logging
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec
import structlog
import typer
from rich.console import Console
from rich.table import Table

from tests.integration.chaos import faults
from tests.integration.chaos.mutations import MUTATIONS
from tests.integration.chaos.run import Plan, Report, run

FAULTS = {fault.__name__: fault for fault in (*faults.OF_WORKERS, *faults.OF_BROKERS)}
RECREATED = "topic_recreated"
"""The last act of a run, once: no fault to go on after."""


def chaos(
    minutes: Annotated[float, typer.Option(help="How long faults are injected; the check comes after.")] = 5.0,
    seed: Annotated[int, typer.Option(help="What is drawn from: faults, their order, events.")] = 1,
    per_s: Annotated[float, typer.Option(help="Events a second.")] = 100.0,
    guarantee: Annotated[str, typer.Option(help="exactly_once or at_least_once.")] = "exactly_once",
    mutation: Annotated[str, typer.Option(help=f"A mistake to be found: {', '.join(MUTATIONS)}.")] = "none",
    only: Annotated[str, typer.Option(help="Of all faults these, by comma; see the table's names.")] = "",
    keep: Annotated[bool, typer.Option(help="Keep logs and data, and say where.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Inject faults into workers and three brokers; fail if an event was lost, doubled or reordered, or anything left.

    Exit status 1 where something was found. Example: make chaos ARGS="--minutes 20 --seed 7"
    """
    chosen = set(filter(None, only.split(","))) or set(FAULTS)
    if unknown := chosen - FAULTS.keys() - {RECREATED}:
        raise typer.BadParameter(f"{sorted(unknown)}; there are {[*FAULTS, RECREATED]}", param_hint="--only")
    if guarantee == "at_least_once":
        chosen -= faults.TWO_OWNERS
    plan = Plan(
        seed=seed,
        minutes=minutes,
        per_s=per_s,
        guarantee=cast("Literal['exactly_once', 'at_least_once']", guarantee),
        mutation=mutation,
        of_workers=tuple(fault for fault in faults.OF_WORKERS if fault.__name__ in chosen),
        of_brokers=tuple(fault for fault in faults.OF_BROKERS if fault.__name__ in chosen),
        recreate=RECREATED in chosen or not only,
    )
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    logging.disable(logging.WARNING)  # the clients' own, of brokers that are being killed
    console = Console(stderr=True, highlight=False)
    console.print(f"seed {seed}, {minutes:g} minutes of faults, {guarantee}, mutation {mutation}")
    folder = Path(tempfile.mkdtemp(prefix="salience-chaos-"))
    try:
        report = run(plan, folder)
    finally:
        if keep:
            console.print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    _tell(console, report)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    raise typer.Exit(0 if report.ok else 1)


def _tell(console: Console, report: Report) -> None:
    table = Table("what", "count", title=f"chaos, seed {report.seed}")
    for kind, count in report.faults.items():
        table.add_row(f"fault: {kind}", str(count))
    table.add_row("faults", str(sum(report.faults.values())))
    for status, count in report.worker_ends.items():
        table.add_row(f"workers ended with status {status}", str(count))
    for name in ("events", "dead_letters", "placements", "slices", "lag"):
        table.add_row(name, f"{getattr(report, name):,}")
    for name in ("lost", "doubled", "reordered", "other", "left_open"):
        count = getattr(report, name)
        table.add_row(name.replace("_", " "), f"[red]{count}[/red]" if count else "0")
    console.print(table)
    for line in [*report.findings, *report.notes]:
        console.print(line, markup=False)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(chaos)
    app()
