"""What processes have used, from ``/proc``; where there is none (not Linux), nothing is known."""

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def cpu_s(pids: Iterable[int]) -> float | None:
    """Processor time of the processes since they began, all their threads together, in steps of 10 ms."""
    ticks = 0
    for pid in pids:
        stat = _read(pid, "stat")
        if stat is None:
            return None
        fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def resident_bytes(pid: int) -> int | None:
    """Memory of the process that is in RAM now."""
    statm = _read(pid, "statm")
    return None if statm is None else int(statm.split()[1]) * _PAGE_BYTES


def _read(pid: int, name: str) -> str | None:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
