"""The end of a shoppers' run, on a broker that is slow or gone."""

import asyncio
import time

import pytest

from streams.demo.meter import Meter
from streams.demo.shop import Shoppers
from streams.demo.shopping import LOST_S, Plan, Shopping, SilentBrokerError
from streams.demo.stage import Stage
from streams.settings import Settings


def looks_at_the_end(unheard_s: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """Looks at work that ends at the third, in a run that is over while the broker has not answered for so long."""
    monkeypatch.setattr("streams.demo.shopping.SHOW_EVERY_S", 0.0)
    looks, third = 0, asyncio.Event()

    async def end() -> None:
        shopping._stopped.set()
        shopping._asked_s = time.monotonic() - unheard_s
        await shopping._watched(ended(), Stage(Shoppers(1, 1), Meter(), lambda _: None, lambda _: None))

    async def ended() -> None:
        await third.wait()

    def look(_: object) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            third.set()

    shopping = Shopping(Plan(None, 1, 1), Settings(), look, broker="")
    asyncio.run(end())
    return looks


def test_a_slow_answer_does_not_make_a_run_that_is_over_a_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks_at_the_end(LOST_S / 2, monkeypatch) >= 3


def test_a_run_that_is_over_does_not_wait_for_a_broker_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SilentBrokerError, match=f"has not answered for {LOST_S + 1:.0f} s"):
        looks_at_the_end(LOST_S + 1, monkeypatch)
