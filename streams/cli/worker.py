"""``salience worker``: one process of the engine."""

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.options import Bootstrap, Model, Prefix, settings_of


def worker(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    guarantee: Annotated[str | None, typer.Option(help="exactly_once or at_least_once.")] = None,
    model: Model = None,
    home: Annotated[Path | None, typer.Option(help="Snapshots and logs of this machine.")] = None,
    log_json: Annotated[bool, typer.Option(help="Log lines as JSON.")] = False,
) -> None:
    """Take lanes of clicks and impressions, and publish placements until stopped.

    Every other setting comes from the environment as SALIENCE_<NAME>; see the table in the README. Stops in order
    on SIGTERM and Ctrl-C. Exit status 1: it cannot start, and says why. 70: a fatal error; start it again, it goes
    on where it was.

    Example: salience worker --bootstrap 127.0.0.1:9092 --guarantee exactly_once
    """
    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix, guarantee=guarantee, model=model, home=home)
    from scoring.attention import ModelError
    from streams.recovery import RecoveryError
    from streams.running import run
    from streams.topics import TopicsError

    try:
        status = run(settings, log_json=log_json)
    except (ModelError, RecoveryError, TopicsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(status)
