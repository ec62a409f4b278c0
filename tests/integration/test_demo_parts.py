"""Parts of the demo on a broker of their own: there its topics have no prefix."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from deploy.brokers import BrokerError
from deploy.brokers.embedded import EmbeddedBroker
from streams import topic_admin, topics
from streams.client import ViewError
from streams.demo.outbox import Outbox
from streams.demo.report import Snapshot
from streams.demo.run import LANES, Demo
from streams.demo.shopping import Plan
from streams.demo.tally import Calibrations, Since, dead_letters
from streams.demo.worker import WorkerFailedError
from streams.settings import Settings
from streams.wire import Outcome, encode_json

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """An embedded one with the topics and nothing on them."""
    with EmbeddedBroker(tmp_path / "broker") as broker:
        topic_admin.create(broker.bootstrap, LANES)
        yield broker


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    """Its address."""
    return broker.bootstrap


async def put(bootstrap: str, topic: str, partition: int, values: list[bytes]) -> None:
    """One batch."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        batch = producer.create_batch()
        for value in values:
            assert batch.append(key=b"k", value=value, timestamp=None)
        await (await producer.send_batch(batch, topic, partition=partition))


def test_every_dead_letter_of_a_batch_is_counted_once_and_none_of_before(bootstrap: str) -> None:
    letters = Since(Settings(bootstrap=bootstrap), topics.DEAD_LETTERS)

    async def news() -> int:
        return sum([dead_letters(records) async for records in letters.news()])

    def come() -> int:
        return asyncio.run(news())

    asyncio.run(put(bootstrap, topics.DEAD_LETTERS, 0, [b"bad"] * 20))
    asyncio.run(letters.begin())
    assert come() == 0
    asyncio.run(put(bootstrap, topics.DEAD_LETTERS, 0, [b"bad"] * 50))
    assert come() == 50
    asyncio.run(put(bootstrap, topics.DEAD_LETTERS, LANES - 1, [b"bad"] * 7))
    assert come() == 7
    assert come() == 0


def outcome(ends_ms: int, *, clicked: bool, predicted: float, arm: str = "engine") -> bytes:
    """Of an impression whose window has ended; attention alone predicts twice as much."""
    return encode_json(
        Outcome(
            event="e", ad_id="a", shown_ms=ends_ms, known_ms=ends_ms, ends_ms=ends_ms, clicked=clicked, arm=arm,
            model="m", predicted=predicted, attention=2 * predicted,
        )
    )  # fmt: skip


async def calibrations(outcomes: Since, into: Calibrations) -> tuple[float | None, float | None]:
    async for records in outcomes.news():
        into.take(records)
    return into.told()


def test_calibration_is_clicks_for_every_predicted_click_of_the_engines_later_half(bootstrap: str) -> None:
    outcomes, into = Since(Settings(bootstrap=bootstrap), topics.OUTCOMES), Calibrations()
    asyncio.run(outcomes.begin())
    assert asyncio.run(calibrations(outcomes, into)) == (None, None)
    learning = [outcome(1_000 * at, clicked=True, predicted=0.01) for at in range(4)]
    learnt = [outcome(1_000 * at, clicked=at % 2 == 0, predicted=0.375) for at in range(4, 8)]
    chance = [outcome(8_000, clicked=True, predicted=0.9, arm="control")]
    asyncio.run(put(bootstrap, topics.OUTCOMES, 1, learning))
    assert asyncio.run(calibrations(outcomes, into)) == (100.0, 50.0)
    asyncio.run(put(bootstrap, topics.OUTCOMES, 1, learnt + chance))
    assert asyncio.run(calibrations(outcomes, into)) == (1.333, 0.667)


def test_news_that_were_cut_short_are_told_once_all_the_same(bootstrap: str) -> None:
    letters = Since(Settings(bootstrap=bootstrap), topics.DEAD_LETTERS)
    asyncio.run(letters.begin())
    for lane in range(LANES):
        asyncio.run(put(bootstrap, topics.DEAD_LETTERS, lane, [b"bad"] * (lane + 1)))

    async def told() -> list[int]:
        async with aclosing(letters.news()) as news:
            first = dead_letters(await anext(news))
        return [first, sum([dead_letters(records) async for records in letters.news()])]

    first, others = asyncio.run(told())
    assert first in range(1, LANES + 1)
    assert first + others == sum(range(1, LANES + 1))


@pytest.mark.parametrize(
    ("whose", "number", "error", "said"),
    [
        ("worker", signal.SIGSTOP, WorkerFailedError, r"no placement came for 2 s. The end of its log:\n.*\S"),
        ("worker", signal.SIGKILL, WorkerFailedError, "The worker ended with status -9"),
        ("broker", signal.SIGKILL, BrokerError, "The embedded broker ended with code -9"),
    ],
)
def test_a_demo_ends_with_the_reason_where_its_worker_or_broker_answers_no_more(
    whose: str, number: int, error: type[Exception], said: str,
    broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    killed = []

    def show(snapshot: Snapshot) -> None:
        if snapshot.report.placements and not killed:
            assert demo._worker._child is not None
            killed.append(demo._worker._child.pid if whose == "worker" else broker.pids[0])
            os.kill(killed[0], number)
            if number == signal.SIGSTOP:  # until then placements may be late: the machine may be busy
                monkeypatch.setattr("streams.demo.run.SILENT_MAX_S", 2.0)

    demo = Demo(Plan(None, 200, 1), broker, tmp_path, show)
    with pytest.raises(error, match=said):
        asyncio.run(demo.run())
    assert demo._worker._child is None


def test_whoever_sends_to_a_broker_that_is_gone_ends_with_the_reason_and_does_not_wait_for_deliveries(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.leaving.FAREWELL_S", 0.5)

    async def scenario() -> None:
        async with asyncio.timeout(None) as ending, Outbox(Settings(bootstrap=broker.bootstrap)) as outbox:
            await outbox.send(topics.CLICKS, "user-1", None)
            await outbox.flush()
            os.kill(broker.pids[0], signal.SIGKILL)
            ending.reschedule(asyncio.get_running_loop().time() + 20)  # a delivery would be waited for twice as long
            await outbox.send(topics.CLICKS, "user-1", None)
            raise ViewError("the view stopped reading")

    with pytest.raises(ViewError, match="stopped reading"):
        asyncio.run(scenario())
