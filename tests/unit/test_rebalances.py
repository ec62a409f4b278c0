"""What the group's news does to lanes: marked by the listener, carried out by their own tasks, never lost."""

import asyncio
from pathlib import Path

import pytest

from streams.lanes.lane import Lane
from tests.unit.lanes import (
    Group,
    Outbox,
    assigned,
    intake_of,
    shared_of,
    stepping,
    taken_over,
    turns,
)

BOTH = assigned({0}, {0})


class Unanswered(Group):
    """A group whose coordinator does not answer."""

    async def committed(self, *_: object) -> int:
        await super().committed()
        return await asyncio.get_running_loop().create_future()


def test_an_assignment_that_cannot_be_worked_ends_the_worker_though_aiokafka_would_swallow_it(
    reasons: list[str], tmp_path: Path
) -> None:
    async def scenario() -> None:
        intake_of(shared_of(tmp_path, Group())).on_partitions_assigned(assigned({0, 1}, {0}))

    asyncio.run(scenario())
    assert len(reasons) == 1
    assert reasons[0].startswith("ValueError: assigned partitions [0, 1] of ad-impressions but [0] of clicks")


def test_a_failure_to_let_lanes_go_ends_the_worker_too(
    reasons: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lane, "close", lambda *_: 1 / 0)

    async def scenario() -> None:
        shared = shared_of(tmp_path, Group())
        intake_of(shared, taken_over(shared, Outbox())).on_partitions_revoked(BOTH)

    asyncio.run(scenario())
    assert reasons == ["ZeroDivisionError: division by zero"]


def test_a_lane_revoked_while_it_is_taken_over_is_taken_over_no_further(reasons: list[str], tmp_path: Path) -> None:
    group = Unanswered()

    async def scenario() -> None:
        intake = intake_of(shared_of(tmp_path, group))
        intake.on_partitions_assigned(BOTH)
        taking = intake._taking[0]
        await turns()
        assert group.did == ["look up"]
        intake.on_partitions_revoked(BOTH)
        await asyncio.gather(*intake._closing)
        assert taking.cancelled()
        assert intake.lanes == []

    asyncio.run(scenario())
    assert reasons == []


def test_a_lane_that_comes_back_is_taken_over_once_its_slice_under_way_has_ended(
    reasons: list[str], tmp_path: Path
) -> None:
    did: list[str] = []
    group, outbox = Unanswered(did), Outbox(did)

    async def scenario() -> None:
        shared = shared_of(tmp_path, group)
        lane = taken_over(shared, outbox)
        intake = intake_of(shared, lane)
        step = await stepping(intake, lane, outbox)
        intake.on_partitions_revoked(BOTH)
        closing = list(intake._closing)
        intake.on_partitions_assigned(BOTH)
        await turns()
        assert "look up" not in did  # the first thing that a lane asks when it is taken over
        outbox.answers.set()
        await asyncio.gather(step, *closing)
        await turns()
        intake.on_partitions_revoked(BOTH)
        await asyncio.gather(*intake._closing)

    asyncio.run(scenario())
    assert [each for each in did if each in ("commit", "stop", "look up")] == ["commit", "stop", "look up"]
    assert reasons == []
