"""The control topic on a real broker: read whole before a worker is ready, then followed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from deploy.brokers import Broker
from streams.compute import Compute
from streams.control import CONTROLS_PER_READ, Control, publish
from streams.control_wire import Consent
from streams.feeds.topic import TopicFeed
from streams.reading import MissingTopicError
from streams.topics import CONTROL
from tests.builders import START_MS
from tests.integration.lanes import DEADLINE_S, Shop, play
from tests.integration.workers import until

pytestmark = pytest.mark.integration


def refusal(user: str) -> Consent:
    return Consent(user_id=user, granted=False, time_ms=START_MS)


def test_a_feed_has_read_everything_when_it_has_started_and_then_follows(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = Shop.open(kafka.bootstrap, topic_prefix, tmp_path)
        offsets = await publish(shop.settings, [refusal(f"user-{number}") for number in range(300)])
        assert offsets == list(range(300))
        control, compute, failures = Control(), Compute(), list[BaseException]()
        feed = TopicFeed(shop.settings, compute, failures.append, CONTROL, control.take, CONTROLS_PER_READ)
        await feed.start()
        try:
            assert (len(control), control.next_offset) == (300, 300)
            await publish(shop.settings, [refusal("late")], gone=[refusal("user-0")])

            async def followed() -> bool:
                return control.next_offset == 302

            await until(followed, "the feed follows the topic")
        finally:
            await feed.stop()
            compute.stop()
        heard = control.get(Consent, "late")
        assert heard is not None
        assert (heard.granted, heard.time_ms) == (False, START_MS)
        assert heard.told_ms > START_MS  # when its record came
        assert control.get(Consent, "user-0") is None
        assert not failures

    play(scenario)


def test_a_feed_whose_topic_is_not_known_yet_ends_the_worker_rather_than_follow_a_part_of_it(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = Shop.open(kafka.bootstrap, topic_prefix, tmp_path)
        elsewhere = shop.settings.model_copy(update={"topic_prefix": f"{topic_prefix}-other-"})
        compute = Compute()
        feed = TopicFeed(elsewhere, compute, pytest.fail, CONTROL, Control().take, CONTROLS_PER_READ)
        try:
            with pytest.raises(MissingTopicError, match="topics create"):
                await feed.on_start()
        finally:
            await feed.on_stop()
            compute.stop()

    play(scenario)


@pytest.mark.parametrize("step", ["start", "seek_to_beginning", "position", "getmany"])
def test_a_feed_stopped_while_it_starts_ends_in_order(
    kafka: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async def scenario() -> None:
        shop = Shop.open(kafka.bootstrap, topic_prefix, tmp_path)
        await publish(shop.settings, [refusal("user-0")])
        compute, under_way = Compute(), asyncio.Event()
        feed = TopicFeed(shop.settings, compute, pytest.fail, CONTROL, Control().take, CONTROLS_PER_READ)
        real = getattr(AIOKafkaConsumer, step)

        async def told(*args: Any, **options: Any) -> Any:
            under_way.set()
            return await real(*args, **options)

        monkeypatch.setattr(AIOKafkaConsumer, step, told)
        starting = asyncio.create_task(feed.on_start())
        try:
            await under_way.wait()  # and the broker's answer has not come: a turn of the loop is less than its way
            await asyncio.wait_for(feed.stop(), DEADLINE_S)
            await asyncio.wait_for(starting, DEADLINE_S)
        finally:
            compute.stop()
        assert not feed.caught_up

    play(scenario)
