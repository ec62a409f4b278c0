"""The proof that the harness would notice: each mutation of the numbered order must make a run fail.

`python -m tests.integration.chaos.prove`: a short run for each mutation, with the faults under which it does its harm.
"""

import json
import subprocess
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.integration.chaos.mutations import MUTATIONS

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


def prove(
    minutes: Annotated[float, typer.Option(help="Of faults, for each mutation.")] = 1.5,
    seed: Annotated[int, typer.Option(help="What is drawn from.")] = 1,
    only: Annotated[str, typer.Option(help="Of the mutations these, by comma.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run the harness on each mutation; exit status 1 where one was not found, or something without any.

    Example: make chaos-mutations ARGS="--only no_fence"
    """
    reports = {}
    for mutation in filter(None, only.split(",")) if only else (CONTROL, *MUTATIONS):
        faults = FAULTS.get(mutation, ",".join(FAULTS.values()))
        options = ["--mutation", mutation, "--only", faults, "--minutes", str(minutes), "--seed", str(seed)]
        command = [sys.executable, "-m", "tests.integration.chaos", *options, "--per-s", "300", "--json"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        reports[mutation] = json.loads(ended.stdout)
    table = Table("mutation", "lost", "doubled", "reordered", "other", "found by")
    for mutation, report in reports.items():
        counts = (str(report[name]) for name in ("lost", "doubled", "reordered", "other"))
        table.add_row(mutation, *counts, report["findings"][0] if report["findings"] else "[red]not found[/red]")
    Console(stderr=True, highlight=False).print(table)
    if as_json:
        sys.stdout.write(json.dumps(reports) + "\n")
    as_expected = [bool(report["findings"]) == (mutation != CONTROL) for mutation, report in reports.items()]
    raise typer.Exit(0 if all(as_expected) else 1)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(prove)
    app()
