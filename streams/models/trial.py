"""Tries a model in a process of its own, before a worker loads it.

A model from a topic may crash onnxruntime, take all memory, or never end. The process that runs it
(`streams.models.trial_child`) has no secret in its environment, bounds on memory, time and files, and a low priority.
It reports what the model has shown, or why it is refused.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from scoring.manifest import ModelError
from scoring.proof import Proof
from streams.mendable import MendableError
from streams.models import trial_child
from streams.models.trial_child import SAID_BYTES_MAX, Asked, Ended, decode_ended, decode_verdict
from streams.settings import Settings
from streams.wire import UNREADABLE

NICENESS = 10
"""Added to the worker's. The trial then gets a tenth of a core that the compute thread keeps busy. It has a tenth of a
second's work, and must end in time even there; the lowest priority would get a sixtieth."""
_KEPT = ("PATH", "PYTHONPATH", "LANG", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


class TrialServer:
    """A process that has its imports and tries each model in a fork, from the first trial on or from `begin`.

    It ends with its owner, or when a trial is given up; the next trial has another. ``async with`` closes it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def begin(self) -> None:
        """Start the process: its imports are then done when a model comes. If it cannot be, a trial tries again."""
        async with self._one_at_a_time:
            with contextlib.suppress(OSError):
                await self._running()

    async def close(self) -> None:
        """End the process, with a trial that is under way."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.communicate()  # closes the pipes as well
        self._process = None

    async def try_model(self, directory: Path) -> Proof:
        """What the model in ``directory`` has shown.

        Raises `ModelError` with the reason of its refusal, and `NoTrialError` if the trial did not come to an end.
        """
        async with self._one_at_a_time:
            ended = await self._ended(directory)
        if ended.status == -signal.SIGALRM:
            reason = f"{directory}: it was not done within {self._settings.model_trial_s:g} s"
            raise ModelError(reason, "a faster one", "or raise the bound: SALIENCE_MODEL_TRIAL_S")
        try:
            verdict = decode_verdict(ended.said)
        except UNREADABLE:
            most = self._settings.model_trial_bytes
            raise ModelError(
                f"{directory}: the process that tried it ended with status {ended.status}",
                f"one that needs no more than {most:,} bytes, and that onnxruntime survives",
                "look at it where it can do no harm: salience verify --model DIR",
            ) from None
        if verdict.refused:
            raise RefusedModelError(verdict.refused)
        return Proof(verdict.version, verdict.parity, verdict.score_ms)

    async def _ended(self, directory: Path) -> Ended:
        """How the trial ended. It has twice its time to say so, since before the first one come the imports."""
        settings, answer = self._settings, b""
        asked = Asked(str(directory), settings.model_score_ms_max, settings.model_trial_bytes, settings.model_trial_s)
        try:
            async with asyncio.timeout(2 * settings.model_trial_s):
                server = await self._running()
                assert server.stdin is not None, "it is a pipe"
                assert server.stdout is not None, "it is a pipe"
                server.stdin.write(msgspec.json.encode(asked) + b"\n")
                if answer := await server.stdout.readline():
                    return decode_ended(answer)
                raise NoTrialError(f"ended with status {await server.wait()}")
        except TimeoutError:
            raise NoTrialError(f"did not answer within {2 * settings.model_trial_s:g} s") from None
        finally:
            if not answer:  # it may be at the trial still, and would answer the next one with it
                await self.close()

    async def _running(self) -> asyncio.subprocess.Process:
        """The server's process; another if the one before has ended meanwhile."""
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", trial_child.__name__),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                limit=2 * SAID_BYTES_MAX,  # what it keeps of a trial's output, in Base64
                start_new_session=True,  # a group of its own, which ends with its forks
            )
            _give_way(self._process.pid)
        return self._process


def _give_way(pid: int) -> None:
    """Lower the priority of a process that has just begun.

    It does not do so itself: it could only after its imports, and those are most of its work.
    """
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19))


class NoTrialError(MendableError):
    """A model was not tried to the end, whatever it is like: the server was killed, or has no time for it."""

    def __init__(self, what: str) -> None:
        told = f"the model was not tried to the end: the process for it {what}"
        super().__init__(f"{told}; try again, where there is memory and time for it")


class RefusedModelError(ModelError):
    """A `ModelError` with the child's message."""

    def __init__(self, message: str) -> None:
        ValueError.__init__(self, message)
