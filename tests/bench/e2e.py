"""How fast events become published placements: a worker with a backlog, every touched user scored again.

20,000 ads, 100 candidates a placement; placements, decisions and changelog rows are published. A user who has
several events in one slice gets one placement of it. The worker has one core, Apache Kafka another.
"""

import tempfile
from pathlib import Path

from streams.settings import Guarantee
from tests.bench.bed import LANES, Bed, bed
from tests.bench.load import Load
from tests.bench.report import Report, Say, ratio, repeated, rounded

GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")
CANDIDATES = 100


def run(events: int, runs: int, say: Say) -> Report:
    """The report, as its JSON has it. Raises `tests.bench.bed.BenchError` and `deploy.brokers.BrokerError`."""
    load = Load(events=events)
    with tempfile.TemporaryDirectory(prefix="salience-bench-") as folder, bed(Path(folder), say) as there:
        return repeated(
            "e2e",
            runs,
            lambda: measure(there, load),
            say,
            events=load.events,
            users=load.users,
            ads=load.ads,
            candidates=CANDIDATES,
            zipf_exponent=load.exponent,
            lanes=LANES,
            pinned=there.core is not None,
        )


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
