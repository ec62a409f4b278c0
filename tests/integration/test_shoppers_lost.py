"""Shoppers whom the broker, or a worker that was killed, leaves waiting."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from deploy.brokers import Broker
from deploy.brokers.embedded import EmbeddedBroker
from streams import topic_admin, topics
from streams.demo.outbox import Outbox
from streams.demo.report import UNHEARD_SAID_S, Snapshot
from streams.demo.shopping import NoPlacementError, Plan, Shopping, SilentBrokerError
from streams.demo.tally import Calibrations, Since
from streams.settings import Settings
from tests.integration.lanes import DEADLINE_S
from tests.integration.test_demo_parts import calibrations, outcome, put
from tests.integration.workers import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

PLAN = Plan(None, 50, 1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """An embedded one with the topics and no worker."""
    with EmbeddedBroker(tmp_path / "broker") as broker:
        topic_admin.create(broker.bootstrap, 1)
        yield broker


def test_what_an_open_transaction_holds_back_is_not_waited_for_and_told_to_be_missing(
    kafka: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kafka.transactions:
        pytest.skip("the broker has no transactions")
    monkeypatch.setattr("streams.demo.shopping.REPORT_WITHIN_S", DEADLINE_S)
    settings = Settings(bootstrap=kafka.bootstrap, topic_prefix=topic_prefix)
    past = count(step=settings.transaction_timeout_ms)
    topic_admin.create(kafka.bootstrap, 1, topic_prefix)
    name = topic_prefix + topics.OUTCOMES
    clicked = [outcome(ends_ms, clicked=True, predicted=0.5) for ends_ms in (1_000, 1_001)]

    async def scenario() -> None:
        shopping = Shopping(PLAN, settings, lambda _: None, broker="")
        outcomes, into = Since(settings, topics.OUTCOMES), Calibrations()
        for each in (outcomes, shopping._outcomes, shopping._letters):
            await each.begin()
        killed = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic_prefix + "killed")
        await killed.start()
        await killed.begin_transaction()
        await killed.send_and_wait(name, outcome(999, clicked=True, predicted=0.1))
        await put(kafka.bootstrap, name, 0, clicked)
        assert await calibrations(outcomes, into) == (None, None)
        with monkeypatch.context() as patched:
            patched.setattr("streams.demo.tally.time", SimpleNamespace(monotonic=past.__next__))
            report = await shopping.report()
        assert (report.calibration, report.unread) == (None, (name,))
        await killed.abort_transaction()
        await killed.stop()
        report = await shopping.report()
        assert (report.calibration, report.unread) == (2.0, ())
        assert await calibrations(outcomes, into) == (2.0, 1.0)

    asyncio.run(scenario())


def test_a_report_waits_for_a_transaction_as_long_as_a_healthy_one_may_stay_open(
    kafka: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look takes 6 s of the test's own clock: the second one is before the timeout's 15."""
    if not kafka.transactions:
        pytest.skip("the broker has no transactions")
    settings = Settings(bootstrap=kafka.bootstrap, topic_prefix=topic_prefix)
    topic_admin.create(kafka.bootstrap, 1, topic_prefix)
    clock, looks, holds_back = count(step=6), count(1), Since._holds_back
    twice_held, committed = asyncio.Event(), asyncio.Event()

    async def looked(since: Since, there: Mapping[TopicPartition, int]) -> bool:
        held = await holds_back(since, there)
        if held and next(looks) == 2:
            twice_held.set()
            await committed.wait()
        return held

    monkeypatch.setattr("streams.demo.tally.time", SimpleNamespace(monotonic=clock.__next__))
    monkeypatch.setattr(Since, "_holds_back", looked)

    async def scenario() -> None:
        outcomes = Since(settings, topics.OUTCOMES)
        await outcomes.begin()
        worker = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic_prefix + "slow")
        async with worker, asyncio.timeout(DEADLINE_S):
            await worker.begin_transaction()
            await worker.send_and_wait(topic_prefix + topics.OUTCOMES, outcome(1_000, clicked=True, predicted=0.5))
            settling = asyncio.create_task(outcomes.settles())
            seen = asyncio.create_task(twice_held.wait())
            await asyncio.wait([settling, seen], return_when=asyncio.FIRST_COMPLETED)
            seen.cancel()
            await worker.commit_transaction()
            committed.set()
            assert await settling

    asyncio.run(scenario())


