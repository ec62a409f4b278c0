"""The processes in which `streams.models.trial` tries models: ``python -m streams.models.trial_child``.

One process makes the imports, and forks for each model that it is asked to try (a fork server): the imports take more
processor time than a trial, and a worker's core is busy when models change. A line of JSON on stdin asks, and one on
stdout answers. It ends when stdin does, thus with its worker, and imports only what running a model takes.
"""

import contextlib
import os
import resource
import signal
import sys
import time
from pathlib import Path

import msgspec

from scoring.manifest import ModelError
from scoring.proof import prove

SAID_BYTES_MAX = 65_536
"""Bytes of a trial's output that are kept."""
_PACE = time.thread_time
"""CPU time of this thread, in which models run."""


class Asked(msgspec.Struct, frozen=True):
    """A model to try, and its bounds."""

    directory: str
    score_ms_max: float
    memory_bytes: int
    seconds: float


class Ended(msgspec.Struct, frozen=True):
    """What a trial's process has written, and its exit status: negative where a signal ended it."""

    said: bytes
    status: int


class Verdict(msgspec.Struct, frozen=True):
    """What a trial's process writes; ``refused`` is "" for a model that keeps its contract."""

    refused: str = ""
    version: str = ""
    parity: float = 0.0
    score_ms: float = 0.0


_decode_asked = msgspec.json.Decoder(Asked).decode
decode_ended = msgspec.json.Decoder(Ended).decode
decode_verdict = msgspec.json.Decoder(Verdict).decode


def main() -> None:
    """Try each model that a line on stdin asks for, one after the other."""
    with contextlib.suppress(OSError):  # where memory runs out, the kernel kills this process and its forks first
        Path("/proc/self/oom_score_adj").write_text("1000")
    for line in sys.stdin.buffer:
        ended = _forked(_decode_asked(line))
        sys.stdout.buffer.write(msgspec.json.encode(ended) + b"\n")
        sys.stdout.buffer.flush()


def _forked(asked: Asked) -> Ended:
    """Try a model in a fork of this process, whose only files are the null device and a pipe to this one."""
    said, say = os.pipe()
    if not (pid := os.fork()):
        try:
            os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdin.fileno())
            os.dup2(say, sys.stdout.fileno())
            os.closerange(sys.stderr.fileno() + 1, say + 2)
            _try(asked)
            os._exit(0)
        finally:  # of the server's own code nothing may run here
            os._exit(1)
    os.close(say)
    with os.fdopen(said, "rb") as pipe:
        kept = pipe.read(SAID_BYTES_MAX)  # what would be written beyond finds no reader
    return Ended(kept, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _try(asked: Asked) -> None:
    """Try the model within its bounds, and write the verdict to stdout."""
    signal.setitimer(signal.ITIMER_REAL, asked.seconds)  # SIGALRM ends it, whatever it does, and though it only waits
    for kind, most in (
        (resource.RLIMIT_AS, asked.memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS has no bound of address space
            resource.setrlimit(kind, (most, most))
    try:
        _, proof = prove(Path(asked.directory), _PACE, asked.score_ms_max)
        verdict = Verdict("", proof.version, proof.parity, proof.score_ms)
    except ModelError as error:
        verdict = Verdict(str(error))
    except MemoryError:
        verdict = Verdict(
            f"{asked.directory}: it needs too much; expected {asked.memory_bytes:,} bytes at most; train a smaller"
        )
    os.write(sys.stdout.fileno(), msgspec.json.encode(verdict))


if __name__ == "__main__":
    main()
