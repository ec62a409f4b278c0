"""How a lane comes back, on a real broker: from its snapshot or its changelog, and never onto another topic."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from deploy.brokers import Broker
from scoring.rows import ROW, RowStore
from streams.lanes.adopt import adopt
from streams.lanes.clicks import KEY
from streams.lanes.lane import Lane
from streams.lanes.recovery import Recovered, RecoveryError, recover
from streams.reading import log_ends
from tests.integration.lanes import (
    ADS,
    GUARANTEES,
    USERS,
    Killed,
    Owner,
    Shop,
    bury,
    counted,
    delete_all,
    dying_outbox,
    events,
    play,
    record_of,
    recreate,
    shop_on,
    stepped,
)

pytestmark = pytest.mark.integration


@GUARANTEES
def test_a_lane_recovers_its_rows_from_snapshot_and_changelog_alike(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path / "one", guarantee)
        first, lane = await at_work(shop)
        await lane.close(5_000)  # leaves a snapshot
        await first.vanish()
        snapshot = next((tmp_path / "one" / "snapshots").rglob("*.snapshot"))
        await shop.publish(events(30, start=60))

        stores, layers = [], []
        for home in ("one", "two"):  # with the snapshot, and on another machine without it
            other = Shop(shop.settings.model_copy(update={"home": tmp_path / home}))
            owner = Owner(other, ADS)
            lane = await owner.take_over()
            stores.append(
                {
                    user: lane.state.store.rows[lane.state.store.find(user)].tobytes()
                    for user in map("user-{}".format, range(USERS))
                    for user in [user.encode()]
                }
            )
            layers.append(lane.state.clicks.parts())
            await owner.vanish()
        assert snapshot.exists()
        assert layers[0] == layers[1]
        assert layers[0].keys() >= {KEY}
        assert stores[0] == stores[1] == await shop.state()

    play(scenario)


async def at_work(shop: Shop) -> tuple[Owner, Lane]:
    """An owner that has applied events, and its lane."""
    await shop.publish(events())
    owner = Owner(shop, ADS)
    lane = await owner.take_over()
    await owner.step_all()
    return owner, lane


def test_a_snapshot_is_discarded_where_the_changelog_has_lost_what_followed_it(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish(events())
        await stepped(shop)
        changelog = TopicPartition(topic_prefix + "state-changelog", 0)
        end = (await log_ends(kafka.bootstrap, [changelog]))[changelog]
        await asyncio.to_thread(delete_before, kafka.bootstrap, changelog.topic, end - 1)
        store = RowStore()
        store.put([b"erased"], np.zeros(1, dtype=ROW))

        recovered = await recover(shop.settings, changelog, Recovered(store, None, 1, 1, parts={b"\0": b"kept"}))

        assert b"erased" not in recovered.store
        assert (recovered.parts, recovered.lane_row, recovered.offset) == ({}, None, end)

    asyncio.run(scenario())


def delete_before(bootstrap: str, name: str, offset: int) -> None:
    """Let the topic's first partition begin at ``offset``; compaction alone may not do so, retention may."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    both = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[both])
    admin.incremental_alter_configs([resource])[resource].result()
    place = Place(name, 0, offset)
    admin.delete_records([place])[place].result()


