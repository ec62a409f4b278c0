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


def in_fresh_process(module: str, **options: object) -> dict[str, Any]:
    """What ``python -m module OPTIONS`` prints. Raises `subprocess.CalledProcessError` where it fails."""
    command = [sys.executable, "-m", module, json.dumps(options)]
    done = subprocess.run(command, cwd=_ROOT, env=os.environ | _ONE_THREAD, check=True, stdout=subprocess.PIPE)
    return cast("dict[str, Any]", json.loads(done.stdout))


def main(measure: Callable[..., dict[str, Any]]) -> None:
    """In the fresh process: print the measurement, with the options of the command line, as JSON."""
    sys.stdout.write(json.dumps(measure(**json.loads(sys.argv[1]))) + "\n")
