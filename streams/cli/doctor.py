"""``salience doctor``: what is wrong, and the command that mends it."""

import sys

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.options import Bootstrap, Json, Model, Prefix, settings_of


def doctor(bootstrap: Bootstrap = None, prefix: Prefix = None, model: Model = None, as_json: Json = False) -> None:
    """Check versions, model, broker, topics, latest events and guarantee. Exit status 1 where something is wrong.

    Example: salience doctor --bootstrap 127.0.0.1:9092
    """
    import msgspec

    from streams.checkup import checkup

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix, model=model)
    checks = list(checkup(settings))
    healthy = all(check.ok for check in checks)
    if as_json:
        sys.stdout.write(msgspec.json.encode({"ok": healthy, "checks": checks}).decode() + "\n")
    else:
        table = Table("", "check", "found", "what helps")
        for check in checks:
            table.add_row("[green]✓[/]" if check.ok else "[red]✗[/]", check.name, check.found, check.fix)
        Console().print(table)
    raise typer.Exit(0 if healthy else 1)
