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

from streams.cli.ending import undone_when_told_to_end
from tests.integration.chaos import faults
from tests.integration.chaos.cluster import can_mount_small_disk
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
    if mutation not in ("none", *MUTATIONS):
        raise typer.BadParameter(f"{mutation}; there are {['none', *MUTATIONS]}", param_hint="--mutation")
    console = Console(stderr=True, highlight=False)
    chosen, left_out = choose(only, guarantee, small_disk=can_mount_small_disk())
    for kind, why in left_out.items():
        console.print(f"{kind} is left out: {why}")
    plan = Plan(
        seed=seed,
        minutes=minutes,
        per_s=per_s,
        guarantee=cast("Literal['exactly_once', 'at_least_once']", guarantee),
        mutation=mutation,
        of_workers=tuple(fault for fault in faults.OF_WORKERS if fault.__name__ in chosen),
        of_brokers=tuple(fault for fault in faults.OF_BROKERS if fault.__name__ in chosen),
        recreate=RECREATED in chosen,
    )
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    logging.disable(logging.WARNING)  # the clients' own, of brokers that are being killed
    console.print(f"seed {seed}, {minutes:g} minutes of faults, {guarantee}, mutation {mutation}")
    folder = Path(tempfile.mkdtemp(prefix="salience-chaos-"))
    with undone_when_told_to_end():
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


def choose(only: str, guarantee: str, *, small_disk: bool) -> tuple[set[str], dict[str, str]]:
    """The kinds of faults of a run, and why others that were asked for are not among them.

    ``only``: names by comma, empty for all. ``small_disk``: whether one can be mounted. Raises `typer.BadParameter`
    where there is no such kind, or none is left.
    """
    asked = set(filter(None, only.split(","))) or {*FAULTS, RECREATED}
    if unknown := asked - {*FAULTS, RECREATED}:
        raise typer.BadParameter(f"{sorted(unknown)}; there are {[*FAULTS, RECREATED]}", param_hint="--only")
    cannot = {} if small_disk else {"disk_full": "no tmpfs can be mounted here"}
    if guarantee == "at_least_once":
        cannot |= dict.fromkeys(faults.TWO_OWNERS, f"{guarantee} does not fence a former owner")
    left_out = {kind: cannot[kind] for kind in sorted(asked & cannot.keys())}
    if not (chosen := asked - left_out.keys()):
        raise typer.BadParameter(f"no fault is left: {left_out}", param_hint="--only")
    return chosen, left_out


def _tell(console: Console, report: Report) -> None:
    table = Table("what", "count", title=f"chaos, seed {report.seed}")
    for kind, count in report.faults.items():
        table.add_row(f"fault: {kind}", str(count))
    table.add_row("faults", str(sum(report.faults.values())))
    for status, count in report.worker_ends.items():
        table.add_row(f"workers ended with status {status}", str(count))
    for name in ("events", "dead_letters", "placements", "slices", "lag"):
        table.add_row(name, f"{getattr(report, name):,}")
    for name in ("lost", "doubled", "reordered", "other", "ended", "left_open", "unmet"):
        count = getattr(report, name)
        table.add_row(name.replace("_", " "), f"[red]{count}[/red]" if count else "0")
    console.print(table)
    for line in [*report.findings, *report.notes]:
        console.print(line, markup=False)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(chaos)
    app()
