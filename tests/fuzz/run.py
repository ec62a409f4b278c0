"""Fuzz targets, guided by coverage (atheris, libFuzzer), each in a process of its own.

make fuzz ARGS="--target all --runs 100000"
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path("build/fuzz")
"""Where inputs that failed are put; those worth keeping go to the corpus with the mend."""
MEMORY_MB_MAX = 2_048
HANG_S = 25


@dataclass(frozen=True)
class Result:
    """``executions`` within ``seconds``; ``crashes`` 0, or 1, since a target ends with its first."""

    target: str
    executions: int
    seconds: float
    crashes: int


def fuzz(name: str, runs: int, seconds: int, seed: int, each: int) -> Result:
    """Run one target until so many executions, or seconds, or its first finding, in rounds of ``each``; one corpus."""
    FOUND.mkdir(parents=True, exist_ok=True)
    log = FOUND / f"{name}.log"
    log.unlink(missing_ok=True)
    began = time.monotonic()
    executions = status = 0
    memory = Path("/dev/shm")  # some targets write a file for every input
    with tempfile.TemporaryDirectory(prefix="salience-fuzz-", dir=memory if memory.is_dir() else None) as place:
        while not status and executions < runs and (left := int(seconds - (time.monotonic() - began))) > 0:
            few = min(runs - executions, each)
            status, done = _round(name, Path(place), log, [f"-runs={few}", f"-max_total_time={left}", f"-seed={seed}"])
            executions, seed = executions + done, seed + 1
    return Result(name, executions, round(time.monotonic() - began, 1), int(status != 0))


def _round(name: str, place: Path, log: Path, limits: list[str]) -> tuple[int, int]:
    """One process: its status, and its executions. It ends without tidying up: all its files are in ``place``."""
    grown = place / "grown"
    grown.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.child", name, str(grown), str(CORPUS / name), *limits]
    bounds = [f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MB_MAX}"]
    told = [f"-artifact_prefix={FOUND}/{name}-", "-print_final_stats=1"]
    with log.open("ab") as output:
        begins = output.tell()
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "TMPDIR": str(place)}
        status = subprocess.run(
            [*command, *bounds, *told], stdout=output, stderr=output, env=environment, check=False
        ).returncode
    said = log.read_bytes()[begins:].decode(errors="replace")
    counted = re.findall(r"number_of_executed_units: (\d+)", said) or re.findall(r"^#(\d+)", said, re.MULTILINE)
    return status, int(counted[-1]) if counted else 0


def main() -> int:
    """The command."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--target", default="all", choices=["all", *TARGETS])
    parser.add_argument("--runs", type=int, default=100_000, help="executions per target")
    parser.add_argument("--seconds", type=int, default=3_600, help="at most so long per target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args()
    results = []
    for name in TARGETS if asked.target == "all" else [asked.target]:
        result = fuzz(name, asked.runs, asked.seconds, asked.seed, TARGETS[name].inputs_per_process)
        results.append(result)
        line = f"{name:12} {result.executions:>12,} executions {result.seconds:>8,.1f} s  crashes {result.crashes}"
        sys.stderr.write(line + (f"  see {FOUND}/{name}.log\n" if result.crashes else "\n"))
    crashes = sum(result.crashes for result in results)
    if asked.json:
        sys.stdout.write(json.dumps({"crashes": crashes, "targets": [asdict(result) for result in results]}) + "\n")
    return int(crashes > 0)


if __name__ == "__main__":
    sys.exit(main())
