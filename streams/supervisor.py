"""Restarts a worker that has failed, for machines without systemd, compose or Kubernetes to do it."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from types import FrameType

import structlog

from streams.fatal import CANNOT_START

log = structlog.get_logger()

ORDERLY, USAGE = 0, 2
"""Exit statuses that, like `CANNOT_START`, are not failures of a running worker."""
PAUSE_S, PAUSE_S_MAX = 1.0, 30.0
"""Pause before the first restart, and at most. It doubles each time: what fails at once will likely fail again."""
WELL_S = 60.0
"""A worker that has run this long counts as sound: the next pause is short again."""


def pause_s(failures: int) -> float:
    """How long to wait after so many failures in a row, at least 1."""
    return min(PAUSE_S * 2.0 ** min(failures - 1, 16), PAUSE_S_MAX)


def is_final(status: int, starts: int) -> bool:
    """Whether a worker that ended with ``status`` must not be restarted.

    If it cannot start the first time, its settings hold a mistake that a person must mend; if it cannot start later on,
    the broker is away.
    """
    return status in (ORDERLY, USAGE) or (status == CANNOT_START and starts == 1)


class Supervisor:
    """Keeps ``command`` running until it ends in order or this process is told to stop."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopping = False
        # What ends a pause. A handler runs between two lines of it, where the lock of an event might be taken.
        self._woken, self._wake = os.pipe()

    def run(self) -> int:
        """Return the last worker's exit status. SIGTERM or SIGINT is passed on once, then ends the supervisor, too."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        starts = failures = 0
        while True:
            started = time.monotonic()
            # A session of its own: Ctrl-C reaches the supervisor alone, which passes it on as SIGTERM.
            self._child = subprocess.Popen(self._command, start_new_session=True)
            if self._is_stopping:  # the signal came before the child was there
                self._child.terminate()
            status = self._child.wait()
            starts += 1
            if self._is_stopping or is_final(status, starts):
                return 128 - status if status < 0 else status
            failures = 1 if time.monotonic() - started >= WELL_S else failures + 1
            wait_s = pause_s(failures)
            log.warning("worker ended, another is started", status=status, starts=starts, pause_s=wait_s)
            select.select([self._woken], [], [], wait_s)
            if self._is_stopping:
                return ORDERLY

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            os.write(self._wake, b"0")
            if self._child is not None and self._child.poll() is None:
                self._child.terminate()
