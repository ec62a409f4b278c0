"""How a command fails: a message for people, the same as JSON where machines read, and exit status 1."""

import json
from collections.abc import Callable
from typing import NoReturn, TypeVar

import typer
from rich.console import Console

T = TypeVar("T")


def fail(error: Exception | str, as_json: bool = False) -> NoReturn:
    """End the command: the error on stderr and, ``as_json``, on stdout."""
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"Error: {error}")
    if as_json:
        typer.echo(json.dumps({"error": str(error)}))
    raise typer.Exit(1)


def or_fail(call: Callable[[], T]) -> T:
    """What ``call`` returns; what it refuses, or a topic that is missing, ends the command."""
    from streams.reading import MissingTopicError

    try:
        return call()
    except (ValueError, MissingTopicError) as error:
        fail(error)
