"""The workers: kept alive as a supervisor would, and each of their ends written down."""

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.lanes import Shop
from tests.integration.workers import Worker

STOP_S = 40.0
"""What `deploy/` gives a worker that is told to stop; then it hangs."""
SAID = 2_000
"""Of what a hung worker has logged, so many characters are kept."""
ALLOWED = {0, 1, 70, -signal.SIGKILL, -signal.SIGTERM}
"""Statuses of a worker that the faults may cause: 1 where no broker answers a start, -15 where it has hardly begun."""


@dataclass(slots=True)
class Slot:
    """A place for a worker: who is in it, and whether somebody should be."""

    name: str
    wanted: bool = False
    worker: Worker | None = None
    ended: list[int] = field(default_factory=list)
    next_start: float = 0.0
    log_mark: int = 0
    """Where the log of the worker that is in it begins."""

    @property
    def alive(self) -> bool:
        return self.worker is not None and self.worker.process.poll() is None


class Fleet:
    """``places`` workers at most, on ``shop``; a thread of its own starts again whoever ended."""

    def __init__(self, shop: Shop, folder: Path, places: int, mutation: str = "none") -> None:
        self._shop = shop
        self._folder = folder
        self._mutation = mutation
        self.slots = [Slot(f"worker-{number}") for number in range(places)]
        self.hung: list[str] = []
        """Of workers that did not end when they were told to stop."""
        self.lock = threading.RLock()
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper")

    def start(self, count: int) -> None:
        """Have ``count`` workers from now on."""
        for slot in self.slots[:count]:
            self.join(slot)
        self._keeper.start()

    def join(self, slot: Slot) -> None:
        with self.lock:
            slot.wanted, slot.next_start = True, 0.0
            self._launch(slot)

    def leave(self, slot: Slot) -> int | None:
        """Stop a worker in order; its exit status, None where it was down anyway."""
        with self.lock:
            slot.wanted = False
            if not slot.alive:
                return None
            assert slot.worker is not None
            slot.worker.signal(signal.SIGTERM)
            slot.worker.signal(signal.SIGCONT)  # it may be frozen, and would not hear of it
            try:
                status = slot.worker.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.hung.append(f"{slot.name} ran on for {STOP_S:.0f} s; it last said:\n{slot.worker.said[-SAID:]}")
                slot.worker.process.kill()
                status = slot.worker.process.wait()
            slot.ended.append(status)
            slot.worker = None
            return status

    def stop(self) -> list[int]:
        """Stop every worker in order; the exit statuses of those that ran."""
        self._stopping.set()
        self._keeper.join()
        return self.pause()

    def pause(self) -> list[int]:
        """Stop every worker in order, for now."""
        with self.lock:
            for slot in self.slots:
                if slot.alive:
                    assert slot.worker is not None
                    slot.worker.signal(signal.SIGTERM)  # all at once, as one host is shut down
            return [status for slot in self.slots if (status := self.leave(slot)) is not None]

    def kill(self) -> None:
        """End whoever is left, after a failure of the harness itself."""
        self._stopping.set()
        for slot in self.slots:
            slot.wanted = False
            if slot.worker is not None:
                slot.worker.__exit__(None, None, None)

    def at_work(self, slot: Slot) -> bool:
        """Whether the worker has had a lane: on a busy machine it takes long to start."""
        if not slot.alive:
            return False
        with self.log_file(slot).open("rb") as log:
            log.seek(slot.log_mark)
            return b"lane taken over" in log.read()

    def log_file(self, slot: Slot) -> Path:
        return self._folder / f"{slot.name}.log"

    def clock_file(self, slot: Slot) -> Path:
        return self._folder / f"{slot.name}.clock"

    @property
    def statuses(self) -> Counter[int]:
        """How the workers ended, each time one did."""
        return Counter(status for slot in self.slots for status in slot.ended)

    def _launch(self, slot: Slot) -> None:
        log = self.log_file(slot)
        slot.log_mark = log.stat().st_size if log.exists() else 0
        home = self._folder / slot.name
        home.mkdir(exist_ok=True)
        launcher = [sys.executable, "-m", "tests.integration.chaos.launcher"]
        command = [*launcher, str(self.clock_file(slot)), self._mutation]
        worker = Worker(self._shop, log, command=command, home=home)
        slot.worker = worker.__enter__()

    def _keep(self) -> None:
        while not self._stopping.wait(0.2):
            with self.lock:
                for slot in self.slots:
                    self._look_after(slot)

    def _look_after(self, slot: Slot) -> None:
        if slot.worker is not None and not slot.alive:
            status = slot.worker.process.wait()
            slot.ended.append(status)
            slot.worker = None
            slot.next_start = time.monotonic() + (2.0 if status == 1 else 0.5)
        if slot.wanted and slot.worker is None and time.monotonic() >= slot.next_start:
            self._launch(slot)
