"""Broker processes: start them, end them, and tell them from another process with a reused number (PID)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from deploy.brokers import BrokerError, tied

POLL_S = 0.01
"""Pause between two checks of a process or a port: short compared to any start or stop, and no load."""

KILL_WAIT_S = 10.0
"""A killed process is gone at once, unless the kernel holds it (a dead disk); then say so."""


_DETACHED: list[subprocess.Popen[bytes]] = []
"""References to detached children, which are meant to run on: Python warns if it drops one that still runs."""


class Process(msgspec.Struct, frozen=True):
    """One process: its number, and its start time, since numbers are reused."""

    pid: int
    started_ticks: int | None
    """Clock ticks after boot, field 22 of ``/proc/<pid>/stat``; None where there is no ``/proc``."""

    @classmethod
    def of(cls, pid: int) -> "Process":
        seen = _look(pid)
        return cls(pid, seen[1] if seen else None)

    def alive(self) -> bool:
        """Whether this very process still runs. A zombie does not count, nor does another process with its number."""
        seen = _look(self.pid)
        if seen is not None:
            state, ticks = seen
            return state not in "ZX" and self.started_ticks in (None, ticks)
        if sys.platform == "linux":
            return False
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        return True


def tied_to_this() -> list[str]:
    """What to put before a command that is to die with the thread that starts it, however that ends (on Linux)."""
    return [sys.executable, "-I", tied.__file__, str(os.getpid())]


def spawn(
    command: Sequence[str], log: Path, *, detached: bool, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``command`` with its output appended to ``log``, in this process's environment or in ``env``.

    Detached, it outlives this process; otherwise it dies with the thread that called this (on Linux).
    Either way it has a session of its own, so that Ctrl-C reaches only the parent, which then stops its
    clients before their broker.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*([] if detached else tied_to_this()), *command],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    if detached:
        _DETACHED.append(child)
    return child


def _reap() -> None:
    """Forget detached children that have ended, which would stay zombies as long as this process runs."""
    _DETACHED[:] = [child for child in _DETACHED if child.poll() is None]


def end(processes: Sequence[Process], grace_s: float) -> None:
    """Ask every process to end, and kill those that have not within ``grace_s``.

    Raises ``BrokerError`` if one survives that.
    """
    for number, within_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_WAIT_S)):
        for process in processes:
            _signal(process, number)
        if _gone(processes, within_s):
            _reap()
            return
    left = [process.pid for process in processes if process.alive()]
    raise BrokerError(
        f"Processes {left} do not end, {KILL_WAIT_S:.0f} s after SIGKILL; see `ps -o pid,stat,wchan,cmd`."
    )


def kill(child: subprocess.Popen[bytes]) -> None:
    """End a child without warning, as a power cut would. Do nothing if it has ended and been reaped.

    By then its number may belong to another process. Raises ``BrokerError`` if it survives.
    """
    child.kill()
    try:
        child.wait(KILL_WAIT_S)
    except subprocess.TimeoutExpired as error:
        raise BrokerError(f"Process {child.pid} does not end, {KILL_WAIT_S:.0f} s after SIGKILL.") from error


def log_tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, for an error message."""
    if not log.exists():
        return f"{log} was never written"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _signal(process: Process, number: signal.Signals) -> None:
    if process.alive():
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def _gone(processes: Sequence[Process], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while any(process.alive() for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _look(pid: int) -> tuple[str, int] | None:
    """State letter and start time; None if there is no such process, or no ``/proc``."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold any character
    return fields[0], int(fields[19])
