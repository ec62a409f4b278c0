"""Receipts found by their ids on a real topic: of any place in it, and of none."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from deploy.brokers import Broker
from streams.asyncapi_examples import DECISION
from streams.receipt_search import find_receipt
from streams.wire import encode_json
from tests.integration.lanes import Shop
from tests.unit.test_receipt_search import log_of, name_of

pytestmark = pytest.mark.integration

LANE = 1


@pytest.mark.parametrize("of", ["kafka", "embedded"])
def test_a_receipt_is_found_wherever_it_is_on_its_lane_and_no_other_is(
    request: pytest.FixtureRequest, of: str, topic_prefix: str, tmp_path: Path
) -> None:
    broker: Broker = request.getfixturevalue(of)
    Shop.open(broker.bootstrap, topic_prefix, tmp_path, partitions=2)
    log = log_of(150, seed=1, lane=LANE)
    names = list(map(name_of, log))

    async def fill() -> None:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            for name, record in zip(names, log, strict=True):
                offsets = tuple(msgspec.json.decode(record.value or b"")["offsets"])
                receipt = msgspec.structs.replace(DECISION, placement_id=name, offsets=offsets)
                await producer.send(topic_prefix + "decisions", encode_json(receipt), b"u", LANE)

    async def found(name: str) -> str | None:
        receipt = await find_receipt(broker.bootstrap, topic_prefix, name)
        return None if receipt is None else receipt.placement_id

    async def scenario() -> None:
        assert await found(names[0]) is None  # the topic is empty
        await fill()
        for name in (names[0], names[1], *names[:: len(names) // 5], names[-1]):
            assert await found(name) == name
        rest = names[7].removeprefix(f"{LANE}")
        for unknown in ("", "p", f"0{rest}", f"2{rest}", f"{LANE}{rest[:-1]}x", f"{LANE}-fffff-1-{0:016x}"):
            assert await found(unknown) is None

    asyncio.run(scenario())
