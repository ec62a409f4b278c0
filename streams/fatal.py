"""The end of a process that must not go on: crash-only, since a restart recovers from the log."""

import os
import threading

import structlog

log = structlog.get_logger()

EXIT_STATUS = 70
"""EX_SOFTWARE of sysexits.h."""
GRACE_S = 5.0
"""What an orderly stop may take after a fatal error; a hanging one would keep a dead worker in the group."""


def arm_exit(error: BaseException) -> None:
    """Say why, and end the process within `GRACE_S` whatever else hangs."""
    log.error("fatal, the worker ends", error=f"{type(error).__name__}: {error}")
    timer = threading.Timer(GRACE_S, os._exit, (EXIT_STATUS,))
    timer.daemon = True
    timer.start()
