"""The command ``salience``. Commands import what they need when they run, so that ``--help`` answers at once."""

import typer

from streams.cli import broker, demo, doctor, explain, lanes, tail, topics, worker

app = typer.Typer(
    name="salience",
    help="The real-time engine that decides which ads deserve a person's attention next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(broker.app, name="broker")
app.add_typer(topics.app, name="topics")
app.add_typer(lanes.app, name="lanes")
app.command()(worker.worker)
app.command(epilog=demo.EPILOG)(demo.demo)
app.command()(tail.tail)
app.command()(explain.explain)
app.command()(doctor.doctor)


def main() -> None:
    """Entry point."""
    app()
