"""``server.properties`` of KRaft nodes on one machine, each deviation with its reason."""

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.brokers import BrokerError
from deploy.brokers.ready import HOST


class Ports(NamedTuple):
    """Ports of one node: for clients and brokers, and for controllers."""

    broker: int
    controller: int


def node_properties(node: int, ports: Sequence[Ports], data: Path) -> dict[str, str]:
    """Properties of node ``node`` (its ``node.id``) of ``len(ports)``, each of them broker and controller.

    Raises ``BrokerError`` for a folder whose name Kafka's properties cannot hold.
    """
    if "," in str(data):
        raise BrokerError(f"Apache Kafka reads a comma in {data} as the end of a path; choose a folder without one.")
    copies = str(len(ports))
    enough = "2" if len(ports) > 1 else "1"
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": ",".join(f"{i}@{HOST}:{p.controller}" for i, p in enumerate(ports)),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{ports[node].broker},CONTROLLER://{HOST}:{ports[node].controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{ports[node].broker}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        # A mistyped topic is an error, not a new topic with the wrong number of partitions.
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": enough,
        # 50 partitions each by default: seconds of creation at the first group and the first transaction.
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.num.partitions": "8",
        # By default a new group waits 3 s for more members, and a session lasts 6 s at least.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "500",
        # Checked every 10 s by default: a dead lane's transaction would stay open long past its timeout.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # A killed node is noticed after 9 s by default, and may not come back before. One that a busy machine keeps
        # from its heartbeats for so long loses its partitions, too.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "1000",
        # A controller with nothing to do writes a record every 0.5 s by default: a quarter of an idle node's work.
        "metadata.max.idle.interval.ms": "5000",
        # 128 MB by default, a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": "33554432",
    }


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write one ``name=value`` a line, as Java reads them: Latin-1, in which a backslash begins an escape."""
    lines = (f"{name}={_escaped(value)}\n" for name, value in properties.items())
    path.write_text("".join(lines), encoding="ascii")


def _escaped(value: str) -> str:
    """Double backslashes, and escape all but printable ASCII as UTF-16, like Java's characters."""
    return re.sub(r"[^ -~]", _in_utf16, value.replace("\\", "\\\\"))


def _in_utf16(letter: re.Match[str]) -> str:
    units = struct.iter_unpack(">H", letter[0].encode("utf-16-be", "surrogatepass"))
    return "".join(f"\\u{unit:04x}" for (unit,) in units)


def stop_grace_s(nodes: int) -> float:
    """How long nodes that stop together get before they are killed, which their logs survive.

    One node stops in 0.3 s, unless it has much to flush. The last of several may wait for a quorum that is
    gone, as a rule 5 s and sometimes for ever.
    """
    return 20.0 if nodes == 1 else 6.0
