"""The lag of groups on three nodes of Apache Kafka, one of which goes and comes back."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import ElectionType
from confluent_kafka.admin import AdminClient

from deploy.brokers.apache import ApacheKafka
from streams import topic_admin, topics
from streams.lag.board import Observation
from streams.lag.poller import LagError, Poller
from tests.integration.lanes import DEADLINE_S
from tests.needs import apache_kafka

pytestmark = pytest.mark.integration

GROUPS = {f"group-{number}" for number in range(12)}
"""Among eight partitions of their offsets: each of three nodes has some."""


@pytest.fixture(params=[1, 3])
def three(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """With one copy of the groups' offsets, and with three."""
    copies = {"offsets.topic.replication.factor": str(request.param)}
    with apache_kafka(ApacheKafka(tmp_path_factory.mktemp("three"), 3, heap_mb=256, properties=copies)) as cluster:
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


def test_no_group_is_forgotten_while_a_node_is_away_and_all_are_told_when_it_is_back(three: ApacheKafka) -> None:
    topic_admin.create(three.bootstrap, 1, replication=3)
    asyncio.run(commit(three.bootstrap))
    poller = Poller(three.bootstrap)
    poll_until(poller, lambda seen: seen.groups.keys() == GROUPS)
    three.stop_node(1)
    away = [seen for _ in range(20) for seen in poll_until(poller, lambda _: True)]
    three.start_node(1)
    elect(three)
    back = [seen for _ in range(20) for seen in poll_until(poller, lambda _: True)]
    back += poll_until(poller, lambda seen: seen.groups.keys() == GROUPS)
    assert [seen for seen in (*away, *back) if not told_or_lacking(seen)] == []
    assert (back[-1].unasked, back[-1].lacking) == (set(), "")
