"""Brokers that outlive the shell that started them: start them, find and stop them by their state file."""

import fcntl
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from deploy.brokers import Broker, BrokerError
from deploy.brokers.kraft import stop_grace_s
from deploy.brokers.process import Process, end
from deploy.brokers.ready import HOST, answers, free_port, is_free

Kind = Literal["embedded", "apache"]
State = Literal["up", "silent", "degraded", "stale"]

TANSU_GRACE_S = 0.5
"""Tansu waits for its clients, and has nothing to save."""


class Running(msgspec.Struct, frozen=True):
    """A broker that was started detached: the content of the state file."""

    kind: Kind
    bootstrap: str
    directory: str
    """Its data and logs."""
    processes: tuple[Process, ...]
    started_ms: int

    @property
    def state(self) -> State:
        """Up: every process runs. Degraded: some do. Stale: none does, or other processes have their numbers."""
        alive = sum(process.alive() for process in self.processes)
        return "up" if alive == len(self.processes) else "degraded" if alive else "stale"

    def asked(self) -> State:
        """As `state`, but silent if every process runs and none answers: frozen, or overloaded."""
        return "silent" if self.state == "up" and not answers(self.bootstrap) else self.state


def start(home: Path, kind: Kind, ports: Sequence[int], make: Callable[[Path], Broker]) -> Running:
    """Start the broker of ``make`` in its folder, detached, and write its state file.

    One that already runs on these ports is returned as it is. Raises ``BrokerError`` if another one runs, a port is
    taken, or the broker does not start. The state file names every broker that runs: a start that is interrupted, or
    cannot be recorded, is undone.
    """
    with _alone(home):
        there = load(home, kind)
        state = "stale" if there is None else there.asked()
        if there is not None and state != "stale":
            if state == "up" and there.bootstrap == ",".join(f"{HOST}:{port}" for port in ports):
                return there
            raise BrokerError(
                f"The {kind} broker of {home} is {state} already, at {there.bootstrap}."
                f" Stop it first: salience broker {kind} down --home {_quoted(home)}"
            )
        for port in ports:
            if not is_free(port):
                raise BrokerError(
                    f"Port {port} on {HOST} is taken; name another:"
                    f" salience broker {kind} up --port {free_port()} --home {_quoted(home)}"
                )
        folder = (home / "broker" / kind).absolute()
        broker = make(folder)
        try:
            broker.start()
            running = _running(kind, broker, folder)
            save(home, running)
        except BaseException:
            broker.stop()
            raise
        return running


def _running(kind: Kind, broker: Broker, folder: Path) -> Running:
    return Running(
        kind=kind,
        bootstrap=broker.bootstrap,
        directory=str(folder),
        processes=tuple(Process.of(pid) for pid in broker.pids),
        started_ms=int(time.time() * 1000),
    )


def stop(home: Path, kind: Kind) -> Running | None:
    """Stop the broker started from this home, and forget it; return it, or None if none was running.

    Other processes that now have its processes' numbers are left alone. Raises ``BrokerError`` if a process survives.
    """
    if not (home / "broker").is_dir():
        return None
    with _alone(home):
        there = load(home, kind)
        if there is None:
            return None
        alive = [process for process in there.processes if process.alive()]
        end(alive, stop_grace_s(len(alive)) if kind == "apache" else TANSU_GRACE_S)
        state_file(home, kind).unlink(missing_ok=True)
        return there if alive else None


def load(home: Path, kind: Kind) -> Running | None:
    """The broker last started from this home, alive or not; None if there is none, or it was stopped.

    Raises ``BrokerError`` for a file that is not ours.
    """
    path = state_file(home, kind)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Running)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BrokerError(
            f"{path} is not the state of a broker ({error}). End its processes, if any; then: rm {_quoted(path)}"
        ) from error


def save(home: Path, running: Running) -> None:
    """Write the state file, whole or not at all: a reader never sees half of it."""
    path = state_file(home, running.kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(f".{os.getpid()}.tmp")
    whole.write_bytes(msgspec.json.format(msgspec.json.encode(running), indent=2))
    whole.replace(path)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """A lock on this home: other starts and stops wait until the block ends."""
    folder = home / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        yield


def _quoted(path: Path) -> str:
    """The path, quoted for a line that people paste into their shell."""
    return shlex.quote(str(path))


def state_file(home: Path, kind: Kind) -> Path:
    return home / "broker" / f"{kind}.json"
