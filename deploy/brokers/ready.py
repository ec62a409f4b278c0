"""Loopback ports, and waiting until a broker really answers."""

import random
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.brokers import BrokerError
from deploy.brokers.process import POLL_S

HOST = "127.0.0.1"
PORTS = range(20_000, 30_000)
"""Below Linux's ephemeral range (from 32768), so that no outgoing connection takes the port of a node that is down."""

DRAWS = 3
"""Two programs may draw the same port at the same time, but not three times in a row."""

ANSWER_S = 2.0
"""A started broker answers in milliseconds; a node of a cluster still electing is asked again after this."""


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now; lingering connections do not matter."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(besides: Collection[int] = ()) -> int:
    """A free loopback port, drawn at random so that parallel test runs rarely meet."""
    for port in random.sample(PORTS, k=200):
        if port not in besides and is_free(port):
            return port
    raise BrokerError(f"No free port on {HOST} in 200 drawn from {PORTS.start}-{PORTS.stop - 1}.")


def start_on_free_ports(start: Callable[[], None], ports: Callable[[], Iterable[int]]) -> None:
    """Call ``start``, which draws its ports; call it again if it fails and one of ``ports()`` is taken by then.

    Between the draw and the moment when the broker listens, another program may take a port. Where ``start`` raises
    ``BrokerError``, it leaves nothing running.
    """
    for draw in range(DRAWS):
        try:
            start()
        except BrokerError:
            if draw == DRAWS - 1 or all(map(is_free, ports())):
                raise
        else:
            return


def wait_until_answers(
    bootstrap: str,
    cluster: str,
    nodes: int,
    deadline_s: float,
    check: Callable[[], None],
    client: Mapping[str, str] = {},
) -> None:
    """Return when the broker at ``bootstrap`` answers, belongs to ``cluster`` (an id) and lists ``nodes`` live brokers.

    ``client``: librdkafka's options, for a broker that requires some. ``check`` is called between attempts and after
    the answer; it raises if waiting is pointless (the process has died). Raises ``BrokerError`` after ``deadline_s``,
    and if somebody else's broker answers.
    """
    deadline = time.monotonic() + deadline_s
    _wait_for_listeners(bootstrap, deadline, check)
    # By default librdkafka backs off up to 10 s after a refused connection, and logs each one.
    admin = AdminClient({"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 100, "log_level": 0, **client})
    found = 0
    while found < nodes:
        check()
        if time.monotonic() > deadline:
            raise BrokerError(f"{found} of {nodes} brokers at {bootstrap} are ready after {deadline_s:.0f} s.")
        try:
            told = admin.describe_cluster(request_timeout=ANSWER_S).result()
        except KafkaException:
            found = 0
        else:
            if told.cluster_id != cluster:
                raise BrokerError(f"Another broker has {bootstrap}: of cluster {told.cluster_id}, not {cluster}.")
            found = len(told.nodes)
        if found < nodes:
            time.sleep(POLL_S)
    check()


def answers(bootstrap: str) -> bool:
    """Whether a broker at ``bootstrap`` answers within ``ANSWER_S``."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        admin.describe_cluster(request_timeout=ANSWER_S).result()
    except KafkaException:
        return False
    return True


def _wait_for_listeners(bootstrap: str, deadline: float, check: Callable[[], None]) -> None:
    for address in bootstrap.split(","):
        host, _, port = address.rpartition(":")
        while True:
            check()
            if time.monotonic() > deadline:
                raise BrokerError(f"Nothing listens on {address} in time.")
            try:
                socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
                break
            except OSError:
                time.sleep(POLL_S)
