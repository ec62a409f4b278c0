"""Apache Kafka for the harness: a door in front of each node, and a small disk under one of them."""

import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, TypeVar

from aiokafka import TopicPartition
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartitionInfo
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from deploy.brokers.apache import ApacheKafka
from deploy.brokers.kraft import Ports
from deploy.brokers.ready import HOST, is_free
from tests.integration.chaos.door import Door

SMALL_DISK_NODE = 2
SMALL_DISK = "1g"
"""Several times what an hour of the workload writes, and filled within a second."""
PORTS = range(30_000, 32_000)
"""Beside those that the launcher draws its own from."""
ANSWER_S = 10.0
ANSWERED_WITHIN_S = 120.0
"""Nodes that get little of the processor choose a controller again and again: a request that one of them passed on is
never answered, and has to be asked again."""
AGAIN_S = 0.1
UNANSWERED = {
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}
"""Nobody answered, or nobody could just now."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Cluster:
    """``nodes`` brokers. Workers come through the doors (`workers_bootstrap`), the harness does not (`bootstrap`)."""

    def __init__(self, directory: Path, nodes: Literal[1, 3] = 3) -> None:
        taken = [port for port in random.sample(PORTS, len(PORTS)) if is_free(port)][: 2 * nodes]
        self._inner = taken[:nodes]
        self.doors = [Door(port, target) for port, target in zip(taken[nodes:], self._inner, strict=True)]
        self.nodes = nodes
        self._directory = directory
        self.kafka = ApacheKafka(
            directory,
            nodes,
            heap_mb=384,
            # Looked for every 15 s by default: compaction between two runs would take that long to begin.
            properties={"log.cleaner.backoff.ms": "500", "log.retention.check.interval.ms": "10000"},
            properties_of=self._listeners,
        )
        self._small_disk = directory / f"node-{SMALL_DISK_NODE}"
        self.has_small_disk = False
        self._stack = contextlib.ExitStack()

    def _listeners(self, node: int, ports: Ports) -> Mapping[str, str]:
        """The workers' listener is told as the door's address, so that they never find another way in."""
        return {
            "listeners": f"PLAINTEXT://{HOST}:{ports.broker},WORKERS://{HOST}:{self._inner[node]},"
            f"CONTROLLER://{HOST}:{ports.controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{ports.broker},WORKERS://{HOST}:{self.doors[node].port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,WORKERS:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
        }

    @property
    def bootstrap(self) -> str:
        return self.kafka.bootstrap

    @property
    def workers_bootstrap(self) -> str:
        return ",".join(f"{HOST}:{door.port}" for door in self.doors)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if self.nodes > SMALL_DISK_NODE:
                stack.callback(unmount, self._small_disk)
                self.has_small_disk = mount(self._small_disk)
            stack.enter_context(self.kafka)
            for door in self.doors:
                door.start()
                stack.callback(door.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- looked at and changed by the harness ---------------------------------------------------------------

    @cached_property
    def _admin(self) -> AdminClient:
        """One for the whole run: an answer is lost with the client that asked."""
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 500})

    def leader(self, partition: TopicPartition) -> int:
        """The node that leads a partition now."""
        return int(self._partitions([partition.topic])[partition.topic][partition.partition].leader.id)

    def _partitions(self, names: Sequence[str]) -> dict[str, list[TopicPartitionInfo]]:
        wanted = TopicCollection(list(names))
        described = until_answered(lambda: self._admin.describe_topics(wanted, request_timeout=ANSWER_S))
        return {name: topic.partitions for name, topic in described.items()}

    def ends(self, names: Sequence[str], *, committed: bool) -> dict[tuple[str, int], int]:
        """Where each partition ends, for a reader of committed records or of all."""
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        wanted = {
            KafkaPartition(name, partition.id): OffsetSpec.latest()
            for name, partitions in self._partitions(names).items()
            for partition in partitions
        }
        found = until_answered(
            lambda: self._admin.list_offsets(wanted, isolation_level=level, request_timeout=ANSWER_S)
        )
        return {(partition.topic, partition.partition): info.offset for partition, info in found.items()}

    def log_bytes(self, topic: str) -> int:
        """What a topic's segments take on all nodes together."""
        folders = self._directory.glob(f"node-*/data/{topic}-*")
        return sum(file.stat().st_size for folder in folders for file in folder.glob("*.log"))

    def set_config(self, topic: str, values: Mapping[str, str | None]) -> None:
        """Set a topic's configs; None: as the broker has them by default."""
        entries = [
            ConfigEntry(
                name,
                value,
                incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
            )
            for name, value in values.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        until_answered(lambda: self._admin.incremental_alter_configs([resource], request_timeout=ANSWER_S))

    def recreate(self, topic: str, partitions: int) -> None:
        """Delete a topic and make another of its name, as fast as the cluster lets us."""
        deadline = time.monotonic() + ANSWERED_WITHIN_S
        try:
            until_answered(lambda: self._admin.delete_topics([topic], request_timeout=ANSWER_S))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:  # deleted, though no answer said so
                raise
        new = NewTopic(topic, num_partitions=partitions, replication_factor=self.nodes)
        while True:
            try:
                self._admin.create_topics([new], request_timeout=ANSWER_S)[topic].result()
            except KafkaException:  # it is still being deleted
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Node `SMALL_DISK_NODE` has no byte left; afterwards it has, and is not known to be alive."""
        ballast = self._small_disk / "ballast"
        try:
            with ballast.open("wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            yield
        finally:
            ballast.unlink()


def until_answered(
    ask: Callable[[], Mapping[Asked, Future[Answer]]],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[Asked, Answer]:
    """The answers to ``ask``, which is asked again while no broker answers, for `ANSWERED_WITHIN_S`.

    It may be carried out twice. Raises `KafkaException`: the last one, or what a broker said.
    """
    deadline = clock() + ANSWERED_WITHIN_S
    while True:
        try:
            return {asked: future.result() for asked, future in ask().items()}
        except KafkaException as error:
            if error.args[0].code() not in UNANSWERED or clock() >= deadline:
                raise
            sleep(AGAIN_S)


def mount(folder: Path) -> bool:
    """A small disk in memory at ``folder``; whether this machine lets us."""
    if os.geteuid() != 0:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def unmount(folder: Path) -> None:
    """Take away what is mounted there, if anything. Raises `RuntimeError` where it stays."""
    if not folder.is_mount():
        return
    ended = subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True, text=True)
    if ended.returncode != 0:
        raise RuntimeError(
            f"{folder} is still mounted, with up to {SMALL_DISK} of memory: {ended.stderr.strip()}."
            f" Try: umount {folder}"
        )


def can_mount_small_disk() -> bool:
    """Whether this machine lets us, tried out."""
    with tempfile.TemporaryDirectory(prefix="salience-chaos-disk-") as folder:
        try:
            return mount(Path(folder))
        finally:
            unmount(Path(folder))
