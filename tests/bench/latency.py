"""How long from an event's moment to its user's new placement, at steady loads; and what an overload does.

The capacity is measured first: a backlog drained under the same guarantee, each event of a user drawn from all alike,
so that hardly two events share a placement. Then the same worker gets 50 % and 80 % of it, live, from a generator in a
process of its own (`tests.bench.drive`), and a plain echo (`tests.bench.echo`) the same loads through the same broker.
The engine has one core; broker and generator share another. What an event takes of that core is told too, for one that
comes live takes more than one of a backlog: the core may be full at 80 % of the capacity.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka.admin import AdminClient, NewTopic

from streams import topic_admin, topics
from streams.settings import Guarantee
from tests.bench import drive, echo
from tests.bench.bed import LANES, Bed, BenchError, Child, bed, steady
from tests.bench.load import Load
from tests.bench.proc import cpu_s
from tests.bench.report import Report, Say, ratio, repeated, rounded

GUARANTEES: tuple[Guarantee, ...] = ("at_least_once", "exactly_once")
LOADS = (0.5, 0.8)
USERS = 50_000
CAPACITY_EVENTS = 20_000
"""Some seconds of work."""
WARM_S = 5.0
"""Of every load, at its start, not counted: connections, transactions' first, caches."""
GENERATED_MAX = 20_000.0
"""Events/s: the generator takes 25 µs for one and its answer, and at this rate half a core."""
GRACE_S = 30.0
"""For a generator to make its events before the first and its sums after the last."""


def run(seconds: float, runs: int, say: Say, guarantees: Sequence[Guarantee] = GUARANTEES) -> Report:
    """The report, as its JSON has it. Raises `tests.bench.bed.BenchError` and `deploy.brokers.BrokerError`."""
    with tempfile.TemporaryDirectory(prefix="salience-bench-") as folder, bed(Path(folder), say) as there:
        return repeated(
            "latency",
            runs,
            lambda: measure(there, seconds=seconds, guarantees=guarantees),
            say,
            seconds=seconds,
            users=USERS,
            ads=Load().ads,
            lanes=LANES,
            pinned=there.core is not None,
        )


def measure(
    there: Bed,
    *,
    seconds: float,
    events: int = CAPACITY_EVENTS,
    warm_s: float = WARM_S,
    guarantees: Sequence[Guarantee] = GUARANTEES,
) -> Report:
    """Of each guarantee the capacity, and latencies at each of `LOADS`.

    ``core``: how much of it the worker used meanwhile; ``event_vs_backlog``: an event's processor time by that of one
    of the drained backlog.
    """
    parts = {guarantee: _of(there, guarantee, seconds, events, warm_s) for guarantee in guarantees}
    return {"capacity_events_per_s": {g: part.pop("capacity") for g, part in parts.items()}, "latency": parts}


def capped(capacity: float) -> float:
    """Events/s to base loads on: what was measured, at most what the generator can keep up with."""
    return min(capacity, GENERATED_MAX)


def _of(there: Bed, guarantee: Guarantee, seconds: float, events: int, warm_s: float) -> Report:
    load = Load(events=events, users=USERS, exponent=0, start_ms=int(time.time() * 1000) - events)
    prefix, _ = there.filled(load)
    there.say(f"salience, {guarantee}: capacity")
    out: Report = {}
    with there.working(prefix, guarantee=guarantee) as children:
        drained = steady(there.drained(prefix, events, children))
        capacity = capped(drained.events_per_s)
        out["capacity"] = rounded(capacity)
        ours, cost_us = {}, {}
        for number, share in enumerate(LOADS):
            there.say(f"salience, {guarantee}: {share:.0%} of {capacity:,.0f} events/s")
            plan = plan_of(there, prefix, topics.PLACEMENTS, share * capacity, seconds, warm_s, seed=2 + number)
            before_s = cpu_s(child.process.pid for child in children)
            ours[share] = driven(there, plan, children)
            cost_us[share] = _since(before_s, children, plan.events)
    with _echoing(there, prefix, guarantee) as child:
        for number, share in enumerate(LOADS):
            there.say(f"echo, {guarantee}: {share:.0%}")
            plan = plan_of(there, prefix, drive.ECHO, share * capacity, seconds, warm_s, seed=2 + number)
            of_core = {
                "core": ratio(cost_us[share], 1e6 / plan.rate),
                "event_vs_backlog": ratio(cost_us[share], drained.cpu_us_per_event),
            }
            out[f"load_{share * 100:.0f}"] = _compared(plan.rate, ours[share], driven(there, plan, [child])) | of_core
    return out


