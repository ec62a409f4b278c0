"""``salience settings``: every setting, what it is now, its default and its reason."""

from typing import Annotated

import typer

from streams.cli.options import Json, answer, settings_of
from streams.cli.screen import plain, screen


def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of deploy/SETTINGS.md.")] = False,
    as_json: Json = False,
) -> None:
    """Show every setting: its value in this environment, its default and the reason for its bound; secrets masked.

    Example: SALIENCE_SLOTS=3 salience settings
    """
    from streams.connection import security
    from streams.settings import table

    if markdown:
        typer.echo(table(), nl=False)
        return
    sections = (settings_of(), security())
    if as_json:
        values = {name: value for section in sections for name, value in section.model_dump(mode="json").items()}
        answer(values)
        return
    shown = plain("setting", "now", "default", "why")
    shown.columns[0].no_wrap = True  # people copy it, and search for it
    for section in sections:
        for name, field in type(section).model_fields.items():
            value = getattr(section, name)
            style = "bold" if value != field.default else ""
            shown.add_row(f"SALIENCE_{name.upper()}", str(value), str(field.default), field.description, style=style)
    screen(highlight=True).print(shown)
