"""Where engines are measured: Apache Kafka on one core, one engine at a time on another, filled topics between them."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import IO

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.brokers import process, tied
from deploy.brokers.apache import ApacheKafka
from scoring.cleaning import COUNT_MAX
from streams import topics
from streams.lag.watch import Lag, LagWatch
from streams.wire import LANE_KEY, LaneRow
from tests.bench.load import Load, fill
from tests.bench.pace import Sample, pace
from tests.bench.peers import Found, Plan

ROOT = Path(__file__).parents[2]
LANES = 4
LOOK_EVERY_S = 0.05
"""Between two looks at the lag from outside: two small requests that the broker's core answers."""
PEER_WITHIN_S = 120.0
LAST_RECORDS = 4
"""The lane row, the last of a slice, is among so many: behind it come only transaction markers."""

Say = Callable[[str], None]


class BenchError(RuntimeError):
    """A measurement that does not count: an engine died, or left events out."""


@dataclass(frozen=True, slots=True)
class Measured:
    """``events_per_s`` of a worker at its steady pace, and what became of every event."""

    events_per_s: float
    totals: Mapping[str, int]


UNBOUNDED = dict.fromkeys(
    ("impressions_per_minute", "actions_per_minute", "impressions_per_day", "actions_per_day", "unshown_per_day"),
    COUNT_MAX,
)
"""The busiest user of a load is faster than any person and answers what nobody was shown; all is to be applied."""


@dataclass(frozen=True, slots=True)
class Bed:
    """A running broker. ``core``: the engine's; None where processes cannot be pinned or there is but one."""

    bootstrap: str
    folder: Path
    core: int | None
    say: Say

    def filled(self, load: Load) -> tuple[str, float]:
        """Topics full of ``load`` under a new prefix, and the mean bytes of an event."""
        prefix = f"b{uuid.uuid4().hex[:8]}-"
        self.say(f"filling {load.events:,} events")
        size = asyncio.run(fill(load, self.bootstrap, prefix, LANES))
        return prefix, size / load.events

    def worker(self, prefix: str, load: Load, **settings: object) -> Measured:
        """Drain the topics under ``prefix`` by ``salience worker`` with ``settings``. Raises `BenchError`."""
        home = self.folder / f"{prefix}home"
        given = {"bootstrap": self.bootstrap, "topic_prefix": prefix, "group": f"{prefix}group", "home": home}
        given |= UNBOUNDED | settings
        environment = {f"SALIENCE_{name.upper()}": str(value) for name, value in given.items()}
        log = self.folder / f"{prefix}worker.log"
        with log.open("ab") as output:
            child = self._start([sys.executable, "-P", "-m", "streams.cli", "worker"], environment, output, output)
        try:
            samples = asyncio.run(self._drain(prefix, f"{prefix}group", load.events, child, log))
        finally:
            child.terminate()
            child.wait()
        return Measured(pace(samples), asyncio.run(totals(self.bootstrap, prefix, load.events)))

    async def _drain(
        self, prefix: str, group: str, events: int, child: subprocess.Popen[bytes], log: Path
    ) -> list[Sample]:
        samples: list[Sample] = [(perf_counter(), 0)]

        def check() -> None:
            if child.poll() is not None:
                raise BenchError(f"the worker ended with status {child.returncode}:\n{process.log_tail(log)}")

        def progress(lag: Lag) -> None:
            if lag.lanes:
                samples.append((perf_counter(), lag.consumed))

        async def pause(_seconds: float) -> None:
            await asyncio.sleep(LOOK_EVERY_S)

        async with LagWatch(self.bootstrap, prefix, group) as watch:
            await watch.until_zero(events, check, progress, sleep=pause)
        return samples

    def peer(self, name: str, prefix: str, events: int, python: str = sys.executable) -> Found:
        """Run a peer (`tests.bench.peers`) over the first ``events`` under ``prefix``. Raises `BenchError`."""
        plan = msgspec.json.encode(Plan(self.bootstrap, prefix, events, LANES)).decode()
        log = self.folder / f"{prefix}{name}.log"
        with log.open("ab") as output:
            child = self._start([python, "-P", "-m", "tests.bench.peers", name, plan], {}, subprocess.PIPE, output)
        try:
            said, _ = child.communicate(timeout=PEER_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            child.kill()
            child.communicate()
            raise BenchError(
                f"{name} did not do {events:,} events within {PEER_WITHIN_S:.0f} s:\n{process.log_tail(log)}"
            ) from error
        if child.returncode != 0:
            raise BenchError(f"{name} ended with status {child.returncode}:\n{process.log_tail(log)}")
        return msgspec.json.decode(said.splitlines()[-1], type=Found)

    def _start(
        self, command: Sequence[str], settings: dict[str, str], output: int | IO[bytes], errors: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """A process on the engine's core that does not outlive this one, with none of the caller's settings."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SALIENCE_")}
        environment |= {"PYTHONPATH": str(ROOT)} | settings
        child = subprocess.Popen(
            [sys.executable, "-I", tied.__file__, str(os.getpid()), *command],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,  # Ctrl-C reaches the benchmark, which ends its engines
        )
        if self.core is not None:
            os.sched_setaffinity(child.pid, {self.core})  # before it has threads, which inherit it
        return child


@contextmanager
def bed(folder: Path, say: Say) -> Iterator[Bed]:
    """A broker and this process on all cores but the last, which is the engines'. From the main thread.

    Raises `deploy.brokers.BrokerError`.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pinned = len(cores) > 1
    if pinned:
        os.sched_setaffinity(0, cores[:-1])  # inherited by the broker
    try:
        say("starting Apache Kafka")
        with ApacheKafka(folder / "broker", say=say) as broker:
            yield Bed(broker.bootstrap, folder, cores[-1] if pinned else None, say)
    finally:
        if pinned:
            os.sched_setaffinity(0, cores)


async def totals(bootstrap: str, prefix: str, events: int) -> dict[str, int]:
    """What became of every event, from the lane rows. Raises `BenchError` unless each was applied once."""
    changelog = [TopicPartition(prefix + topics.CHANGELOG, lane) for lane in range(LANES)]
    found: dict[int, LaneRow] = {}
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False
    ) as consumer:
        ends = await consumer.end_offsets(changelog)
        consumer.assign(changelog)
        for tp in changelog:
            consumer.seek(tp, max(0, ends[tp] - LAST_RECORDS))
        while any([await consumer.position(tp) < ends[tp] for tp in changelog]):
            for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    if record.key == LANE_KEY:
                        found[tp.partition] = msgspec.msgpack.decode(record.value, type=LaneRow)
    out: dict[str, int] = {}
    for row in found.values():
        for name, count in row.totals.items():
            out[name] = out.get(name, 0) + count
    if out.get("applied") != events or out.get("events_in") != events:
        raise BenchError(f"of {events:,} events, each to be applied once, the lanes tell {out}")
    return out
