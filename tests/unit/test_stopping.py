"""How the intake ends: parts that end by themselves are failures, and a stop lets lanes finish what they began."""

import asyncio
from pathlib import Path

import pytest

from tests.unit.lanes import (
    DEADLINE_MS,
    Group,
    Outbox,
    Unanswered,
    assigned,
    intake_of,
    shared_of,
    stepping,
    taken_over,
    turns,
    within_deadline,
)

LANE_0 = assigned({0}, {0})


@pytest.mark.parametrize("told", [True, False])
async def test_a_pump_that_is_cancelled_ends_the_worker_unless_it_was_told_to_stop(
    told: bool, reasons: list[str], tmp_path: Path
) -> None:
    intake = intake_of(shared_of(tmp_path, Group()))
    pump = asyncio.create_task(intake._pump())
    await turns()
    if told:
        await intake.on_stop()
    pump.cancel()
    await asyncio.wait([pump])
    assert reasons == ([] if told else ["RuntimeError: the pump ended"])


async def test_a_stop_lets_a_slice_under_way_be_committed_though_the_agent_is_cut_then_closes_the_producer_and_leaves(
    reasons: list[str], tmp_path: Path
) -> None:
    did: list[str] = []
    outbox = Outbox(did)
    shared = shared_of(tmp_path, Group(did))
    lane = taken_over(shared, outbox)
    intake = intake_of(shared, lane)
    agent = await stepping(intake, lane, outbox)
    stopping = asyncio.create_task(intake.on_stop())
    await turns()
    agent.cancel()  # as Faust does with agents, once its services stop
    await turns()
    assert not stopping.done()
    outbox.answers.set()
    await stopping
    assert [each for each in did if each in ("commit", "stop", "leave")] == ["commit", "stop", "leave"]
    assert reasons == []


async def test_a_member_whose_stop_ends_cancelled_by_nobody_leaves_no_connection_open(tmp_path: Path) -> None:
    class Retrying(Group):
        """Of aiokafka: its stop cancels a fetch that waits to retry, and ends as cancelled itself."""

        async def stop(self) -> None:
            raise asyncio.CancelledError

        async def close(self) -> None:
            self.did.append("close")

    group = Retrying()
    group._client = group  # type: ignore[attr-defined]  # it stands in for its client too
    await intake_of(shared_of(tmp_path, group)).on_stop()
    assert group.did == ["close"]


async def test_a_stop_waits_for_a_lane_that_was_revoked_a_moment_before_it_leaves_the_group(
    reasons: list[str], tmp_path: Path
) -> None:
    did: list[str] = []
    outbox = Outbox(did)
    shared = shared_of(tmp_path, Group(did))
    lane = taken_over(shared, outbox)
    intake = intake_of(shared, lane)
    agent = await stepping(intake, lane, outbox)
    intake.on_partitions_revoked(LANE_0)
    stopping = asyncio.create_task(intake.on_stop())
    await turns()
    assert not stopping.done()
    outbox.answers.set()
    await asyncio.gather(stopping, agent)
    assert [each for each in did if each in ("commit", "stop", "leave")] == ["commit", "stop", "leave"]
    assert reasons == []


@pytest.mark.parametrize("left", ["stopped", "revoked"])
async def test_a_slice_that_does_not_end_holds_up_a_stop_or_a_rebalance_no_longer_than_its_own_deadline(
    left: str, reasons: list[str], tmp_path: Path
) -> None:
    did: list[str] = []
    outbox = Outbox(did)
    deadlines = dict.fromkeys(("slice_deadline_ms", "stop_deadline_ms", "revoke_deadline_ms"), DEADLINE_MS)
    deadlines["stop_deadline_ms" if left == "stopped" else "revoke_deadline_ms"] = 0
    shared = shared_of(tmp_path, Group(did), **deadlines)
    lane = taken_over(shared, outbox)
    intake = intake_of(shared, lane)
    agent = await stepping(intake, lane, outbox)
    if left == "revoked":
        intake.on_partitions_revoked(LANE_0)
        await within_deadline(asyncio.gather(*intake._closing))
    else:
        await within_deadline(intake.on_stop())
    assert not agent.done()
    agent.cancel()
    assert "stop" in did
    assert "commit" not in did
    assert reasons == []


async def test_a_stop_takes_no_lane_over_any_further(reasons: list[str], tmp_path: Path) -> None:
    group = Unanswered()
    intake = intake_of(shared_of(tmp_path, group))
    intake.on_partitions_assigned(LANE_0)
    taking = intake._taking[0]
    await turns()
    await within_deadline(intake.on_stop())
    assert taking.cancelled()
    assert group.did == ["look up", "leave"]
    assert reasons == []


async def test_a_failure_stops_the_worker_in_order_beside_the_timer_that_ends_it_anyway_and_the_first_counts(
    reasons: list[str], tmp_path: Path
) -> None:
    lost = ValueError("lost")
    intake = intake_of(shared_of(tmp_path, Group()))
    intake.fail(lost)
    intake.fail(ValueError("because of that"))
    await turns()
    intake.crash.assert_awaited_once_with(lost)
    assert intake.vitals({}).ending == "ValueError: lost"
    assert reasons == ["ValueError: lost"]
