import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from deploy.brokers import Broker
from streams import topic_admin
from streams.client import PlacementView, ViewError
from streams.wire import Placement, encode_json
from tests.cancelling import cancelled_after
from tests.integration.lanes import DEADLINE_S, recreate

pytestmark = pytest.mark.integration

NOW_MS = 1_760_000_000_000
PARTITIONS = 2


def placement(user: str, name: str) -> Placement:
    return Placement(
        placement_id=name,
        user_id=user,
        time_ms=NOW_MS,
        valid_until_ms=NOW_MS + 1_000,
        arm="engine",
        model="m",
        slots=(),
    )


class Topic:
    """A placements topic of one test's own."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.bootstrap, self.prefix = bootstrap, prefix
        topic_admin.create(bootstrap, PARTITIONS, prefix=prefix)

    def producer(self, **options: Any) -> AIOKafkaProducer:
        return AIOKafkaProducer(bootstrap_servers=self.bootstrap, **options)

    async def send(self, producer: AIOKafkaProducer, *placements: Placement) -> None:
        for each in placements:
            await self.raw(producer, each.user_id.encode(), encode_json(each))

    async def raw(self, producer: AIOKafkaProducer, key: bytes, value: bytes | None) -> None:
        await producer.send_and_wait(f"{self.prefix}placements", value, key=key)

    def view(self, **options: Any) -> PlacementView:
        return PlacementView(self.bootstrap, topic_prefix=self.prefix, **options)


@pytest.fixture(params=["kafka", "embedded"])
def topic(request: pytest.FixtureRequest, topic_prefix: str) -> Topic:
    """On either broker."""
    return Topic(request.getfixturevalue(request.param).bootstrap, topic_prefix)


@pytest.fixture
def transactional_topic(kafka: Broker, topic_prefix: str) -> Topic:
    if not kafka.transactions:
        pytest.skip("needs a broker with transactions: Apache Kafka, by Java 17 and Maven")
    return Topic(kafka.bootstrap, topic_prefix)


class Inbox:
    """Placements called back, awaited one by one."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Placement] = asyncio.Queue()

    def put(self, each: Placement) -> None:
        self._queue.put_nowait(each)

    async def next(self) -> str:
        return (await asyncio.wait_for(self._queue.get(), DEADLINE_S)).placement_id

    def empty(self) -> bool:
        return self._queue.empty()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(2 * DEADLINE_S):
            await scenario()

    asyncio.run(within())


def test_what_was_published_before_is_there_on_entering_and_what_follows_arrives(topic: Topic) -> None:
    async def scenario() -> None:
        inbox = Inbox()
        async with topic.producer() as producer:
            await topic.send(producer, placement("a", "p1"), placement("b", "p2"), placement("a", "p3"))
            async with topic.view(on_placement=inbox.put) as view:
                assert view.ready
                assert view.get("a", NOW_MS) == placement("a", "p3")
                assert view.get("b", NOW_MS) == placement("b", "p2")
                assert {await inbox.next() for _ in range(3)} == {"p1", "p2", "p3"}
                await topic.send(producer, placement("c", "p4"))
                assert await inbox.next() == "p4"
                assert view.get("c", NOW_MS) == placement("c", "p4")
                assert view.get("c") is None  # expired long ago by this machine's clock

    run(scenario)


def test_an_empty_topic_is_ready_at_once(topic: Topic) -> None:
    async def scenario() -> None:
        async with topic.view() as view:
            assert view.ready
            assert len(view) == 0

    run(scenario)


def test_repeats_tombstones_and_rubbish_are_told_apart(topic: Topic) -> None:
    async def scenario() -> None:
        inbox = Inbox()
        async with topic.producer() as producer, topic.view(on_placement=inbox.put) as view:
            await topic.send(producer, placement("u", "p1"), placement("u", "p1"))
            await topic.raw(producer, b"u", b"\x00 rubbish")
            await topic.raw(producer, b"u", None)
            await topic.send(producer, placement("u", "p2"))
            assert [await inbox.next(), await inbox.next()] == ["p1", "p2"]
            assert view.get("u", NOW_MS) == placement("u", "p2")
            counts = view.counts
            assert (counts.repeats, counts.malformed, counts.tombstones) == (1, 1, 1)

    run(scenario)


def test_memory_is_bounded_by_users(topic: Topic) -> None:
    async def scenario() -> None:
        async with topic.producer() as producer:
            for number in range(50):
                await topic.send(producer, placement(f"u{number}", f"p{number}"))
            async with topic.view(users_max=7) as view:
                assert len(view) == 7
                assert view.counts.evicted == 43

    run(scenario)


def test_an_error_in_the_callback_ends_the_view_and_is_told(topic: Topic) -> None:
    def refuse(each: Placement) -> None:
        raise RuntimeError(f"no use for {each.placement_id}")

    async def scenario() -> None:
        async with topic.producer() as producer:
            view = await topic.view(on_placement=refuse).__aenter__()
            await topic.send(producer, placement("u", "p1"))
            with pytest.raises(ViewError, match="no use for p1"):
                await view.until_stopped()
            with pytest.raises(ViewError, match="no use for p1"):
                view.get("u")
            with pytest.raises(ViewError, match="no use for p1"):
                await view.__aexit__(None, None, None)

    run(scenario)


