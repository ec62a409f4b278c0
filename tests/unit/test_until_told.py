"""Commands that run until they are told to end."""

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal, sys
from streams.cli.ending import until_told
told, *nohup = sys.argv[1:]
if nohup:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
async def work():
    try:
        os.kill(os.getpid(), getattr(signal, told))
        for _ in range(20):
            await asyncio.sleep(0)
        print("goes on")
    finally:
        print("tidied up")
asyncio.run(until_told(work()))
"""


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["SIGINT"], "tidied up\n"),
        (["SIGTERM"], "tidied up\n"),
        (["SIGHUP"], "tidied up\n"),
        (["SIGHUP", "nohup"], "goes on\ntidied up\n"),
    ],
)
def test_what_runs_until_told_tidies_up_on_each_signal_and_outlives_a_terminal_if_it_shall(
    told: list[str], said: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *told], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, said), ended.stderr
