"""The proof that the harness would notice: each mutation of the numbered order must make a run fail.

`python -m tests.integration.chaos.prove`: a short run for each mutation, with the faults under which it does its harm.
"""

import subprocess
import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from tests.integration.chaos.mutations import FOUND_BY, MUTATIONS
from tests.integration.chaos.run import Report

FAULTS = {
    "commit_before_delivery": "dead_letters_not_writable,killed",
    "deliveries_not_awaited": "refused_as_too_large",
    "no_fence": "frozen",
    "no_seek": "joined_and_left",
    "no_offset_in_row": "killed",
    "lane_row_first": "refused_as_too_large",
    "transactions_off": "refused_as_too_large",
}
"""Under which each does its harm; a mistake without a fault is none that anybody would see."""


CONTROL = "none"
"""No mistake, under the faults of all of them: nothing may be found."""
KINDS = ("lost", "doubled", "reordered", "other")


def prove(
    minutes: Annotated[float, typer.Option(help="Of faults, for each mutation.")] = 1.5,
    seed: Annotated[int, typer.Option(help="What is drawn from.")] = 1,
    only: Annotated[str, typer.Option(help="Of the mutations these, by comma.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run the harness on each mutation; exit status 1 where one was not found, or something without any.

    Example: make chaos-mutations ARGS="--only no_fence"
    """
    chosen = [*filter(None, only.split(","))] or [CONTROL, *MUTATIONS]
    if unknown := set(chosen) - {CONTROL, *MUTATIONS}:
        raise typer.BadParameter(f"{sorted(unknown)}; there are {[CONTROL, *MUTATIONS]}", param_hint="--only")
    reports, wrong = {}, {}
    for mutation in chosen:
        faults = FAULTS.get(mutation, ",".join(FAULTS.values()))
        options = ["--mutation", mutation, "--only", faults, "--minutes", str(minutes), "--seed", str(seed)]
        command = [sys.executable, "-m", "tests.integration.chaos", *options, "--per-s", "300", "--json"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        reports[mutation] = _report_of(ended.stdout)
        wrong[mutation] = amiss(mutation, ended.returncode, ended.stdout)
    table = Table("mutation", *KINDS, "found by")
    for mutation, report in reports.items():
        counts = ["" if report is None else str(getattr(report, name)) for name in KINDS]
        first = report.findings[0] if report is not None and report.findings else "nothing, as it should be"
        table.add_row(mutation, *counts, f"[red]{wrong[mutation]}[/red]" if wrong[mutation] else first)
    Console(stderr=True, highlight=False).print(table)
    if as_json:
        sys.stdout.write(msgspec.json.encode({"reports": reports, "amiss": wrong}).decode() + "\n")
    raise typer.Exit(1 if any(wrong.values()) else 0)


def amiss(mutation: str, status: int, stdout: bytes) -> str:
    """What a run under ``mutation`` should not have ended like, in words; empty where it did as it should.

    A mistake is found by findings of the kinds that are named for it: what else is wrong proves nothing of it.
    """
    report = _report_of(stdout)
    if report is None:
        return f"the harness crashed with status {status} and told nothing"
    if mutation == CONTROL:
        return f"status {status}, lag {report.lag}: {report.findings}" if status else ""
    if any(getattr(report, kind) for kind in FOUND_BY[mutation]):
        return ""
    return f"not found by {' or '.join(sorted(FOUND_BY[mutation]))}: {report.findings}"


def _report_of(stdout: bytes) -> Report | None:
    try:
        return msgspec.json.decode(stdout, type=Report)
    except msgspec.MsgspecError:
        return None


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(prove)
    app()
