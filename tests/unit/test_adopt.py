"""What a lane keeps, and where it goes on, when its topics are adopted."""

import asyncio
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndTimestamp

from scoring.rows import RowStore, decode_rows
from streams.identity import TopicIdentity
from streams.lag.board import GroupSeen
from streams.lag.poller import Poller
from streams.lanes.adopt import WorkersRunError, _adopt_lane, _check_nobody_runs
from streams.lanes.recovery import Recovered, RecoveryError
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

    def __init__(self, begins: tuple[int, int]) -> None:
        self.begins = begins

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict(zip(partitions, self.begins, strict=True))

    async def offsets_for_times(self, since: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        assert list(since.values()) == [READ_MS[0] + 1, READ_MS[1] + 1]
        return {tp: None if NEWER[tp.topic] is None else OffsetAndTimestamp(NEWER[tp.topic], since[tp]) for tp in since}


Written = dict[bytes | None, bytes | None]


def adopting(
    monkeypatch: pytest.MonkeyPatch,
    former: tuple[str, str] = IDENTITY.inputs,
    ends: tuple[int, int] = (1_000, 1_000),
    begins: tuple[int, int] = BEGINS,
    people: Sequence[bytes] = (b"ann",),
    did: list[str] | None = None,
    lanes: int = 4,
) -> tuple[Any, Written]:
    """What becomes of a lane that stands at 500 and 100 of ``former`` topics, and what it writes of itself and people.

    ``did``: what it asks of its producer. ``lanes``: how many there were when it ran; now there are four.
    """
    store, written = RowStore(), Written()
    for user in people:
        at = store.row_of(user)
        store.rows["offset"][at] = (499, 99)
    row = LaneRow(
        version=1, from_offsets=(0, 0), next_offsets=(500, 100), records=0, order=b"", watermarks_ms=READ_MS,
        stream_ms=0, topic_ids=former, lanes=lanes, totals={},
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
    monkeypatch.setattr("streams.lanes.adopt.groupless", lambda *_, **__: Consumer(begins))
    monkeypatch.setattr("streams.lanes.adopt.Outbox", lambda *_: Writing(did))
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


@pytest.mark.parametrize("places", [{"ends": (500, 100)}, {"begins": (500, 100)}])
def test_a_lane_that_stands_where_its_topics_begin_or_end_has_nothing_to_adopt(
    places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert adopting(monkeypatch, **places) == (None, {})


def test_where_retention_has_deleted_what_was_not_read_a_lane_goes_on_behind_it_and_rows_keep_their_offsets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, written = adopting(monkeypatch, begins=(501, 7))
    assert (found.next_offsets, [*written]) == ((501, 100), [LANE_KEY])


def test_all_rows_are_committed_part_by_part_each_delivered_before_and_the_lane_row_after_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.lanes.adopt.ROWS_PER_TRANSACTION", 2)
    did: list[str] = []
    _, written = adopting(monkeypatch, ("another", "another"), people=[b"ann", b"bob", b"carl"], did=did)
    part = ["begin", "state-changelog", "delivered", "commit"]
    assert did == ["start", "begin", "abort", *part, *part, "begin", "lane row", "delivered", "commit", "stop"]
    rows = decode_rows(value for user, value in written.items() if user != LANE_KEY and value is not None)
    assert [*written] == [b"ann", b"bob", b"carl", LANE_KEY]
    assert rows["offset"].tolist() == [[-1, -1]] * 3


@pytest.mark.parametrize("former", [("another", "another"), IDENTITY.inputs], ids=["made anew", "more partitions"])
def test_lanes_do_not_adopt_topics_of_other_partitions_in_which_no_worker_would_take_them_over(
    former: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    with pytest.raises(RecoveryError, match=r"was one of 2, now there are 4 partitions.*Begin a new set of topics"):
        adopting(monkeypatch, former, lanes=2, did=did)
    assert did == ["start", "begin", "abort", "stop"]


@pytest.mark.parametrize("state", ["stable", "preparing_rebalancing", "completing_rebalancing", "unknown"])
def test_lanes_are_adopted_from_under_no_group_that_has_or_may_have_members(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {"salience": GroupSeen(state, {}, {}, True)}
    monkeypatch.setattr(Poller, "poll", lambda _: SimpleNamespace(groups=groups))
    with pytest.raises(WorkersRunError, match="stop them first"):
        _check_nobody_runs(Settings(group="salience"))
