"""One run of the harness: brokers up, workers and events on, faults for so many minutes, then quiet, then the check."""

import asyncio
import random
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from scoring.events import Source
from streams import topics
from streams.app import make_engine, make_step
from streams.decode import Record
from streams.feeds.catalogue import entry_of
from streams.lag.watch import LagWatch, StalledError
from streams.placing import Published
from streams.reading import read_topic
from streams.step import Step
from tests.integration.chaos.cluster import Cluster
from tests.integration.chaos.faults import AT_WORK, OF_BROKERS, OF_WORKERS, UNREAD_STAYS, Bench, Fault, draw
from tests.integration.chaos.fleet import ALLOWED, Fleet
from tests.integration.chaos.left import Left, descriptors_kept, look_for_leftovers
from tests.integration.chaos.recorder import Recorder
from tests.integration.chaos.recreated import recreate_and_watch
from tests.integration.chaos.verdict import Evidence, Verdict, judge
from tests.integration.chaos.workload import Workload, offered
from tests.integration.lanes import Shop

LANES = 4
WORKERS = 2
GAP_S = (0.5, 4.0)
"""Between two faults of one kind: shorter than a recovery, so that faults meet each other's."""
MET_MIN = 1 / 3
"""Share of workers' faults, in whole ones, that must meet one at work. Nine in ten wait for that, in vain where brokers
are away, as they may be for most of a short run."""
SAID = 6_000
"""Characters of what a worker said last, where it does not get on."""
QUIET_S = 240.0
"""Within this the lag must be 0 once the faults are over."""
STALL_S = 120.0
"""Nor may it stand still for so long: a worker whose lane stands still for `stall_ms`, a minute, ends itself, and the
lane is taken over by whoever is there."""
GROUP = "salience"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is. ``of_workers``, ``of_brokers``: the kinds of faults drawn from."""

    seed: int
    minutes: float
    per_s: float = 100.0
    guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    mutation: str = "none"
    of_workers: tuple[Fault, ...] = OF_WORKERS
    of_brokers: tuple[Fault, ...] = OF_BROKERS
    recreate: bool = True


class Report(msgspec.Struct, kw_only=True):
    """The result: ``faults`` that happened, by kind, and what must be 0.

    ``ended``: workers that ended as none should.
    ``unmet``: faults of workers that met none at work, where they are too many; 1 where no fault happened at all.
    """

    seed: int
    minutes: float
    guarantee: str
    mutation: str
    faults: dict[str, int]
    events: int
    dead_letters: int
    placements: int
    slices: int
    worker_ends: dict[str, int]
    lag: int
    lost: int
    doubled: int
    reordered: int
    other: int
    ended: int
    left_open: int
    unmet: int
    findings: list[str]
    notes: list[str]

    @property
    def ok(self) -> bool:
        wrong = self.lost or self.doubled or self.reordered or self.other
        return not (wrong or self.lag or self.ended or self.left_open or self.unmet)

    def leave_open(self, findings: list[str]) -> None:
        """Add what was left open, in words."""
        self.left_open += len(findings)
        self.findings += [f"left open: {what}" for what in findings]


def run(plan: Plan, folder: Path) -> Report:
    """Run ``plan`` in ``folder``. Raises what keeps the harness itself from working."""
    before = Left.now()
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(folder / "cluster"))
        report = _on(cluster, plan, folder, stack)
        open_transactions = look_for_open_transactions(cluster)
    left = look_for_leftovers(before, folder)
    report.leave_open([*open_transactions, *left])
    return report


def _on(cluster: Cluster, plan: Plan, folder: Path, stack: ExitStack) -> Report:
    shop = Shop.open(
        cluster.bootstrap, "", folder, partitions=LANES, replication=cluster.nodes, guarantee=plan.guarantee
    )
    cluster.set_config(topics.CHANGELOG, {"segment.bytes": str(1 << 20)} | UNREAD_STAYS)
    asyncio.run(shop.publish(offered()))
    shop.settings = shop.settings.model_copy(update={"bootstrap": cluster.workers_bootstrap, "group": GROUP})
    recorder = Recorder(cluster.bootstrap, "", GROUP, LANES)
    workload = Workload(cluster.bootstrap, "", LANES, plan.seed, plan.per_s)
    fleet = Fleet(shop, folder, WORKERS + 1, plan.mutation)
    recorder.start()
    stack.callback(recorder.stop)
    stack.callback(fleet.kill)
    workload.start()
    stack.callback(workload.halt)
    fleet.start(WORKERS)
    bench = Bench(cluster, fleet, recorder, LANES, folder)
    faults = _disturb(bench, plan)
    log.info("faults are over", faults=faults.happened.total())
    workload.stop()
    lag = _until_quiet(cluster, fleet, workload.acknowledged.records)
    kept_open = descriptors_kept(fleet.pids, LANES, cluster.nodes)
    statuses = fleet.pause()
    bench.notes += [
        f"a worker ended with status {status} in the end" for status in statuses if status not in (0, -signal.SIGTERM)
    ]
    ends = cluster.ends([topics.CHANGELOG, topics.PLACEMENTS, topics.DEAD_LETTERS], committed=True)
    recorder.catch_up(ends)
    shop.settings = shop.settings.model_copy(update={"bootstrap": cluster.bootstrap})
    evidence = _gather(shop, recorder, workload)
    verdict = judge(evidence)
    for what, count in workload.acknowledged.failed.items():
        verdict.add("other", count, f"events could not be produced: {what}")
    if plan.recreate:
        for what in recreate_and_watch(cluster, fleet, recorder, LANES, WORKERS):
            verdict.add("other", 1, what)
        faults.happened["topic_recreated"] += 1
    fleet.stop()
    _judge_ends(fleet, verdict)
    report = _report(plan, evidence, verdict, faults, fleet, lag, bench.notes)
    report.leave_open(kept_open)
    return report


# --- faults ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Disturbed:
    """How often: ``happened`` by kind and how it met a worker; ``tried``: of workers' faults alone."""

    happened: Counter[str] = field(default_factory=Counter)
    tried: int = 0

    def unmet(self) -> tuple[int, str]:
        """How many faults were to meet workers at work and did not, where they are too many; and that in words."""
        if not self.happened:
            return 1, "no fault happened"
        met = sum(count for how, count in self.happened.items() if how.endswith(AT_WORK))
        if met >= max(int(MET_MIN * self.tried), min(self.tried, 1)):
            return 0, ""
        return self.tried - met, f"{met} of {self.tried} faults of workers met one that was {AT_WORK}"


