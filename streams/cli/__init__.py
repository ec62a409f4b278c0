"""The command ``salience``. Commands import what they need when they run, so that ``--help`` answers at once."""

import typer

from streams.cli import broker, tail, topics, worker

app = typer.Typer(
    name="salience",
    help="The real-time engine that decides which ads deserve a person's attention next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(broker.app, name="broker")
app.add_typer(topics.app, name="topics")
app.command()(worker.worker)
app.command()(tail.tail)


def main() -> None:
    """Entry point."""
    app()
