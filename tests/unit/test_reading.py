"""Topics read from the outside, where a broker takes its time."""

import asyncio
import threading
from collections.abc import Collection, Mapping

import pytest
from aiokafka import TopicPartition

from streams import reading
from streams.reading import CUT_S, SILENT_S, CutLogError, MissingTopicError, Patience, SilentLogError, read_topic

LONG_S = 5


async def test_the_event_loop_goes_on_while_a_broker_is_asked_for_a_topics_partitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker reads `models` on the loop that sends its heartbeats."""
    loop, came_by = asyncio.get_running_loop(), threading.Event()

    def answers_late(_: str, __: Collection[str]) -> dict[str, int]:
        loop.call_soon_threadsafe(came_by.set)
        assert came_by.wait(10), "the event loop stood still"
        return {}

    monkeypatch.setattr(reading, "partition_counts", answers_late)
    with pytest.raises(MissingTopicError, match="has no topic 'models'"):
        await anext(aiter(read_topic("nobody:9092", "models")))


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


class Answers:
    """A consumer at offset 3 of logs that end at 9, by the answers that a broker gave; ``now_s``: a clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.answered_ms: dict[TopicPartition, int] = {}
        self.ends = 9

    def patience(self, ends: Mapping[TopicPartition, int]) -> Patience:
        """Of who reads with it, by its clock."""
        patience = Patience(self, "here", ends)
        patience._clock = lambda: self.now_s
        return patience

    async def position(self, _: TopicPartition) -> int:
        return 3

    def highwater(self, _: TopicPartition) -> int:
        return self.ends

    def last_poll_timestamp(self, tp: TopicPartition) -> int | None:
        return self.answered_ms.get(tp)


ONE, TWO = TopicPartition("clicks", 0), TopicPartition("clicks", 1)


async def test_a_reader_waits_while_brokers_answer_and_not_where_none_does_about_one_of_its_partitions() -> None:
    consumer = Answers()
    patience = consumer.patience({ONE: 9, TWO: 9})

    async def bear(*answered: TopicPartition, came: bool = False) -> None:
        consumer.answered_ms |= {tp: consumer.answered_ms.get(tp, 0) - 1 for tp in answered}  # its clock goes back
        await patience.bear(came=came)

    await bear(ONE, TWO)
    for consumer.now_s in (SILENT_S - 1, 2 * SILENT_S - 2):  # as behind a transaction that is open
        await bear(ONE, TWO)
    consumer.now_s += 2 * SILENT_S
    await bear(came=True)  # who takes the records has been slow: nothing was asked of the other meanwhile
    consumer.now_s += SILENT_S - 1
    await bear(ONE)
    consumer.now_s += 1
    with pytest.raises(SilentLogError, match=f"for {SILENT_S:.0f} s about partition 1 of clicks, of which more"):
        await bear(ONE)


async def test_a_log_that_is_whole_again_in_time_is_read_on() -> None:
    consumer = Answers()
    patience = consumer.patience({ONE: 9})
    for consumer.ends, consumer.now_s in ((9, 1.0), (3, CUT_S), (9, CUT_S + 0.5), (3, 2 * CUT_S)):
        await patience.bear(came=False)
    consumer.now_s += CUT_S
    with pytest.raises(CutLogError, match="partition 0 of clicks has become shorter"):
        await patience.bear(came=False)
