"""``salience reviews``: how well the tone of reviews is read, and how soon a turn is noticed."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from streams.cli.options import Json

app = typer.Typer(help="The tone of reviews: how well it is read, how soon a turn is noticed.", no_args_is_help=True)

Data = Annotated[Path, typer.Option("--data", exists=True, file_okay=False, help="Folder of reviews.csv.gz.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31, help="Of the order that the reviews come in.")]


@app.command(epilog="Example: salience reviews evaluate --data ./reviews --json")
def evaluate(data: Data, seed: Seed = 1, as_json: Json = False) -> None:
    """One pass over rated reviews, each predicted before it is learnt from; then a hundred simulated turns of tone."""
    from streams.logs import LogError
    from streams.logs.reviews import judge

    people = Console(stderr=True, highlight=False)
    try:
        with Progress(console=people, transient=True) as progress:
            task = progress.add_task("reviews", total=None)
            judged = judge(data, seed, lambda: progress.advance(task))
    except LogError as error:
        people.print(f"Error: {error}", markup=False)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps(asdict(judged)))
        return
    table = Table("figure", "value", title="The tone of reviews")
    for name, value in asdict(judged).items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else f"{value:.4g}")
    Console(highlight=False).print(table)
