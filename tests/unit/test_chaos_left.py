"""What the fault harness leaves behind, and what it finds that workers do."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams.settings import Settings
from tests.integration.chaos.cluster import can_mount_small_disk, mount, unmount
from tests.integration.chaos.left import SETTLED_S, descriptors, descriptors_kept, look_for_descriptors
from tests.integration.lanes import Shop
from tests.integration.workers import Worker, until

HOLDS = """
import socket, sys
files, sockets = ([make() for _ in range(int(count))] for make, count in zip(
    (lambda: open("/dev/null"), socket.socket), sys.argv[1:]))
print("ready", flush=True)
sys.stdin.readline()
del files, sockets
print("closed", flush=True)
sys.stdin.read()
"""
CLEARS = """
import signal
from streams.cli.ending import ENDING, undone_when_told_to_end
for number in ENDING:
    signal.signal(number, signal.SIG_DFL)  # tests that run under nohup ignore one of them, and what they start
try:
    with undone_when_told_to_end():
        print("ready", flush=True)
        signal.pause()
finally:
    print("cleared", flush=True)
"""
SLEEPS = (sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)")


class Holder:
    """A process that keeps ``files`` and ``sockets`` open beside its own, until it is told to close them."""

    def __init__(self, files: int, sockets: int) -> None:
        command = [sys.executable, "-c", HOLDS, str(files), str(sockets)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.pid = self._process.pid
        self._await("ready")

    def close_them(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._await("closed")

    def _await(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n"

    def end(self) -> None:
        self._process.communicate()


@contextmanager
def holder(files: int, sockets: int) -> Iterator[Holder]:
    holds = Holder(files, sockets)
    try:
        yield holds
    finally:
        holds.end()


@contextmanager
def holding(files: int, sockets: int) -> Iterator[int]:
    """A process that keeps so many open beside its own; its id."""
    with holder(files, sockets) as holds:
        yield holds.pid


def test_a_worker_that_keeps_more_open_than_it_needs_is_found_by_kind() -> None:
    with holding(0, 0) as pid:
        assert look_for_descriptors({"worker-0": pid}, 4, 3) == []
    with holding(10, 0) as pid:
        (found,) = look_for_descriptors({"worker-0": pid}, 4, 3)
        assert "files of worker-0, at most 7 are needed" in found
    with holding(0, 100) as pid:
        (found,) = look_for_descriptors({"worker-0": pid}, 4, 3)
        assert "sockets of worker-0, at most 60 are needed" in found


def test_what_a_worker_closes_within_the_time_it_is_given_is_not_found_and_what_it_keeps_is() -> None:
    waits: list[float] = []
    with holder(0, 100) as holds:
        (found,) = descriptors_kept({"worker-0": holds.pid}, 4, 3, wait=waits.append)
        assert "sockets of worker-0, at most 60 are needed" in found
        assert sum(waits) == SETTLED_S
        assert descriptors_kept({"worker-0": holds.pid}, 4, 3, wait=lambda _: holds.close_them()) == []


def test_a_process_that_is_gone_keeps_nothing_open() -> None:
    with holding(0, 0) as pid:
        pass
    assert not descriptors(pid)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_harness_that_is_told_to_end_clears_away_what_is_its_own(number: str) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", CLEARS], stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.Signals[number])
        assert process.stdout.read() == b"cleared\n"
    assert process.returncode == 128 + signal.Signals[number]


def test_a_worker_does_not_outlive_whoever_started_it(tmp_path: Path) -> None:
    worker = Worker(Shop(Settings(home=tmp_path)), tmp_path / "log", command=SLEEPS)

    def start() -> None:
        worker.__enter__()
        asyncio.run(until(is_ready, "the worker is ready"))

    async def is_ready() -> bool:
        return "ready" in worker.said

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert worker.status() == -signal.SIGKILL


def test_a_mount_that_stays_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_mount_small_disk():
        pytest.skip("no tmpfs can be mounted here")
    disk, programs = tmp_path / "disk", tmp_path / "programs"
    programs.mkdir()
    (programs / "umount").write_text("#!/bin/sh\necho busy >&2\nexit 32\n")
    (programs / "umount").chmod(0o755)
    try:
        assert mount(disk)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(programs), prepend=os.pathsep)
            with pytest.raises(RuntimeError, match=f"{disk} is still mounted.*busy"):
                unmount(disk)
    finally:
        unmount(disk)
    assert not disk.is_mount()
