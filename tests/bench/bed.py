"""Where engines are measured: Apache Kafka on one core, one engine at a time on another, filled topics between them."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import IO

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.brokers.apache import ApacheKafka
from deploy.brokers.process import log_tail, tied_to_this
from scoring.cleaning import COUNT_MAX
from streams import topics
from streams.lag.watch import Lag, LagWatch
from streams.mendable import MendableError
from streams.reading import log_ends
from streams.wire import LANE_KEY, LaneRow
from tests.bench.load import Load, fill
from tests.bench.pace import pace, warm
from tests.bench.peers import Found, Plan
from tests.bench.proc import cpu_s
from tests.bench.report import Say

ROOT = Path(__file__).parents[2]
LANES = 4
LOOK_EVERY_S = 0.05
"""Between two looks at the lag from outside: two small requests that the broker's core answers."""
PEER_WITHIN_S = 120.0
LAST_RECORDS = 4
"""The lane row, the last of a slice, is among so many: behind it come only transaction markers."""
TAKEN_OVER = '"event": "lane taken over"'
"""In a worker's log."""
ENDS_WITHIN_S = 30.0
"""A worker's orderly stop: its lanes' snapshots among it."""


class BenchError(MendableError):
    """A measurement that does not count: an engine died, or left events out."""


@dataclass(frozen=True, slots=True)
class Steady:
    """Workers at their steady pace. Processor µs an event are None where they cannot be known."""

    events_per_s: float
    cpu_us_per_event: float | None
    broker_cpu_us_per_event: float | None


@dataclass(frozen=True, slots=True)
class Measured(Steady):
    """The same, and what became of every event."""

    totals: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Look:
    """Events consumed by ``at_s``, the processor time used by then, and how many of the workers had lanes."""

    at_s: float
    consumed: int
    cpu_s: float | None
    broker_cpu_s: float | None
    workers: int


