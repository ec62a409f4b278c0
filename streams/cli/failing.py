"""How a command fails: a message for people, the same as JSON for machines, and exit status 1."""

import errno
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from streams.cli.screen import screen
from streams.mendable import MendableError

T = TypeVar("T")

_AS_JSON = ContextVar("as_json", default=False)
"""Whether the running command has ``--json``."""
_LOG_JSON = ContextVar("log_json", default=False)
"""Whether the running command has ``--log-json``."""


def fail(error: Exception | str, status: int = 1) -> NoReturn:
    """End the command: print the error on stderr, as a log line with ``--log-json``; with ``--json`` also on stdout.

    If either is full or closed, the message is lost there, but the status stays.
    """
    with suppress(OSError, ValueError):  # ValueError: the stream is closed
        _say(str(error))
    if _AS_JSON.get():
        with suppress(OSError, ValueError):
            typer.echo(json.dumps({"error": str(error)}))
    raise typer.Exit(status)


def _say(error: str) -> None:
    if _LOG_JSON.get():  # in the format of `streams.log_lines.configure_logging`, which may not have been called yet
        line = {"event": error, "level": "error", "timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}
        typer.echo(json.dumps(line), err=True)
    else:
        screen(stderr=True, soft_wrap=True).print(f"Error: {error}")


@contextmanager
def writing(out: Path, helps: str) -> Iterator[None]:
    """Ends the command if its result cannot be written to ``out``; ``helps``: what to do then."""
    try:
        yield
    except OSError as error:
        fail(f"--out {out} cannot be written ({error.strerror or error}); {helps}")


class Salience(TyperGroup):
    """The root of all commands: what a user can mend becomes a message, without a traceback, and needs no handler."""

    def main(self, *args: Any, **more: Any) -> Any:
        """Run one command in a context of its own: how it was to fail is not how the next in this process fails."""
        return copy_context().run(super().main, *args, **more)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and note ``--json`` and ``--log-json``. What stdout's encoding lacks is escaped from here on."""
        if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a shop's names are of any script
        _AS_JSON.set("--json" in args)
        _LOG_JSON.set("--log-json" in args)
        return _told(lambda: super(Salience, self).parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand with its log on stderr: by default structlog writes to stdout, among the answers."""
        import structlog

        from streams.log_lines import Lines

        structlog.configure(logger_factory=lambda *_: Lines(sys.stderr))
        return _told(lambda: super(Salience, self).invoke(ctx))


def _told(call: Callable[[], T]) -> T:
    """Return what ``call`` returns; report its failure."""
    try:
        return call()
    except typer.Exit:
        raise
    except Exception as error:
        _tell(error)
        raise


def _tell(error: Exception) -> None:
    """End the command with the error's message, if it is one that the user can mend.

    A usage error is reported to machines here, and to people by typer.
    """
    if isinstance(error, typer.TyperException):
        if _LOG_JSON.get():
            fail(error.format_message(), error.exit_code)
        if _AS_JSON.get():
            typer.echo(json.dumps({"error": error.format_message()}))
        return
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        fail(f"{error.filename or 'what was to be printed'} could not be written: {error.strerror}")

    from streams.connection import ConnectionSettingsError

    if isinstance(error, ConnectionSettingsError):
        fail(error, 2)
    if isinstance(error, MendableError):
        fail(error)

    from aiokafka.errors import KafkaError
    from confluent_kafka import KafkaException
    from msgspec import DecodeError

    from deploy.brokers import BrokerError
    from scoring.manifest import ModelError
    from scoring.text import TextEncoderError

    if isinstance(error, BrokerError | ModelError | TextEncoderError):  # of packages that import nothing of this one
        fail(error)
    if isinstance(error, KafkaError | KafkaException):
        fail(f"the broker failed: {_why(error)}. Look closer: salience doctor")
    if isinstance(error, DecodeError):
        fail(f"what was read is no message of ours: {error}. What a topic holds: salience tail TOPIC --from-beginning")


def _why(error: Exception) -> str:
    """What a Kafka client says; of a request without an answer it has but a number, or nothing."""
    from aiokafka.errors import KafkaTimeoutError, RequestTimedOutError

    if isinstance(error, RequestTimedOutError | KafkaTimeoutError):
        return "no answer to a request in time; it is busy or away, or the link slow. What was sent may be there"
    return str(error).removesuffix(".")
