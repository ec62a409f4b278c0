"""The lag monitor against Apache Kafka's own tool, against a clock, and against workers that freeze."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy.brokers import Broker
from streams import topic_admin
from streams.clock import tick_ms
from streams.lag.arithmetic import Rules, Status
from streams.lag.board import Board, Observation, Report
from streams.lag.poller import LagError, Poller
from tests.integration.kafka_tools import consumer_groups
from tests.integration.lanes import DEADLINE_S

pytestmark = pytest.mark.integration

log = logging.getLogger(__name__)

PARTITIONS = 3


@pytest.fixture(autouse=True)
def _on_apache_kafka(kafka: Broker) -> None:
    if not kafka.transactions:
        pytest.skip("compared with Apache Kafka's tools, and it could not be had")


@contextlib.asynccontextmanager
async def producing(
    bootstrap: str, topic: str, sent: Callable[[int, int, int], None] = lambda *_: None
) -> AsyncIterator[None]:
    """Some 200 records a second, round and round the partitions, while the block lasts.

    ``sent(partition, offset, took_ms)``, when a record's producer has been told.
    """

    async def produce(producer: AIOKafkaProducer) -> None:
        number = 0
        while True:
            began_ms = tick_ms()
            delivered = await producer.send_and_wait(topic, b"x" * 100, partition=number % PARTITIONS)
            sent(delivered.partition, delivered.offset, tick_ms() - began_ms)
            number += 1
            await asyncio.sleep(0.004)

    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        task = asyncio.create_task(produce(producer))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def consumer(bootstrap: str, group: str, *subscribed: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        *subscribed,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
    )


async def watch_until(board: Board, poller: Poller, holds: Callable[[Report], bool]) -> Report:
    """Poll five times a second until the report is as wanted; a broker just started may fail the first polls."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(LagError):
                report = board.observe(await asyncio.to_thread(poller.poll))
                assert all(lag.lag is None or lag.lag >= 0 for group in report.groups for lag in group.partitions)
                if holds(report):
                    return report
            await asyncio.sleep(0.2)


async def _member(bootstrap: str, topic: str, group: str, records: int) -> None:
    """A member of a group, which commits as it goes and stops in the middle of things."""
    async with consumer(bootstrap, group, topic) as member:
        read = 0
        while read < records:
            read += sum(map(len, (await member.getmany(timeout_ms=500, max_records=20)).values()))
            await member.commit()


async def _assigned(bootstrap: str, topic: str, group: str) -> None:
    """A reader of two partitions that is no member and commits for a group; the third has no offset."""
    async with consumer(bootstrap, group) as reader:
        partitions = [TopicPartition(topic, number) for number in (0, 1)]
        reader.assign(partitions)
        await reader.commit({partitions[0]: 5, partitions[1]: 7})


