"""How cost grows: with workers, partitions, ads and users, each alone, everything else as in `ingest` and `e2e`.

Costs are the worker's processor time per event or placement, which another process on the machine disturbs less than
its pace; paces stand beside them. Every user has a row before the first event, read from the changelog, so that a
million users are a million rows in memory. Two workers on two cores leave the broker none of its own: the second one
shares the broker's, and ``cores`` say what each took.
"""

import asyncio
import tempfile
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from streams.settings import Guarantee
from tests.bench.bed import LANES, Bed, Measured, bed
from tests.bench.load import Load, fill, user_id
from tests.bench.recovery import fill_changelog
from tests.bench.report import Report, Say, ratio, repeated, rounded

GUARANTEE: Guarantee = "exactly_once"
CANDIDATES = 100
WORKERS = (1, 2)
PARTITIONS = (1, 4, 16)
ADS = (1_000, 20_000, 200_000)
USERS = (10_000, 100_000, 1_000_000)


def run(runs: int, say: Say, *, quick: bool = False) -> Report:
    """The report, as its JSON has it; ``quick``: a tenth of the events.

    Raises `tests.bench.bed.BenchError` and `deploy.brokers.BrokerError`.
    """
    events = {"ingest_events": 500_000 // (10 if quick else 1), "e2e_events": 30_000 // (10 if quick else 1)}
    with tempfile.TemporaryDirectory(prefix="salience-bench-") as folder, bed(Path(folder), say) as there:
        return repeated("scale", runs, partial(measure, there, **events), say, guarantee=GUARANTEE, **events)


def measure(there: Bed, *, ingest_events: int, e2e_events: int) -> Report:
    """All series, and the ratios that say how cost grows."""
    kinds = {"ingest": Load(events=ingest_events), "e2e": Load(events=e2e_events)}
    workers = {kind: {str(n): _drained(there, kind, load, workers=n) for n in WORKERS} for kind, load in kinds.items()}
    partitions = {
        kind: {str(n): workers[kind]["1"] if n == LANES else _drained(there, kind, load, lanes=n) for n in PARTITIONS}
        for kind, load in kinds.items()
    }
    of_ads = kinds["e2e"].ads
    catalogue = {
        str(ads): workers["e2e"]["1"] if ads == of_ads else _drained(there, "e2e", Load(events=e2e_events, ads=ads))
        for ads in ADS
    }
    users = {str(n): _drained(there, "ingest", Load(events=ingest_events, users=n), known=True) for n in USERS}
    return {
        "workers": workers,
        "partitions": partitions,
        "ads": catalogue,
        "users": users,
        "two_workers_ratio": {kind: _pace_ratio(series, *map(str, WORKERS)) for kind, series in workers.items()},
        "cost_ratio_ads": _cost_ratio(catalogue, ADS[0], ADS[-1]),
        "cost_ratio_users": _cost_ratio(users, USERS[0], USERS[-1]),
    }


def _drained(there: Bed, kind: str, load: Load, *, lanes: int = LANES, workers: int = 1, known: bool = False) -> Report:
    """One cell. ``known``: every user has a row in the changelog before the first event."""
    prefix = f"b{uuid.uuid4().hex[:8]}-"
    there.say(f"{kind}: {workers} workers, {lanes} partitions, {load.ads:,} ads, {load.users:,} users")
    if known:
        keys = [user_id(number).encode() for number in range(load.users)]
        asyncio.run(fill_changelog(there.bootstrap, prefix, keys, lanes))
    asyncio.run(fill(load, there.bootstrap, prefix, lanes))
    settings: Mapping[str, object] = {"scoring": kind == "e2e", "candidates": CANDIDATES, "guarantee": GUARANTEE}
    return _cell(kind, load, there.worker(prefix, load, lanes=lanes, workers=workers, **settings))


def _cell(kind: str, load: Load, measured: Measured) -> Report:
    of = measured.totals["placements"] / load.events if kind == "e2e" else 1.0
    per_s = measured.events_per_s * of
    cost, brokers = (
        None if us is None else rounded(us / of) for us in (measured.cpu_us_per_event, measured.broker_cpu_us_per_event)
    )
    return {
        "per_s": rounded(per_s),
        "cpu_us": cost,
        "cores": {
            name: None if us is None else rounded(us * per_s / 1e6)
            for name, us in (("workers", cost), ("broker", brokers))
        },
    }


def _pace_ratio(series: Mapping[str, Report], one: str, other: str) -> float | None:
    return ratio(series[other]["per_s"], series[one]["per_s"])


def _cost_ratio(series: Mapping[str, Report], least: int, most: int) -> float | None:
    return ratio(series[str(most)]["cpu_us"], series[str(least)]["cpu_us"])
