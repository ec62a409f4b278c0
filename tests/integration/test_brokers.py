"""The brokers do what the rest of the tests rely on."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.brokers import Broker, BrokerError, running
from deploy.brokers.apache import ApacheKafka
from deploy.brokers.embedded import EmbeddedBroker
from deploy.brokers.process import Process
from streams import topic_admin, topics
from tests.integration.lanes import DEADLINE_S, delete

pytestmark = pytest.mark.integration
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc, prctl and pidfd")


@pytest.fixture(params=["kafka", "embedded"])
def broker(request: pytest.FixtureRequest) -> Broker:
    return request.getfixturevalue(request.param)


def produce(bootstrap: str, topic: str, values: list[bytes], partition: int = 0) -> None:
    """Deliver every value or fail."""
    failed: list[KafkaError] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "max.in.flight": 1,  # a batch that has to be sent again would come after the next
            "message.timeout.ms": int(1_000 * DEADLINE_S),
            "log_level": 0,
        }
    )
    for value in values:
        producer.produce(
            topic,
            value,
            key=b"user",  # compacted topics refuse a record without one
            partition=partition,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    assert producer.flush(DEADLINE_S) == 0
    assert failed == []


def consume(bootstrap: str, topic: str, partition: int = 0) -> list[bytes]:
    """Every value that a read-committed consumer sees up to the end of the partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    values = []
    try:
        while True:
            message = consumer.poll(DEADLINE_S)
            assert message is not None, f"no end of {topic} within {DEADLINE_S:.0f} s"
            if message.error() is None:
                values.append(message.value())
            elif message.error().code() == KafkaError._PARTITION_EOF:
                return values
            else:
                raise KafkaException(message.error())
    finally:
        consumer.close()