def _disturb(bench: Bench, plan: Plan) -> Disturbed:
    """Faults of workers and of brokers side by side until the time is over.

    Those of brokers in this thread: a node is tied to the thread that started it, and dies with it.
    """
    faults = Disturbed()
    failures: list[BaseException] = []

    def one_after_another(kinds: tuple[Fault, ...], seed: str) -> None:
        rng = random.Random(seed)
        try:
            for fault in draw(kinds, rng):
                if bench.over.wait(rng.uniform(*GAP_S)):
                    return
                log.info("fault", kind=fault.__name__)
                how = fault(bench, rng)
                if how is not None:
                    faults.happened[f"{fault.__name__} {how}".rstrip()] += 1
                if kinds is plan.of_workers and not (how is None and bench.over.is_set()):
                    faults.tried += 1
            bench.over.wait()
        except BaseException as error:  # noqa: BLE001 - raised where the run is
            failures.append(error)
            bench.over.set()
            bench.failed.set()

    timer = threading.Timer(60 * plan.minutes, bench.over.set)
    workers = threading.Thread(target=one_after_another, args=(plan.of_workers, f"{plan.seed}-workers"), name="faults")
    timer.start()
    workers.start()
    one_after_another(plan.of_brokers, f"{plan.seed}-brokers")
    workers.join()
    timer.cancel()
    if failures:
        raise failures[0]
    return faults


