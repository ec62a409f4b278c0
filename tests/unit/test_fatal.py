"""A worker whose log cannot be written ends all the same, with its own status."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.fatal import CANNOT_START, EXIT_STATUS

ENDS = {
    "once": "from streams.fatal import end_now\nend_now(ValueError('lost'))",
    "within its time": (
        "import contextlib, threading\n"
        "from streams import fatal\n"
        "fatal.GRACE_S = 0.01\n"
        "with contextlib.suppress(OSError):\n"
        "    fatal.arm_exit(ValueError('lost'))\n"
        "threading.Event().wait()"
    ),
}
SAYS = (
    "import sys\n"
    "from streams.fatal import CannotStartError, say_end\n"
    "from streams.log_lines import configure_logging\n"
    "configure_logging(log_json={json})\n"
    "sys.exit(say_end(CannotStartError('no such group') if {never} else ValueError('lost')))"
)
COMMAND = (
    "import structlog, typer\n"
    "from streams.cli.failing import Salience\n"
    "app = typer.Typer(cls=Salience)\n"
    "@app.callback()\n"
    "def root(): ...\n"
    "@app.command()\n"
    "def asks():\n"
    "    structlog.get_logger().warning('a broker is away')\n"
    "    raise typer.Exit(3)\n"
    "app(['asks'])"
)


@pytest.fixture(params=["a full disk", "a dead pipe"])
def nowhere(request: pytest.FixtureRequest) -> Iterator[int]:
    """A descriptor to which nothing can be written."""
    if request.param == "a full disk":
        if not Path("/dev/full").exists():
            pytest.skip("a system without /dev/full")
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        read, descriptor = os.pipe()
        os.close(read)
    yield descriptor
    os.close(descriptor)


def status_of(program: str, *, stdout: int = subprocess.DEVNULL, stderr: int = subprocess.DEVNULL) -> int:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, stdout=stdout, stderr=stderr, timeout=60, check=False).returncode


@pytest.mark.parametrize("when", ENDS)
def test_a_fatal_error_ends_a_process_that_cannot_say_so(nowhere: int, when: str) -> None:
    # What nobody has configured yet writes to stdout.
    assert status_of(ENDS[when], stdout=nowhere) == EXIT_STATUS


def test_a_worker_whose_log_is_full_or_gone_ends_with_its_own_status(nowhere: int) -> None:
    assert status_of(SAYS.format(json=True, never=False), stderr=nowhere) == EXIT_STATUS
    assert status_of(SAYS.format(json=False, never=True), stderr=nowhere) == CANNOT_START


def test_a_command_goes_on_though_what_it_logs_cannot_be_written(nowhere: int) -> None:
    assert status_of(COMMAND, stderr=nowhere) == 3
