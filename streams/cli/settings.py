"""``salience settings``: every setting, what it is now, its default and its reason."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streams.cli.options import Json, settings_of


def settings(
    markdown: Annotated[bool, typer.Option(help="The table of deploy/SETTINGS.md.")] = False,
    as_json: Json = False,
) -> None:
    """Show every setting: its value in this environment, its default and the reason for its bound.

    Example: SALIENCE_SLOTS=3 salience settings
    """
    from streams.settings import Settings, table

    if markdown:
        sys.stdout.write(table())
        return
    now = settings_of()
    if as_json:
        sys.stdout.write(now.model_dump_json() + "\n")
        return
    shown = Table("setting", "now", "default", "why")
    for name, field in Settings.model_fields.items():
        value = getattr(now, name)
        style = "bold" if value != field.default else ""
        shown.add_row(f"SALIENCE_{name.upper()}", str(value), str(field.default), field.description, style=style)
    Console().print(shown)
