"""What the group's member and a lane's producer are told when they are made: what no answer of theirs shows later."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError

from streams.client import PlacementView
from streams.intake import group_consumer, lanes_of
from streams.lanes.outbox import Outbox
from streams.leaving import at_work
from streams.reading import groupless
from streams.settings import Settings

TOPICS = ("ad-impressions", "clicks")
SETTINGS = Settings(
    session_timeout_ms=11_000,
    heartbeat_ms=1_100,
    revoke_deadline_ms=8_100,
    rebalance_timeout_ms=31_000,
    slice_deadline_ms=12_100,
    transaction_timeout_ms=16_000,
    instance_id="worker-1",
)


class Made:
    """Stands in for a client, and keeps what it was told."""

    def __init__(self, **told: Any) -> None:
        self.told = told


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the group's member is told."""
    monkeypatch.setattr("streams.intake.AIOKafkaConsumer", Made)
    return group_consumer(SETTINGS).told


@pytest.fixture(params=["salience-lane-0", None], ids=["exactly once", "at least once"])
def producer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a lane's producer is told."""
    monkeypatch.setattr("streams.lanes.outbox.AIOKafkaProducer", Made)
    made = Outbox(SETTINGS, request.param)._producer.told
    assert made["transactional_id"] == request.param
    return made


def shared_out(strategies: Sequence[Any], members: int, partitions: int) -> list[list[TopicPartition]]:
    """Each member's partitions of both topics."""
    (assignor,) = strategies
    cluster = SimpleNamespace(partitions_for_topic=lambda _: set(range(partitions)))
    given = assignor.assign(cluster, {f"member-{n}": assignor.metadata(TOPICS) for n in range(members)})
    return [
        [TopicPartition(topic, number) for topic, numbers in each.assignment for number in numbers]
        for each in given.values()
    ]


@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_however_many_members_share_the_lanes_each_lane_is_whole_on_one_of_them(
    member: dict[str, Any], members: int
) -> None:
    shares = shared_out(member["partition_assignment_strategy"], members, partitions=4)
    held = [lane for share in shares for lane in lanes_of(share, TOPICS, 64)]
    assert sorted(held) == [0, 1, 2, 3]


def test_a_member_is_given_the_name_and_the_times_of_the_settings(member: dict[str, Any]) -> None:
    times = ("session_timeout_ms", "heartbeat_interval_ms", "rebalance_timeout_ms")
    assert [member[name] for name in times] == [11_000, 1_100, 31_000]
    assert member["group_instance_id"] == "worker-1"


def test_a_member_reads_committed_records_alone_and_never_begins_where_it_was_not_told(member: dict[str, Any]) -> None:
    assert member["isolation_level"] == "read_committed"
    assert member["auto_offset_reset"] == "none"
    assert member["enable_auto_commit"] is False


async def test_no_reader_asks_for_more_at_once_than_a_link_of_half_a_mbit_a_second_carries_in_the_time_of_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the answer is given up on its way, and asked for again, for ever."""
    made: list[AIOKafkaConsumer] = []

    async def start(consumer: AIOKafkaConsumer) -> None:
        made.append(consumer)
        raise KafkaConnectionError

    async def there(*_: object) -> None:
        return

    monkeypatch.setattr("streams.client.require_topic", there)
    monkeypatch.setattr(AIOKafkaConsumer, "start", start)
    for reader in (PlacementView(security={}), at_work(groupless("127.0.0.1:1")), at_work(group_consumer(SETTINGS))):
        with pytest.raises(KafkaConnectionError):
            await reader.__aenter__()
    assert [each._fetch_max_bytes / (each._request_timeout_ms / 1000) <= 62_500 for each in made] == [True] * 3


def test_a_producer_waits_for_all_replicas_and_its_transactions_end_when_the_settings_say(
    producer: dict[str, Any],
) -> None:
    assert producer["acks"] == "all"
    assert producer["transaction_timeout_ms"] == 16_000
    assert producer["request_timeout_ms"] == 12_100
