"""What is done to workers and brokers. A fault is a function of the bench: it does its harm, holds it, and heals it."""

import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import TopicPartition

from streams import topics
from tests.integration.chaos.cluster import SMALL_DISK_NODE, Cluster
from tests.integration.chaos.fleet import Fleet, Slot
from tests.integration.chaos.recorder import READ_WITHIN_S, Recorder

SESSION_S = 6.0
"""The workers' session timeout, as `tests.integration.workers` sets it."""
UNREACHABLE_S = 90.0
CLOCK_BACK_MS = 240_000
"""Below the tolerance for events of the future (five minutes): beyond it every event would be one."""
COMPACTED_S = 30.0
MIN_COMPACTION_LAG = "min.compaction.lag.ms"
UNREAD_STAYS = {MIN_COMPACTION_LAG: str(int(1000 * READ_WITHIN_S))}
"""Of the changelog: compaction takes nothing that the recorder may not have read."""
WAITING = 0.9
"""Share of faults that wait for a worker that is at work."""
AT_WORK_WITHIN_S = 60.0
"""Nobody may get to work while a node is unreachable, and hitting who tries would keep it so; then whoever lives is
met."""
AT_WORK, STARTING = "at work", "while starting"


@dataclass(slots=True)
class Bench:
    """What faults are done to. ``over``: no more of them; ``failed``: the harness has, nothing is waited for."""

    cluster: Cluster
    fleet: Fleet
    recorder: Recorder
    lanes: int
    folder: Path
    over: threading.Event = field(default_factory=threading.Event)
    failed: threading.Event = field(default_factory=threading.Event)
    notes: list[str] = field(default_factory=list)

    def hold(self, seconds: float) -> None:
        """Let the harm last."""
        self.failed.wait(seconds)

    def living(self) -> list[Slot]:
        return [slot for slot in self.fleet.slots if slot.alive]

    def met(self, slot: Slot) -> str:
        """How a fault meets this worker now."""
        return AT_WORK if self.fleet.at_work(slot) else STARTING


Fault = Callable[[Bench, random.Random], str | None]
"""Returns how it met a worker, `AT_WORK` or `STARTING`, else ``""``: each is counted apart. None: it did not happen."""


# --- of workers ------------------------------------------------------------------------------------------------


def killed(bench: Bench, rng: random.Random) -> str | None:
    """SIGKILL, as the kernel does when memory runs out."""
    with bench.fleet.lock:
        if (slot := _one(bench, rng)) is None:
            return None
        met = bench.met(slot)
        bench.fleet.signal(slot, signal.SIGKILL)
        return met


def stopped(bench: Bench, rng: random.Random) -> str | None:
    """SIGTERM, as a deployment does; it must end in order."""
    with bench.fleet.lock:
        if (slot := _one(bench, rng)) is None:
            return None
        met, failing, status = bench.met(slot), bench.fleet.failing(slot), bench.fleet.leave(slot)
        slot.wanted = True
    if not failing and status not in (0, None, -signal.SIGTERM):
        bench.notes.append(f"{slot.name} ended with status {status} when it was stopped")
    return None if status is None else met


def frozen(bench: Bench, rng: random.Random) -> str | None:
    """SIGSTOP for longer than the session: its lanes go to others, and it wakes."""
    with bench.fleet.lock:
        if (slot := _one(bench, rng)) is None:
            return None
        met = bench.met(slot)
        bench.fleet.signal(slot, signal.SIGSTOP)
    bench.hold(SESSION_S + rng.uniform(1, 5))
    bench.fleet.signal(slot, signal.SIGCONT)
    return met


def joined_and_left(bench: Bench, rng: random.Random) -> str | None:
    """Another worker joins, takes lanes, and leaves."""
    slot = next((slot for slot in bench.fleet.slots if not slot.wanted), None)
    if slot is None:
        return None
    bench.fleet.join(slot)
    with bench.fleet.lock:
        bench.fleet.wait(lambda: bench.failed.is_set() or bench.fleet.at_work(slot), AT_WORK_WITHIN_S)
    bench.hold(rng.uniform(1, 5))
    with bench.fleet.lock:
        met, status = bench.met(slot), bench.fleet.leave(slot)
    return None if status is None else met


def clock_back(bench: Bench, rng: random.Random) -> str | None:
    """A worker's wall clock jumps back, and after a while to where it was."""
    with bench.fleet.lock:
        if (slot := _one(bench, rng)) is None:
            return None
        met = bench.met(slot)
    file = bench.fleet.clock_file(slot)
    file.write_text(str(-rng.randrange(1_000, CLOCK_BACK_MS)))
    bench.hold(rng.uniform(3, 8))
    file.write_text("0")
    return met


def _one(bench: Bench, rng: random.Random) -> Slot | None:
    """A living worker; None where there is none, or the time is over. With the fleet's lock, which waiting gives up.

    Mostly one at work, which is waited for: faults come faster than workers start, and would meet none. Sometimes
    whoever lives, that may have hardly begun.
    """
    fleet = bench.fleet
    chosen: list[Slot] = []
    if rng.random() < WAITING:
        fleet.wait(lambda: bench.over.is_set() or any(map(fleet.at_work, fleet.slots)), AT_WORK_WITHIN_S)
        chosen = [slot for slot in fleet.slots if fleet.at_work(slot)]
    chosen = chosen or bench.living()
    return rng.choice(chosen) if chosen and not bench.over.is_set() else None


# --- of brokers ------------------------------------------------------------------------------------------------


