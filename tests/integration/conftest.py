"""Real brokers for the tests: Apache Kafka where this machine can run it, Tansu else.

They end with the last test of this folder: one with nothing to do takes a sixtieth of a processor and half a gigabyte.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.brokers import Broker, BrokerUnavailableError
from deploy.brokers.apache import ApacheKafka
from deploy.brokers.embedded import EmbeddedBroker
from tests.needs import needed

PATIENT = {"broker.session.timeout.ms": "60000"}
"""The only node needs not be noticed when it dies. When it was slow for 4 s, it took all partitions of all tests from
itself and gave them back: 1,500, half a minute in which workers gave it up."""
PROMPT = {"log.retention.check.interval.ms": "1000"}
"""Records older than their topic keeps are deleted at once: a test that has not thought of it always fails. With a look
every five minutes, as is usual, it would fail but now and then."""

_FALLBACK = pytest.StashKey[str]()


@pytest.fixture(scope="package")
def kafka(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """One node of Apache Kafka; without Java, Maven or the jars the embedded broker, which the summary says.

    Where Kafka is needed (`tests.needs`) that is an error. A test of transactions asks ``kafka.transactions`` and skips
    without them.
    """
    folder = tmp_path_factory.mktemp("kafka")
    broker: Broker = ApacheKafka(folder, properties=PATIENT | PROMPT)
    try:
        broker.start()
    except BrokerUnavailableError as error:
        if needed("kafka"):
            raise
        request.config.stash[_FALLBACK] = str(error).splitlines()[0]
        broker = EmbeddedBroker(folder)
        broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="package")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """The embedded broker."""
    with EmbeddedBroker(tmp_path_factory.mktemp("embedded")) as broker:
        yield broker


@pytest.fixture
def topic_prefix() -> str:
    """A prefix of its own for each test, so that tests share a broker but no topic."""
    return f"t{uuid.uuid4().hex[:10]}-"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of several tells the one that writes the summary."""
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["fallback"] = session.config.stash.get(_FALLBACK, None)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if why := getattr(node, "workeroutput", {}).get("fallback"):
        node.config.stash[_FALLBACK] = why


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    why = config.stash.get(_FALLBACK, None)
    if why is not None:
        terminalreporter.write_line(f"Integration tests ran on the embedded broker: {why}", yellow=True)
