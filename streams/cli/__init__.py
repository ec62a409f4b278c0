"""The command ``salience``. Commands import what they need when they run, so that ``--help`` answers at once."""

import os
from importlib.metadata import version
from typing import Annotated

# The worker computes on one thread: a pool of BLAS threads would only spin against it, and did, at six times the
# cost of a placement on two busy cores. Read when numpy is first imported.
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
except KeyboardInterrupt:  # half a second of imports, in which Ctrl-C is no error
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


app.command(epilog=demo.EPILOG)(demo.demo)
app.add_typer(broker.app, name="broker")
app.add_typer(topics.app, name="topics")
app.command()(worker.worker)
app.command(epilog=demo.SHOPPERS_EPILOG)(demo.shoppers)
app.add_typer(lag.app, name="lag")
app.command(epilog=console.EPILOG)(console.console)
app.add_typer(lanes.app, name="lanes")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(privacy.app, name="privacy")
app.command()(tail.tail)
app.command()(explain.explain)
app.command()(doctor.doctor)
app.command()(settings.settings)
app.command()(metrics.metrics)
app.add_typer(replay.app, name="replay")
app.command(epilog=export_log.EPILOG)(export_log.export_log)
app.add_typer(train.app, name="train")
app.add_typer(evaluate.app, name="evaluate")
app.command()(verify.verify)
app.add_typer(experiment.app, name="experiment")
app.add_typer(model.app, name="model")
app.command()(ope.ope)
app.command()(outcomes.outcomes)
app.command()(campaigns.campaigns)
app.command(epilog=report.EPILOG)(report.report)
app.add_typer(rules.app, name="rules")
app.add_typer(simulate.app, name="simulate")
app.add_typer(reviews.app, name="reviews")
app.command()(asyncapi.asyncapi)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Entry point."""
    try:
        app()
    except KeyboardInterrupt:  # before typer, which makes the same of it, has found the command
        raise SystemExit(130) from None
