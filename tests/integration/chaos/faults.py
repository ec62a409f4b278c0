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
from tests.integration.chaos.recorder import Recorder

SESSION_S = 6.0
"""The workers' session timeout, as `tests.integration.workers` sets it."""
UNREACHABLE_S = 90.0
CLOCK_BACK_MS = 240_000
"""Below the tolerance for events of the future (five minutes): beyond it every event would be one."""
COMPACTED_S = 30.0
AT_WORK = 0.9
"""Share of faults that meet a worker that holds lanes, where there is one."""


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


Fault = Callable[[Bench, random.Random], None]


# --- of workers ------------------------------------------------------------------------------------------------


def killed(bench: Bench, rng: random.Random) -> None:
    """SIGKILL, as the kernel does when memory runs out."""
    with bench.fleet.lock:
        for slot in _one(bench, rng):
            assert slot.worker is not None
            slot.worker.signal(signal.SIGKILL)


def stopped(bench: Bench, rng: random.Random) -> None:
    """SIGTERM, as a deployment does; it must end in order."""
    with bench.fleet.lock:
        for slot in _one(bench, rng):
            status = bench.fleet.leave(slot)
            if status not in (0, None, -signal.SIGTERM):
                bench.notes.append(f"{slot.name} ended with status {status} when it was stopped")
            slot.wanted = True


def frozen(bench: Bench, rng: random.Random) -> None:
    """SIGSTOP for longer than the session: its lanes go to others, and it wakes."""
    with bench.fleet.lock:
        chosen = _one(bench, rng)
        for slot in chosen:
            assert slot.worker is not None
            slot.worker.signal(signal.SIGSTOP)
    bench.hold(SESSION_S + rng.uniform(1, 5))
    with bench.fleet.lock:
        for slot in chosen:
            if slot.alive:
                assert slot.worker is not None
                slot.worker.signal(signal.SIGCONT)


def joined_and_left(bench: Bench, rng: random.Random) -> None:
    """Another worker joins, takes lanes, and leaves."""
    spare = [slot for slot in bench.fleet.slots if not slot.wanted]
    if spare:
        bench.fleet.join(spare[0])
        bench.hold(rng.uniform(6, 15))
        bench.fleet.leave(spare[0])


def clock_back(bench: Bench, rng: random.Random) -> None:
    """A worker's wall clock jumps back, and after a while to where it was."""
    with bench.fleet.lock:
        chosen = _one(bench, rng)
    for slot in chosen:
        file = bench.fleet.clock_file(slot)
        file.write_text(str(-rng.randrange(1_000, CLOCK_BACK_MS)))
        bench.hold(rng.uniform(3, 8))
        file.write_text("0")


def _one(bench: Bench, rng: random.Random) -> list[Slot]:
    """A living worker, or none; mostly one that is at work, sometimes one that has hardly begun."""
    living = bench.living()
    at_work = [slot for slot in living if bench.fleet.at_work(slot)]
    chosen = at_work if at_work and rng.random() < AT_WORK else living
    return [rng.choice(chosen)] if chosen else []


# --- of brokers ------------------------------------------------------------------------------------------------


def leader_killed(bench: Bench, rng: random.Random) -> None:
    """The node that leads a lane's changelog loses its power, and comes back."""
    lane = rng.randrange(bench.lanes)
    node = bench.cluster.leader(TopicPartition(topics.CHANGELOG, lane))
    bench.cluster.kafka.kill_node(node)
    bench.hold(rng.uniform(3, 10))
    bench.cluster.kafka.start_node(node)


def brokers_restarted(bench: Bench, rng: random.Random) -> None:
    """Every node loses its power at once."""
    for node in range(bench.cluster.nodes):
        bench.cluster.kafka.kill_node(node)
    bench.hold(rng.uniform(1, 4))
    bench.cluster.kafka.start_nodes(range(bench.cluster.nodes))


def unreachable(bench: Bench, rng: random.Random) -> None:
    """A node cannot be reached by the workers, while the cluster sees nothing wrong with it."""
    door = rng.choice(bench.cluster.doors)
    door.shut()
    bench.hold(UNREACHABLE_S)
    door.open()


def refused_as_too_large(bench: Bench, rng: random.Random) -> None:
    """A topic takes only tiny records: every delivery to it is refused."""
    topic = rng.choice([topics.PLACEMENTS, topics.DECISIONS, topics.CHANGELOG])
    bench.cluster.set_config(topic, {"max.message.bytes": "300"})
    bench.hold(rng.uniform(5, 10))
    bench.cluster.set_config(topic, {"max.message.bytes": str(topics.BATCH_BYTES)})


def dead_letters_not_writable(bench: Bench, rng: random.Random) -> None:
    """The dead-letter topic takes nothing, and does not say so at once: more copies are asked for than there are."""
    topic = topics.DEAD_LETTERS
    bench.cluster.set_config(topic, {"min.insync.replicas": str(bench.cluster.nodes + 1)})
    bench.hold(rng.uniform(14, 20))
    bench.cluster.set_config(topic, {"min.insync.replicas": "2"})


def disk_full(bench: Bench, rng: random.Random) -> None:
    """A node's disk fills up; it is cleared, and the node started again."""
    if not bench.cluster.has_small_disk:
        bench.notes.append("disk_full was left out: no tmpfs can be mounted here")
        return
    with bench.cluster.full_disk():
        bench.hold(rng.uniform(5, 10))
        bench.cluster.kafka.kill_node(SMALL_DISK_NODE)  # it may have died of it already
    bench.cluster.kafka.start_node(SMALL_DISK_NODE)


def compacted_between_runs(bench: Bench, rng: random.Random) -> None:
    """All workers stop, the changelog is compacted, snapshots are lost, and all start again."""
    topic = topics.CHANGELOG
    bench.cluster.set_config(topic, {"segment.ms": "1000"})  # a segment is closed by a write, so while there are some
    bench.hold(4)
    with bench.fleet.lock:
        wanted = [slot for slot in bench.fleet.slots if slot.wanted]
        bench.fleet.pause()
        bench.recorder.catch_up(bench.cluster.ends([topic], committed=True))
        bench.cluster.set_config(topic, {"min.cleanable.dirty.ratio": "0.001"})
        if not _wait_for_compaction(bench, topic):
            bench.notes.append(f"the changelog was not compacted within {COMPACTED_S:.0f} s")
        bench.cluster.set_config(topic, {"segment.ms": str(topics.HOUR_MS), "min.cleanable.dirty.ratio": "0.2"})
        for snapshots in bench.folder.glob("worker-*/snapshots"):
            if rng.random() < 0.5:
                shutil.rmtree(snapshots)
        for slot in wanted:
            bench.fleet.join(slot)


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
