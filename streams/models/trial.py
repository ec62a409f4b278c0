"""A model tried in a process of its own, before it comes near a worker.

What comes over a topic may crash onnxruntime, take all memory, or never end. The child process that runs it
(`streams.models.trial_child`) has no secret in its environment, bounds on memory, time and files, and a low priority;
it says what the model has shown, or why it is refused.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import msgspec

from scoring.attention import ModelError
from scoring.proof import Proof
from streams.models import trial_child
from streams.models.trial_child import Verdict
from streams.settings import Settings
from streams.wire import UNREADABLE

NICENESS = 10
"""Added to the worker's. Of a core that the compute thread keeps busy a tenth is left to a trial: it is a fifth of a
second's work, and must end within its time there too. The lowest priority gets a sixtieth."""
SAID_BYTES_MAX = 65_536
"""Of what the child says."""
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
        verdict = msgspec.json.decode(said, type=Verdict)
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

    From here and not by itself: by the time that it could, it would have imported all that it needs, most of its work.
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
    """A `ModelError` in the words of the child."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)
