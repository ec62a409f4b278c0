"""``salience doctor``: what is wrong, and the command that mends it."""

import typer

from streams.cli.options import Bootstrap, Json, Model, Prefix, answer, settings_of
from streams.cli.screen import Table, asking, coloured, screen


def doctor(bootstrap: Bootstrap = None, prefix: Prefix = None, model: Model = None, as_json: Json = False) -> None:
    """Check versions, model, broker, topics, control, events, ads and guarantee. Exit status 1 if something is wrong.

    Example: salience doctor --bootstrap 127.0.0.1:9092
    """
    from streams.checkup import checkup

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix, model=model)
    checks = []
    with asking() as now:
        for check in checkup(settings):
            checks.append(check)
            now(f"Asking brokers, after {check.name}")
    healthy = all(check.ok for check in checks)
    if as_json:
        answer({"ok": healthy, "checks": checks})
    else:
        table = Table("", "check", "found", "what helps")
        for check in checks:
            mark = coloured("✓", "green") if check.ok else coloured("✗", "red")
            table.add_row(mark, check.name, check.found, check.fix)
        screen(highlight=True).print(table)
    raise typer.Exit(0 if healthy else 1)