def _since(before_s: float | None, children: Sequence[Child], events: int) -> float | None:
    """Processor time of each of ``events`` since the ``children`` had used ``before_s``, in µs; None if not known."""
    after_s = cpu_s(child.process.pid for child in children)
    return None if before_s is None or after_s is None else 1e6 * (after_s - before_s) / events


def _compared(rate: float, ours: drive.Driven, echoed: drive.Driven) -> Report:
    return {
        "events_per_s": rounded(rate),
        "events": ours.counted,
        "p50_ms": rounded(ours.p50_ms),
        "p99_ms": rounded(ours.p99_ms),
        "p999_ms": rounded(ours.p999_ms),
        "echo_p50_ms": rounded(echoed.p50_ms),
        "echo_p99_ms": rounded(echoed.p99_ms),
        "ratio_p99": ratio(ours.p99_ms, echoed.p99_ms),
        "sent_late_p99_ms": rounded(ours.sent_late_ms),
    }


def plan_of(
    there: Bed, prefix: str, answers: str, rate: float, seconds: float, warm_s: float, *, seed: int, users: int = USERS
) -> drive.Plan:
    """What the generator is to do. ``seed``: another for every drive on the same topics, whose events it names."""
    return drive.Plan(
        bootstrap=there.bootstrap,
        prefix=prefix,
        lanes=LANES,
        answers=answers,
        rate=rate,
        seconds=seconds,
        warm_s=warm_s,
        users=users,
        ads=Load().ads,
        seed=seed,
    )


def driving(there: Bed, plan: drive.Plan) -> Child:
    """The generator, at work; it shares the broker's core."""
    command = [there.python, "-P", "-m", "tests.bench.drive", msgspec.json.encode(plan).decode()]
    return there.start(f"{plan.prefix}drive-{plan.answers}-{plan.seed}", command, pinned=False, heard=True)


def driven(there: Bed, plan: drive.Plan, children: Sequence[Child]) -> drive.Driven:
    """What the generator found. Raises `BenchError` unless every event was answered."""
    within_s = plan.warm_s + plan.seconds + drive.ANSWERED_WITHIN_S + GRACE_S
    found = msgspec.json.decode(there.said(driving(there, plan), within_s), type=drive.Driven)
    for child in children:
        child.check()
    if found.answered != plan.events:
        raise BenchError(f"of {plan.events:,} events sent at {plan.rate:,.0f}/s {found.answered:,} were answered")
    return found


@contextmanager
def _echoing(there: Bed, prefix: str, guarantee: Guarantee) -> Iterator[Child]:
    """A plain echo on the engines' core, reading what is produced from now on."""
    topic = prefix + drive.ECHO
    if topic not in topic_admin.partition_counts(there.bootstrap, [topic]):
        admin: Any = AdminClient({"bootstrap.servers": there.bootstrap, "log_level": 2})
        admin.create_topics([NewTopic(topic, LANES, 1)])[topic].result()
    plan = echo.Plan(bootstrap=there.bootstrap, prefix=prefix, lanes=LANES, guarantee=guarantee)
    command = [there.python, "-P", "-m", "tests.bench.echo", msgspec.json.encode(plan).decode()]
    child = there.start(f"{prefix}echo", command, heard=True)
    try:
        assert child.process.stdout is not None
        if child.process.stdout.readline().decode().strip() != echo.READY:
            child.process.wait(GRACE_S)
            child.check()
        yield child
    finally:
        child.stop()