async def _transactional(bootstrap: str, topic: str, group: str) -> None:
    """Offsets committed in transactions, one of which is given up."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{group}-id") as producer:
        for offset, gives_up in ((11, False), (13, True)):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"in a transaction", partition=2)
            await producer.send_offsets_to_transaction({TopicPartition(topic, 2): offset}, group)
            await (producer.abort_transaction() if gives_up else producer.commit_transaction())


def test_the_lag_is_that_of_kafkas_own_tool_for_three_kinds_of_groups(kafka: Broker, topic_prefix: str) -> None:
    topic = f"{topic_prefix}clicks"
    names = [f"{topic_prefix}{kind}" for kind in ("member", "assigned", "transactional")]
    topic_admin.create(kafka.bootstrap, PARTITIONS, topic_prefix)
    board, poller = Board(Rules()), Poller(kafka.bootstrap, names)

    async def scenario() -> Report:
        async with producing(kafka.bootstrap, topic):
            await asyncio.gather(
                _member(kafka.bootstrap, topic, names[0], 150),
                _assigned(kafka.bootstrap, topic, names[1]),
                _transactional(kafka.bootstrap, topic, names[2]),
                watch_until(board, poller, lambda report: sum(g.total.lag > 50 for g in report.groups) == 3),
            )
        return await watch_until(board, poller, lambda report: len(report.groups) == 3)  # quiesced

    report = asyncio.run(scenario())

    for group in report.groups:
        ours = {(lag.topic, lag.partition): (lag.committed, lag.log_end, lag.lag) for lag in group.partitions}
        assert ours == consumer_groups(kafka.bootstrap, group.group)
        assert group.total.lag > 0
    assert sorted(names) == [group.group for group in report.groups]


def test_the_embedded_broker_tells_a_groups_offsets_and_not_who_its_members_are(
    embedded: Broker, topic_prefix: str
) -> None:
    topic, group = f"{topic_prefix}clicks", f"{topic_prefix}group"
    topic_admin.create(embedded.bootstrap, PARTITIONS, topic_prefix)

    async def scenario() -> Report:
        async with consumer(embedded.bootstrap, group, topic) as member, producing(embedded.bootstrap, topic):
            while not sum(map(len, (await member.getmany(timeout_ms=500)).values())):
                pass
            await member.commit()
            return Board(Rules()).observe(await asyncio.to_thread(Poller(embedded.bootstrap, [group]).poll))

    (seen,) = asyncio.run(scenario()).groups
    assert seen.members is None
    assert [(lag.owner, lag.committed is None) for lag in seen.partitions] == [(None, False)] * len(seen.partitions)


def test_all_groups_are_found_where_none_is_named(kafka: Broker, topic_prefix: str) -> None:
    topic = f"{topic_prefix}clicks"
    topic_admin.create(kafka.bootstrap, PARTITIONS, topic_prefix)
    asyncio.run(_assigned(kafka.bootstrap, topic, f"{topic_prefix}group"))

    report = Board(Rules()).observe(Poller(kafka.bootstrap, prefix=topic_prefix).poll())

    told = [lag for group in report.groups for lag in group.partitions]
    assert {(lag.topic, lag.partition, lag.committed) for lag in told} == {(topic, 0, 5), (topic, 1, 7)}


class Timed(Poller):
    """A poller that knows when each of its looks began and ended, and of when the newest is."""

    def __init__(self, bootstrap: str, groups: list[str]) -> None:
        super().__init__(bootstrap, groups)
        self.looks: list[tuple[int, int]] = []
        self.newest_ms = 0

    def poll(self) -> Observation:
        began_ms = tick_ms()
        seen = super().poll()
        self.looks.append((began_ms, tick_ms()))
        self.newest_ms = seen.time_ms
        return seen

    @property
    def widest_ms(self) -> int:
        """Between the beginning of a look and the end of the next a record can come that only the next one sees."""
        return max(end_ms - begin_ms for (begin_ms, _), (_, end_ms) in pairwise(self.looks))


def test_the_time_lag_of_a_paused_consumer_is_the_age_of_the_record_it_stands_at(
    kafka: Broker, topic_prefix: str
) -> None:
    topic, group = f"{topic_prefix}clicks", f"{topic_prefix}group"
    topic_admin.create(kafka.bootstrap, PARTITIONS, topic_prefix)
    board, poller = Board(Rules()), Timed(kafka.bootstrap, [group])
    sent_ms: dict[tuple[int, int], int] = {}
    slowest_ms = 0

    def sent(partition: int, offset: int, took_ms: int) -> None:
        nonlocal slowest_ms
        sent_ms[partition, offset], slowest_ms = tick_ms(), max(slowest_ms, took_ms)

    async def scenario() -> list[float]:
        errors_s: list[float] = []

        def compare(report: Report) -> bool:
            """Note how far each time lag is from the truth; done when there are enough, the last of 5 s or more."""
            for lag in (lag for each in report.groups for lag in each.partitions if lag.lag):
                assert lag.committed is not None
                if (lag.partition, lag.committed) not in sent_ms:
                    return False  # appended, and its producer has not been told yet
                assert lag.time_lag_s is not None
                assert not lag.time_lag_at_least
                truth_s = (poller.newest_ms - sent_ms[lag.partition, lag.committed]) / 1000
                errors_s.append(lag.time_lag_s - truth_s)
            return len(errors_s) > 3 * PARTITIONS and any(group.total.time_lag_s > 5 for group in report.groups)

        async with consumer(kafka.bootstrap, group) as reader:
            partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            reader.assign(partitions)
            await reader.commit(dict.fromkeys(partitions, 0))
            await watch_until(board, poller, lambda report: bool(report.groups))
            async with producing(kafka.bootstrap, topic, sent):
                await watch_until(board, poller, lambda report: report.groups[0].total.lag > 300)
                await reader.commit(await reader.end_offsets(partitions))  # and from here on it is paused
                await watch_until(board, poller, compare)
        return errors_s

    errors_s = asyncio.run(scenario())

    # A record's moment is known as closely as the looks before and after it lie, and its producer hears of it later.
    known_s = (poller.widest_ms + slowest_ms) / 1000
    log.info("time lag - truth: %+.3f to %+.3f s, known to %.3f s", min(errors_s), max(errors_s), known_s)
    assert max(map(abs, errors_s)) <= known_s


def test_an_unowned_partition_is_stopped_and_an_owned_one_stalls(kafka: Broker, topic_prefix: str) -> None:
    topic, group = f"{topic_prefix}clicks", f"{topic_prefix}group"
    topic_admin.create(kafka.bootstrap, PARTITIONS, topic_prefix)
    board, poller = Board(Rules(window_ms=3_000, stuck_ms=1_000)), Poller(kafka.bootstrap, [group])

    def statuses(report: Report) -> set[Status]:
        return {lag.status for each in report.groups for lag in each.partitions}

    async def scenario() -> None:
        async with consumer(kafka.bootstrap, group, topic) as member:
            await member.seek_to_beginning()
            await member.commit()
            async with producing(kafka.bootstrap, topic):
                report = await watch_until(board, poller, lambda report: statuses(report) == {Status.STALL})
                assert all(lag.owner and lag.owner.endswith("@127.0.0.1") for lag in report.groups[0].partitions)
                await member.stop()
                await watch_until(board, poller, lambda report: statuses(report) == {Status.STOP})
        async with consumer(kafka.bootstrap, group, topic) as member:
            await member.seek_to_end()
            await member.commit()
            await watch_until(board, poller, lambda report: statuses(report) == {Status.OK})

    asyncio.run(scenario())
