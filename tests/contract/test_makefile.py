"""What the Makefile's commands leave behind where they fail."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKED = "numpy==2.0.0\n"
INTERPRETER = """#!/bin/sh
case "$*" in
  *venv*) mkdir -p build/lock/bin; cp "$0" build/lock/bin/python ;;
  *freeze*) echo river==0.22.0; exit STATUS ;;
esac
"""


@pytest.mark.parametrize(("status", "locked"), [(0, "river==0.22.0\n"), (1, LOCKED)])
def test_constraints_are_locked_whole_or_stay_as_they_were(tmp_path: Path, status: int, locked: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "constraints.txt").write_text(LOCKED)
    interpreter = tmp_path / "python"
    interpreter.write_text(INTERPRETER.replace("STATUS", str(status)))
    interpreter.chmod(0o755)

    done = subprocess.run(
        ["make", "lock", f"PYTHON={interpreter}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode == 0) == (status == 0), done.stderr
    assert (tmp_path / "constraints.txt").read_text() == locked


@pytest.mark.parametrize("fails", ["", "mypy", "python"])
def test_types_are_checked_beside_the_tests_and_either_that_fails_fails_both(tmp_path: Path, fails: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shutil.copy(ROOT / "Makefile", tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    os.mkfifo(tmp_path / "meeting")
    # Neither comes past the meeting without the other.
    for name, meets in (("ruff", ""), ("mypy", "read -r said < meeting"), ("python", "echo here > meeting")):
        (programs / name).write_text(f"#!/bin/sh\n{meets}\n{'exit 1' if name == fails else ''}\n")
        (programs / name).chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):
        (tmp_path / name).touch()

    done = subprocess.run(["make", "test"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode == 0) == (not fails), done.stderr
