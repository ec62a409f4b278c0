"""How fast events become published placements: a worker with a backlog, every touched user scored again.

20,000 ads, 100 candidates a placement; placements, decisions and changelog rows are published. A user who has
several events in one slice gets one placement of it. The worker has one core, Apache Kafka another.
"""

import json
import sys
import tempfile
from pathlib import Path

from deploy.brokers.apache import say_on_stderr
from streams.settings import Guarantee
from tests.bench.bed import LANES, Bed, Say, bed
from tests.bench.load import Load
from tests.bench.report import Report, hardware, load_1m, medians, ratio, rounded, versions

GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")
CANDIDATES = 100


def run(events: int, runs: int, say: Say) -> Report:
    """The report, as its JSON has it. Raises `tests.bench.bed.BenchError` and `deploy.brokers.BrokerError`."""
    load = Load(events=events)
    before = load_1m()
    with tempfile.TemporaryDirectory(prefix="salience-bench-") as folder, bed(Path(folder), say) as there:
        measured = [measure(there, load) for _ in range(runs)]
    return {
        "benchmark": "e2e",
        "runs": runs,
        "events": load.events,
        "users": load.users,
        "ads": load.ads,
        "candidates": CANDIDATES,
        "zipf_exponent": 1,
        "lanes": LANES,
        **medians(measured),
        "versions": versions(),
        "pinned": there.core is not None,
        "load_1m": [before, load_1m()],
        "hardware": hardware(),
    }


def measure(there: Bed, load: Load) -> Report:
    """One run of both guarantees, each on topics of its own."""
    placements, events, share = {}, {}, {}
    for guarantee in GUARANTEES:
        prefix, _ = there.filled(load)
        there.say(f"salience, {guarantee}")
        measured = there.worker(prefix, load, guarantee=guarantee, candidates=CANDIDATES)
        share[guarantee] = measured.totals["placements"] / load.events
        events[guarantee] = rounded(measured.events_per_s)
        placements[guarantee] = rounded(measured.events_per_s * share[guarantee])
    return {
        "placements_per_s": placements,
        "events_per_s": events,
        "placements_per_event": {guarantee: rounded(each) for guarantee, each in share.items()},
        "exactly_once_ratio": ratio(placements["exactly_once"], placements["at_least_once"]),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(100_000, 1, say_on_stderr)) + "\n")
