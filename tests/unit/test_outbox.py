"""What a lane's producer hands over and says of it: the batches are aiokafka's own, and no broker is behind them."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, KafkaTimeoutError, MessageSizeTooLargeError, ProducerFenced
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import RecordMetadata, TopicPartition

from streams.lanes.outbox import DeliveryError, Outbox, transactional_id
from streams.letters import LETTER_BYTES_MAX
from streams.message import Message
from streams.settings import Settings
from streams.topics import BATCH_BYTES
from tests.unit.lanes import turns, within_deadline

BATCH = 4_096
PREFIX = "shop-"


class Network:
    """What is behind a producer's ``send_batch``: keeps what comes, and answers when it is told to."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int, bytes]] = []
        self.answers: list[asyncio.Future[RecordMetadata]] = []
        self.refuses: BaseException | None = None

    async def send_batch(self, builder: Any, topic: str, *, partition: int) -> asyncio.Future[RecordMetadata]:
        if self.refuses is not None:
            raise self.refuses
        self.batches.append((topic, partition, bytes(builder._build())))
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    def deliver(self, number: int, offset: int) -> None:
        """Answer that a batch, by its number from 0, begins at ``offset``."""
        topic, partition, _ = self.batches[number]
        place = RecordMetadata(topic, partition, TopicPartition(topic, partition), offset, -1, 0, 0)
        self.answers[number].set_result(place)

    def messages(self) -> list[Message]:
        """What came, in order."""
        out: list[Message] = []
        for _, _, content in self.batches:
            batches = MemoryRecords(content)
            while (batch := batches.next_batch()) is not None:
                out += [Message(each.key, each.value, tuple(each.headers), each.timestamp) for each in batch]
        return out


def run(scenario: Callable[[Outbox, Network], Awaitable[None]], **settings: Any) -> None:
    """Run it with an outbox that was never connected; ``settings`` may break the settings' own bounds."""

    async def live() -> None:
        chosen = Settings(topic_prefix=PREFIX).model_copy(update={"batch_bytes": BATCH} | settings)
        outbox, network = Outbox(chosen, None), Network()
        assert isinstance(outbox._producer, AIOKafkaProducer)
        outbox._producer.send_batch = network.send_batch  # type: ignore[method-assign]  # what is behind it is no broker
        try:
            await within_deadline(scenario(outbox, network))
        finally:
            await outbox._producer.stop()

    asyncio.run(live())


def test_what_is_handed_over_goes_out_as_it_is_and_in_order_in_batches_no_larger_than_the_setting() -> None:
    sizes = [0, 1, 900, 1_500, 1_900, BATCH - 1_024 - 8, 3, 2_000, BATCH - 1_024 - 8, *[700] * 30, 0]
    given = [Message(b"%08d" % at, bytes(size), (), at * 1_000) for at, size in enumerate(sizes)]
    given += [
        Message(b"gone", None, (), 7),
        Message(None, b"{}", (), 7),
        Message(None, None, (("a", b"1"), ("a", None), ("ä", b"")), 0),
    ]

    async def scenario(outbox: Outbox, network: Network) -> None:
        await outbox.send("state-changelog", 3, iter(given))
        assert network.messages() == given
        assert {(topic, partition) for topic, partition, _ in network.batches} == {("state-changelog", 3)}
        assert max(len(content) for _, _, content in network.batches) <= BATCH
        assert len(network.batches) < len(given) / 2

    run(scenario)


def test_where_there_is_nothing_to_hand_over_no_batch_is_sent_and_no_delivery_awaited() -> None:
    async def scenario(outbox: Outbox, network: Network) -> None:
        await outbox.send("placements", 0, [])
        assert await outbox.delivered() == {}
        assert network.batches == []

    run(scenario)


@pytest.mark.parametrize(
    ("topic", "most"),
    [
        ("placements", BATCH - 1_024),
        ("dead-letters", BATCH - 1_024),  # of another prefix: not ours
        (f"{PREFIX}dead-letters", LETTER_BYTES_MAX),
        (f"{PREFIX}late-events", LETTER_BYTES_MAX),
        (f"{PREFIX}clicks", BATCH_BYTES - 512),
        (f"{PREFIX}ad-impressions", BATCH_BYTES - 512),
    ],
)
def test_a_message_is_as_large_as_its_topic_takes_and_of_a_larger_one_is_said_what_helps(topic: str, most: int) -> None:
    async def scenario(outbox: Outbox, network: Network) -> None:
        fits = Message(b"k", bytes(most - 1), (), 7)
        around = Message(b"k", b"small", (), 7)
        await outbox.send(topic, 0, [around, fits, around])
        assert network.messages() == [around, fits, around]
        with pytest.raises(DeliveryError, match=re.escape(f"a record of {most + 1:,} bytes for {topic} is larger")):
            await outbox.send(topic, 0, [Message(b"k", bytes(most), (), 7)])
        assert len(network.messages()) == 3

    run(scenario)


