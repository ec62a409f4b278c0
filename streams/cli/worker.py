"""``salience worker``: one process of the engine."""

import sys
from typing import Annotated

import typer

from streams.cli.options import Bootstrap, Guarantee, Home, LogJson, Model, Prefix, settings_of


def worker(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    guarantee: Guarantee = None,
    model: Model = None,
    home: Home = None,
    log_json: LogJson = False,
    supervise: Annotated[bool, typer.Option("--supervise", help="Restart the worker whenever it fails.")] = False,
) -> None:
    """Take lanes of clicks and impressions, and publish placements until stopped.

    Other settings come from the environment as SALIENCE_<NAME>: salience
    settings. SIGTERM and Ctrl-C stop it in order. /healthz and /readyz answer on
    loopback, at the address that it logs (SALIENCE_WEB_PORT).

    Exit status 1: it cannot start (topics, model, rules, home, a taken port).
    2: a setting or an option is wrong; both say why.
    70: a fatal error, or it noticed that it makes no progress. Start it again,
    or use --supervise: it resumes where it stopped.

    Example: salience worker --bootstrap 127.0.0.1:9092 --guarantee exactly_once --supervise
    """
    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix, guarantee=guarantee, model=model, home=home)
    from streams.log_lines import configure_logging

    if supervise:
        configure_logging(log_json=log_json)
        raise typer.Exit(_supervise())
    from streams.running import run

    raise typer.Exit(run(settings, log_json=log_json))


def _supervise() -> int:
    """Run the same command without ``--supervise``, again and again; return the last exit status."""
    from deploy.brokers.process import tied_to_this
    from streams.supervisor import Supervisor

    arguments = [argument for argument in sys.argv[1:] if argument != "--supervise"]
    # -P: like the installed command, it imports nothing from the current folder
    return Supervisor([*tied_to_this(), sys.executable, "-P", "-m", "streams.cli", *arguments]).run()
