"""One worker given half as much again as it can take, for minutes, and then nothing: it keeps its shape and its lanes.

`python -m tests.integration.chaos.overload --minutes 10`. The capacity is measured first, on a backlog, with the same
events; then they come at 1.5 times that rate, and stop. In the end everything is processed once, memory was flat, and
the group was never rebalanced.
"""

import asyncio
import logging
import shutil
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Self

import msgspec
import structlog
import typer

from streams import topics
from streams.audit import audit
from streams.cli.ending import undone_when_told_to_end
from streams.lag.watch import LagWatch
from tests.integration.chaos.cluster import Cluster
from tests.integration.chaos.fleet import Fleet
from tests.integration.chaos.run import GROUP, LANES
from tests.integration.chaos.workload import Workload, offered
from tests.integration.lanes import Shop

USERS = 20_000
"""Enough that nearly every event asks for a placement of its own."""
BACKLOG = 40_000
FACTOR = 1.5
REACHED = 0.95
"""Of the events that were to come during the overload: so many must have been taken."""
BEHIND = 0.5
"""Of what must wait at its end if the worker can do no more than on the backlog, when it had just started."""
FLAT = 1.10
"""Memory in the last fifth of the overload, by that in its second."""
SAMPLE_S = 1.0
LIMITED = {"retention.bytes": str(256 << 20), "segment.bytes": str(64 << 20)}
"""Receipts and placements of the run would fill a disk."""


class Report(msgspec.Struct, kw_only=True):
    """``memory_growth``: of the worker's resident memory. ``takeovers``: of lanes, once each when all is well.

    ``events_offered``, ``undelivered``: what the brokers took during the overload, and what they did not.
    """

    capacity_per_s: float
    offered_per_s: float
    minutes: float
    events: int
    events_offered: int
    undelivered: int
    events_in: int
    unprocessed: int
    most_behind: int
    seconds_to_catch_up: float
    memory_mb: dict[str, float]
    memory_growth: float
    takeovers: int
    placements_doubled: int
    worker_status: int

    @property
    def overloaded(self) -> bool:
        """Whether it was given what this is about."""
        seconds = 60 * self.minutes
        too_many = (self.offered_per_s - self.capacity_per_s) * seconds
        return self.events_offered >= REACHED * self.offered_per_s * seconds and self.most_behind >= BEHIND * too_many

    @property
    def ok(self) -> bool:
        return (
            self.overloaded
            and not self.undelivered
            and not self.unprocessed
            and not self.placements_doubled
            and self.memory_growth <= FLAT
            and self.takeovers == LANES
            and self.worker_status == 0
        )


class Samples:
    """A worker's resident memory, second by second, and the largest lag."""

    def __init__(self, pid: int, bootstrap: str) -> None:
        self._pid, self._bootstrap = pid, bootstrap
        self.resident_mb: list[float] = []
        self.most_behind = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="samples")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    async def _run(self) -> None:
        watch = LagWatch(self._bootstrap, "", GROUP)
        while not await asyncio.to_thread(self._stopping.wait, SAMPLE_S):
            self.resident_mb.append(resident_mb(self._pid))
            self.most_behind = max(self.most_behind, (await watch.look()).behind)


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def overload(minutes: float, folder: Path) -> Report:
    """Measure, overload, let be, and look."""
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(folder / "cluster", 1))
        shop = Shop.open(cluster.bootstrap, "", folder, partitions=LANES, guarantee="exactly_once")
        for topic in (topics.DECISIONS, topics.PLACEMENTS):
            cluster.set_config(topic, {**LIMITED, "cleanup.policy": "delete"})
        asyncio.run(shop.publish(offered()))
        shop.settings = shop.settings.model_copy(update={"group": GROUP})
        filled = Workload(cluster.bootstrap, "", LANES, 1, 0, USERS)
        filled.fill(BACKLOG)
        fleet = Fleet(shop, folder, 1)
        stack.callback(fleet.kill)
        fleet.start(1)
        capacity = filled.acknowledged.records / _until_zero(cluster, filled.acknowledged.records)
        load = Workload(cluster.bootstrap, "", LANES, 2, FACTOR * capacity, USERS)
        worker = fleet.slots[0].worker
        assert worker is not None
        with Samples(worker.process.pid, cluster.bootstrap) as samples:
            load.start()
            time.sleep(60 * minutes)
            load.stop()
        records = filled.acknowledged.records + load.acknowledged.records
        caught_up_s = _until_zero(cluster, records)
        (status,) = fleet.stop()
        seen = asyncio.run(audit(cluster.bootstrap, ""))
        memory = samples.resident_mb
        fifth = max(1, len(memory) // 5)
        before, after = statistics.median(memory[fifth : 2 * fifth]), statistics.median(memory[-fifth:])
        return Report(
            capacity_per_s=round(capacity),
            offered_per_s=round(FACTOR * capacity),
            minutes=minutes,
            events=records,
            events_offered=load.acknowledged.records,
            undelivered=filled.acknowledged.failed.total() + load.acknowledged.failed.total(),
            events_in=seen.totals["events_in"],
            unprocessed=records + seen.totals["rerouted"] - seen.totals["events_in"],
            most_behind=samples.most_behind,
            seconds_to_catch_up=round(caught_up_s, 1),
            memory_mb={"early": round(before, 1), "late": round(after, 1), "most": round(max(memory), 1)},
            memory_growth=round(after / before, 3),
            takeovers=worker.said.count("lane taken over"),
            placements_doubled=len(seen.doubled),
            worker_status=status,
        )


def _until_zero(cluster: Cluster, records: int) -> float:
    return asyncio.run(LagWatch(cluster.bootstrap, "", GROUP).until_zero(records))


def main(
    minutes: Annotated[float, typer.Option(help="How long the overload lasts.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Give one worker 1.5 times what it can take, then nothing. Exit status 1 where it did not keep up its promises.

    Example: python -m tests.integration.chaos.overload --minutes 10
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    logging.disable(logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="salience-overload-"))
    with undone_when_told_to_end():
        try:
            report = overload(minutes, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    told = msgspec.json.format(msgspec.json.encode(report), indent=2).decode()
    (sys.stdout if as_json else sys.stderr).write(told + "\n")
    raise typer.Exit(0 if report.ok else 1)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
