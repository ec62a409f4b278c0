"""Runs a program that the kernel kills when its parent dies: ``tied.py PARENT_PID PROGRAM ARGUMENT...``.

It is a process of its own instead of a ``preexec_fn``, which may deadlock if the parent has threads, as every
Kafka client has. The tie survives the ``exec``. To Linux, the parent is the *thread* that started the program.
On other systems the program runs untied.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, program: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the tie was made
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 - the purpose of this program


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
