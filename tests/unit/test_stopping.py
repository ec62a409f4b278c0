"""How the intake ends: parts that end by themselves are failures, and a stop lets lanes finish what they began."""

import asyncio
from pathlib import Path

import pytest

from tests.unit.lanes import Group, Outbox, intake_of, shared_of, stepping, taken_over, turns


@pytest.mark.parametrize("told", [True, False])
def test_a_pump_that_is_cancelled_ends_the_worker_unless_it_was_told_to_stop(
    told: bool, reasons: list[str], tmp_path: Path
) -> None:
    async def scenario() -> None:
        intake = intake_of(shared_of(tmp_path, Group()))
        pump = asyncio.create_task(intake._pump())
        await turns()
        if told:
            await intake.on_stop()
        pump.cancel()
        await asyncio.wait([pump])

    asyncio.run(scenario())
    assert reasons == ([] if told else ["RuntimeError: the pump ended"])


def test_a_stop_lets_a_slice_under_way_be_committed_though_the_agent_is_cut_then_closes_the_producer_and_leaves(
    reasons: list[str], tmp_path: Path
) -> None:
    did: list[str] = []
    outbox = Outbox(did)

    async def scenario() -> None:
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

    asyncio.run(scenario())
    assert [each for each in did if each in ("commit", "stop", "leave")] == ["commit", "stop", "leave"]
    assert reasons == []
