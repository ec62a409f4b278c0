"""A measurement in a process of its own: one BLAS thread from the start, and memory that nobody else has used."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

_ROOT = Path(__file__).parents[2]
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""As a lane computes: in one thread. To be set before numpy loads."""


def in_fresh_process(module: str, *, quick: bool) -> dict[str, object]:
    """What ``python -m module`` prints. Raises `subprocess.CalledProcessError` where it fails."""
    command = [sys.executable, "-m", module, *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=_ROOT, env=os.environ | _ONE_THREAD, check=True, stdout=subprocess.PIPE)
    return cast("dict[str, object]", json.loads(done.stdout))


def main(module: str, measure: Callable[[bool], dict[str, Any]]) -> None:
    """Print the measurement as JSON, from a process with one BLAS thread: this one, or one that it starts."""
    quick = "--quick" in sys.argv[1:]
    ready = all(os.environ.get(name) == value for name, value in _ONE_THREAD.items())
    found = measure(quick) if ready else in_fresh_process(module, quick=quick)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
