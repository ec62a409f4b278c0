"""What every benchmark's report says of its machine, and the medians of several runs."""

import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

Report = dict[str, Any]
Say = Callable[[str], None]

LIBRARIES = ("aiokafka", "confluent-kafka", "faust-streaming", "msgspec", "numpy", "onnxruntime", "river")


def repeated(benchmark: str, runs: int, once: Callable[[], Report], say: Say, **about: object) -> Report:
    """The report of ``runs`` runs, one after the other: medians, and of several runs least and most beside them.

    ``about``: what the runs were of.
    """
    before = load_1m()
    measured = []
    for number in range(runs):
        if runs > 1:
            say(f"run {number + 1} of {runs}")
        measured.append(once())
    out = {"benchmark": benchmark, "runs": runs, **about, **medians(measured)}
    if runs > 1:
        out |= {"min": folded(measured, min), "max": folded(measured, max)}
    machine = {"versions": versions(), "load_1m": [before, load_1m()], "hardware": hardware()}
    return out | {name: told for name, told in machine.items() if name not in out}


def hardware() -> dict[str, str | int]:
    """Processor, cores and memory."""
    out: dict[str, str | int] = {"processor": _processor(), "cores": os.cpu_count() or 0, "system": platform.platform()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        out["memory_mb"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return out


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def versions(**others: str) -> dict[str, str]:
    """Of Python and the libraries that matter to speed; ``others`` are a benchmark's own."""
    out = {"python": sys.version.split()[0]}
    for name in LIBRARIES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out | others


def load_1m() -> float:
    """The machine's load, the mean of the last minute: beyond the benchmark's own, others disturb it."""
    return round(os.getloadavg()[0], 2)


def medians(runs: Sequence[Report]) -> Report:
    """Number by number the median over ``runs``; what is not a number is the first run's."""
    numbers = folded(runs, median)
    return {
        name: medians([run[name] for run in runs]) if isinstance(first, dict) else numbers.get(name, first)
        for name, first in runs[0].items()
    }


def folded(runs: Sequence[Report], fold: Callable[[Sequence[float]], float]) -> Report:
    """``fold`` of each number over ``runs``, the runs that have none aside; nothing else is kept."""
    out: Report = {}
    for name, first in runs[0].items():
        values = [run[name] for run in runs]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if isinstance(first, dict):
            out[name] = folded(values, fold)
        elif numbers:
            out[name] = rounded(fold(numbers))
    return {name: value for name, value in out.items() if value != {}}


def ratio(of: float | None, to: float | None) -> float | None:
    """``of / to``; None where there is nothing to compare with: not measured, or shorter than a clock's tick."""
    return rounded(of / to) if of is not None and to else None


def rounded(number: float) -> float:
    """Three digits after the point below 100, none above: more would be noise."""
    return round(number, 3) if number < 100 else round(number)
