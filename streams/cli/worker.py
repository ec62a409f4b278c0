"""``salience worker``: one process of the engine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "Example: salience worker --bootstrap 127.0.0.1:9092 --guarantee exactly_once"


def worker(
    bootstrap: Annotated[str | None, typer.Option(help="Kafka brokers, host:port.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Put before every topic name.")] = None,
    guarantee: Annotated[str | None, typer.Option(help="exactly_once or at_least_once.")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of a model's manifest.json.")] = None,
    home: Annotated[Path | None, typer.Option(help="Snapshots and logs of this machine.")] = None,
    log_json: Annotated[bool, typer.Option(help="Log lines as JSON.")] = False,
) -> None:
    """Take lanes of clicks and impressions, and publish placements until stopped.

    Every other setting comes from the environment as SALIENCE_<NAME>; see the table in the README. Stops in order
    on SIGTERM and Ctrl-C. Exit status 70: a fatal error, start it again, it goes on where it was.

    Example: salience worker --bootstrap 127.0.0.1:9092 --guarantee exactly_once
    """
    from pydantic import ValidationError

    from scoring.attention import ModelError
    from streams.settings import Settings

    given = {
        "bootstrap": bootstrap,
        "topic_prefix": prefix,
        "guarantee": guarantee,
        "model": model,
        "home": home,
    }
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # options by name
    except ValidationError as error:
        for problem in error.errors():
            name = "SALIENCE_" + "_".join(map(str, problem["loc"])).upper()
            typer.echo(f"{name} is {problem['input']!r}: {problem['msg']}", err=True)
        raise typer.Exit(2) from error
    from streams.running import run

    try:
        sys.exit(run(settings, log_json=log_json))
    except ModelError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
