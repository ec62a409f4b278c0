"""A model tried in a process of its own, before it comes near a worker.

What comes over a topic may crash onnxruntime, take all memory, or never end. The child process that runs it has no
secret in its environment, bounds on memory, time and files, and a low priority; it says what the model has shown,
or why it is refused. ``python -m streams.model_trial`` is the child.
"""

import asyncio
import contextlib
import os
import resource
import sys
import time
from pathlib import Path

import msgspec

from scoring.attention import ModelError
from scoring.proof import Proof, prove
from streams.settings import Settings

NICENESS = 10
"""A tenth of a core that the compute thread keeps busy: a trial is half a second's work, and must end within its time
there too. The lowest priority, 19, gets a sixtieth."""
SAID_BYTES_MAX = 65_536
"""Of what the child says."""
_KEPT = ("PATH", "PYTHONPATH", "LANG", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


class Verdict(msgspec.Struct, frozen=True):
    """What the child says: ``refused`` "" for a model that keeps its contract."""

    refused: str = ""
    version: str = ""
    parity: float = 0.0
    score_ms: float = 0.0


async def try_model(directory: Path, settings: Settings) -> Proof:
    """What the model in ``directory`` has shown. Raises `ModelError` with the reason of its refusal."""
    bounds = (str(settings.model_score_ms_max), str(settings.model_trial_bytes), str(int(settings.model_trial_s) + 1))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streams.model_trial", str(directory), *bounds),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
    )
    try:
        async with asyncio.timeout(settings.model_trial_s):
            said = await _said(child)
            status = await child.wait()
    except TimeoutError:
        reason = f"{directory}: it was not done within {settings.model_trial_s:g} s"
        raise ModelError(reason, "a faster one", "or raise the bound: SALIENCE_MODEL_TRIAL_S") from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    try:
        verdict = msgspec.json.decode(said, type=Verdict)
    except msgspec.MsgspecError:
        raise ModelError(
            f"{directory}: the process that tried it ended with status {status}",
            f"one that needs no more than {settings.model_trial_bytes:,} bytes, and that onnxruntime survives",
            "look at it where it can do no harm: salience verify --model DIR",
        ) from None
    if verdict.refused:
        raise RefusedModelError(verdict.refused)
    return Proof(verdict.version, verdict.parity, verdict.score_ms)


async def _said(child: asyncio.subprocess.Process) -> bytes:
    assert child.stdout is not None, "its output is a pipe"
    said = await child.stdout.read(SAID_BYTES_MAX)
    while more := await child.stdout.read(SAID_BYTES_MAX):
        said = (said + more)[:SAID_BYTES_MAX]
    return said


class RefusedModelError(ModelError):
    """A `ModelError` in the words of the child."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)


def main(directory: str, score_ms_max: str, memory_bytes: str, cpu_s: str) -> None:
    """Try, within bounds, and say what was found."""
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # where memory ends all the same, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    for kind, most in (
        (resource.RLIMIT_AS, int(memory_bytes)),
        (resource.RLIMIT_CPU, int(cpu_s)),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS has no bound of address space
            resource.setrlimit(kind, (most, most))
    try:
        _, proof = prove(Path(directory), time.process_time, float(score_ms_max))
        verdict = Verdict("", proof.version, proof.parity, proof.score_ms)
    except ModelError as error:
        verdict = Verdict(str(error))
    except MemoryError:
        verdict = Verdict(
            f"{directory}: it needs too much; expected {int(memory_bytes):,} bytes at most; train a smaller"
        )
    sys.stdout.buffer.write(msgspec.json.encode(verdict))


if __name__ == "__main__":
    main(*sys.argv[1:])
