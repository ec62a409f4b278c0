"""Tries a model in a process of its own, before a worker loads it.

A model from a topic may crash onnxruntime, take all memory, or never end. The child process that runs it
(`streams.models.trial_child`) has no secret in its environment, bounds on memory, time and files, and a low priority.
It reports what the model has shown, or why it is refused.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from scoring.manifest import ModelError
from scoring.proof import Proof
from streams.models import trial_child
from streams.models.trial_child import decode_verdict
from streams.settings import Settings
from streams.wire import UNREADABLE

NICENESS = 10
"""Added to the worker's. The trial then gets a tenth of a core that the compute thread keeps busy. It has a fifth of a
second's work, and must end in time even there; the lowest priority would get a sixtieth."""
SAID_BYTES_MAX = 65_536
"""Bytes of the child's output that are kept."""
_KEPT = ("PATH", "PYTHONPATH", "LANG", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


async def try_model(directory: Path, settings: Settings) -> Proof:
    """What the model in ``directory`` has shown. Raises `ModelError` with the reason of its refusal."""
    bounds = (str(settings.model_score_ms_max), str(settings.model_trial_bytes), str(int(settings.model_trial_s) + 1))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", trial_child.__name__, str(directory), *bounds),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
    )
    _give_way(child.pid)
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
        verdict = decode_verdict(said)
    except UNREADABLE:
        raise ModelError(
            f"{directory}: the process that tried it ended with status {status}",
            f"one that needs no more than {settings.model_trial_bytes:,} bytes, and that onnxruntime survives",
            "look at it where it can do no harm: salience verify --model DIR",
        ) from None
    if verdict.refused:
        raise RefusedModelError(verdict.refused)
    return Proof(verdict.version, verdict.parity, verdict.score_ms)


def _give_way(pid: int) -> None:
    """Lower the priority of a child that has just begun.

    The child does not do it itself: it could only after its imports, and those are most of its work.
    """
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19))


async def _said(child: asyncio.subprocess.Process) -> bytes:
    assert child.stdout is not None, "its output is a pipe"
    said = await child.stdout.read(SAID_BYTES_MAX)
    while more := await child.stdout.read(SAID_BYTES_MAX):
        said = (said + more)[:SAID_BYTES_MAX]
    return said


class RefusedModelError(ModelError):
    """A `ModelError` with the child's message."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)