def ends(pid: int) -> bool:
    """Wait for the end of a process, by Linux's descriptor of it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], DEADLINE_S)[0])
    finally:
        os.close(descriptor)


def test_what_is_produced_is_consumed_in_order(broker: Broker, topic_prefix: str) -> None:
    topic_admin.create(broker.bootstrap, 2, topic_prefix)
    name = topic_prefix + topics.CLICKS
    values = [f"{n}".encode() for n in range(1_000)]

    produce(broker.bootstrap, name, values, partition=1)

    assert consume(broker.bootstrap, name, partition=1) == values
    assert consume(broker.bootstrap, name, partition=0) == []


def test_a_transaction_is_seen_when_committed_and_never_when_aborted(kafka: Broker, topic_prefix: str) -> None:
    if not kafka.transactions:
        pytest.skip("the embedded broker has no transactions")
    topic_admin.create(kafka.bootstrap, 1, topic_prefix)
    name = topic_prefix + topics.PLACEMENTS
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic_prefix, "log_level": 0})
    producer.init_transactions(DEADLINE_S)
    for value, end in ((b"kept", producer.commit_transaction), (b"dropped", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(name, value, key=b"user")
        assert producer.flush(DEADLINE_S) == 0
        end(DEADLINE_S)

    assert consume(kafka.bootstrap, name) == [b"kept"]


def test_creating_the_topics_twice_creates_them_once(broker: Broker, topic_prefix: str) -> None:
    created = topic_admin.create(broker.bootstrap, 4, topic_prefix)
    before = topic_admin.found(broker.bootstrap, created)

    assert sorted(created) == sorted(topics.names(topic_prefix))
    assert topic_admin.create(broker.bootstrap, 4, topic_prefix) == []
    assert topic_admin.found(broker.bootstrap, created) == before
    assert len(set(before.values())) == len(topics.TABLE)


def test_created_topics_pass_the_check(broker: Broker, topic_prefix: str) -> None:
    topic_admin.create(broker.bootstrap, 4, topic_prefix)

    assert topic_admin.check(broker.bootstrap, 4, topic_prefix) == []
    counts = topic_admin.partition_counts(broker.bootstrap, topics.names(topic_prefix))
    assert counts[topic_prefix + topics.CHANGELOG] == 4
    assert counts[topic_prefix + topics.ADS] == 1


def test_the_check_finds_a_wrong_partition_count(broker: Broker, topic_prefix: str) -> None:
    topic_admin.create(broker.bootstrap, 3, topic_prefix)

    problems = topic_admin.check(broker.bootstrap, 4, topic_prefix)

    assert {problem.what for problem in problems} == {"partitions"}
    assert {problem.topic for problem in problems} == {
        topic_prefix + topic.name for topic in topics.TABLE if topic.lanes
    }


def test_asking_for_topics_that_are_missing_creates_none(broker: Broker, topic_prefix: str) -> None:
    name = topic_prefix + topics.CLICKS

    assert topic_admin.found(broker.bootstrap, [name]) == {}
    assert topic_admin.partition_counts(broker.bootstrap, [name]) == {}
    assert {p.what for p in topic_admin.check(broker.bootstrap, 4, topic_prefix)} == {"missing"}


def test_what_a_broker_says_of_a_topic_is_not_told_as_its_silence(broker: Broker) -> None:
    with pytest.raises(topic_admin.TopicsError, match=r"does not describe not a name: .*[Ii]nvalid topic"):
        topic_admin.found(broker.bootstrap, ["not a name"])


def test_configure_mends_a_cleanup_policy(broker: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tuple(
        topics.Topic(t.name, t.purpose, "delete", t.lanes) if t.name == topics.ADS else t for t in topics.TABLE
    )
    with monkeypatch.context() as patched:
        patched.setattr(topic_admin, "TABLE", wrong)
        topic_admin.create(broker.bootstrap, 2, topic_prefix)
    assert [p.what for p in topic_admin.check(broker.bootstrap, 2, topic_prefix)] == ["cleanup"]

    topic_admin.configure(broker.bootstrap, topic_prefix)

    assert topic_admin.check(broker.bootstrap, 2, topic_prefix) == []


def test_a_topic_that_is_deleted_while_it_is_configured_or_checked_is_missing_and_made_anew(
    kafka: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kafka.transactions:
        pytest.skip("the embedded broker takes configs of topics that it does not have")
    topic_admin.create(kafka.bootstrap, 2, topic_prefix)
    clicks, describe = topic_prefix + topics.CLICKS, topic_admin._describe

    def described(admin: AdminClient, bootstrap: str, wanted: Collection[str]) -> dict[str, Any]:
        there = describe(admin, bootstrap, wanted)
        if clicks in there:
            delete(bootstrap, clicks)
        return there

    with monkeypatch.context() as hasty:
        hasty.setattr(topic_admin, "_describe", described)
        configured = topic_admin.configure(kafka.bootstrap, topic_prefix)
    assert {*configured} == {*topics.names(topic_prefix)} - {clicks}
    assert topic_admin.create(kafka.bootstrap, 2, topic_prefix) == [clicks]
    with monkeypatch.context() as hasty:
        hasty.setattr(topic_admin, "_describe", described)
        (problem,) = topic_admin.check(kafka.bootstrap, 2, topic_prefix)
    assert (problem.topic, problem.what) == (clicks, "missing")


def test_a_stopped_broker_leaves_no_process_and_no_listener(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    broker.start()
    process = Process.of(broker.pids[0])
    client = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    client.list_topics(timeout=DEADLINE_S)  # connected clients do not hold it back
    assert process.alive()

    broker.stop()

    assert not process.alive()
    assert broker.pids == []
    broker.stop()


@on_linux
def test_a_broker_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from deploy.brokers.embedded import EmbeddedBroker;"
        f"b = EmbeddedBroker(pathlib.Path({str(tmp_path)!r})); b.start(); print(b.pids[0], flush=True);"
        "sys.stdin.read()"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, text=True
    ) as parent:
        assert parent.stdout is not None
        process = Process.of(int(parent.stdout.readline()))
        assert process.alive()
        parent.kill()
        assert ends(process.pid)

    assert not process.alive()


def test_apache_kafka_keeps_its_topics_over_a_restart_on_other_ports_in_a_folder_of_any_name_and_in_any_language(
    kafka: Broker, tmp_path: Path, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("restarts Apache Kafka, and it could not be had")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=tr")  # as under LANG=tr_TR.UTF-8
    folder, name = tmp_path / "Büro 東京 😀 \\u0041", topic_prefix + topics.CLICKS
    with ApacheKafka(folder) as first:
        pid = first.node_pids[0]
        topic_admin.create(first.bootstrap, 1, topic_prefix)
        produce(first.bootstrap, name, [b"kept"])
        found = topic_admin.found(first.bootstrap, [name])
    assert not Process.of(pid).alive()

    assert (folder / "node-0" / "data" / "__cluster_metadata-0").is_dir()
    with ApacheKafka(folder) as second:
        assert consume(second.bootstrap, name) == [b"kept"]
        assert topic_admin.found(second.bootstrap, [name]) == found
    with pytest.raises(BrokerError, match="data of 1 node"):
        ApacheKafka(folder, 3).start()


def test_a_node_that_cannot_start_says_why_and_leaves_nothing(kafka: Broker, tmp_path: Path) -> None:
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("asks Apache Kafka, and it could not be had")
    broken = ApacheKafka(tmp_path, properties={"log.cleaner.dedupe.buffer.size": "1"})

    with pytest.raises(BrokerError, match=r"log\.cleaner\.dedupe\.buffer\.size"):
        broken.start()

    assert broken.node_pids == {}


def start_embedded(home: Path) -> running.Running:
    from deploy.brokers.ready import free_port

    port = free_port()
    return running.start(home, "embedded", [port], lambda folder: EmbeddedBroker(folder, port, detached=True))


def test_a_broker_is_found_and_stopped_by_its_state_file(tmp_path: Path) -> None:
    started = start_embedded(tmp_path)
    try:
        found = running.load(tmp_path, "embedded")
        assert found == started
        assert found.state == "up"
        with pytest.raises(BrokerError, match="already"):
            start_embedded(tmp_path)
    finally:
        stopped = running.stop(tmp_path, "embedded")

    assert stopped == started
    assert not any(process.alive() for process in started.processes)
    assert running.load(tmp_path, "embedded") is None
    assert running.stop(tmp_path, "embedded") is None


@on_linux
def test_the_state_file_of_a_broker_that_died_is_stale(tmp_path: Path) -> None:
    started = start_embedded(tmp_path)
    pid = started.processes[0].pid
    os.kill(pid, signal.SIGKILL)
    assert ends(pid)
    assert started.state == "stale"

    assert running.load(tmp_path, "embedded") == started
    again = start_embedded(tmp_path)
    try:
        assert again.state == "up"
        assert again.processes != started.processes
    finally:
        running.stop(tmp_path, "embedded")


@on_linux
def test_a_stranger_with_the_same_process_number_is_not_taken_for_the_broker(tmp_path: Path) -> None:
    me = Process.of(os.getpid())
    assert me.started_ticks is not None
    stranger = Process(me.pid, me.started_ticks - 1)
    stale = running.Running("embedded", "127.0.0.1:1", str(tmp_path), (stranger,), 0)
    running.save(tmp_path, stale)

    assert stale.state == "stale"
    assert running.stop(tmp_path, "embedded") is None  # and this process is still here
    assert running.load(tmp_path, "embedded") is None


def test_a_taken_port_is_refused_with_the_option_that_helps(embedded: EmbeddedBroker, tmp_path: Path) -> None:
    port = int(embedded.bootstrap.rpartition(":")[2])

    with pytest.raises(BrokerError, match=rf"Port {port} .* --port \d+"):
        running.start(tmp_path, "apache", [port], lambda folder: ApacheKafka(folder, port=port))
