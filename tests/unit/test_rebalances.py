"""What the group's news does to lanes: marked by the listener, carried out by their own tasks, never lost."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from aiokafka.errors import ProducerFenced

from streams.fatal import describe
from streams.lanes.lane import Lane, LaneLostError
from tests.unit.lanes import (
    Group,
    Outbox,
    Unanswered,
    assigned,
    intake_of,
    shared_of,
    stepping,
    taken_over,
    turns,
)

BOTH = assigned({0}, {0})


async def test_an_assignment_that_cannot_be_worked_ends_the_worker_though_aiokafka_would_swallow_it(
    reasons: list[str], tmp_path: Path
) -> None:
    intake_of(shared_of(tmp_path, Group())).on_partitions_assigned(assigned({0, 1}, {0}))
    assert len(reasons) == 1
    assert reasons[0].startswith("ValueError: assigned partitions [0, 1] of ad-impressions but [0] of clicks")


async def test_a_failure_to_let_lanes_go_ends_the_worker_too(
    reasons: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lane, "close", lambda *_: 1 / 0)
    shared = shared_of(tmp_path, Group())
    intake_of(shared, taken_over(shared, Outbox())).on_partitions_revoked(BOTH)
    assert reasons == ["ZeroDivisionError: division by zero"]


async def test_a_lane_revoked_while_it_is_taken_over_is_taken_over_no_further(
    reasons: list[str], tmp_path: Path
) -> None:
    group = Unanswered()
    intake = intake_of(shared_of(tmp_path, group))
    intake.on_partitions_assigned(BOTH)
    taking = intake._taking[0]
    await turns()
    assert group.did == ["look up"]
    intake.on_partitions_revoked(BOTH)
    await asyncio.gather(*intake._closing)
    assert taking.cancelled()
    assert intake.lanes == []
    assert reasons == []


async def test_a_lane_revoked_in_the_turn_in_which_it_was_assigned_is_not_taken_over_at_all(
    reasons: list[str], tmp_path: Path
) -> None:
    group = Unanswered()
    intake = intake_of(shared_of(tmp_path, group))
    intake.on_partitions_assigned(BOTH)
    taking = intake._taking[0]
    intake.on_partitions_revoked(BOTH)
    await asyncio.gather(*intake._closing)
    assert taking.cancelled()
    assert (group.did, intake.lanes) == ([], [])
    assert reasons == []  # and warnings are errors: of a coroutine that was never awaited, too


async def test_a_lane_that_comes_back_is_taken_over_once_its_slice_under_way_has_ended(
    reasons: list[str], tmp_path: Path
) -> None:
    did: list[str] = []
    group, outbox = Unanswered(did), Outbox(did)
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
    assert [each for each in did if each in ("commit", "stop", "look up")] == ["commit", "stop", "look up"]
    assert reasons == []


async def test_more_lanes_than_the_settings_allow_end_the_worker_that_is_given_them(
    reasons: list[str], tmp_path: Path
) -> None:
    intake_of(shared_of(tmp_path, Group(), lanes_max=1)).on_partitions_assigned(assigned({0, 1}, {0, 1}))
    assert reasons == ["ValueError: 2 lanes on one worker, at most 1; start more workers or raise SALIENCE_LANES_MAX"]


async def test_a_lane_that_was_not_there_when_the_worker_started_ends_it(reasons: list[str], tmp_path: Path) -> None:
    """Its topics have more partitions by now, and users have moved to them without their rows."""
    intake = intake_of(shared_of(tmp_path, Group()))
    intake.on_partitions_assigned(assigned({0, 4}, {0, 4}))
    assert intake.lanes == []
    (reason,) = reasons
    assert reason.startswith("RecoveryError: lanes [4] are assigned, there were 4 when this worker started")
    assert "salience topics create --prefix NEW-" in reason


async def test_a_rebalance_lasts_from_the_news_that_lanes_go_until_the_news_of_which_come(
    reasons: list[str], tmp_path: Path
) -> None:
    """Meanwhile the pump is held up by aiokafka, and the watchdog must not find the worker dead for that."""
    intake, joined = intake_of(shared_of(tmp_path, Unanswered())), list[bool]()
    for news in (intake.on_partitions_revoked, intake.on_partitions_assigned) * 2:
        news(BOTH)
        joined.append(intake.vitals({}).joined)
        await turns()
    await intake.on_stop()
    assert joined == [False, True, False, True]
    assert reasons == []


@pytest.mark.parametrize(
    ("name", "member", "ends"),
    [("w0", "", True), ("w0", "w0-7", False), (None, "", False)],
    ids=["whose name has another owner", "in a rebalance", "without a name, which may join again"],
)
async def test_a_worker_that_has_lost_its_name_ends_at_once_and_joins_no_more(
    name: str | None, member: str, ends: bool, reasons: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Aiokafka would join as soon as the listener returns, and put out whoever has the name now."""
    ended: list[str] = []
    monkeypatch.setattr("streams.intake.end_now", lambda error: ended.append(describe(error)))
    group = Group()
    monkeypatch.setattr(group, "_coordinator", SimpleNamespace(member_id=member), raising=False)
    intake = intake_of(shared_of(tmp_path, group, instance_id=name))
    intake.on_partitions_revoked([])  # before it joins for the first time nothing is lost
    assert ended == []
    intake.on_partitions_assigned([])
    intake.on_partitions_revoked([])
    assert [reason.split(":")[0] for reason in ended] == ["MembershipLostError"] * ends
    assert reasons == []


