"""Brokers for a laptop, the tests and the benchmarks: one small interface over two kinds.

``embedded.EmbeddedBroker``: Tansu, in memory, ready in milliseconds, without transactions.
``apache.ApacheKafka``: Apache Kafka 4 in KRaft mode, one node or three, with transactions.
"""

from typing import Protocol, Self


class BrokerError(RuntimeError):
    """A broker could not be started, reached or stopped; the message says what to do."""


class BrokerUnavailableError(BrokerError):
    """The machine lacks what the broker needs (a wheel, Java, Maven, its jars); the other kind may run."""


class Broker(Protocol):
    """A broker on loopback, from ``start`` to ``stop``."""

    transactions: bool
    """Whether aiokafka can run ``exactly_once`` on it."""

    @property
    def bootstrap(self) -> str:
        """``host:port`` of each node, comma-separated; known once started."""

    @property
    def pids(self) -> list[int]:
        """Its processes: one for each running node."""

    def start(self) -> None:
        """Start it and return when it answers clients. Raises ``BrokerError``."""

    def stop(self) -> None:
        """End all its processes, if any run."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
