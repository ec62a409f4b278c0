"""Receipts found by their ids on a real topic: of any place in it, and of none."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from deploy.brokers import Broker
from streams.reading import CutLogError, log_ends
from streams.receipt_search import find_receipt
from tests.integration.lanes import DEADLINE_S, shop_on
from tests.unit.test_receipt_search import EVENTS, log_of, name_of

pytestmark = pytest.mark.integration

LANE = 1


class Receipts:
    """A lane's receipts on a topic of two lanes."""

    def __init__(self, broker: Broker, prefix: str, home: Path, guarantee: str = "at_least_once") -> None:
        shop_on(broker, prefix, home, guarantee, partitions=2)
        self._bootstrap, self._prefix = broker.bootstrap, prefix
        self._log = log_of(150, seed=1, lane=LANE)
        self.names = list(map(name_of, self._log))

    async def fill(self) -> None:
        """Write all of them."""
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap) as producer:
            for at in range(len(self.names)):
                await self.send(producer, at)

    async def send(self, producer: AIOKafkaProducer, at: int) -> None:
        """Write one."""
        record, topic = self._log[at], self._prefix + "decisions"
        await producer.send(topic, record.value, record.key, LANE, headers=list(record.headers))

    async def find(self, name: str, most: int | None = None) -> str | None:
        """The id of the receipt that is found."""
        receipt = await find_receipt(self._bootstrap, self._prefix, name, most=most)
        return None if receipt is None else receipt.placement_id

    async def progress(self, name: str) -> list[tuple[int, int]]:
        """How much has been looked through, of how much, as is told while a receipt is sought."""
        told: list[tuple[int, int]] = []
        await find_receipt(self._bootstrap, self._prefix, name, progress=lambda *of: told.append(of))
        return told


UNKNOWN = f"{LANE}-fffff-1-{0:016x}"


@pytest.mark.parametrize("of", ["kafka", "embedded"])
def test_a_receipt_is_found_wherever_it_is_on_its_lane_and_no_other_is(
    request: pytest.FixtureRequest, of: str, topic_prefix: str, tmp_path: Path
) -> None:
    receipts = Receipts(request.getfixturevalue(of), topic_prefix, tmp_path)
    names = receipts.names

    async def scenario() -> None:
        assert await receipts.find(names[0]) is None  # the topic is empty
        await receipts.fill()
        for name in (names[0], names[1], *names[:: len(names) // 5], names[-1]):
            assert await receipts.find(name) == await receipts.find(name, most=EVENTS) == name
        rest = names[7].removeprefix(f"{LANE}")
        for unknown in ("", "p", f"0{rest}", f"2{rest}", f"{LANE}{rest[:-1]}x", UNKNOWN):
            assert await receipts.find(unknown) is None

    asyncio.run(scenario())


def test_a_slice_that_is_being_written_holds_up_no_search(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    receipts = Receipts(kafka, topic_prefix, tmp_path, "exactly_once")

    async def scenario() -> None:
        await receipts.fill()
        open_for_ms = int(1_000 * 2 * DEADLINE_S)
        async with AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap, transactional_id=topic_prefix, transaction_timeout_ms=open_for_ms
        ) as producer:
            await producer.begin_transaction()
            await receipts.send(producer, 3)
            await producer.flush()
            async with asyncio.timeout(DEADLINE_S):
                assert await receipts.find(receipts.names[-1]) == receipts.names[-1]
                assert await receipts.find(UNKNOWN) is None
            await producer.abort_transaction()

    asyncio.run(scenario())


def test_who_waits_for_a_receipt_that_is_not_there_sees_how_far_the_search_is(
    embedded: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    receipts = Receipts(embedded, topic_prefix, tmp_path)

    async def scenario() -> None:
        await receipts.fill()
        told = await receipts.progress(UNKNOWN)
        there = len(receipts.names)
        assert len(told) > 2
        assert told == sorted(told)
        assert {of for _, of in told} == {there}
        assert told[-1] == (there, there)

    asyncio.run(scenario())


def test_a_search_of_a_log_that_has_become_shorter_meanwhile_says_so(
    embedded: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = Receipts(embedded, topic_prefix, tmp_path)

    async def before(*of: Any, **how: Any) -> dict[TopicPartition, int]:
        return {tp: 2 * end for tp, end in (await log_ends(*of, **how)).items()}

    monkeypatch.setattr("streams.receipt_search.log_ends", before)
    monkeypatch.setattr("streams.reading.CUT_S", 0.0)

    async def scenario() -> None:
        await receipts.fill()
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(CutLogError, match="has become shorter"):
                await receipts.find(UNKNOWN)

    asyncio.run(scenario())
