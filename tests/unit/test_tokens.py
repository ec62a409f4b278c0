"""How long the pump leaves lanes alone that could not take what it fetches."""

import asyncio

from streams.lanes.tokens import BUSY_MIN_MS, FETCHES_A_STEP, Tokens


def stepped(step_ms: int) -> Tokens:
    """Tokens of which the last one's step took so long."""
    now_ms = 5_000
    tokens = Tokens(lambda: now_ms)
    tokens.put(0)
    now_ms += step_ms
    tokens.end(0)
    return tokens


async def waits(tokens: Tokens, lanes: range) -> bool:
    """Whether the pump is still waiting once all else has been done."""
    pump = asyncio.ensure_future(tokens.wait_for_one(lanes))
    for _ in range(10):
        await asyncio.sleep(0)
    waiting = not pump.done()
    pump.cancel()
    return waiting


def test_the_longer_a_step_takes_the_longer_lanes_in_step_are_left_alone() -> None:
    assert stepped(2_000).patience_ms == 2_000 / FETCHES_A_STEP
    assert stepped(10).patience_ms == BUSY_MIN_MS
    assert Tokens().patience_ms == BUSY_MIN_MS


async def test_the_pump_waits_only_while_every_lane_has_a_token_out() -> None:
    tokens = stepped(60_000)
    assert not await waits(tokens, range(0))
    tokens.put(0)
    assert not await waits(tokens, range(2))
    tokens.put(1)
    assert await waits(tokens, range(2))
    assert await waits(tokens, range(1))  # one that was revoked may still be in step


async def test_the_pump_goes_on_as_soon_as_a_lane_has_ended_its_step() -> None:
    tokens = stepped(60_000)
    tokens.put(0)
    tokens.put(1)
    pump = asyncio.ensure_future(tokens.wait_for_one(range(2)))
    await asyncio.sleep(0)
    tokens.end(1)
    await pump
    assert 0 in tokens
    assert 1 not in tokens


async def test_lanes_that_never_end_their_step_are_looked_at_all_the_same() -> None:
    tokens = Tokens()
    tokens.put(0)
    await tokens.wait_for_one(range(1))
