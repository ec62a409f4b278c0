"""The end of a shoppers' run, on a broker that is slow or gone, or where their terminal goes."""

import asyncio
import subprocess
import sys
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


def test_shoppers_whose_terminal_goes_stop_in_order_unless_they_were_to_outlive_it() -> None:
    program = (
        "import asyncio, os, signal, sys\n"
        "from streams.demo.shopping import Plan, Shopping\n"
        "from streams.settings import Settings\n"
        "async def heeds():\n"
        "    shopping = Shopping(Plan(None, 1, 1), Settings(), print, broker='')\n"
        "    shopping.heed_signals()\n"
        "    for _ in range(2):\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "        await asyncio.sleep(0)\n"
        "    for _ in range(20):\n"
        "        await asyncio.sleep(0)\n"
        "    return shopping._stopped.is_set()\n"
        "if sys.argv[1:]:\n"
        "    signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "print(asyncio.run(heeds()))"
    )
    for nohup, stopped in (([], "True\n"), (["nohup"], "False\n")):
        command = [sys.executable, "-c", program, *nohup]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stdout) == (0, stopped), ended.stderr
