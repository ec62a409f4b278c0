"""Which lanes an assignment makes, and how a process that must not go on ends."""

import asyncio
import re
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError, NodeNotReadyError, UnknownError

from streams.fatal import CANNOT_START, EXIT_STATUS, GRACE_S, describe, status_of
from streams.feeds.topic import TopicFeed
from streams.intake import Intake, SilenceError, group_consumer, lanes_of, member_name
from streams.lanes.lane import FenceError
from streams.leaving import leave
from streams.settings import Settings
from tests.cancelling import cancelled_after
from tests.unit.lanes import TOPICS, assigned


def test_a_lane_is_one_partition_of_both_topics() -> None:
    assert lanes_of(assigned({1, 3}, {3, 1}), TOPICS, 64) == {1, 3}
    assert lanes_of([], TOPICS, 64) == set()


def test_an_assignment_that_parts_clicks_from_impressions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\] of ad-impressions but \[1\] of clicks"):
        lanes_of(assigned({0, 1}, {1}), TOPICS, 64)
    with pytest.raises(ValueError, match=r"\[1\] of ad-impressions but \[0, 1\] of clicks"):
        lanes_of(assigned({1}, {0, 1}), TOPICS, 64)


def test_more_lanes_than_a_worker_may_have_are_refused_with_the_setting() -> None:
    with pytest.raises(ValueError, match="SALIENCE_LANES_MAX"):
        lanes_of(assigned(set(range(5)), set(range(5))), TOPICS, 4)
    assert len(lanes_of(assigned(set(range(4)), set(range(4))), TOPICS, 4)) == 4


def test_a_fatal_error_ends_a_process_that_hangs_while_it_stops() -> None:
    hangs = (
        "import threading; from streams.fatal import arm_exit; arm_exit(ValueError('lost')); threading.Event().wait()"
    )
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", hangs], capture_output=True, text=True, timeout=GRACE_S + 30, check=False
    )
    assert ended.returncode == EXIT_STATUS
    assert time.monotonic() - started >= GRACE_S  # it was given its time
    assert "ValueError: lost" in ended.stdout + ended.stderr


def test_workers_on_one_host_are_told_apart_in_their_group_by_legal_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "shop host_1.example")
    monkeypatch.setattr("os.getpid", lambda: 4711)

    async def told(settings: Settings) -> str:
        consumer = group_consumer(settings)
        await consumer.stop()
        return str(consumer._client._client_id)

    assert asyncio.run(told(Settings())) == "salience-shop-host_1.example-4711"
    assert asyncio.run(told(Settings(instance_id="worker/ä-2"))) == "worker---2"
    assert member_name(Settings(instance_id="x" * 300 + "-2")) == "x" * 247 + "-2"


@pytest.mark.parametrize(
    ("scoring", "setting"), [(True, "SALIENCE_SLICE_RECORDS"), (False, "SALIENCE_SLICE_RECORDS_UNSCORED")]
)
async def test_a_slice_that_brokers_do_not_answer_ends_the_worker_with_where_and_how_long_and_what_it_may_be(
    scoring: bool, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        number, running = 3, True

        async def step(self) -> None:
            raise TimeoutError

    said: list[str] = []
    monkeypatch.setattr("streams.intake.arm_exit", lambda error: said.append(describe(error)))
    settings = Settings(bootstrap="broker:9092", scoring=scoring)
    intake = Intake(settings, lambda _: pytest.fail("not started"), AsyncMock())
    intake._lanes[3] = Silent()  # type: ignore[assignment]  # stands in for a lane
    monkeypatch.setattr(intake, "crash", AsyncMock())
    with pytest.raises(SilenceError):
        await intake.step(3)
    (reason,) = said
    assert reason == (
        "SilenceError: no answer from broker:9092 to a slice of lane 3 within 12 s (SALIENCE_SLICE_DEADLINE_MS): they "
        "are away, fewer copies are in sync than min.insync.replicas, or a quota throttles this worker (raise it, or "
        f"lower {setting})"
    )


def test_a_broker_that_never_had_transactions_keeps_a_worker_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, str]] = []
    monkeypatch.setattr("streams.intake.arm_exit", lambda error: said.append((status_of(error), str(error))))

    def failing(cause: KafkaError) -> SimpleNamespace:
        error = FenceError("no transactions")
        error.__cause__ = cause
        return SimpleNamespace(number=0, take_over=AsyncMock(side_effect=error))

    async def ends(*lanes: SimpleNamespace) -> None:
        intake = Intake(Settings(), lambda _: pytest.fail("not started"), AsyncMock())
        monkeypatch.setattr(intake, "crash", AsyncMock())
        for lane in lanes:
            await intake._guarded(intake._take_over(lane, set()))  # type: ignore[arg-type]  # stands in for a lane

    asyncio.run(ends(failing(UnknownError())))
    asyncio.run(ends(failing(NodeNotReadyError())))
    asyncio.run(ends(SimpleNamespace(number=1, take_over=AsyncMock()), failing(UnknownError())))
    assert said == [(status, "no transactions") for status in (CANNOT_START, EXIT_STATUS, EXIT_STATUS)]


async def test_a_lanes_work_that_ends_cancelled_by_nobody_ends_the_worker_and_by_a_rebalance_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr("streams.intake.arm_exit", lambda error: said.append(str(error)))

    async def by_nobody() -> None:
        raise asyncio.CancelledError

    intake = Intake(Settings(), lambda _: pytest.fail("not started"), AsyncMock())
    monkeypatch.setattr(intake, "crash", AsyncMock())
    task = asyncio.create_task(intake._guarded(asyncio.Event().wait()))
    assert await cancelled_after(1, task)
    assert said == []
    await intake._guarded(by_nobody())
    assert said == ["a lane's work was cancelled by nobody"]


async def test_what_ends_once_the_worker_has_been_told_to_stop_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[BaseException] = []
    monkeypatch.setattr("streams.intake.arm_exit", said.append)
    intake = Intake(Settings(), lambda _: pytest.fail("it joins"), AsyncMock(), stops=lambda: True)
    monkeypatch.setattr(intake, "crash", AsyncMock())
    await intake.on_started()
    intake.ended("the pump")
    intake.fail(ConsumerStoppedError())
    assert said == []


@pytest.mark.parametrize("told", [True, False])
def test_a_feed_that_is_closed_while_it_reads_its_topic_ends_in_order_where_the_worker_stops(
    told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tp = TopicPartition("control", 0)
    consumer = AsyncMock(assign=Mock())
    consumer.position.return_value = 0
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", lambda **_: consumer)
    monkeypatch.setattr("streams.feeds.topic.partitions_of", lambda *_: [tp])
    monkeypatch.setattr("streams.feeds.topic.log_ends", AsyncMock(return_value={tp: 1}))

    async def scenario() -> bool:
        feed = TopicFeed(Settings(), Mock(), pytest.fail, "control", len, 1)

        async def closed(*_: object, **__: object) -> None:
            if told:
                await feed.stop()
            raise ConsumerStoppedError

        consumer.getmany = closed
        await feed.on_start()
        return feed.caught_up

    if told:
        assert not asyncio.run(scenario())
        return
    with pytest.raises(ConsumerStoppedError):
        asyncio.run(scenario())


def test_an_error_without_a_text_is_told_with_what_was_being_done() -> None:
    with pytest.raises(ConnectionError) as raised:
        asyncio.run(leave("a producer", AsyncMock(side_effect=ConnectionError)()))

    assert re.fullmatch(r"ConnectionError in leave \(leaving.py, line \d+\)", describe(raised.value))
    assert describe(ValueError()) == "ValueError"
