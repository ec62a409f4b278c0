"""Three nodes of Apache Kafka, of which one goes and comes back: what they keep, and the lag of groups on them."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import ElectionType
from confluent_kafka.admin import AdminClient, ConfigResource
from typer.testing import CliRunner

from deploy.brokers.apache import ApacheKafka
from streams import topic_admin, topics
from streams.cli import app
from streams.lag.board import Observation
from streams.lag.poller import LagError, Poller
from tests.integration.lanes import DEADLINE_S
from tests.integration.test_brokers import consume, produce
from tests.needs import apache_kafka

pytestmark = pytest.mark.integration

GROUPS = {f"group-{number}" for number in range(12)}
"""Among eight partitions of their offsets: each of three nodes has some."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    with apache_kafka(ApacheKafka(tmp_path_factory.mktemp("three"), 3, heap_mb=256)) as cluster:
        yield cluster


@pytest.fixture(params=[1, 3])
def copies(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ApacheKafka]:
    """With one copy of the groups' offsets, and with three."""
    if request.param == 3:
        yield request.getfixturevalue("three")
        return
    one = {"offsets.topic.replication.factor": "1"}
    with apache_kafka(ApacheKafka(tmp_path, 3, heap_mb=256, properties=one)) as cluster:
        yield cluster


def poll_until(poller: Poller, holds: Callable[[Observation], bool]) -> list[Observation]:
    """Poll until one is as wanted; all that were told."""
    seen: list[Observation] = []
    deadline = time.monotonic() + DEADLINE_S
    while not (seen and holds(seen[-1])):
        time.sleep(0.3)
        assert time.monotonic() < deadline, seen[-1:]
        with contextlib.suppress(LagError):
            seen.append(poller.poll())
    return seen


async def commit(bootstrap: str) -> None:
    """An offset for each group."""
    clicks = TopicPartition(topics.CLICKS, 0)
    for group in GROUPS:
        async with AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False) as member:
            member.assign([clicks])
            await member.commit({clicks: 0})


def elect(cluster: ApacheKafka) -> None:
    """Give each partition's leadership back to whom it belongs, as the cluster does within minutes."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.elect_leaders(ElectionType.PREFERRED).result()


def told_or_lacking(seen: Observation) -> bool:
    return {*seen.groups, *seen.unasked} == GROUPS and bool(seen.unasked) <= bool(seen.lacking)


def test_no_group_is_forgotten_while_a_node_is_away_and_all_are_told_when_it_is_back(copies: ApacheKafka) -> None:
    topic_admin.create(copies.bootstrap, 1, replication=3)
    asyncio.run(commit(copies.bootstrap))
    poller = Poller(copies.bootstrap)
    poll_until(poller, lambda seen: seen.groups.keys() == GROUPS)
    copies.stop_node(1)
    away = [seen for _ in range(20) for seen in poll_until(poller, lambda _: True)]
    copies.start_node(1)
    elect(copies)
    back = [seen for _ in range(20) for seen in poll_until(poller, lambda _: True)]
    back += poll_until(poller, lambda seen: seen.groups.keys() == GROUPS)
    assert [seen for seen in (*away, *back) if not told_or_lacking(seen)] == []
    assert (back[-1].unasked, back[-1].lacking) == (set(), "")


def test_topics_made_or_configured_later_have_as_many_copies_as_those_beside_them(
    three: ApacheKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def salience_topics(*words: str) -> None:
        at = ("--bootstrap", three.bootstrap, "--prefix", topic_prefix)
        told = CliRunner().invoke(app, ["topics", *words, *at])
        assert told.exit_code == 0, told.output

    clicks, reviews = topic_prefix + topics.CLICKS, topic_prefix + topics.REVIEWS
    with monkeypatch.context() as former:  # none is deleted: a node may tell of it for a while after the others
        former.setattr(topic_admin, "TABLE", tuple(t for t in topics.TABLE if t.name != topics.REVIEWS))
        salience_topics("create", "--partitions", "2")
    assert topic_admin.found(three.bootstrap, [reviews]) == {}
    salience_topics("create", "--configure")
    assert topic_admin.check(three.bootstrap, 2, topic_prefix) == []
    there = topic_admin.found(three.bootstrap, topics.names(topic_prefix))
    assert {name: topic.copies for name, topic in there.items()} == dict.fromkeys(topics.names(topic_prefix), 3)
    resource = ConfigResource(ConfigResource.Type.TOPIC, clicks)
    admin = AdminClient({"bootstrap.servers": three.bootstrap})
    assert admin.describe_configs([resource])[resource].result()["min.insync.replicas"].value == "2"


def test_topics_of_one_copy_among_three_brokers_are_remarked(three: ApacheKafka, topic_prefix: str) -> None:
    topic_admin.create(three.bootstrap, 2, topic_prefix, replication=1)
    problems = topic_admin.check(three.bootstrap, 2, topic_prefix)
    assert [problem.topic for problem in problems] == topics.names(topic_prefix)
    assert {(problem.what, problem.fails) for problem in problems} == {("copies", False)}


def test_a_lost_node_loses_no_data(three: ApacheKafka, topic_prefix: str) -> None:
    topic_admin.create(three.bootstrap, 3, topic_prefix, replication=3)
    name = topic_prefix + topics.CHANGELOG
    for partition in range(3):
        produce(three.bootstrap, name, [b"before"], partition)

    three.kill_node(1)
    assert sorted(three.node_pids) == [0, 2]
    for partition in range(3):
        produce(three.bootstrap, name, [b"without"], partition)
    three.start_node(1)
    three.stop_node(0)
    for partition in range(3):
        produce(three.bootstrap, name, [b"after"], partition)
    three.start_node(0)

    for partition in range(3):
        assert consume(three.bootstrap, name, partition) == [b"before", b"without", b"after"]
