"""Options that many commands share, the settings that they make, and the answer as JSON."""

import json
from collections.abc import Coroutine
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from streams.cli.failing import fail
from streams.cli.screen import asking

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from streams.control import Control
    from streams.settings import Settings


T = TypeVar("T")


def _brokers(given: str) -> str:
    from streams.connection import check_bootstrap

    try:
        return check_bootstrap(given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def folder(given: str) -> Path | None:
    """The option's value; None for an empty one, which typer would read as the current folder."""
    return Path(given) if given else None


def a_folder(given: str) -> Path:
    """The folder of this name, there or not. An empty name, which typer would read as the current folder, is none."""
    if not given:
        raise typer.BadParameter("'' is no folder; is a variable not set? The current folder is .")
    named = Path(given)
    try:
        is_file = named.exists() and not named.is_dir()
    except OSError as error:  # not of a folder that is missing: of one in somebody else's, or of too long a name
        raise typer.BadParameter(f"{given} cannot be looked at ({error.strerror}); name a folder of your own") from None
    if is_file:
        raise typer.BadParameter(f"{given} is a file; expected a folder")
    return named


def a_folder_there(given: str) -> Path:
    """The folder of this name, which must be there."""
    if not (named := a_folder(given)).exists():
        raise typer.BadParameter(f"{given} does not exist")
    return named


Bootstrap = Annotated[str | None, typer.Option(help="Kafka brokers, host:port (SALIENCE_BOOTSTRAP).")]
Brokers = Annotated[
    str,
    typer.Option("--bootstrap", help="Kafka brokers, host:port.", envvar="SALIENCE_BOOTSTRAP", callback=_brokers),
]
"""The same for commands that read no other setting: a wrong one must not keep them from their work."""
Prefix = Annotated[str | None, typer.Option(help="Prefix of every topic name (SALIENCE_TOPIC_PREFIX).")]
PlainPrefix = Annotated[
    str, typer.Option("--prefix", help="Prefix of every topic name.", envvar="SALIENCE_TOPIC_PREFIX")
]
"""For commands that take `Brokers`."""
Model = Annotated[
    Path | None,
    typer.Option(parser=folder, metavar="<path>", help="Folder of a model's manifest.json (SALIENCE_MODEL)."),
]
Home = Annotated[
    Path | None, typer.Option(parser=folder, metavar="<path>", help="Folder of snapshots and logs (SALIENCE_HOME).")
]
LogFolder = Annotated[
    Path, typer.Option("--data", parser=a_folder_there, metavar="<folder>", help="Folder of the log's files.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="Log JSON lines on stderr.")]
Host = Annotated[
    str | None,
    typer.Option(help="Address to listen on (SALIENCE_WEB_HOST); beyond loopback it needs SALIENCE_WEB_TOKEN."),
]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: any free one, which is logged.")]
PagesPort = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=0,
        max=65_535,
        help="Serve /metrics and /healthz on this port of SALIENCE_WEB_HOST; 0: any free one; else none.",
    ),
]
PollEvery = Annotated[float, typer.Option("--every", min=0.1, max=60, help="Seconds between two polls of the lag.")]
StuckAfter = Annotated[
    float,
    typer.Option("--stuck-after", min=1, max=3_600, help="Seconds of lag without progress until STALL or STOP."),
]
Guarantee = Annotated[str | None, typer.Option(help="exactly_once or at_least_once (SALIENCE_GUARANTEE).")]
Users = Annotated[int, typer.Option("--users", min=2, max=10_000_000, help="Simulated shoppers.")]
Hours = Annotated[float, typer.Option("--hours", min=1, max=87_600, help="Simulated hours; ten years at most.")]


def as_text(what: str) -> str:
    """``what``, if a record can hold it: Python hides an argument's bytes that are not UTF-8 in a str."""
    try:
        what.encode()
    except UnicodeEncodeError:
        fail(f"{what!r} is not UTF-8; expected a name as events and placements have it", 2)
    return what


def named(group: str | list[str] | None) -> str | list[str] | None:
    """The option's value, a group or several; an empty name is refused."""
    if "" in ([group] if isinstance(group, str) else group or []):
        raise typer.BadParameter("'' is none; expected a group's name")
    return group


Group = Annotated[str | None, typer.Option(callback=named, help="The workers' consumer group (SALIENCE_GROUP).")]


def settings_of(**given: object) -> "Settings":
    """Settings from the environment and the options given. A wrong one ends the command with status 2."""
    from pydantic import ValidationError

    from streams.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # options by name
    except ValidationError as error:
        fail("\n".join(map(_told, error.errors())), 2)


def _told(problem: "ErrorDetails") -> str:
    name = "_".join(map(str, problem["loc"])).upper()
    why = problem["msg"].removeprefix("Value error, ")
    return f"SALIENCE_{name} is {problem['input']!r}: {why}" if name else why


def control_of(settings: "Settings") -> "Control":
    """What the control topic says now."""
    from streams.control import read_control

    return asked(read_control(settings))


def asked(work: Coroutine[Any, Any, T], what: str = "Asking brokers") -> T:
    """Run ``work``; on a terminal it is shown meanwhile."""
    import asyncio

    with asking(what):
        return asyncio.run(work)


def answer(told: object) -> None:
    """Print ``told`` as one line of JSON, for `Json`: in UTF-8, as JSON is, whatever stdout's encoding."""
    plain = methodcaller("item")  # of numpy's scalars
    try:
        line = msgspec.json.encode(told, enc_hook=plain)
    except UnicodeEncodeError:  # a file's name may be of any bytes, which only escapes tell
        line = json.dumps(msgspec.to_builtins(told, enc_hook=plain)).encode()
    typer.echo(line)
