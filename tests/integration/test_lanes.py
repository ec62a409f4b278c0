"""What a lane promises, on a real broker: between every two of its deliveries, and against its own past self."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka import TopicPartition

from deploy.brokers import Broker
from scoring.rows import decode_rows
from streams import topics
from streams.adopt import adopt
from streams.lane import Lane, LaneLostError
from streams.lane_clicks import KEY, LaneClicks
from streams.outbox import DeliveryError, Outbox
from streams.reading import log_ends
from streams.recovery import RecoveryError
from streams.wire import Decision
from tests.builders import ad, click, impression
from tests.integration.lanes import Killed, Owner, Shop, dying_outbox, play

pytestmark = pytest.mark.integration

ADS = [ad(ad_id=f"ad-{number}", category=f"shelf/{number % 5}", bid_micros=100_000 + number) for number in range(30)]
USERS = 6
LAST_MS = 1_790_000_000_000 + 58_500


IMPATIENT = {"transaction_timeout_ms": 3_000, "slice_deadline_ms": 2_000}
"""Read-committed readers wait for a dead lane's transaction: in these tests it dies, so not for long."""


def events(count: int = 60, start: int = 0) -> list[Any]:
    """Impressions and clicks of six users, a click for every third impression; numbered, so none is like another."""
    out: list[Any] = []
    for number in range(start, start + count):
        user, time_ms = f"user-{number % USERS}", 1_790_000_000_000 + 1_000 * number
        seen = ADS[number % len(ADS)].ad_id
        out.append(impression(event_id=f"i{number}", user_id=user, ad_id=seen, time_ms=time_ms))
        if number % 3 == 0:
            out.append(
                click(event_id=f"c{number}", user_id=user, ad_id=seen, time_ms=time_ms + 5, impression_time_ms=time_ms)
            )
    return out


def shop_on(broker: Broker, prefix: str, home: Path, guarantee: str, **settings: Any) -> Shop:
    if guarantee == "exactly_once" and not broker.transactions:
        pytest.skip("exactly_once needs a broker with transactions, and Apache Kafka could not be had")
    return Shop.open(broker.bootstrap, prefix, home, guarantee=guarantee, **settings)


def counted(state: dict[bytes, bytes]) -> dict[str, int]:
    rows = decode_rows(state.values())
    return {name: int(rows[name].sum()) for name in ("impressions", "clicks")}


def assert_equal_layers(found: LaneClicks, expected: LaneClicks) -> None:
    """The same outcomes learned, to the same weights, and the same impressions open."""
    layers = found.layer, expected.layer
    assert expected.layer.learned > 20
    for each in ("learned", "dropped", "clock_ms"):
        assert getattr(found.layer, each) == getattr(expected.layer, each)
    weights = [layer.model.array for layer in layers]
    assert weights[0] == pytest.approx(weights[1], abs=1e-5)
    pending = [layer.pending.between(layer.pending.head, layer.pending.tail) for layer in layers]
    assert (pending[0][["key", "due_ms", "open"]] == pending[1][["key", "due_ms", "open"]]).all()
    lifts = [{ad: layer.lifts.record(ad) for ad in layer.lifts.arrays()[0].tolist()} for layer in layers]
    assert lifts[0].keys() == lifts[1].keys()
    assert all(lifts[0][ad] == pytest.approx(lifts[1][ad], abs=1e-4) for ad in lifts[0])


GUARANTEES = pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])


