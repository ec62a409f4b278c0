"""What a lane promises, on a real broker: between every two of its deliveries, and against its own past self."""

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest
from aiokafka.errors import MessageSizeTooLargeError

from deploy.brokers import Broker
from streams.lanes.lane import LaneLostError
from streams.lanes.outbox import DeliveryError, Outbox
from streams.wire import Decision
from tests.builders import ad
from tests.integration.lanes import (
    ADS,
    DEADLINE_S,
    GUARANTEES,
    LAST_MS,
    USERS,
    Killed,
    Owner,
    bury,
    counted,
    dying_outbox,
    events,
    play,
    shop_on,
    stepped,
)

pytestmark = pytest.mark.integration


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
        await stepped(shop)

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
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee, candidates=1_000)
        # Less than may be set, for which a receipt would need 20,000 candidates.
        shop.settings = shop.settings.model_copy(update={"batch_bytes": 16_384})
        await shop.publish(events())
        # A receipt of 28 bytes a candidate: refused by our own check, before the broker could drop it in silence.
        owner = Owner(shop, [ad(ad_id=f"ad-{number}") for number in range(1_000)])
        await owner.take_over()
        with pytest.raises(DeliveryError, match="SALIENCE_BATCH_BYTES"):
            await owner.step_all()
        await owner.vanish()
        await bury(shop)
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
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee, batch_bytes=524_288)
        bad = b"{" + b"x" * 900_000
        await shop.publish([*events(), ("clicks", b"user-1", bad, LAST_MS)])
        counts = await stepped(shop)
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
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await asyncio.to_thread(_shrink, kafka.bootstrap, topic_prefix + "decisions")
        await shop.publish(events())
        owner = Owner(shop, ADS)
        await owner.take_over()
        help_ = r"raise its max.message.bytes \(salience topics create --configure\)"
        with pytest.raises(MessageSizeTooLargeError, match=f"{topic_prefix}decisions takes no batch .*{help_}"):
            await owner.step_all()
        await owner.vanish()
        await bury(shop)
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

        assert zombie.lane.has_work
        with pytest.raises(Exception, match=r"Fenced|InvalidProducerEpoch|fenced"):
            await zombie.lane.step()
        await zombie.vanish()
        assert (await shop.placement_ids(), await shop.state(), await shop.lane_row()) == before

        await shop.publish(events(30, start=60))
        await owner.step_all()
        await owner.vanish()
        assert counted(await shop.state()) == {"impressions": 90, "clicks": 30}

    play(scenario)


def test_the_recorded_receipt_is_the_state_that_was_scored(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish(events())
        await stepped(shop)
        rows, receipts = await shop.state(), dict(await shop.read("decisions"))
        assert receipts.keys() == rows.keys()
        for user, value in receipts.items():
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
        async with asyncio.timeout(DEADLINE_S):
            while not member.consumer.assignment():
                await member.consumer.getmany(timeout_ms=100)
        with pytest.raises(LaneLostError):
            await former.take_over()
        assert started == []
        await member.vanish()
        await former.vanish()

    play(scenario)
