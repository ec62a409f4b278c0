"""What the intake asks of the group's member, what it does with the answer, and what it knows of the log's end."""

import asyncio
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from scoring.events import Source
from streams.fetching import ANSWER_S, BYTES_MAX, _read_apart
from streams.intake import Intake
from streams.lanes.lane import Lane
from streams.settings import Settings
from tests.builders import START_MS, click, impression, record
from tests.unit.lanes import Group, Outbox, assigned, intake_of, queue_one, shared_of, stepping, taken_over

SHOWN = record(impression(time_ms=START_MS))
CLICKED = record(click(time_ms=START_MS))


@pytest.fixture
def group() -> Group:
    return Group()


@pytest.fixture
def lane(group: Group, tmp_path: Path) -> Lane:
    """A running lane that has room for one record of each topic."""
    lane = taken_over(shared_of(tmp_path, group, queue_records=1), Outbox())
    group.assigned = set(lane.inputs)
    return lane


def fetching(lane: Lane, *others: Lane) -> Intake:
    """An intake that has fetched once."""
    intake = intake_of(lane._shared, lane, *others)
    asyncio.run(intake._fetch())
    return intake


def test_topics_with_room_are_asked_and_what_comes_is_queued(lane: Lane, group: Group) -> None:
    impressions, clicks = lane.inputs
    group.fetch = lambda: {impressions: [SHOWN], clicks: [CLICKED]}
    fetching(lane)
    assert group.asked == [(impressions, clicks)]
    assert [queue.records for queue in lane.queues.sources] == [[SHOWN], [CLICKED]]


@pytest.mark.parametrize("full", list(Source))
def test_a_topic_of_a_lane_that_has_no_room_for_it_is_not_asked(full: Source, lane: Lane, group: Group) -> None:
    lane.queues.put(full, [SHOWN])
    fetching(lane)
    assert group.asked == [(lane.inputs[1 - full],)]


def test_where_no_lane_has_room_or_runs_nothing_is_asked_since_that_would_mean_everything(
    lane: Lane, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.intake.POLL_MS", 0)
    for source in Source:
        lane.queues.put(source, [SHOWN])
    fetching(lane, Lane(1, lane._shared))
    assert group.asked == []


async def test_records_that_come_for_a_lane_revoked_meanwhile_are_dropped(lane: Lane, group: Group) -> None:
    intake = intake_of(lane._shared, lane)

    def revoked() -> dict[TopicPartition, list[object]]:
        intake.on_partitions_revoked(assigned({0}, {0}))
        return {lane.inputs[0]: [SHOWN]}

    group.fetch = revoked
    await intake._fetch()
    assert len(lane.queues) == 0
    await asyncio.gather(*intake._closing)


@pytest.mark.parametrize(
    ("stable_end", "caught_up"),
    [(101, False), (100, True), (99, True), (None, False), (-1, False)],
    ids=["more to read", "at the end", "told before", "never told", "not told to this reader"],
)
def test_a_topic_is_caught_up_where_the_position_has_reached_the_end_that_was_told(
    stable_end: int | None, caught_up: bool, lane: Lane, group: Group
) -> None:
    group.positions = dict.fromkeys(lane.inputs, 100)
    group.stable_ends = dict.fromkeys(lane.inputs, stable_end)
    fetching(lane)
    assert [(queue.position, queue.caught_up) for queue in lane.queues.sources] == [(100, caught_up)] * 2


@pytest.mark.parametrize("revoked", ["before its position is asked", "while it is asked"])
def test_of_a_topic_that_was_revoked_meanwhile_nothing_is_known(
    revoked: str, lane: Lane, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue in lane.queues.sources:
        queue.caught_up = True
    if revoked == "while it is asked":
        monkeypatch.setattr(group, "position", AsyncMock(side_effect=IllegalStateError))
    else:
        group.assigned = set()
    fetching(lane)
    assert [queue.caught_up for queue in lane.queues.sources] == [False, False]


async def test_a_lane_is_offered_again_once_its_step_is_done(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: list[int] = []

    async def offer(number: int) -> None:
        tokens.append(number)

    intake = intake_of(lane._shared, lane)
    monkeypatch.setattr(intake, "_offer", offer)
    lane.queues.put(Source.IMPRESSION, [SHOWN])
    offered = []
    for _ in range(2):
        for _ in range(2):
            await intake._offer_if_ready(lane)
        offered.append(len(tokens))
        await intake.step(lane.number)  # nothing yet: the clicks are not caught up
    assert offered == [1, 2]


async def test_a_lane_in_step_is_not_offered_however_much_is_queued_until_that_step_is_done(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every agent would come to wait for this one lane, and the others would stand still."""
    offer = AsyncMock()
    intake = intake_of(lane._shared, lane)
    monkeypatch.setattr(intake, "_offer", offer)
    queue_one(lane)
    await intake._offer_if_ready(lane)
    step = await stepping(intake, lane, lane._outbox)
    queue_one(lane, 1)
    await intake._offer_if_ready(lane)
    offered = [offer.await_count]
    lane._outbox.answers.set()
    await step
    assert [*offered, offer.await_count] == [1, 2]


def test_over_the_slowest_link_a_second_connections_answer_comes_before_a_worker_would_end_as_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its poll loop waits for that answer; ended, it would meet the same record again, for ever."""
    consumer = Mock()
    consumer.return_value.poll.return_value = None
    monkeypatch.setattr("confluent_kafka.Consumer", consumer)
    _read_apart("127.0.0.1:9092", {TopicPartition("clicks", 0): 0}, 1, committed=True)
    options = consumer.call_args.args[0]
    slowest = BYTES_MAX / ANSWER_S  # bytes a second
    assert 1000 * options["fetch.max.bytes"] / slowest < Settings().silence_ms
