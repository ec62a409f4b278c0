"""Apache Kafka for the harness: a door in front of each node, and a small disk under one of them."""

import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from aiokafka import TopicPartition
from confluent_kafka import Consumer, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from deploy.brokers.apache import ApacheKafka
from deploy.brokers.kraft import Ports
from deploy.brokers.ready import HOST, is_free
from tests.integration.chaos.door import Door

SMALL_DISK_NODE = 2
SMALL_DISK = "1g"
"""Several times what an hour of the workload writes, and filled within a second."""
PORTS = range(30_000, 32_000)
"""Beside those that the launcher draws its own from."""
ANSWER_S = 30.0


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # --- looked at and changed by the harness ---------------------------------------------------------------

    @cached_property
    def _admin(self) -> AdminClient:
        """One for the whole run: an answer is lost with the client that asked."""
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 500})

    def leader(self, partition: TopicPartition) -> int:
        """The node that leads a partition now."""
        described = self._admin.describe_topics(TopicCollection([partition.topic]), request_timeout=ANSWER_S)
        return int(described[partition.topic].result().partitions[partition.partition].leader.id)

    def ends(self, names: Sequence[str], *, committed: bool) -> dict[tuple[str, int], int]:
        """Where each partition ends, for a reader of committed records or of all."""
        level = "read_committed" if committed else "read_uncommitted"
        reader = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "isolation.level": level})
        try:
            counts = {name: len(reader.list_topics(name, timeout=ANSWER_S).topics[name].partitions) for name in names}
            return {
                (name, number): reader.get_watermark_offsets(KafkaPartition(name, number), timeout=ANSWER_S)[1]
                for name in names
                for number in range(counts[name])
            }
        finally:
            reader.close()

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
        for future in self._admin.incremental_alter_configs([resource], request_timeout=ANSWER_S).values():
            future.result()

    def recreate(self, topic: str, partitions: int) -> None:
        """Delete a topic and make another of its name, as fast as the cluster lets us."""
        self._admin.delete_topics([topic], request_timeout=ANSWER_S)[topic].result()
        new = NewTopic(topic, num_partitions=partitions, replication_factor=self.nodes)
        deadline = time.monotonic() + ANSWER_S
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