def test_deliveries_are_awaited_all_and_once_and_tell_where_the_last_batch_of_each_partition_begins() -> None:
    async def scenario(outbox: Outbox, network: Network) -> None:
        large = [Message(b"k", bytes(2_500), (), 7)] * 2
        await outbox.send("placements", 0, large)
        await outbox.send("decisions", 0, large[:1])
        await outbox.send("decisions", 1, large[:1])
        waiting = asyncio.ensure_future(outbox.delivered())
        for number, offset in ((3, 9), (1, 41), (2, 5)):
            network.deliver(number, offset)
            await turns()
            assert not waiting.done()
        network.deliver(0, 40)
        assert await waiting == {("placements", 0): 41, ("decisions", 0): 5, ("decisions", 1): 9}
        assert await outbox.delivered() == {}

    run(scenario)


def test_a_delivery_that_fails_is_told_once_all_others_have_ended_and_does_not_come_back() -> None:
    async def scenario(outbox: Outbox, network: Network) -> None:
        for partition in range(3):
            await outbox.send("placements", partition, [Message(b"k", b"v", (), 7)])
        waiting = asyncio.ensure_future(outbox.delivered())
        network.answers[1].set_exception(KafkaTimeoutError("of the second"))
        network.answers[2].set_exception(KafkaTimeoutError("of the third"))
        await turns()
        assert not waiting.done()
        network.deliver(0, 1)
        with pytest.raises(KafkaTimeoutError, match="of the second"):
            await waiting
        assert await outbox.delivered() == {}

    run(scenario)


def test_of_a_batch_that_a_broker_finds_too_large_is_said_which_topic_and_which_settings_it_is_about() -> None:
    async def scenario(outbox: Outbox, network: Network) -> None:
        await outbox.send("placements", 0, [Message(b"k", b"v", (), 7)])
        await outbox.send("decisions", 0, [Message(b"k", b"v", (), 7)])
        network.deliver(0, 1)
        network.answers[1].set_exception(MessageSizeTooLargeError())
        with pytest.raises(MessageSizeTooLargeError, match=r"decisions takes no batch .* 4,096 bytes .*BATCH_BYTES"):
            await outbox.delivered()

    run(scenario)


@pytest.mark.parametrize("said", [IllegalOperation("not in a transaction"), KafkaTimeoutError("no room")])
def test_where_the_producer_takes_no_more_what_is_raised_is_why_the_deliveries_before_it_failed(
    said: Exception,
) -> None:
    async def scenario(outbox: Outbox, network: Network) -> None:
        await outbox.send("placements", 0, [Message(b"k", b"v", (), 7)])
        network.answers[0].set_exception(ProducerFenced())
        network.refuses = said
        with pytest.raises(ProducerFenced):
            await outbox.send("placements", 0, [Message(b"k", b"v", (), 7)])
        with pytest.raises(type(said)):  # nothing is known but this
            await outbox.send("placements", 0, [Message(b"k", b"v", (), 7)])

    run(scenario)


def test_without_transactions_none_is_begun_given_up_or_committed() -> None:
    async def scenario(outbox: Outbox, _: Network) -> None:
        assert not outbox.transactional
        await outbox.begin()  # aiokafka refuses all three: it was told no id
        await outbox.abort()
        await outbox.commit()

    run(scenario)


def test_owners_of_one_lane_have_one_transactional_id_and_those_of_others_have_others() -> None:
    one = Settings(topic_prefix="a-", group="g")
    assert transactional_id(one, 3) == transactional_id(one.model_copy(update={"instance_id": "w"}), 3)
    others = [transactional_id(one.model_copy(update=of), 3) for of in ({"topic_prefix": "b-"}, {"group": "h"})]
    assert len({transactional_id(one, 3), transactional_id(one, 4), *others}) == 4
    assert transactional_id(Settings(guarantee="at_least_once"), 3) is None