def leader_killed(bench: Bench, rng: random.Random) -> str:
    """The node that leads a lane's changelog loses its power, and comes back."""
    lane = rng.randrange(bench.lanes)
    node = bench.cluster.leader(TopicPartition(topics.CHANGELOG, lane))
    with bench.fleet.starts_may_fail():
        bench.cluster.kafka.kill_node(node)
        bench.hold(rng.uniform(3, 10))
        bench.cluster.kafka.start_node(node)
    return ""


def brokers_restarted(bench: Bench, rng: random.Random) -> str:
    """Every node loses its power at once."""
    with bench.fleet.starts_may_fail():
        for node in range(bench.cluster.nodes):
            bench.cluster.kafka.kill_node(node)
        bench.hold(rng.uniform(1, 4))
        bench.cluster.kafka.start_nodes(range(bench.cluster.nodes))
    return ""


def unreachable(bench: Bench, rng: random.Random) -> str:
    """A node cannot be reached by the workers, while the cluster sees nothing wrong with it."""
    door = rng.choice(bench.cluster.doors)
    with bench.fleet.starts_may_fail():
        door.shut()
        bench.hold(UNREACHABLE_S)
        door.open()
    return ""


def refused_as_too_large(bench: Bench, rng: random.Random) -> str:
    """A topic takes only tiny records: every delivery to it is refused."""
    topic = rng.choice([topics.PLACEMENTS, topics.DECISIONS, topics.CHANGELOG])
    bench.cluster.set_config(topic, {"max.message.bytes": "300"})
    bench.hold(rng.uniform(5, 10))
    bench.cluster.set_config(topic, {"max.message.bytes": str(topics.BATCH_BYTES)})
    return ""


def dead_letters_not_writable(bench: Bench, rng: random.Random) -> str | None:
    """The dead-letter topic takes nothing, and does not say so at once: it asks for all copies, and a node is down.

    A node must be: where a topic asks for more copies than it has, Kafka 4 is content with all that there are.
    """
    topic, nodes = topics.DEAD_LETTERS, bench.cluster.nodes
    if nodes == 1:
        return None
    node = rng.randrange(nodes)
    bench.cluster.set_config(topic, {"min.insync.replicas": str(nodes)})
    with bench.fleet.starts_may_fail():
        bench.cluster.kafka.kill_node(node)
        bench.hold(rng.uniform(14, 20))
        bench.cluster.kafka.start_node(node)
    bench.cluster.set_config(topic, {"min.insync.replicas": "2"})
    return ""


def disk_full(bench: Bench, rng: random.Random) -> str | None:
    """A node's disk fills up; it is cleared, and the node started again."""
    if not bench.cluster.has_small_disk:
        return None
    with bench.fleet.starts_may_fail():
        with bench.cluster.full_disk():
            bench.hold(rng.uniform(5, 10))
            bench.cluster.kafka.kill_node(SMALL_DISK_NODE)  # it may have died of it already
        bench.cluster.kafka.start_node(SMALL_DISK_NODE)
    return ""


def compacted_between_runs(bench: Bench, rng: random.Random) -> str | None:
    """All workers stop, the changelog is compacted, snapshots are lost, and all start again."""
    topic = topics.CHANGELOG
    bench.cluster.set_config(topic, {"segment.ms": "1000"})  # a segment is closed by a write, so while there are some
    bench.hold(4)
    with bench.fleet.lock:
        wanted = [slot for slot in bench.fleet.slots if slot.wanted]
        bench.fleet.pause()
        bench.recorder.catch_up(bench.cluster.ends([topic], committed=True))
        bench.cluster.set_config(topic, {"min.cleanable.dirty.ratio": "0.001", MIN_COMPACTION_LAG: "0"})
        compacted = _wait_for_compaction(bench, topic)
        if not compacted:
            bench.notes.append(f"the changelog was not compacted within {COMPACTED_S:.0f} s")
        as_before = {"segment.ms": str(topics.HOUR_MS), "min.cleanable.dirty.ratio": "0.2"}
        bench.cluster.set_config(topic, as_before | UNREAD_STAYS)
        for snapshots in bench.folder.glob("worker-*/snapshots"):
            if rng.random() < 0.5:
                shutil.rmtree(snapshots)
        for slot in wanted:
            bench.fleet.join(slot)
    return "" if compacted else None


def _wait_for_compaction(bench: Bench, topic: str) -> bool:
    """Whether the changelog got smaller."""
    before = bench.cluster.log_bytes(topic)
    deadline = time.monotonic() + COMPACTED_S
    while time.monotonic() < deadline:
        if bench.cluster.log_bytes(topic) < before:
            return True
        time.sleep(0.5)
    return False


OF_WORKERS: tuple[Fault, ...] = (killed, stopped, frozen, joined_and_left, clock_back)
OF_BROKERS: tuple[Fault, ...] = (
    leader_killed,
    brokers_restarted,
    unreachable,
    refused_as_too_large,
    dead_letters_not_writable,
    disk_full,
    compacted_between_runs,
)


TWO_OWNERS = frozenset({"frozen", "joined_and_left", "unreachable"})
"""These leave a former owner at work beside the new one. Without transactions nothing fences it, and it can write over
a row: ``at_least_once`` says so, and is not held to more."""


def draw(kinds: tuple[Fault, ...], rng: random.Random) -> Iterator[Fault]:
    """All kinds in a random order, again and again: each as often as the others."""
    while kinds:
        yield from rng.sample(kinds, len(kinds))