@dataclass(frozen=True, slots=True)
class Child:
    """An engine's process and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    begins: int
    """Where its own lines begin: the log may be that of a namesake before it."""

    @property
    def said(self) -> str:
        """All that it has logged."""
        return self.log.read_bytes()[self.begins :].decode(errors="replace")

    @property
    def lanes(self) -> list[dict[str, int]]:
        """What a worker has said of each lane that it took over, in that order."""
        return [json.loads(line) for line in self.said.splitlines() if TAKEN_OVER in line]

    @property
    def has_lanes(self) -> bool:
        """Whether a worker has taken over any."""
        return TAKEN_OVER in self.said

    def check(self) -> None:
        """Raises `BenchError` where it has ended."""
        if self.process.poll() is not None:
            raise BenchError(f"{self.name} ended with status {self.process.returncode}:\n{log_tail(self.log)}")

    def stop(self) -> None:
        """Ask it to end, and wait."""
        with self.process:  # closes its pipe
            self.process.terminate()
            try:
                self.process.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()


UNBOUNDED = dict.fromkeys(
    ("impressions_per_minute", "actions_per_minute", "impressions_per_day", "actions_per_day", "unshown_per_day"),
    COUNT_MAX,
)
"""The busiest user of a load is faster than any person and answers what nobody was shown; all is to be applied."""


@dataclass(frozen=True, slots=True)
class Bed:
    """A running broker. ``core``: the engines'; None where processes cannot be pinned or there is but one."""

    bootstrap: str
    folder: Path
    core: int | None
    say: Say
    broker_pids: tuple[int, ...] = ()
    python: str = sys.executable

    def filled(self, load: Load, lanes: int = LANES) -> tuple[str, float]:
        """Topics full of ``load`` under a new prefix, and the mean bytes of an event."""
        prefix = f"b{uuid.uuid4().hex[:8]}-"
        self.say(f"filling {load.events:,} events of {load.users:,} users")
        size = asyncio.run(fill(load, self.bootstrap, prefix, lanes))
        return prefix, size / max(load.events, 1)

    def worker(self, prefix: str, load: Load, *, lanes: int = LANES, workers: int = 1, **settings: object) -> Measured:
        """Drain the topics under ``prefix`` by ``salience worker`` with ``settings``. Raises `BenchError`."""
        with self.working(prefix, workers, **settings) as children:
            looks = self.drained(prefix, load.events, children)
        found = asyncio.run(totals(self.bootstrap, prefix, load.events, lanes))
        return Measured(**asdict(steady(looks, workers)), totals=found)

    @contextmanager
    def working(self, prefix: str, workers: int = 1, **settings: object) -> Iterator[list[Child]]:
        """Workers on the topics under ``prefix``; the first on the engines' core, the others beside the broker."""
        given = {"bootstrap": self.bootstrap, "topic_prefix": prefix, "group": f"{prefix}group"} | UNBOUNDED | settings
        children = []
        with ExitStack() as stack:
            for number in range(workers):
                own = given | {"home": self.folder / f"{prefix}home-{number}"}
                environment = {f"SALIENCE_{name.upper()}": str(value) for name, value in own.items()}
                command = [self.python, "-P", "-m", "streams.cli", "worker", "--log-json"]
                child = self.start(f"{prefix}worker-{number}", command, environment, pinned=number == 0)
                stack.callback(child.stop)
                children.append(child)
            yield children

    def drained(self, prefix: str, events: int, children: Sequence[Child]) -> list[Look]:
        """Wait until ``events`` and all others are consumed; what was seen meanwhile. Raises `BenchError`."""
        looks: list[Look] = []
        pids = [child.process.pid for child in children]

        def note(consumed: int) -> None:
            workers = sum(child.has_lanes for child in children)
            looks.append(Look(perf_counter(), consumed, cpu_s(pids), cpu_s(self.broker_pids), workers))

        def check() -> None:
            for child in children:
                child.check()

        def progress(lag: Lag) -> None:
            if lag.lanes:
                note(lag.consumed)

        async def pause(_seconds: float) -> None:
            await asyncio.sleep(LOOK_EVERY_S)

        watch = LagWatch(self.bootstrap, prefix, f"{prefix}group")
        note(0)
        asyncio.run(watch.until_zero(events, check, progress, sleep=pause))
        return looks

    def pace_of(self, prefix: str, events: int, children: Sequence[Child]) -> float:
        """`drained`, as events per second."""
        return steady(self.drained(prefix, events, children)).events_per_s

    def peer(self, name: str, prefix: str, events: int, python: str = sys.executable) -> Found:
        """Run a peer (`tests.bench.peers`) over the first ``events`` under ``prefix``. Raises `BenchError`."""
        plan = msgspec.json.encode(Plan(self.bootstrap, prefix, events, LANES)).decode()
        child = self.start(f"{prefix}{name}", [python, "-P", "-m", "tests.bench.peers", name, plan], heard=True)
        return msgspec.json.decode(self.said(child, PEER_WITHIN_S), type=Found)

    def said(self, child: Child, within_s: float) -> bytes:
        """The last line that a process says before it ends in order. Raises `BenchError` where it does not."""
        try:
            output, _ = child.process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired as error:
            child.process.kill()
            child.process.communicate()
            raise BenchError(f"{child.name} did not end within {within_s:.0f} s:\n{log_tail(child.log)}") from error
        if child.process.returncode != 0 or not output:
            status = child.process.returncode
            raise BenchError(f"{child.name} ended with status {status}:\n{log_tail(child.log)}")
        return output.splitlines()[-1]

    def start(
        self,
        name: str,
        command: Sequence[str],
        settings: Mapping[str, str] = {},
        *,
        pinned: bool = True,
        heard: bool = False,
    ) -> Child:
        """A process that does not outlive this one, with none of the caller's settings.

        ``pinned``: on the engines' core.
        ``heard``: its stdout is a pipe, else it goes to the log.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SALIENCE_")}
        environment |= {"PYTHONPATH": str(ROOT), **settings}
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            begins = output.tell()
            into: int | IO[bytes] = subprocess.PIPE if heard else output
            child = subprocess.Popen(
                [*tied_to_this(), *command],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=into,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches the benchmark, which ends its engines
            )
        if pinned and self.core is not None:
            os.sched_setaffinity(child.pid, {self.core})  # before it has threads, which inherit it
        return Child(name, child, log, begins)


def steady(looks: Sequence[Look], workers: int = 1) -> Steady:
    """Of ``looks`` what comes after the warm-up, once as many ``workers`` had lanes."""
    samples = [(look.at_s, look.consumed) for look in looks]
    all_at_work = next((at for at, look in enumerate(looks) if look.workers == workers), 0)
    at = min(max(warm(samples), all_at_work), len(looks) - 2)
    first, last = looks[at], looks[-1]
    done = last.consumed - first.consumed
    ours, brokers = (
        None if upto is None or before is None else 1e6 * (upto - before) / done
        for before, upto in ((first.cpu_s, last.cpu_s), (first.broker_cpu_s, last.broker_cpu_s))
    )
    return Steady(pace(samples, at), ours, brokers)


@contextmanager
def bed(folder: Path, say: Say) -> Iterator[Bed]:
    """A broker and this process on all cores but the last, which is the engines'. From the main thread.

    Raises `deploy.brokers.BrokerError`, also in place of what clients and engines said of a broker that has ended, or
    has no more room: that was why.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pinned = len(cores) > 1
    if pinned:
        os.sched_setaffinity(0, cores[:-1])  # inherited by the broker
    try:
        say("starting Apache Kafka")
        with ApacheKafka(folder / "broker", say=say) as broker:
            try:
                yield Bed(broker.bootstrap, folder, cores[-1] if pinned else None, say, tuple(broker.pids))
            except Exception:
                broker.check()
                raise
    finally:
        if pinned:
            os.sched_setaffinity(0, cores)


async def totals(bootstrap: str, prefix: str, events: int, lanes: int) -> dict[str, int]:
    """What became of every event, from the lane rows. Raises `BenchError` unless each was applied once.

    Read to the log's end, not to the last stable offset: a commit is answered before its markers are written, and
    on a busy machine the last lane row would be missed.
    """
    changelog = [TopicPartition(prefix + topics.CHANGELOG, lane) for lane in range(lanes)]
    found: dict[int, LaneRow] = {}
    ends = await log_ends(bootstrap, changelog)
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False
    ) as consumer:
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