async def test_a_lane_that_another_worker_has_by_now_is_left_to_it_and_this_one_goes_on(
    reasons: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Lane, "take_over", AsyncMock(side_effect=LaneLostError("given to another")))
    intake = intake_of(shared_of(tmp_path, Group()))
    intake.on_partitions_assigned(BOTH)
    await asyncio.gather(*intake._taking.values())
    (lane,) = intake.lanes
    assert lane.stage == "lost"
    assert reasons == []


@pytest.mark.parametrize("revoked", [True, False])
async def test_a_slice_that_fails_ends_the_worker_unless_its_lane_was_revoked_meanwhile(
    revoked: bool, reasons: list[str], tmp_path: Path
) -> None:
    """The lane's next owner has fenced its producer, or its own was closed at its deadline: it redoes the slice."""

    class Fenced(Outbox):
        async def delivered(self) -> dict[tuple[str, int], int]:
            await super().delivered()
            raise ProducerFenced

    outbox = Fenced()
    shared = shared_of(tmp_path, Group())
    lane = taken_over(shared, outbox)
    intake = intake_of(shared, lane)
    step = await stepping(intake, lane, outbox)
    if revoked:
        intake.on_partitions_revoked(BOTH)
    outbox.answers.set()
    await asyncio.gather(step, *intake._closing, return_exceptions=True)
    assert [reason.split(":")[0].split(" ")[0] for reason in reasons] == ["ProducerFenced"] * (not revoked)
    assert "commit" not in outbox.did


async def test_a_worker_that_is_given_lanes_while_it_leaves_takes_none_over(reasons: list[str], tmp_path: Path) -> None:
    group = Group()
    intake = intake_of(shared_of(tmp_path, group))

    async def joined_first() -> None:  # as aiokafka's: the join under way ends, then the member leaves
        intake.on_partitions_assigned(BOTH)
        await turns()
        group.did.append("leave")

    group.stop = joined_first  # type: ignore[method-assign]  # in place of one that joins nothing
    await intake.on_stop()
    await turns()
    assert group.did == ["leave"]
    assert reasons == []


async def test_a_lane_that_cannot_be_closed_keeps_neither_the_others_nor_the_group_from_their_end(
    tmp_path: Path,
) -> None:
    did: list[str] = []
    broken, slow = Outbox(), Outbox(did)

    async def fenced() -> None:
        raise ProducerFenced

    async def late() -> None:
        await turns()
        did.append("stop")

    broken.stop, slow.stop = fenced, late  # type: ignore[method-assign]  # in place of one that stops at once
    shared = shared_of(tmp_path, Group(did))
    intake = intake_of(shared, taken_over(shared, broken), taken_over(shared, slow, 1))
    with pytest.raises(ProducerFenced):
        await intake.on_stop()
    assert did == ["stop", "leave"]
