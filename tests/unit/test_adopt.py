"""What a lane keeps, and where it goes on, when its topics are adopted."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Self

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndTimestamp

from scoring.rows import RowStore, decode_rows
from streams.identity import TopicIdentity
from streams.lanes.adopt import _adopt_lane
from streams.lanes.recovery import Recovered
from streams.message import Message
from streams.settings import Settings
from streams.wire import LANE_KEY, LaneRow
from tests.builders import known_topics
from tests.unit.lanes import Outbox

IDENTITY = TopicIdentity(known_topics(lanes=4))
READ_MS = (1_700_000_000_000, 1_700_000_001_000)
"""Up to when the lane had read them."""
BEGINS = (30, 7)
"""Where the topics begin that are there."""


NEWER = {"ad-impressions": 480, "clicks": None}
"""The first record later than what the lane had read; of clicks none is there."""


class Consumer:
    """A reader that knows where topics begin, and from where on they are newer than a moment."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict(zip(partitions, BEGINS, strict=True))

    async def offsets_for_times(self, since: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        assert list(since.values()) == [READ_MS[0] + 1, READ_MS[1] + 1]
        return {tp: None if NEWER[tp.topic] is None else OffsetAndTimestamp(NEWER[tp.topic], since[tp]) for tp in since}


Written = dict[bytes | None, bytes | None]


def adopting(
    monkeypatch: pytest.MonkeyPatch, former: tuple[str, str] = IDENTITY.inputs, ends: tuple[int, int] = (1_000, 1_000)
) -> tuple[Any, Written]:
    """What becomes of a lane that stands at 500 and 100 of ``former`` topics, and what it writes of itself and ann."""
    store, written = RowStore(), Written()
    at = store.row_of(b"ann")
    store.rows["offset"][at] = (499, 99)
    row = LaneRow(
        version=1, from_offsets=(0, 0), next_offsets=(500, 100), records=0, order=b"", watermarks_ms=READ_MS,
        stream_ms=0, topic_ids=former, lanes=4, totals={},
    )  # fmt: skip

    class Writing(Outbox):
        async def send(self, topic: str, partition: int, messages: Iterable[Message]) -> None:
            told = list(messages)
            written.update((message.key, message.value) for message in told)
            await super().send(topic, partition, told)

    async def recover(*_: object) -> Recovered:
        return Recovered(store, row, 1)

    async def log_ends(_: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict(zip(partitions, ends, strict=True))

    monkeypatch.setattr("streams.lanes.adopt.recover", recover)
    monkeypatch.setattr("streams.lanes.adopt.log_ends", log_ends)
    monkeypatch.setattr("streams.lanes.adopt.AIOKafkaConsumer", lambda **_: Consumer())
    monkeypatch.setattr("streams.lanes.adopt.Outbox", lambda *_: Writing())
    return asyncio.run(_adopt_lane(Settings(), IDENTITY, 0)), written


def stands(found: Any, written: Written) -> tuple[tuple[int, int], list[int]]:
    """Where the lane goes on, and what it counts as applied of ann's."""
    kept = msgspec.msgpack.decode(written[LANE_KEY] or b"", type=LaneRow)
    assert (kept.next_offsets, kept.topic_ids) == (found.next_offsets, IDENTITY.inputs)
    (applied,) = decode_rows([written[b"ann"] or b""])["offset"].tolist()
    return found.next_offsets, applied


@pytest.mark.parametrize(
    ("former", "next_offsets", "applied"),
    [
        (("another", IDENTITY.inputs[1]), (30, 100), [-1, 99]),
        ((IDENTITY.inputs[0], "another"), (500, 7), [499, -1]),
        (("another", "another"), (30, 7), [-1, -1]),
    ],
)
def test_of_two_topics_the_one_that_was_made_anew_is_read_from_its_beginning_and_the_other_goes_on(
    former: tuple[str, str], next_offsets: tuple[int, int], applied: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stands(*adopting(monkeypatch, former)) == (next_offsets, applied)


@pytest.mark.parametrize(
    ("former", "ends", "next_offsets", "applied"),
    [
        (IDENTITY.inputs, (1_000, 90), (500, 90), [499, -1]),  # what is left was applied
        (IDENTITY.inputs, (499, 100), (480, 100), [-1, 99]),
        (IDENTITY.inputs, (490, 8), (480, 8), [-1, -1]),
        (("another", IDENTITY.inputs[1]), (1_000, 90), (30, 90), [-1, -1]),
    ],
)
def test_of_a_topic_that_lost_its_end_what_is_newer_than_the_lane_had_read_is_read(
    former: tuple[str, str],
    ends: tuple[int, int],
    next_offsets: tuple[int, int],
    applied: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert stands(*adopting(monkeypatch, former, ends)) == (next_offsets, applied)


def test_a_lane_that_stands_at_the_end_of_its_topics_has_nothing_to_adopt(monkeypatch: pytest.MonkeyPatch) -> None:
    assert adopting(monkeypatch, ends=(500, 100)) == (None, {})
