"""Topics read from the outside, where a broker takes its time."""

import asyncio
import threading
from collections.abc import Collection

import pytest

from streams import reading
from streams.reading import MissingTopicError, read_topic

LONG_S = 5


def test_the_event_loop_goes_on_while_a_broker_is_asked_for_a_topics_partitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker reads `models` on the loop that sends its heartbeats."""

    async def read() -> None:
        loop, came_by = asyncio.get_running_loop(), threading.Event()

        def answers_late(_: str, __: Collection[str]) -> dict[str, int]:
            loop.call_soon_threadsafe(came_by.set)
            assert came_by.wait(10), "the event loop stood still"
            return {}

        monkeypatch.setattr(reading, "partition_counts", answers_late)
        with pytest.raises(MissingTopicError, match="has no topic 'models'"):
            await anext(aiter(read_topic("nobody:9092", "models")))

    asyncio.run(read())


def test_a_reader_that_is_interrupted_does_not_wait_for_a_broker_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer, answered = threading.Event(), threading.Event()

    async def read() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def silent(*_: object) -> dict[str, int]:
            loop.call_soon_threadsafe(task.cancel)  # as Ctrl-C does
            answer.wait(LONG_S)
            answered.set()
            return {"clicks": 1}

        monkeypatch.setattr("streams.reading.partition_counts", silent)
        async for _ in read_topic("127.0.0.1:1", "clicks"):
            pass

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(read())
    assert not answered.is_set()
    answer.set()
    assert answered.wait(LONG_S)