@GUARANTEES
@pytest.mark.parametrize("deliveries", range(1, 7))
def test_a_crash_between_any_two_deliveries_loses_and_doubles_nothing(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str, deliveries: int
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await shop.publish([*events(), ("clicks", b"user-1", b"{poison", LAST_MS)])
        first = Owner(shop, ADS, dying_outbox(deliveries))
        await first.take_over()
        killed = False
        try:
            await first.step_all()
        except Killed:
            killed = True
        await first.vanish()
        # Placements, decisions, dead letters, rows; the lane row is in the rows' batch, or a fifth where nothing else
        # makes it the last.
        assert killed or deliveries > (4 if guarantee == "exactly_once" else 5)
        second = Owner(shop, ADS)
        await second.take_over()
        await second.step_all()
        await second.vanish()

        assert counted(await shop.state()) == {"impressions": 60, "clicks": 20}
        row = await shop.lane_row()
        assert row is not None
        assert row.next_offsets == (60, 21)
        applied = row.totals["applied"] + row.totals["replayed"]
        assert (applied, row.totals["dead"]) == (80, 1)
        ids = await shop.placement_ids()
        assert len({name.rsplit("-", 1)[1] for name in ids}) == USERS
        if guarantee == "exactly_once":
            assert set(ids.values()) == {1}
            assert len(await shop.read("dead-letters")) == 1
        else:
            assert len(await shop.read("dead-letters")) >= 1

    play(scenario)


@GUARANTEES
def test_a_delivery_that_fails_commits_nothing_and_ends_the_step(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee, batch_bytes=16_384, candidates=1_000, **IMPATIENT)
        await shop.publish(events())
        # A receipt of 28 bytes a candidate: refused by our own check, before the broker could drop it in silence.
        owner = Owner(shop, [ad(ad_id=f"ad-{number}") for number in range(1_000)])
        await owner.take_over()
        with pytest.raises(DeliveryError, match="SALIENCE_BATCH_BYTES"):
            await owner.step_all()
        await owner.vanish()
        assert await shop.lane_row() is None
        if guarantee == "exactly_once":
            assert await shop.read("placements") == []
            assert await shop.state() == {}

    play(scenario)


@GUARANTEES
def test_a_bad_record_larger_than_a_batch_is_one_dead_letter_and_stops_nothing(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee, batch_bytes=16_384)
        bad = b"{" + b"x" * 900_000
        await shop.publish([*events(), ("clicks", b"user-1", bad, LAST_MS)])
        owner = Owner(shop, ADS)
        await owner.take_over()
        counts = await owner.step_all()
        await owner.vanish()
        assert (counts["applied"], counts["dead"], counts["unaccounted"]) == (80, 1, 0)
        assert await shop.read("dead-letters") == [(b"user-1", bad)]

    play(scenario)


@GUARANTEES
def test_a_broker_that_refuses_a_batch_ends_the_step_with_nothing_committed(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    if not kafka.transactions:
        pytest.skip("the embedded broker enforces no message size, and Apache Kafka could not be had")

    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee, **IMPATIENT)
        await asyncio.to_thread(_shrink, kafka.bootstrap, topic_prefix + "decisions")
        await shop.publish(events())
        owner = Owner(shop, ADS)
        await owner.take_over()
        with pytest.raises(Exception, match="MessageSizeTooLarge"):
            await owner.step_all()
        await owner.vanish()
        assert await shop.lane_row() is None

    play(scenario)


def _shrink(bootstrap: str, topic: str) -> None:
    """Let the broker take nothing of more than 1,000 bytes on a topic."""
    from confluent_kafka.admin import (
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    entry = ConfigEntry("max.message.bytes", "1000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


def test_a_zombie_is_fenced_and_nothing_of_it_is_seen(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish(events())
        zombie = Owner(shop, ADS)
        await zombie.take_over()
        await zombie.fetch()  # it holds records, and is paused here past its session
        owner = Owner(shop, ADS)
        await owner.take_over()
        await owner.step_all()
        before = (await shop.placement_ids(), await shop.state(), await shop.lane_row())

        taken = zombie.lane.cut()
        assert taken is not None
        with pytest.raises(Exception, match=r"Fenced|InvalidProducerEpoch|fenced"):
            await zombie.lane.step(taken)
        await zombie.vanish()
        assert (await shop.placement_ids(), await shop.state(), await shop.lane_row()) == before

        await shop.publish(events(30, start=60))
        await owner.step_all()
        await owner.vanish()
        assert counted(await shop.state()) == {"impressions": 90, "clicks": 30}

    play(scenario)


@GUARANTEES
def test_a_lane_recovers_its_rows_from_snapshot_and_changelog_alike(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path / "one", guarantee)
        await shop.publish(events())
        first = Owner(shop, ADS)
        lane = await first.take_over()
        await first.step_all()
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


@GUARANTEES
def test_a_snapshot_beyond_its_lane_row_is_not_believed(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await shop.publish(events())
        first = Owner(shop, ADS)
        lane = await first.take_over()
        await first.step_all()
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
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee, **IMPATIENT)
        await shop.publish(events())
        owner = Owner(shop, ADS, dying_outbox(2))
        lane = await owner.take_over()
        with pytest.raises(Killed):
            await owner.step_all()
        await lane.close(1_000)
        assert list((tmp_path / "snapshots").rglob("*")) == []

    play(scenario)


def test_a_snapshot_that_is_damaged_or_foreign_is_refused_and_the_changelog_read(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish(events())
        first = Owner(shop, ADS)
        lane = await first.take_over()
        await first.step_all()
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


def test_arecreated_topic_is_refused_with_the_command_that_resolves_it(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish(events())
        first = Owner(shop, ADS)
        await first.take_over()
        await first.step_all()
        await first.vanish()
        await asyncio.to_thread(recreate, kafka.bootstrap, topic_prefix)
        shop.adopted = True
        await shop.publish(events(80))  # longer than before: only the id tells it from the old one
        second = Owner(shop, ADS)
        with pytest.raises(RecoveryError, match="salience lanes adopt"):
            await second.take_over()
        await second.vanish()

        adopted = await adopt(shop.settings)
        assert [(lane.lane, lane.users, lane.next_offsets) for lane in adopted] == [(0, USERS, (0, 0))]
        third = Owner(shop, ADS)
        await third.take_over()
        await third.step_all()
        await third.vanish()
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
        await shop.publish(events())
        owner = Owner(shop, ADS)
        before = await owner.take_over()
        await owner.step_all()
        await before.close(5_000)
        await asyncio.to_thread(recreate, kafka.bootstrap, topic_prefix)
        await shop.publish(events(80))  # longer than before, so that no offset tells
        again = owner.lane = Lane(0, before._shared)
        with pytest.raises(RecoveryError, match=r"ad-impressions is another topic.*salience lanes adopt"):
            await again.take_over()

    play(scenario)


def recreate(bootstrap: str, prefix: str) -> None:
    from confluent_kafka.admin import AdminClient

    name = prefix + "ad-impressions"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([name])[name].result()
    while name in topics.partition_counts(bootstrap, [name]):
        pass
    topics.create(bootstrap, 1, prefix)


def test_the_recorded_receipt_is_the_state_that_was_scored(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish(events())
        owner = Owner(shop, ADS)
        await owner.take_over()
        await owner.step_all()
        await owner.vanish()
        rows = await shop.state()
        for user, value in dict(await shop.read("decisions")).items():
            assert value is not None
            decision = msgspec.json.decode(value, type=Decision)
            assert decision.row == rows[user]
            assert np.frombuffer(decision.pctr, dtype=np.float32).shape == (len(ADS),)

    play(scenario)


def test_a_former_member_does_not_fence_the_lanes_new_owner(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish(events())
        started: list[str | None] = []

        class Watched(Outbox):
            async def start(self) -> None:
                started.append(shop.settings.group)
                await super().start()

        member = Owner(shop, ADS)
        await member.take_over()
        former = Owner(shop, ADS, Watched)
        settings = shop.settings.model_copy(update={"instance_id": None})
        former.settings = settings
        # The group now has a live member that subscribed: a stranger's commit is refused, so it must not fence.
        assert member.consumer is not None
        member.consumer.unsubscribe()
        member.consumer.subscribe([tp.topic for tp in member.lane.inputs])
        async with asyncio.timeout(30):
            while not member.consumer.assignment():
                await member.consumer.getmany(timeout_ms=100)
        with pytest.raises(LaneLostError):
            await former.take_over()
        assert started == []
        await member.vanish()
        await former.vanish()

    play(scenario)
