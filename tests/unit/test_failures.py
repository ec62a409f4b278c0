"""Failures are told when they happen, and what can come no more is not waited for."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from streams.settings import Settings
from tests.integration.lanes import Shop
from tests.integration.workers import Worker, until

ROOT = Path(__file__).resolve().parents[2]


def ran(folder: Path, suite: str, *options: str) -> str:
    """What pytest prints with our plugin, and without our settings."""
    (folder / "test_suite.py").write_text(suite, encoding="utf-8")
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.failures",
        "-c",
        "/dev/null",
        "--rootdir",
        str(folder),
        *options,
    ]
    return subprocess.run([*words, folder], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60).stdout


def test_a_run_that_does_not_come_to_its_end_has_told_what_failed_and_why(tmp_path: Path) -> None:
    printed = ran(tmp_path, "def test_sum():\n    assert 2 + 2 == 5\n\ndef test_end():\n    import os; os._exit(9)\n")
    assert "FAILED test_suite.py::test_sum (call)" in printed
    assert "assert (2 + 2) == 5" in printed
    assert "short test summary" not in printed  # pytest itself would have told it there


def test_of_several_processes_one_tells_each_failure_before_the_last_tests_end(tmp_path: Path) -> None:
    printed = ran(tmp_path, "def test_sum():\n    assert 2 + 2 == 5\n", "--numprocesses", "2")
    at_once, _, _ = printed.partition("= FAILURES =")
    assert at_once.count("FAILED test_suite.py::test_sum (call)") == 1


def test_a_failure_is_told_though_every_search_for_garbage_finds_some_that_parses(tmp_path: Path) -> None:
    suite = """
import ast, gc

class Garbage:
    def __init__(self):
        self.cycle = self

    def __del__(self):
        ast.parse("1")
        Garbage()

def test_sum():
    Garbage()
    gc.set_threshold(1)
    assert 2 + 2 == 5

def test_search_goes_on():
    assert gc.isenabled()
"""
    printed = ran(tmp_path, suite)
    assert "assert (2 + 2) == 5" in printed
    assert "1 failed, 1 passed" in printed
    assert "INTERNALERROR" not in printed


@pytest.mark.parametrize("options", [(), ("--numprocesses", "2")], ids=["alone", "two"])
def test_why_a_run_ended_that_was_to_tell_a_failure_is_told_at_its_very_end(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "conftest.py").write_text(
        "def pytest_runtest_makereport():\n    raise OSError('no room to tell of it')\n", encoding="utf-8"
    )
    printed = ran(tmp_path, "def test_sum():\n    assert 2 + 2 == 5\n", *options)
    _, _, again = printed.partition("The first internal error, again:")
    assert "no room to tell of it" in again
    assert "INTERNALERROR" not in again


def test_what_a_worker_that_has_ended_was_to_do_is_not_waited_for(tmp_path: Path) -> None:
    worker = Worker(
        Shop(Settings(home=tmp_path)), tmp_path / "log", command=[sys.executable, "-c", "raise SystemExit(3)"]
    )

    async def never() -> bool:
        return False

    with worker, pytest.raises(AssertionError, match="ended with status 3 before all is applied"):
        asyncio.run(until(never, "all is applied", worker))
