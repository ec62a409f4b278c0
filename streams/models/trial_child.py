"""The child process of `streams.models.trial`: ``python -m streams.models.trial_child DIRECTORY …``.

Its imports cost time on a worker's core, so it imports only what running a model takes.
"""

import contextlib
import resource
import sys
import time
from pathlib import Path

import msgspec

from scoring.manifest import ModelError
from scoring.proof import prove

_PACE = time.thread_time
"""CPU time of this thread, in which models run. The time of the whole process would go in steps of milliseconds, since
Linux counts it in clock ticks where RLIMIT_CPU is set."""


class Verdict(msgspec.Struct, frozen=True):
    """What the child reports; ``refused`` is "" for a model that keeps its contract."""

    refused: str = ""
    version: str = ""
    parity: float = 0.0
    score_ms: float = 0.0


decode_verdict = msgspec.json.Decoder(Verdict).decode


def main(directory: str, score_ms_max: str, memory_bytes: str, cpu_s: str) -> None:
    """Try the model within bounds, and write the verdict to stdout."""
    with contextlib.suppress(OSError):  # where memory runs out all the same, the kernel kills this process first
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
        _, proof = prove(Path(directory), _PACE, float(score_ms_max))
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
