"""``salience rules``: the market's rules file."""

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.options import Json, answer

app = typer.Typer(help="Check the rules file: caps, exclusions, auction and diversity.", no_args_is_help=True)


@app.command(epilog="Example: salience rules check rules.yaml --json")
def check(
    file: Annotated[Path, typer.Argument(help="Rules file in YAML, as salience rules example prints.")],
    as_json: Json = False,
) -> None:
    """Read a rules file as a worker would (SALIENCE_RULES), and list all its errors.

    Exit status 1 if there are any. Warnings are of rules that can be followed,
    but may show less than expected.
    """
    from streams.rules import RulesError, parse

    warnings: list[str] = []
    try:
        rules = parse(file.read_text(encoding="utf-8"))
        version, warnings, errors = rules.terms().version, rules.warnings(), []
    except OSError as error:
        version, errors = "", [f"{file} cannot be read: {error.strerror}. One to begin with: salience rules example"]
    except UnicodeDecodeError as error:
        version, errors = "", [f"{file} is not UTF-8 (byte {error.start}: {error.reason}); save it as UTF-8"]
    except RulesError as error:
        version, errors = "", str(error).splitlines()
    if as_json:
        answer({"valid": not errors, "version": version, "errors": errors, "warnings": warnings})
    else:
        for line in errors or [f"{file} can be followed; receipts name it {version}."]:
            typer.echo(line, err=bool(errors))
        for line in warnings:
            typer.echo(f"Warning: {line}", err=True)
    raise typer.Exit(1 if errors else 0)


@app.command(epilog="Example: salience rules example > rules.yaml")
def example() -> None:
    """Print a rules file that uses every rule."""
    from streams.rules import EXAMPLE

    typer.echo(EXAMPLE, nl=False)