@GUARANTEES
def test_a_lane_that_is_taken_over_again_and_again_without_an_event_stays_where_it_was(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await shop.publish(events())
        stood = []
        for _ in range(4):  # each leaves a snapshot, the first alone after a slice of its own
            owner = Owner(shop, ADS)
            lane = await owner.take_over()
            await owner.step_all()
            stood.append((lane.state.next_offsets, lane.state.totals["applied"]))
            await lane.close(5_000)
            await owner.vanish()
        assert stood == [((60, 20), 80)] * 4

    play(scenario)


def test_a_lane_that_has_read_all_is_taken_over_though_retention_has_deleted_all_and_the_last_was_a_marker(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        shop.adopted = True  # most of its records are gone
        await shop.publish(events()[:-1])
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic_prefix) as producer:
            name, key, value, time_ms = record_of(events()[-1])
            async with producer.transaction():
                await producer.send_and_wait(topic_prefix + name, value, key=key, timestamp_ms=time_ms)
        owner = Owner(shop, ADS)
        lane = await owner.take_over()
        await owner.step_all()
        lane.idle()
        await lane.step()
        await owner.vanish()
        await asyncio.to_thread(delete_all, kafka.bootstrap, [tp.topic for tp in lane.inputs])

        await shop.publish(events(30, start=60))
        assert (await stepped(shop))["applied"] == 40

    play(scenario)


@GUARANTEES
def test_a_snapshot_beyond_its_lane_row_is_not_believed(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        first, lane = await at_work(shop)
        changelog = TopicPartition(f"{topic_prefix}state-changelog", 0)
        lane._changelog_offset = (await log_ends(kafka.bootstrap, [changelog]))[changelog]
        await lane.close(5_000)
        await first.vanish()
        second = Owner(shop, ADS)
        lane = await second.take_over()
        assert (lane.state.next_offsets, len(lane.state.store)) == ((60, 20), USERS)
        await second.vanish()

    play(scenario)


@GUARANTEES
def test_a_slice_that_failed_leaves_no_snapshot_of_what_was_not_committed(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await shop.publish(events())
        owner = Owner(shop, ADS, dying_outbox(2))
        lane = await owner.take_over()
        with pytest.raises(Killed):
            await owner.step_all()
        await lane.close(1_000)
        assert list((tmp_path / "snapshots").rglob("*")) == []
        await owner.vanish()
        await bury(shop)

    play(scenario)


def test_a_snapshot_that_is_damaged_or_foreign_is_refused_and_the_changelog_read(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        first, lane = await at_work(shop)
        await lane.close(5_000)
        await first.vanish()
        expected = await shop.state()
        snapshot = next((tmp_path / "snapshots").rglob("*.snapshot"))
        whole = snapshot.read_bytes()
        for damaged in (b"", b"not a snapshot", whole[:-1], whole[: len(whole) // 2], whole + b"x"):
            snapshot.write_bytes(damaged)
            owner = Owner(shop, ADS)
            lane = await owner.take_over()
            store = lane.state.store
            assert {user: store.rows[store.find(user)].tobytes() for user in expected} == expected
            await owner.vanish()

    play(scenario)


def test_a_recreated_topic_is_refused_with_the_command_that_resolves_it(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish(events())
        await stepped(shop)
        await asyncio.to_thread(recreate, kafka.bootstrap, topic_prefix)
        shop.adopted = True
        await shop.publish(events(80))  # longer than before: only the id tells it from the old one
        second = Owner(shop, ADS)
        with pytest.raises(RecoveryError, match="salience lanes adopt"):
            await second.take_over()
        await second.vanish()

        adopted = await adopt(shop.settings)
        # Of the two topics clicks is as it was, and read on.
        assert [(lane.lane, lane.users, lane.next_offsets) for lane in adopted] == [(0, USERS, (0, 20))]
        await stepped(shop)
        # The 20 impressions that only the new topic holds are new; the others' ids are forgotten but for the last.
        counts = counted(await shop.state())
        assert counts["impressions"] >= 60 + 20
        row = await shop.lane_row()
        assert row is not None
        assert row.next_offsets == (80, 20 + 27)

    play(scenario)


def test_a_topic_recreated_under_a_running_worker_is_refused_when_a_rebalance_brings_its_lane_back(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        owner, before = await at_work(shop)
        await before.close(5_000)
        await asyncio.to_thread(recreate, kafka.bootstrap, topic_prefix)
        shop.adopted = True
        await shop.publish(events(80))  # longer than before, so that no offset tells
        again = owner.lane = Lane(0, before._shared)
        with pytest.raises(RecoveryError, match=r"ad-impressions is another topic.*salience lanes adopt"):
            await again.take_over()

    play(scenario)


def test_a_lane_that_is_given_up_while_it_waits_to_write_its_snapshot_lets_it_be(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        _, lane = await at_work(shop)
        await lane.in_step.acquire()  # a step that does not end
        resting = asyncio.create_task(lane.rest())
        await asyncio.sleep(0)
        await lane.close(1)
        lane.in_step.release()
        await resting  # it has no state any more: that would end the worker

    play(scenario)
