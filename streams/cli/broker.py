"""``salience broker``: a Kafka broker on this machine, started in one shell and stopped in another."""

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from streams.cli.ending import undone_when_told_to_end
from streams.cli.failing import fail
from streams.cli.options import Json, answer, folder
from streams.cli.screen import screen
from streams.own_files import own_folder

if TYPE_CHECKING:
    from deploy.brokers import Broker
    from deploy.brokers.running import Kind, Running, State

DEFAULT_PORT = 9092
HOME = Path(".salience")

HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        parser=lambda given: folder(given) or Path(os.environ.get("SALIENCE_HOME") or HOME),
        metavar="<path>",
        help="Folder of data, logs and state.",
        envvar="SALIENCE_HOME",
    ),
]
PortOption = Annotated[
    int, typer.Option("--port", min=1, max=65_533, help="Port on 127.0.0.1; further nodes take the next ports.")
]
OnePortOption = Annotated[int, typer.Option("--port", min=1, max=65_535, help="Port on 127.0.0.1.")]
NodesOption = Annotated[int, typer.Option("--nodes", help="1, or 3 to survive the loss of one.")]


app = typer.Typer(help="Run a Kafka broker on this machine.", no_args_is_help=True)
embedded = typer.Typer(
    help="Tansu: in memory, starts in milliseconds, for minutes of traffic; no transactions.", no_args_is_help=True
)
apache = typer.Typer(
    help="Apache Kafka 4: keeps its data, has transactions; needs Java 17 and Maven.", no_args_is_help=True
)
app.add_typer(embedded, name="embedded")
app.add_typer(apache, name="apache")


@embedded.command("up", epilog="Example: salience broker embedded up --port 9192")
def embedded_up(port: OnePortOption = DEFAULT_PORT, home: HomeOption = HOME, as_json: Json = False) -> None:
    """Start the embedded broker and leave it running."""
    from deploy.brokers.embedded import EmbeddedBroker

    _up("embedded", [port], lambda folder: EmbeddedBroker(folder, port, detached=True), home, as_json)


@apache.command("up", epilog="Example: salience broker apache up --nodes 3 --port 9192")
def apache_up(
    nodes: NodesOption = 1,
    port: PortOption = DEFAULT_PORT,
    home: HomeOption = HOME,
    as_json: Json = False,
) -> None:
    """Start Apache Kafka with the data that it had, and leave it running."""
    from deploy.brokers.apache import ApacheKafka

    if nodes not in (1, 3):
        raise typer.BadParameter(f"{nodes} nodes; expected 1 or 3", param_hint="--nodes")
    count = cast("Literal[1, 3]", nodes)
    ports = [port + node for node in range(nodes)]
    _up("apache", ports, lambda folder: ApacheKafka(folder, count, port=port, detached=True), home, as_json)


def _add_down_and_status(group: typer.Typer, kind: "Kind") -> None:
    """The commands that both kinds share; each has its own ``up``."""

    @group.command(epilog=f"Example: salience broker {kind} down")
    def down(home: HomeOption = HOME, as_json: Json = False) -> None:
        """Stop the broker. Apache Kafka's topics stay for the next `up`; the embedded broker's are gone."""
        from deploy.brokers.running import stop

        with _failures():
            stopped = stop(home, kind)
        where = f"at {stopped.bootstrap} is stopped" if stopped else "was not running"
        _say(f"The {kind} broker {where}.", {"kind": kind, "stopped": stopped is not None}, as_json)

    @group.command(epilog=f"Example: salience broker {kind} status --json")
    def status(home: HomeOption = HOME, as_json: Json = False) -> None:
        """Say whether the broker runs: exit status 0 if all its processes run and it answers, else 1."""
        from deploy.brokers.running import load

        with _failures():
            running = load(home, kind)
        state = running.asked() if running else "stale"
        _tell(kind, running, state, home, as_json)
        if state != "up":
            raise typer.Exit(1)


_add_down_and_status(embedded, "embedded")
_add_down_and_status(apache, "apache")


def _up(kind: "Kind", ports: list[int], make: "Callable[[Path], Broker]", home: Path, as_json: bool) -> None:
    from deploy.brokers.running import start

    kept = home / "broker" / kind
    try:
        own_folder(kept)  # before the broker makes it readable for everybody: events are personal data
    except OSError as error:
        fail(f"{kept} is no folder ({error.strerror or error}); name one of yours: --home")
    with _failures(), undone_when_told_to_end():
        running = start(home, kind, ports, make)
    _tell(kind, running, "up", home, as_json)


def _tell(kind: "Kind", running: "Running | None", state: "State", home: Path, as_json: bool) -> None:
    """Print the broker's state; for people, also what to do next."""
    command = f"salience broker {kind}"
    here = "" if home == HOME else f" --home {shlex.quote(str(home))}"
    if running is None:
        text = f"No {kind} broker runs. Start one: {command} up{here}"
        _say(text, {"kind": kind, "state": "down"}, as_json)
        return
    alive = [process.pid for process in running.processes if process.alive()]
    told = {
        "kind": kind,
        "state": state,
        "bootstrap": running.bootstrap,
        "pids": alive,
        "directory": running.directory,
        "started_ms": running.started_ms,
    }
    next_step = {
        "up": f"Stop it: {command} down{here}",
        "silent": f"Its processes run and do not answer. Stop it: {command} down{here}",
        "degraded": f"Of {len(running.processes)} processes these are left. Stop it: {command} down{here}",
        "stale": f"Its processes are gone. Start it anew: {command} up{here}",
    }[state]
    text = (
        f"The {kind} broker at {running.bootstrap} is {state}.\n"
        f"Processes {' '.join(map(str, alive))}; logs in {running.directory}\n{next_step}"
    )
    _say(text, told, as_json)


def _say(text: str, told: dict[str, object], as_json: bool) -> None:
    """Print ``text`` for people: on stderr if stdout is for machines."""
    screen(stderr=as_json, soft_wrap=True).print(text)
    if as_json:
        answer(told)


@contextmanager
def _failures() -> Iterator[None]:
    """A broker's failure becomes a message and exit status 1."""
    from deploy.brokers import BrokerError

    try:
        yield
    except (BrokerError, OSError) as error:
        fail(error)
