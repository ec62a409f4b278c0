"""What a change of models costs those who wait for placements: the same steady load, left alone and during changes.

A worker gets half of what it can do, live, from a generator in a process of its own (`tests.bench.drive`). The first
time it is left alone; the second time a model is promoted and taken back for as long as the load lasts, so that at any
moment the worker fetches one, has it tried on its own core, encodes the catalogue with it or changes roles.

The word for a change comes from this process: a command of its own for each would begin an interpreter on the core
that the broker and the generator share, and what that costs is no part of a change.
"""

import asyncio
import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec

from onnx_models import DEMO_MODEL
from streams import topics
from streams.clock import wall_ms
from streams.control import publish
from streams.control_wire import ModelRoles
from streams.models.desk import push
from streams.models.roles import promoted, rolled_back
from streams.settings import Guarantee, Settings
from tests.bench import drive
from tests.bench.bed import Bed, BenchError, Child, bed
from tests.bench.latency import CAPACITY_EVENTS, GRACE_S, USERS, WARM_S, capped, driven, driving, plan_of
from tests.bench.load import Load
from tests.bench.report import Report, Say, ratio, repeated, rounded

GUARANTEE: Guarantee = "exactly_once"
LOAD = 0.5
FOLLOWED_WITHIN_S = 60.0
LOOK_EVERY_S = 0.05
CHANGED = '"event": "models"'
"""In a worker's log."""


def run(seconds: float, runs: int, say: Say) -> Report:
    """The report, as its JSON has it. Raises `tests.bench.bed.BenchError` and `deploy.brokers.BrokerError`."""
    with tempfile.TemporaryDirectory(prefix="salience-bench-") as folder, bed(Path(folder), say) as there:
        return repeated(
            "swap",
            runs,
            lambda: measure(there, seconds=seconds),
            say,
            seconds=seconds,
            users=USERS,
            ads=Load().ads,
            guarantee=GUARANTEE,
            pinned=there.core is not None,
        )


def measure(there: Bed, *, seconds: float, events: int = CAPACITY_EVENTS, warm_s: float = WARM_S) -> Report:
    """Latencies before and during changes of models, and how long a promotion takes."""
    load = Load(events=events, users=USERS, exponent=0, start_ms=int(time.time() * 1000) - events)
    prefix, _ = there.filled(load)
    with there.working(prefix, guarantee=GUARANTEE) as (worker,):
        there.say("salience: capacity")
        rate = LOAD * capped(there.pace_of(prefix, events, [worker]))
        there.say(f"left alone at {rate:,.0f} events/s")
        alone = driven(there, plan_of(there, prefix, topics.PLACEMENTS, rate, seconds, warm_s, seed=2), [worker])
        version = _push(there, prefix)
        there.say("the same during changes of models")
        plan = plan_of(there, prefix, topics.PLACEMENTS, rate, seconds, warm_s, seed=3)
        generator = driving(there, plan)
        changes = _change(there, prefix, worker, generator, version)
        found = msgspec.json.decode(there.said(generator, drive.ANSWERED_WITHIN_S + GRACE_S), type=drive.Driven)
    if found.answered != plan.events:
        raise BenchError(f"of {plan.events:,} events sent during changes {found.answered:,} were answered")
    return {
        "events_per_s": rounded(rate),
        "events": found.counted,
        "p50_ms": {"before": rounded(alone.p50_ms), "during": rounded(found.p50_ms)},
        "p99_ms": {"before": rounded(alone.p99_ms), "during": rounded(found.p99_ms)},
        "max_ms": {"before": rounded(alone.max_ms), "during": rounded(found.max_ms)},
        "ratio_p99": ratio(found.p99_ms, alone.p99_ms),
        "changes": len(changes),
        "promote_s": rounded(median(changes[::2])),
    }


def _push(there: Bed, prefix: str) -> str:
    """The demo shop's model under another name: as costly as the one at work, and another version."""
    folder = there.folder / f"{prefix}next"
    shutil.copytree(DEMO_MODEL, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"name": "next"}))
    return asyncio.run(push(_settings(there, prefix), folder)).model


def _change(there: Bed, prefix: str, worker: Child, generator: Child, version: str) -> list[float]:
    """Promote and take back, by turns, until the generator has ended; seconds from each word to the worker's change."""
    took: list[float] = []
    before = ModelRoles()
    while generator.process.poll() is None or len(took) < 2:
        after = promoted(before, version, wall_ms(), "a benchmark", forced=True)
        for roles in (after, rolled_back(after, wall_ms())):
            changes = _changes(worker)
            asyncio.run(publish(_settings(there, prefix), [roles]))
            began_s = time.perf_counter()
            while _changes(worker) == changes:
                worker.check()
                if time.perf_counter() - began_s > FOLLOWED_WITHIN_S:
                    raise BenchError(f"{worker.name} did not change models within {FOLLOWED_WITHIN_S:.0f} s")
                time.sleep(LOOK_EVERY_S)
            took.append(time.perf_counter() - began_s)
            before = roles
    return took


def _changes(worker: Child) -> int:
    """How often the worker has changed models."""
    return worker.said.count(CHANGED)


def _settings(there: Bed, prefix: str) -> Settings:
    return Settings(bootstrap=there.bootstrap, topic_prefix=prefix)
