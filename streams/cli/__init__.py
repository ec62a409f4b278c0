"""The command ``salience``. ``--help`` answers at once: only messages and names of topics are imported by then.

All else, from numpy to Kafka's clients, commands import when they run.
"""

import os
from importlib.metadata import version
from typing import Annotated

# The worker computes on one thread. A pool of BLAS threads only spins against it: on two busy cores a placement cost
# six times as much. numpy reads this at its first import.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

try:
    import typer

    from streams.cli import (
        asyncapi,
        bench,
        broker,
        campaigns,
        console,
        dead_letters,
        demo,
        doctor,
        evaluate,
        experiment,
        explain,
        export_log,
        lag,
        lanes,
        metrics,
        model,
        ope,
        outcomes,
        privacy,
        replay,
        report,
        reviews,
        rules,
        settings,
        simulate,
        tail,
        topics,
        train,
        verify,
        worker,
    )
    from streams.cli.failing import Salience
    from streams.sparing import put_off
except KeyboardInterrupt:  # imports take half a second; Ctrl-C is no error meanwhile
    raise SystemExit(130) from None

app = typer.Typer(
    name="salience",
    cls=Salience,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"salience {version('salience')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)] = False,
) -> None:
    """The real-time engine that decides which ads deserve a person's attention next."""


# Grouped by purpose, as `salience --help` shows them.
_RUN = "Run"
app.command(epilog=demo.EPILOG, rich_help_panel=_RUN)(demo.demo)
app.add_typer(broker.app, name="broker", rich_help_panel=_RUN)
app.add_typer(topics.app, name="topics", rich_help_panel=_RUN)
app.command(rich_help_panel=_RUN)(worker.worker)
app.command(epilog=demo.SHOPPERS_EPILOG, rich_help_panel=_RUN)(demo.shoppers)
app.command(epilog=console.EPILOG, rich_help_panel=_RUN)(console.console)

_WATCH = "Watch and mend"
app.command(rich_help_panel=_WATCH)(doctor.doctor)
app.add_typer(lag.app, name="lag", rich_help_panel=_WATCH)
app.add_typer(lanes.app, name="lanes", rich_help_panel=_WATCH)
app.command(rich_help_panel=_WATCH)(tail.tail)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=_WATCH)
app.command(rich_help_panel=_WATCH)(settings.settings)
app.command(rich_help_panel=_WATCH)(metrics.metrics)
app.command(rich_help_panel=_WATCH)(asyncapi.asyncapi)

_TELL = "See what came of it"
app.command(rich_help_panel=_TELL)(explain.explain)
app.command(rich_help_panel=_TELL)(outcomes.outcomes)
app.command(rich_help_panel=_TELL)(campaigns.campaigns)
app.command(epilog=report.EPILOG, rich_help_panel=_TELL)(report.report)
app.add_typer(reviews.app, name="reviews", rich_help_panel=_TELL)

_STEER = "Steer"
app.add_typer(experiment.app, name="experiment", rich_help_panel=_STEER)
app.add_typer(model.app, name="model", rich_help_panel=_STEER)
app.add_typer(rules.app, name="rules", rich_help_panel=_STEER)
app.add_typer(privacy.app, name="privacy", rich_help_panel=_STEER)

_LEARN = "Train and measure"
app.command(epilog=export_log.EPILOG, rich_help_panel=_LEARN)(export_log.export_log)
app.add_typer(replay.app, name="replay", rich_help_panel=_LEARN)
app.add_typer(train.app, name="train", rich_help_panel=_LEARN)
app.add_typer(evaluate.app, name="evaluate", rich_help_panel=_LEARN)
app.command(rich_help_panel=_LEARN)(verify.verify)
app.command(rich_help_panel=_LEARN)(ope.ope)
app.add_typer(simulate.app, name="simulate", rich_help_panel=_LEARN)
app.add_typer(bench.app, name="bench", rich_help_panel=_LEARN)


def main() -> None:
    """Entry point."""
    put_off()
    try:
        app()
    except KeyboardInterrupt:  # before typer has found the command; from then on typer does the same
        raise SystemExit(130) from None
