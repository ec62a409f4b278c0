"""``salience simulate``: worlds whose truth is known, and how often salience's figures are wrong in them."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from streams.cli.options import Json

app = typer.Typer(help="Hold the market and the laboratory against worlds whose truth is known.", no_args_is_help=True)

Experiments = Annotated[int, typer.Option("--experiments", min=10, max=100_000, help="Experiments without a lift.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="Everything follows from it.")]

NULL_USERS, LIFTED_USERS, SPLIT_USERS = 4_000, 20_000, 1_000_000
LIFT = 0.05
LIFTED_SHARE = 5
"""One experiment in so many is run again with a true lift: five times the users, so that it costs the same."""
FALSE_POSITIVES_MAX, COVERAGE_MIN, CUT_MIN = 0.05, 0.95, 0.40


@app.command(epilog="Example: salience simulate aa --experiments 200 --json")
def aa(experiments: Experiments = 1_000, seed: Seed = 1, as_json: Json = False) -> None:
    """Watch experiments of known truth a hundred times each: false alarms, coverage, variance cut, split check.

    Ends with exit code 1 where a figure misses what is promised: 5 % false alarms, 95 % coverage, 40 % less variance.
    """
    from streams.simulate.experiments import one, summary, users_until_split_found

    people = Console(stderr=True, highlight=False)
    null = [
        one(seed * 1_000_003 + number, NULL_USERS, 0.0)
        for number in track(range(experiments), "without a lift", console=people, transient=True)
    ]
    lifted = [
        one(seed * 2_000_003 + number, LIFTED_USERS, LIFT)
        for number in track(range(experiments // LIFTED_SHARE), "with a lift of 5 %", console=people, transient=True)
    ]
    found = summary(null, lifted, users_until_split_found(seed, 0.505, SPLIT_USERS))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        table = Table("figure", "value", title=f"{experiments} experiments watched {found['looks']} times each")
        for name, value in found.items():
            table.add_row(name.replace("_", " "), f"{value:,}")
        Console(highlight=False).print(table)
    kept = (
        found["false_positive_rate"] <= FALSE_POSITIVES_MAX
        and found["coverage"] >= COVERAGE_MIN
        and found["cuped_variance_cut"] >= CUT_MIN
        and found["cuped_raised"] == 0
        and found["srm_detected"]
    )
    if not kept:
        people.print("A figure misses what is promised; see streams/simulate/experiments.py for the world behind it.")
        raise typer.Exit(1)
