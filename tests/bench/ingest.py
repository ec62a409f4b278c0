"""How fast a worker drains a backlog into state, beside other engines on the same topics in the same run.

The worker decodes, validates, updates state, writes its changelog and commits; it scores nothing. Every engine has
a process of its own on one and the same core, Apache Kafka another. Faust and Quix are slower and get the first
part of the backlog only. Paces are those after each run's first tenth. About 2 GB of temporary files per run.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from streams.settings import Guarantee
from tests.bench.bed import LANES, Bed, bed
from tests.bench.load import Load
from tests.bench.report import Report, Say, ratio, repeated, rounded, versions

GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")
SLICES = {"faust_stock": 60_000, "quix": 100_000}
"""At most so many events for the slow ones: some seconds of work each."""
LIBRARIES = {"aiokafka": "aiokafka", "faust_stock": "faust", "quix": "quixstreams"}


def run(events: int, runs: int, say: Say, python: str = sys.executable) -> Report:
    """The report, as its JSON has it. ``python``: an interpreter for Quix, which has the extra ``bench``.

    Raises `tests.bench.bed.BenchError` and `deploy.brokers.BrokerError`.
    """
    load = Load(events=events)
    interpreters = dict.fromkeys(LIBRARIES, sys.executable) | {"quix": python}
    peers = {name: where for name, where in interpreters.items() if _imports(where, LIBRARIES[name])}
    for name in LIBRARIES.keys() - peers.keys():
        say(f"{name} is left out: {interpreters[name]} has no {LIBRARIES[name]}; pip install -e '.[bench]'")
    with tempfile.TemporaryDirectory(prefix="salience-bench-") as folder, bed(Path(folder), say) as there:
        return repeated(
            "ingest",
            runs,
            lambda: measure(there, load, peers),
            say,
            events=load.events,
            users=load.users,
            ads=load.ads,
            zipf_exponent=load.exponent,
            lanes=LANES,
            slices={name: min(events, most) for name, most in SLICES.items()},
            pinned=there.core is not None,
        )


def measure(there: Bed, load: Load, peers: dict[str, str]) -> Report:
    """One run: both guarantees, each on topics of its own, and the peers on the first one's."""
    paces: dict[str, float | None] = {}
    prefixes = []
    size = 0.0
    for guarantee in GUARANTEES:
        prefix, size = there.filled(load)
        prefixes.append(prefix)
        there.say(f"salience, {guarantee}")
        paces[f"salience_{guarantee}"] = there.worker(prefix, load, guarantee=guarantee, scoring=False).events_per_s
    found = {}
    for name in LIBRARIES:
        if name in peers:
            there.say(name)
            events = min(load.events, SLICES.get(name, load.events))
            found[name] = there.peer(name, prefixes[0], events, peers[name])
        paces[name] = found[name].events_per_s if name in found else None
    ours = paces["salience_at_least_once"]
    return {
        "bytes_per_event": rounded(size),
        "events_per_s": {name: None if pace is None else rounded(pace) for name, pace in paces.items()},
        "ratio_vs_aiokafka": ratio(ours, paces["aiokafka"]),
        "ratio_vs_faust_stock": ratio(ours, paces["faust_stock"]),
        "ratio_vs_quix": ratio(ours, paces["quix"]),
        "exactly_once_ratio": ratio(paces["salience_exactly_once"], ours),
        "versions": versions(**{name: peer.version for name, peer in found.items()}),
    }


def _imports(python: str, module: str) -> bool:
    """Whether an interpreter finds a module."""
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-P", "-c", look], check=False).returncode == 0
