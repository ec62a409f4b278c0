"""Workers as processes of their own, to be stopped, killed and frozen; and what can be seen of them from outside."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.brokers.process import tied_to_this
from tests.integration.lanes import DEADLINE_S, LOOK_AGAIN_S, Shop

SALIENCE_WORKER = (sys.executable, "-m", "streams.cli", "worker")
STANDING = (sys.executable, "-m", "tests.integration.standing")
"""With the number of the commit before which it stops itself."""


class Worker:
    """``salience worker`` on a shop's topics; killed, if need be, when the block ends.

    It does not outlive the thread that entered the block, however that ends. Ctrl-C reaches this process alone.
    """

    def __init__(
        self, shop: Shop, log: Path, *options: str, command: Sequence[str] = SALIENCE_WORKER, **settings: Any
    ) -> None:
        fast = {"session_timeout_ms": 6_000, "heartbeat_ms": 500}  # Kafka's least session timeout by default
        given = shop.settings.model_dump(exclude_none=True, exclude_defaults=True) | fast | settings
        self.log = log
        self._command = [*tied_to_this(), *command, *options]
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("SALIENCE_")}
        self._environment |= {f"SALIENCE_{name.upper()}": str(value) for name, value in given.items()}

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        if error is not None:
            sys.stderr.write(f"--- {self.log} ends with\n{self.said[-4_000:]}\n")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def stands(self) -> bool:
        """Whether it is stopped (SIGSTOP) rather than running, asleep or gone: proc(5), state ``T``."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    @property
    def maps(self) -> str:
        """The files that it has in memory."""
        return Path(f"/proc/{self.process.pid}/maps").read_text()

    def status(self) -> int:
        """Wait for its end; its exit status."""
        return self.process.wait(DEADLINE_S)

    def ask(self, path: str) -> tuple[int, Any]:
        """Status and answer of its web server, JSON parsed, at the address that it has logged."""
        found = re.search(r"url=(http://[\d.:]+)", self.said)
        assert found, self.said
        try:
            with urllib.request.urlopen(found[1] + path, timeout=DEADLINE_S) as response:
                body = response.read()
                return response.status, json.loads(body) if response.headers.get_content_subtype() == "json" else body
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    @property
    def said(self) -> str:
        """All that it has logged."""
        return self.log.read_text()


def children(pid: int) -> list[int]:
    """Processes that ``pid`` has started and not yet waited for."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until(holds: Callable[[], Awaitable[bool]], what: str, by: Worker | None = None) -> None:
    """Look again and again until something observable holds; fails after the deadline, saying what did not.

    ``by``: the worker that is to bring it about; once that has ended, nothing is waited for.
    """
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await holds():
                status = None if by is None else by.process.poll()
                assert status is None, f"the worker has ended with status {status} before {what}"
                await asyncio.sleep(LOOK_AGAIN_S)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_S:.0f} s: {what}") from None
