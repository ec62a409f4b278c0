"""What a run leaves behind that it should not: processes, threads, sockets, files."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CLIENT_THREADS = ("ThreadPoolExecutor", "asyncio_", "rdk:", "Dummy-")
"""Threads of pools and of librdkafka, which end with their interpreter."""


@dataclass(frozen=True, slots=True)
class Left:
    """Threads of the harness by name, and its child processes."""

    threads: frozenset[str]
    children: frozenset[int]

    @classmethod
    def now(cls) -> Self:
        names = {thread.name for thread in threading.enumerate()}
        threads = frozenset(name for name in names if not name.startswith(CLIENT_THREADS))
        children = {int(pid) for task in Path("/proc/self/task").iterdir() for pid in _children(task)}
        return cls(threads, frozenset(children))


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except OSError:  # a thread that has just ended
        return []


def processes_in(folder: Path) -> list[str]:
    """Processes, whosever children they are now, that were told of ``folder`` in their environment or command."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            except OSError:  # gone, or a stranger's
                continue
            if str(folder).encode() in told:
                found.append(process.name)
    return found


def listening_sockets() -> int:
    """Listening sockets of this process."""
    inodes = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            inodes.add(str(fd.readlink()))
        except OSError:  # the one that lists them
            continue
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return sum(fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes for fields in map(str.split, lines))


def look_for_leftovers(before: Left, folder: Path) -> list[str]:
    """In words, one for each thing that was not there ``before``."""
    now = Left.now()
    found = [f"thread {name}" for name in sorted(now.threads - before.threads)]
    found += [f"child process {pid}" for pid in sorted(now.children - before.children)]
    found += [f"process {pid} of the run" for pid in processes_in(folder)]
    found += ["a listening socket"] * listening_sockets()
    found += [f"file {file}" for file in sorted(folder.glob("worker-*/**/*")) if file.suffix == ".part"]
    return found
