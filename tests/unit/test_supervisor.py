"""Which worker is started again, and when."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streams.supervisor import PAUSE_S_MAX, is_final, pause_s


@pytest.mark.parametrize(
    ("status", "starts", "final"),
    [(0, 1, True), (2, 1, True), (1, 1, True), (1, 2, False), (70, 1, False), (-9, 5, False)],
)
def test_a_worker_is_started_again_unless_it_ended_in_order_or_never_could_start(
    status: int, starts: int, final: bool
) -> None:
    assert is_final(status, starts) is final


def test_pauses_double_up_to_their_bound() -> None:
    assert [pause_s(failures) for failures in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert pause_s(10_000) == PAUSE_S_MAX


def supervise(program: str, folder: Path) -> subprocess.Popen[str]:
    """A supervisor of ``program``, without pauses, in a process of its own."""
    (folder / "program.py").write_text(program)
    supervisor = (
        "import sys; import streams.supervisor as s; s.PAUSE_S = 0.01\n"
        f"sys.exit(s.Supervisor([sys.executable, {str(folder / 'program.py')!r}]).run())"
    )
    return subprocess.Popen(
        [sys.executable, "-c", supervisor], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_worker_that_fails_is_started_until_it_ends_in_order(tmp_path: Path) -> None:
    program = "import os, sys; os.write(1, b'start\\n'); open('log', 'a').write('x')\n"
    program += "sys.exit(70 if len(open('log').read()) < 3 else 0)"
    said, _ = (child := supervise(program, tmp_path)).communicate(timeout=60)
    assert child.returncode == 0
    assert said.count("start\n") == 3


def test_a_stop_is_passed_on_and_its_status_returned(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "os.write(1, b'started\\n')\n"
        "signal.pause()"
    )
    child = supervise(program, tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    os.kill(child.pid, signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 0


TOLD_AT_A_LINE = """
import os, signal, sys
import streams.supervisor as s

left, s.PAUSE_S = int(sys.argv[1]), 60.0

def trace(frame, event, _):
    global left
    left -= event == "line"
    if left == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    return trace

class Log:
    def warning(self, *_, **__):
        sys._getframe(1).f_trace = trace
        sys.settrace(trace)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, 0.5)  # for a pause of fewer lines, which has its signal within one

s.log = Log()
status = s.Supervisor([sys.executable, "-c", "raise SystemExit(70)"]).run()
signal.setitimer(signal.ITIMER_REAL, 0)  # one that rang at the interpreter's end, without its handler, would kill it
sys.exit(status)
"""


@pytest.mark.parametrize("line", [1, 2, *range(3, 40, 3)])
def test_a_signal_is_heeded_at_whatever_line_of_a_pause_it_comes(line: int, tmp_path: Path) -> None:
    """A handler runs between two lines of whatever the process does, with all locks that those have taken."""
    ended = subprocess.run([sys.executable, "-c", TOLD_AT_A_LINE, str(line)], cwd=tmp_path, timeout=60, check=False)
    assert ended.returncode == 0


def test_what_lies_in_the_supervisors_folder_is_not_run_by_its_worker(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise SystemExit(2)")
    supervisor = (
        "import sys; from streams.cli.worker import _supervise\n"
        "sys.argv = ['salience', '--version', '--supervise']; sys.exit(_supervise())"
    )
    command = [sys.executable, "-P", "-c", supervisor]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.split()[:1]) == (0, ["salience"]), ended.stderr
