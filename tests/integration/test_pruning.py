"""Old requests of erasure taken back by a process that is killed on the way: no newer request is lost."""

import asyncio
import multiprocessing
import os
from pathlib import Path

import pytest

from deploy.brokers import Broker
from streams.control import Control, publish, read_control, writing
from streams.control_wire import Erasure
from streams.privacy import pruning
from streams.settings import Settings
from streams.wire import encode_json
from tests.builders import START_MS
from tests.integration.lanes import DEADLINE_S, GUARANTEES, Shop, play, shop_on

pytestmark = pytest.mark.integration

KILLED = 9
OLD, NEW = Erasure(user_id="anna", time_ms=START_MS), Erasure(user_id="anna", time_ms=START_MS + 100)
OTHER = Erasure(user_id="bert", time_ms=START_MS)
BEFORE_MS = START_MS + 50
ABORTED_WITHIN_S = 30.0
"""Brokers look every 10 s for transactions that are past their time; aiokafka's own is 60 s."""


def overtaken(settings: Settings) -> None:
    """Prune; anna asks anew between reading and writing, and at the next look the process is gone."""

    async def read(settings: Settings, *, committed: bool = True) -> Control:
        if not committed:
            os._exit(KILLED)
        control = await read_control(settings)
        await publish(settings, [NEW])
        return control

    pruning.read_control = read
    asyncio.run(pruning.prune(settings, BEFORE_MS))


async def asked_long_ago(shop: Shop) -> None:
    """A request is as old as its record."""
    await shop.publish([("control", each.key, encode_json(each), each.time_ms) for each in (OLD, OTHER)])


async def standing(shop: Shop) -> dict[str, int]:
    return {user: one.time_ms for user, one in (await read_control(shop.settings)).all(Erasure).items()}


async def bury(shop: Shop) -> None:
    """End what the dead process has begun, as the next one does: read-committed readers would wait for it."""
    transactional_id = shop.settings.topic_prefix + pruning.PRUNE_ID
    async with writing(shop.settings, transactional_id if shop.settings.guarantee == "exactly_once" else None):
        pass


@GUARANTEES
def test_who_asks_anew_is_forgotten_by_workers_that_start_after_an_older_request_was_half_taken_back(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await asked_long_ago(shop)
        process = multiprocessing.get_context("spawn").Process(target=overtaken, args=(shop.settings,))
        process.start()
        await asyncio.to_thread(process.join, DEADLINE_S)
        assert process.exitcode == KILLED

        await bury(shop)
        undone = {"bert": OTHER.time_ms} if guarantee == "exactly_once" else {}
        assert await standing(shop) == {"anna": NEW.time_ms} | undone
        assert await pruning.prune(shop.settings, BEFORE_MS) == len(undone)
        assert await standing(shop) == {"anna": NEW.time_ms}
        assert dict(await shop.read("control"))[NEW.key] is not None  # what compaction leaves
        assert await pruning.prune(shop.settings, BEFORE_MS) == 0

    play(scenario)


def test_who_is_killed_within_its_transaction_lets_the_control_topics_readers_wait_no_longer_than_a_dead_lane_does(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(
            kafka, topic_prefix, tmp_path, "exactly_once", slice_deadline_ms=900, transaction_timeout_ms=1_000
        )
        await asked_long_ago(shop)
        process = multiprocessing.get_context("spawn").Process(target=overtaken, args=(shop.settings,))
        process.start()
        await asyncio.to_thread(process.join, DEADLINE_S)
        assert process.exitcode == KILLED
        async with asyncio.timeout(ABORTED_WITHIN_S):
            assert await standing(shop) == {"anna": NEW.time_ms, "bert": OTHER.time_ms}

    play(scenario)