def test_the_outcomes_of_a_long_run_are_counted_as_they_come_and_told_though_its_end_has_no_time(
    kafka: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(_: Since) -> bool:
        raise TimeoutError

    monkeypatch.setattr("streams.demo.shopping.COUNT_EVERY_S", 0.0)
    monkeypatch.setattr(Since, "settles", late)
    settings = Settings(bootstrap=kafka.bootstrap, topic_prefix=topic_prefix)
    topic_admin.create(kafka.bootstrap, 1, topic_prefix)

    async def scenario() -> None:
        shopping = Shopping(PLAN, settings, lambda _: None, broker="")
        for each in (shopping._outcomes, shopping._letters):
            await each.begin()
        clicked = [outcome(ends_ms, clicked=True, predicted=0.5) for ends_ms in (1_000, 1_001)]
        await put(kafka.bootstrap, topic_prefix + topics.OUTCOMES, 0, clicked)
        counting = asyncio.create_task(shopping._count())

        async def told() -> bool:
            return (await shopping.report()).calibration == 2.0

        await until(told, "the report tells of both")
        counting.cancel()
        await asyncio.wait([counting])

    asyncio.run(scenario())


def kill(broker: EmbeddedBroker) -> None:
    """It has ended when this returns."""
    assert broker._child is not None
    broker._child.kill()
    broker._child.wait(DEADLINE_S)


def wait_for_workers(broker: EmbeddedBroker, show: Callable[[Snapshot], None]) -> Shopping:
    return Shopping(PLAN, Settings(bootstrap=broker.bootstrap), show, broker="embedded")


def test_a_broker_that_is_lost_before_the_first_placement_is_named_and_not_a_missing_worker(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.leaving.FAREWELL_S", 0.5)
    unheard: list[float] = []

    def show(snapshot: Snapshot) -> None:
        if not unheard and snapshot.unheard_s:
            return  # it has been asked, and its answer may be here already
        if not unheard:
            kill(broker)
        if snapshot.unheard_s > UNHEARD_SAID_S:
            monkeypatch.setattr("streams.demo.shopping.SILENT_MAX_S", 0.0)  # told, so its time is over
        unheard.append(snapshot.unheard_s)

    with pytest.raises(SilentBrokerError, match=f"{broker.bootstrap} has not answered for \\d+ s"):
        asyncio.run(wait_for_workers(broker, show).run())
    assert unheard[-1] > UNHEARD_SAID_S
    assert unheard == sorted(unheard)


def test_shoppers_go_on_when_their_broker_comes_back(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []

    def show(snapshot: Snapshot) -> None:
        lost = snapshot.unheard_s > UNHEARD_SAID_S
        if not told:
            os.kill(broker.pids[0], signal.SIGSTOP)
        elif lost and not told[-1]:
            os.kill(broker.pids[0], signal.SIGCONT)
        elif told[-1] and not lost:
            monkeypatch.setattr("streams.demo.shopping.READY_WITHIN_S", 0.0)
            shopping._stopped.set()
        told.append(lost)

    shopping = wait_for_workers(broker, show)
    asyncio.run(shopping.run())
    assert told[-1] is False
    assert True in told


def test_what_is_not_delivered_at_the_end_is_waited_for_no_longer_than_the_bound(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.demo.shopping.FLUSH_WITHIN_S", 0.5)
    monkeypatch.setattr("streams.leaving.FAREWELL_S", 0.5)

    async def scenario() -> None:
        shopping = wait_for_workers(broker, lambda _: None)
        async with Outbox(Settings(bootstrap=broker.bootstrap)) as outbox:
            await outbox.send(topics.CLICKS, "user-1", None)
            await outbox.flush()
            kill(broker)
            await outbox.send(topics.CLICKS, "user-1", None)
            await shopping._flush(outbox)

    with pytest.raises(SilentBrokerError):
        asyncio.run(scenario())


def test_where_the_broker_answers_and_no_worker_does_the_worker_is_asked_after(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.demo.shopping.READY_WITHIN_S", 0.5)
    with pytest.raises(NoPlacementError):
        asyncio.run(wait_for_workers(broker, lambda _: None).run())
