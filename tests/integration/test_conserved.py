"""What holds every integration test's shop to account, held to account: records that no lane row tells of are found."""

from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from deploy.brokers import Broker
from tests.integration.conserved import assert_conserved
from tests.integration.lanes import ADS, Owner, Shop, events, play, shop_on

pytestmark = pytest.mark.integration


async def commit(shop: Shop, lane: int, offset: int) -> None:
    """Have the group say that it is done with a lane's impressions before ``offset``."""
    where = TopicPartition(shop.settings.topic_prefix + "ad-impressions", lane)
    async with AIOKafkaConsumer(
        bootstrap_servers=shop.settings.bootstrap, group_id=shop.settings.group, enable_auto_commit=False
    ) as consumer:
        consumer.assign([where])
        await consumer.commit({where: offset})


def test_a_shop_whose_records_nobody_has_read_is_conserved(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        await shop_on(kafka, topic_prefix, tmp_path, "at_least_once").publish([*ADS, *events()])

    play(scenario)


def test_records_that_the_group_is_done_with_and_no_lane_row_tells_of_are_found(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*ADS, *events()])
        await commit(shop, 0, 10)
        with pytest.raises(AssertionError):
            await assert_conserved(shop)
        await commit(shop, 0, 0)

    play(scenario)


def test_records_of_a_lane_without_a_row_are_found_beside_a_lane_that_has_one(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once", partitions=2)
        await shop.publish([*ADS, *events()])
        owner = Owner(shop, ADS)
        await owner.take_over()
        assert (await owner.step_all())["events_in"] > 0
        await owner.vanish()
        await assert_conserved(shop)
        await commit(shop, 1, 10)
        with pytest.raises(AssertionError):
            await assert_conserved(shop)
        await commit(shop, 1, 0)

    play(scenario)
