"""How a reader of a whole topic starts and is stopped meanwhile: never alive and deaf, never closed under its hands."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Never
from unittest.mock import AsyncMock

import pytest
from aiokafka import TopicPartition

from scoring.units import MINUTE_MS
from streams import topics
from streams.compute import Compute
from streams.feeds import topic
from streams.feeds.topic import TopicFeed
from streams.settings import Settings
from tests.unit.lanes import turns

LONG_S = 5


class Feed(TopicFeed):
    """Of `ads`; ``catch_up`` stands for the reading of all that is there."""

    def __init__(
        self,
        compute: Compute,
        catch_up: Callable[[], Coroutine[Any, Any, Any]] | None = None,
        fail: Callable[[BaseException], None] = pytest.fail,
    ) -> None:
        super().__init__(Settings(bootstrap="127.0.0.1:1"), compute, fail, "ads", len, 1)
        if catch_up is not None:
            self._catch_up = catch_up  # type: ignore[method-assign]  # the broker's part


@pytest.fixture
def compute() -> Iterator[Compute]:
    out = Compute()
    yield out
    out.stop()


def test_a_start_that_is_cancelled_though_nobody_stops_the_feed_fails(compute: Compute) -> None:
    async def cancelled() -> Never:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="the reading of ads ended before its end"):
        asyncio.run(Feed(compute, cancelled).on_start())


async def test_a_feed_that_is_stopped_closes_its_reader_once_its_start_has_ended(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []

    async def catch_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turns()  # as aiokafka's clients take to go
            did.append("start ended")

    async def closed(_: object) -> None:
        did.append("reader closed")

    monkeypatch.setattr(topic, "end_reading", closed)
    feed = Feed(compute, catch_up)
    monkeypatch.setattr(feed, "_consumer", object())
    starting = asyncio.create_task(feed.on_start())
    await turns()
    await feed.stop()
    await starting
    assert not feed.caught_up
    assert did == ["start ended", "reader closed"]


async def test_a_feed_that_is_stopped_does_not_wait_for_a_broker_that_does_not_answer(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, answered = threading.Event(), threading.Event()
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def silent(*_: object) -> dict[str, int]:
        loop.call_soon_threadsafe(asked.set)
        answer.wait(LONG_S)
        answered.set()
        return {"ads": 1}

    monkeypatch.setattr("streams.reading.partition_counts", silent)
    feed = Feed(compute)
    starting = asyncio.create_task(feed.on_start())
    await asked.wait()
    await feed.stop()
    await starting
    assert not answered.is_set()
    answer.set()
    assert answered.wait(LONG_S)


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_feed_whose_reading_is_cancelled_ends_the_worker_unless_it_was_told_to_stop(
    stopped: bool, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[BaseException] = []
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def caught_up() -> tuple[None, int]:
        return None, 0

    async def cancelled(_: object) -> Never:  # as a part of aiokafka's ends that it cancels itself
        reading.set()
        await go_on.wait()
        raise asyncio.CancelledError

    feed = Feed(compute, caught_up, failures.append)
    monkeypatch.setattr(feed, "_read", cancelled)
    await feed.on_start()
    await reading.wait()
    if stopped:
        feed._stopped.set()
    go_on.set()
    await turns()
    assert [str(error) for error in failures] == ([] if stopped else ["the reading of ads was cancelled by nobody"])


class Reader:
    """A reader of three ads, which gives one a read, and then no more."""

    def __init__(self, **_: object) -> None:
        self._at = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def seek_to_beginning(self, *_: object) -> None: ...

    def assign(self, _: object) -> None: ...

    async def position(self, _: object) -> int:
        return self._at

    async def getmany(self, *partitions: TopicPartition, **_: object) -> dict[TopicPartition, list[int]]:
        await asyncio.sleep(0)
        self._at = min(self._at + 1, 4)
        return {partitions[0]: [self._at]} if self._at < 4 else {}


async def test_a_feed_has_caught_up_once_it_has_taken_all_that_was_there_and_not_before(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is ready with half of its ads would place people by that half."""
    ads, taken = TopicPartition("ads", 0), list[tuple[object, bool]]()
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", Reader)
    monkeypatch.setattr(topic, "partitions_of", lambda *_: [ads])
    monkeypatch.setattr(topic, "log_ends", AsyncMock(return_value={ads: 3}))
    feed = Feed(compute)

    def take(records: Sequence[object]) -> int:
        taken.extend((each, feed.caught_up) for each in records)
        return 0

    feed.take = take
    await feed.on_start()
    assert taken == [(1, False), (2, False), (3, False)]
    assert feed.caught_up
    await feed.stop()


def test_reports_that_lanes_tell_over_and_over_are_compacted_within_minutes_so_that_whoever_starts_reads_few() -> None:
    configs = {each.name: each.settings(replication=1) for each in topics.TABLE}
    for name in (topics.CAMPAIGN_METRICS, topics.CLICK_LAYERS):
        assert int(configs[name]["segment.ms"]) <= 10 * MINUTE_MS
        assert float(configs[name]["min.cleanable.dirty.ratio"]) <= 0.2
