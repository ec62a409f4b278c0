"""What a run leaves behind that it should not: processes, threads, sockets, files."""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CLIENT_THREADS = ("ThreadPoolExecutor", "asyncio_", "rdk:", "Dummy-")
"""Threads of pools and of librdkafka, which end with their interpreter."""
STANDARD_FILES = 3
"""Standard input, output and error."""
READERS = 8
"""A worker's consumers beside its lanes: the group's, five of topics that it reads whole, the watchdog's, and one that
asks for the ends of logs or recovers a lane."""
OF_LOOPS = 12
"""Event loops and web server: a selector and a pair of sockets for each of two loops, what wakes librdkafka's threads,
the socket that listens, and who is being answered there."""
SETTLED_S, LOOK_S = 30, 1
"""Seconds after which nothing is open for a moment only, and between two looks."""


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


def descriptors(pid: int) -> Counter[str]:
    """Open descriptors of a process: ``files``, and ``sockets``, pipes and selectors among them. Empty: it is gone."""
    found: Counter[str] = Counter()
    try:
        fds = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return found
    for fd in fds:
        with contextlib.suppress(OSError):  # closed meanwhile
            found["files" if str(fd.readlink()).startswith("/") else "sockets"] += 1
    return found


def descriptors_allowed(lanes: int, nodes: int) -> dict[str, int]:
    """As many as a worker needs that has all ``lanes`` of a cluster of so many ``nodes``.

    A snapshot is written for each lane. Each client, which are `READERS` and a producer of each lane, has a connection
    to each node and one more to its coordinator.
    """
    return {"files": STANDARD_FILES + lanes, "sockets": (READERS + lanes) * (nodes + 1) + OF_LOOPS}


def look_for_descriptors(workers: Mapping[str, int], lanes: int, nodes: int) -> list[str]:
    """In words, one for each of the ``workers`` (process ids by name) and kind that is kept open beyond its bound."""
    allowed = descriptors_allowed(lanes, nodes)
    return [
        f"{count} {kind} of {name}, at most {allowed[kind]} are needed"
        for name, pid in workers.items()
        for kind, count in descriptors(pid).items()
        if count > allowed[kind]
    ]


def descriptors_kept(
    workers: Mapping[str, int], lanes: int, nodes: int, wait: Callable[[float], object] = time.sleep
) -> list[str]:
    """What `look_for_descriptors` still finds after `SETTLED_S`.

    Nothing may be behind while a worker takes over lanes: then their logs have readers more, and the producers of
    before are being closed. What leaks stays.
    """
    for _ in range(SETTLED_S // LOOK_S):
        if not look_for_descriptors(workers, lanes, nodes):
            return []
        wait(LOOK_S)
    return look_for_descriptors(workers, lanes, nodes)


def look_for_leftovers(before: Left, folder: Path) -> list[str]:
    """In words, one for each thing that was not there ``before``."""
    now = Left.now()
    found = [f"thread {name}" for name in sorted(now.threads - before.threads)]
    found += [f"child process {pid}" for pid in sorted(now.children - before.children)]
    found += [f"process {pid} of the run" for pid in processes_in(folder)]
    found += ["a listening socket"] * listening_sockets()
    found += [f"file {file}" for file in sorted(folder.glob("worker-*/**/*")) if file.suffix == ".part"]
    return found