def test_a_topic_that_is_not_there_is_named_and_not_created(topic: Topic) -> None:
    async def scenario() -> None:
        for _ in range(2):
            with pytest.raises(ViewError, match="salience topics create"):
                async with PlacementView(topic.bootstrap, topic_prefix=f"{topic.prefix}no-"):
                    pass

    run(scenario)


def test_a_topic_that_is_made_anew_ends_the_view_and_is_told(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.followed.LOOK_S", 0.5)

    async def scenario() -> None:
        async with topic.producer() as producer:
            await topic.send(producer, placement("u", "p1"))
        view = await topic.view().__aenter__()
        try:
            assert view.get("u", NOW_MS) == placement("u", "p1")
            await asyncio.to_thread(recreate, topic.bootstrap, topic.prefix, "placements", PARTITIONS)
            with pytest.raises(ViewError, match="deleted or made anew"):
                await asyncio.wait_for(view.until_stopped(), DEADLINE_S)
            with pytest.raises(ViewError, match="deleted or made anew"):
                view.get("u", NOW_MS)
        finally:
            with pytest.raises(ViewError):
                await view.__aexit__(None, None, None)

    run(scenario)


def test_a_look_at_the_topic_that_gets_no_answer_does_not_hold_up_placements(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bootstrap broker may be away, which the look asks, while those that lead the partitions answer."""
    monkeypatch.setattr("streams.followed.LOOK_S", 0.0)

    async def scenario() -> None:
        inbox, looks, silent = Inbox(), asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def no_answer(*_asked: object) -> None:
            loop.call_soon_threadsafe(looks.set)
            silent.wait()
            raise topic_admin.TopicsError("no answer")

        async with topic.producer() as producer, topic.view(on_placement=inbox.put) as view:
            monkeypatch.setattr(topic_admin, "found", no_answer)
            try:
                await looks.wait()
                await topic.send(producer, placement("u", "p1"))
                assert await inbox.next() == "p1"
                assert view.get("u", NOW_MS) == placement("u", "p1")
            finally:
                silent.set()

    run(scenario)


def test_a_view_that_has_been_left_is_not_entered_again(topic: Topic) -> None:
    async def scenario() -> None:
        view = topic.view()
        async with view:
            assert view.ready
        with pytest.raises(ViewError, match="open a new one"):
            await view.__aenter__()
        async with topic.view() as another:
            assert another.ready

    run(scenario)


def test_aborted_transactions_are_not_seen_and_do_not_keep_the_view_from_being_ready(
    transactional_topic: Topic,
) -> None:
    topic = transactional_topic

    async def scenario() -> None:
        inbox = Inbox()
        async with topic.producer(transactional_id=f"{topic.prefix}t") as producer:
            async with producer.transaction():
                await topic.send(producer, placement("u", "committed"))
            await producer.begin_transaction()
            await topic.send(producer, placement("u", "aborted"), placement("v", "aborted too"))
            await producer.abort_transaction()
            async with topic.view(on_placement=inbox.put) as view:  # the topic ends in markers
                assert view.get("u", NOW_MS) == placement("u", "committed")
                assert view.get("v", NOW_MS) is None
                assert await inbox.next() == "committed"
                async with producer.transaction():
                    await topic.send(producer, placement("v", "later"))
                assert await inbox.next() == "later"
            async with topic.view(isolation="read_uncommitted") as view:
                assert view.counts.placements == 4

    run(scenario)


def test_an_open_transaction_is_not_seen_and_does_not_keep_the_view_from_being_ready(
    transactional_topic: Topic,
) -> None:
    topic = transactional_topic

    async def scenario() -> None:
        async with topic.producer(transactional_id=f"{topic.prefix}t") as producer:
            await producer.begin_transaction()
            await topic.send(producer, placement("u", "open"))
            async with topic.view() as view:
                assert view.get("u", NOW_MS) is None
            await producer.abort_transaction()

    run(scenario)


def test_whoever_is_cancelled_while_a_view_closes_is_cancelled_at_whatever_step_that_comes(topic: Topic) -> None:
    async def closing_view() -> asyncio.Task[None]:
        view = await topic.view().__aenter__()
        return asyncio.create_task(view.__aexit__(None, None, None))

    async def scenario() -> list[bool | None]:
        return [await cancelled_after(steps, await closing_view()) for steps in range(1, 15)]

    ended = asyncio.run(scenario())
    assert False not in ended
    assert ended.count(True) > 3


def test_whoever_is_cancelled_while_a_view_opens_leaves_no_task_behind(
    topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> set[asyncio.Task[object]]:
        view, reading = topic.view(), asyncio.Event()

        async def never_at_the_end(_ends: object) -> None:
            reading.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(view, "_read", never_at_the_end)
        opening = asyncio.create_task(view.__aenter__())
        await reading.wait()
        assert await cancelled_after(0, opening)
        return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert asyncio.run(scenario()) == set()
