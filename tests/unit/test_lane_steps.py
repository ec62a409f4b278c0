"""A lane's steps without a broker: what a slice takes, how long it may take, and what is told when."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from scoring.events import Source
from scoring.units import DAY_MS
from streams.clock import tick_ms
from streams.lanes.lane import Lane
from streams.step import Effects, Step
from tests.builders import START_MS, click, impression, record
from tests.unit.lanes import (
    CHANGELOG_OFFSET,
    DEADLINE_MS,
    Group,
    Outbox,
    queue_one,
    shared_of,
    step,
    taken_over,
    turns,
    within_deadline,
)


def test_a_record_dated_in_the_future_moves_its_lanes_time_no_further_than_the_tolerance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.lanes.lane.wall_ms", lambda: START_MS)
    lane = taken_over(shared_of(tmp_path, Group(), time_tolerance_ms=5_000), Outbox())
    lane.queues.put(Source.IMPRESSION, [record(impression(time_ms=START_MS + DAY_MS))])
    lane.queues.sources[Source.CLICK].caught_up = True

    assert asyncio.run(lane.step())
    assert lane.state.watermarks_ms[Source.IMPRESSION] == START_MS + 5_000


async def test_a_slice_takes_the_records_of_the_settings_and_leaves_the_rest(tmp_path: Path) -> None:
    lane = taken_over(shared_of(tmp_path, Group(), slice_records=2), Outbox())
    for number in range(5):
        queue_one(lane, number)
    assert [len(lane.queues) for _ in range(3) if await lane.step()] == [3, 1, 0]


async def test_a_slice_whose_deliveries_get_no_answer_is_given_up_at_its_deadline_and_not_committed(
    tmp_path: Path,
) -> None:
    lane = taken_over(shared_of(tmp_path, Group(), slice_deadline_ms=0), Outbox())
    lane._outbox.answers.clear()
    with pytest.raises(TimeoutError):
        await within_deadline(step(lane))
    assert "commit" not in lane._outbox.did


async def test_a_lane_left_in_mid_slice_is_given_up_at_its_deadline_with_its_producer_closed(tmp_path: Path) -> None:
    lane = taken_over(shared_of(tmp_path, Group(), slice_deadline_ms=DEADLINE_MS), Outbox())
    lane._outbox.answers.clear()
    stepping = asyncio.create_task(step(lane))
    await within_deadline(lane._outbox.begun.wait())
    await within_deadline(lane.close(deadline_ms=0))
    stepping.cancel()
    assert "commit" not in lane._outbox.did
    assert lane._outbox.did[-1] == "stop"
    assert lane.held is None


def test_without_transactions_the_lane_row_goes_once_all_that_it_speaks_for_is_delivered(tmp_path: Path) -> None:
    lane = taken_over(shared_of(tmp_path, Group()), Outbox(transactional=False))
    asyncio.run(step(lane))
    assert "placements" in lane._outbox.did
    assert lane._outbox.did[-5:] == ["state-changelog", "delivered", "lane row", "delivered", "commit"]


def test_in_a_transaction_the_lane_row_shares_the_rows_batch(tmp_path: Path) -> None:
    lane = taken_over(shared_of(tmp_path, Group()), Outbox())
    asyncio.run(step(lane))
    assert lane._outbox.did.count("lane row") == 1
    assert "state-changelog" not in lane._outbox.did
    assert lane._outbox.did[-2:] == ["delivered", "commit"]


def test_a_snapshot_between_two_slices_holds_up_to_the_batch_of_the_last_which_is_read_again(tmp_path: Path) -> None:
    shared = shared_of(tmp_path, Group())
    asyncio.run(step(taken_over(shared, Outbox())))
    loaded = shared.snapshots.load(0, 0, end=CHANGELOG_OFFSET)
    assert (loaded.offset, len(loaded.store)) == (CHANGELOG_OFFSET, 1)


async def test_the_groups_offsets_are_those_of_what_is_committed_and_are_written_no_sooner(tmp_path: Path) -> None:
    """Lag tools read them: one that is ahead of a commit that fails would hide records that nobody has taken."""
    did: list[str] = []

    class Slow(Outbox):
        async def commit(self) -> None:
            await turns()
            await super().commit()

    group = Group(did)
    lane = taken_over(shared_of(tmp_path, group), Slow(did))
    group.assigned = set(lane.inputs)
    assert await step(lane)
    await lane.close(DEADLINE_MS)
    assert [each for each in did if each in ("commit", "write offsets")] == ["commit", "write offsets"]


async def test_slices_are_computed_one_after_the_other_and_never_on_the_loop_that_sends_heartbeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once would see half of what the other makes of catalogue and pool; on the loop, a member would be lost."""
    threads, at_once, most, compute = set[int](), 0, list[int](), Step.run

    def run(*given: Any) -> Effects:
        nonlocal at_once
        at_once += 1
        threads.add(threading.get_ident())
        effects = compute(*given)
        most.append(at_once)
        at_once -= 1
        return effects

    def run_alone() -> None:
        threads.add(threading.get_ident())

    monkeypatch.setattr(Step, "run", run)
    shared = shared_of(tmp_path, Group())
    lanes = [taken_over(shared, Outbox(), number) for number in range(4)]
    await asyncio.gather(*(step(lane) for lane in lanes), *(shared.compute.run(run_alone) for _ in range(4)))
    assert most == [1] * 4
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_lane_holds_and_waits_and_saves_as_the_settings_say(tmp_path: Path) -> None:
    clicked = record(click(time_ms=START_MS))

    def lane_of(**settings: int) -> Lane:
        lane = taken_over(shared_of(tmp_path, Group(), **settings), Outbox())
        lane.queues.put(Source.CLICK, [clicked])
        for queue in lane.queues.sources:
            queue.caught_up, queue.empty_since_ms = True, tick_ms()
        return lane

    assert not lane_of(queue_bytes=1).queues.has_room(Source.CLICK)
    assert lane_of(queue_bytes=DEADLINE_MS).queues.has_room(Source.CLICK)
    waits, goes_on = (lane_of(wait_other_topic_ms=wait_ms) for wait_ms in (DEADLINE_MS, 0))
    assert asyncio.run(waits.step()) is None
    assert asyncio.run(goes_on.step()) is not None
    assert [lane_of(snapshot_every_ms=every_ms)._saving.is_due for every_ms in (DEADLINE_MS, 0)] == [False, True]
