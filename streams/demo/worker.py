"""The demo's worker: ``salience worker`` as a process of its own, which does not outlive the demo."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from deploy.brokers import process
from streams.mendable import MendableError

GRACE_S = 15.0
"""Time until the worker is killed; it has 10 s to stop by itself."""
LOG_LINES = 30
"""Lines of the worker's log that are shown when it dies."""


class WorkerFailedError(MendableError):
    """The worker ended by itself, or does not answer; the message has the end of its log."""


def environment_with(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: ours, with ``settings`` in place of the same settings in upper or lower case."""
    given = {f"SALIENCE_{name.upper()}": value for name, value in settings.items()}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in given}
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    return kept | given | {"PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "1"}  # onnxruntime reports to its maker


class WorkerProcess:
    """A worker with ``settings``, named without ``SALIENCE_``; it writes its log to ``log``.

    It has all other settings from the environment.
    """

    def __init__(self, settings: Mapping[str, str], log: Path) -> None:
        self._settings = settings
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        worker = [sys.executable, "-P", "-m", "streams.cli", "worker"]
        self._child = process.spawn(worker, self._log, detached=False, env=environment_with(self._settings))
        return self

    def __exit__(self, *_: object) -> None:
        child, self._child = self._child, None
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def kill(self) -> None:
        """Kill the worker at once, where an orderly stop is impossible; does nothing when it does not run."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def check(self) -> None:
        """Raise `WorkerFailedError` if the worker has ended by itself."""
        code = None if self._child is None else self._child.poll()
        if code is not None:
            raise self.failed(f"The worker ended with status {code}.")

    def failed(self, why: str) -> WorkerFailedError:
        """The error that says ``why``, with the end of the worker's log."""
        return WorkerFailedError(f"{why} The end of its log:\n{process.log_tail(self._log, LOG_LINES)}")