def _until_quiet(cluster: Cluster, fleet: Fleet, records: int) -> int:
    """Wait until nothing is behind; the lag that is left."""

    async def wait() -> int:
        watch = LagWatch(cluster.bootstrap, "", GROUP)
        try:
            async with asyncio.timeout(QUIET_S):
                await watch.until_zero(records, stall_s=STALL_S)
        except (StalledError, TimeoutError) as error:
            log.warning("not quiet", error=str(error), workers=[slot.name for slot in fleet.slots if slot.alive])
            for file in filter(Path.exists, map(fleet.log_file, fleet.slots)):
                sys.stderr.write(f"--- {file.name} ends with\n{file.read_text(errors='replace')[-SAID:]}\n")
        return (await watch.look()).behind

    return asyncio.run(wait())


# --- the end ---------------------------------------------------------------------------------------------------


class Unplaced(Step):
    """The workers' step without the placements, which are most of its work and none of the state."""

    def _place(self, *_: object, **_how: object) -> list[Published]:
        return []


def _gather(shop: Shop, recorder: Recorder, workload: Workload) -> Evidence:
    engine = make_engine(shop.settings)
    engine.catalogue.upsert([entry_of(each) for each in offered()])
    step = make_step(shop.settings, engine, LANES)
    inputs: dict[tuple[Source, int], list[Record]] = {(source, lane): [] for source in Source for lane in range(LANES)}

    async def read() -> None:
        for source in Source:
            async for records in read_topic(shop.settings.bootstrap, topics.LANE_INPUTS[source]):
                for record in records:
                    inputs[source, record.partition].append(record)

    asyncio.run(read())
    return Evidence(
        lanes=LANES,
        inputs=inputs,
        acknowledged=workload.acknowledged.events,
        recorded=recorder.recorded,
        committed=recorder.committed(),
        exactly_once=shop.settings.guarantee == "exactly_once",
        step=Unplaced(**{part.name: getattr(step, part.name) for part in fields(step)}),
    )


def _judge_ends(fleet: Fleet, verdict: Verdict) -> None:
    for status, count in fleet.statuses.items():
        if status not in ALLOWED:
            verdict.add("ended", count, f"workers ended with status {status}; allowed are {sorted(ALLOWED)}")
    for what in fleet.unexplained:
        verdict.add("ended", 1, f"worker ended with status 1: {what}")
    for what in fleet.hung:
        verdict.add("ended", 1, f"a worker that was told to stop hung: {what}")


def look_for_open_transactions(cluster: Cluster) -> list[str]:
    """Output partitions that end elsewhere for readers of committed records: a transaction is open there."""
    names = [*topics.LANE_INPUTS, topics.CHANGELOG, topics.PLACEMENTS, topics.DECISIONS, topics.DEAD_LETTERS]
    deadline = time.monotonic() + 20  # a dead lane's transaction is aborted after 15 s
    while True:
        committed, written = (cluster.ends(names, committed=which) for which in (True, False))
        behind = [where for where, end in written.items() if committed[where] < end]
        if not behind or time.monotonic() > deadline:
            return [f"a transaction on {where}" for where in behind]
        time.sleep(0.5)


def _report(
    plan: Plan,
    evidence: Evidence,
    verdict: Verdict,
    faults: Disturbed,
    fleet: Fleet,
    lag: int,
    notes: list[str],
) -> Report:
    recorded, (unmet, in_words) = evidence.recorded, faults.unmet()
    return Report(
        seed=plan.seed,
        minutes=plan.minutes,
        guarantee=plan.guarantee,
        mutation=plan.mutation,
        faults=dict(sorted(faults.happened.items())),
        events=sum(len(records) for records in evidence.inputs.values()),
        dead_letters=recorded.dead.total(),
        placements=recorded.placements.total(),
        slices=sum(len(rows) for rows in recorded.lane_rows.values()),
        worker_ends={str(status): count for status, count in sorted(fleet.statuses.items())},
        lag=lag,
        lost=verdict.lost,
        doubled=verdict.doubled,
        reordered=verdict.reordered,
        other=verdict.other,
        ended=verdict.ended,
        left_open=0,
        unmet=unmet,
        findings=[*verdict.findings, *filter(None, [in_words])],
        notes=notes,
    )
