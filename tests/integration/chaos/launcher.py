"""A worker's process for the harness: ``salience worker`` with a clock that can be moved, and a mistake if asked for.

``python -m tests.integration.chaos.launcher CLOCK_FILE MUTATION``: the file holds the milliseconds by which the wall
clock is off, empty for none; the mutation is a name of `mutations.MUTATIONS` or ``none``.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

from streams import clock
from streams.cli import app
from tests.integration.chaos.mutations import MUTATIONS


def off_clock(file: Path) -> SimpleNamespace:
    """The ``time`` that `streams.clock` uses, off by what ``file`` says at each look."""

    def time_ns() -> int:
        said = file.read_text() if file.exists() else ""
        return time.time_ns() + 1_000_000 * int(said or 0)

    return SimpleNamespace(time_ns=time_ns, monotonic_ns=time.monotonic_ns)


if __name__ == "__main__":
    clock.time = off_clock(Path(sys.argv[1]))
    if sys.argv[2] != "none":
        MUTATIONS[sys.argv[2]]()
    app(["worker"])
