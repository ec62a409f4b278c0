"""The workers: kept alive as a supervisor would, and each of their ends written down."""

import contextlib
import math
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.lanes import Shop
from tests.integration.workers import Worker

STOP_S = 40.0
"""What `deploy/` gives a worker that is told to stop; then it hangs."""
SAID = 2_000
"""Of what a hung worker has logged, so many characters are kept."""
ALLOWED = {0, 1, 70, -signal.SIGKILL, -signal.SIGTERM}
"""Statuses of a worker that the faults may cause: 1 where no broker answers a start (`unexplained`), -15 where it has
hardly begun."""
RECOVERED_S = 15.0
"""After brokers were away a start may still find none: it waits ten seconds for an answer before it says so."""
TOLD_END = "the worker ended"
"""A worker's last line where it fails; libraries may have logged tracebacks before it."""
TOLD_FAILURE = "fatal, the worker ends"
"""What a worker says first where it fails; its orderly stop may take five seconds more."""
LAUNCHER = (sys.executable, "-m", "tests.integration.chaos.launcher")


@dataclass(slots=True)
class Slot:
    """A place for a worker: who is in it, and whether somebody should be."""

    name: str
    wanted: bool = False
    worker: Worker | None = None
    ended: list[int] = field(default_factory=list)
    next_start: float = 0.0
    started: float = 0.0
    log_mark: int = 0
    """Where the log of the worker that is in it begins."""

    @property
    def alive(self) -> bool:
        return self.worker is not None and self.worker.process.poll() is None


class Fleet:
    """``places`` workers at most, on ``shop``; a thread of its own starts again whoever ended."""

    def __init__(
        self, shop: Shop, folder: Path, places: int, mutation: str = "none", program: Sequence[str] = LAUNCHER
    ) -> None:
        self._shop = shop
        self._folder = folder
        self._mutation = mutation
        self._program = program
        self.slots = [Slot(f"worker-{number}") for number in range(places)]
        self.hung: list[str] = []
        """Of workers that did not end when they were told to stop."""
        self.unexplained: list[str] = []
        """Of workers that ended with status 1 and should not have."""
        self._excused_until = 0.0
        self.lock = threading.RLock()
        self._looked = threading.Condition(self.lock)
        """Told after each look at the workers: what they log, only a look can tell."""
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
            self.signal(slot, signal.SIGTERM)
            self.signal(slot, signal.SIGCONT)  # it may be frozen, and would not hear of it
            try:
                status = slot.worker.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.hung.append(f"{slot.name} ran on for {STOP_S:.0f} s; it last said:\n{slot.worker.said[-SAID:]}")
                slot.worker.process.kill()
                status = slot.worker.process.wait()
            self._note_end(slot, status)
            return status

    def signal(self, slot: Slot, number: signal.Signals) -> None:
        """Send a signal to the worker, if it is alive."""
        with self.lock:
            if slot.alive:
                assert slot.worker is not None
                slot.worker.signal(number)

    def stop(self) -> list[int]:
        """Stop every worker in order; the exit statuses of those that ran."""
        statuses = self.pause()  # before its thread ends, since those that it started would die with it
        self._stopping.set()
        self._keeper.join()
        return statuses

    def pause(self) -> list[int]:
        """Stop every worker in order, for now."""
        with self.lock:
            for slot in self.slots:
                self.signal(slot, signal.SIGTERM)  # all at once, as one host is shut down
            return [status for slot in self.slots if (status := self.leave(slot)) is not None]

    def kill(self) -> None:
        """End whoever is left, after a failure of the harness itself."""
        self._stopping.set()
        with self.lock:
            for slot in self.slots:
                slot.wanted = False
                if slot.worker is not None:
                    slot.worker.__exit__(None, None, None)

    def at_work(self, slot: Slot) -> bool:
        """Whether the worker has had a lane: on a busy machine it takes long to start."""
        return slot.alive and "lane taken over" in self.said(slot)

    def failing(self, slot: Slot) -> bool:
        """Whether the worker ends already, since another fault has met it."""
        return TOLD_FAILURE in self.said(slot)

    def wait(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Wait, with the lock, which is given up meanwhile, until something holds of the workers; whether it does."""
        return self._looked.wait_for(holds, within_s)

    @contextlib.contextmanager
    def starts_may_fail(self) -> Iterator[None]:
        """What is done meanwhile may keep a broker from answering a worker that starts."""
        self._excused_until = math.inf
        try:
            yield
        finally:
            self._excused_until = time.monotonic() + RECOVERED_S

    def said(self, slot: Slot) -> str:
        """What the worker that is in it, or was last, has logged."""
        with self.log_file(slot).open("rb") as log:
            log.seek(slot.log_mark)
            return log.read().decode(errors="replace")

    def log_file(self, slot: Slot) -> Path:
        return self._folder / f"{slot.name}.log"

    def clock_file(self, slot: Slot) -> Path:
        return self._folder / f"{slot.name}.clock"

    @property
    def pids(self) -> dict[str, int]:
        """Of the workers that are alive, by name."""
        with self.lock:
            return {slot.name: slot.worker.process.pid for slot in self.slots if slot.worker is not None and slot.alive}

    @property
    def statuses(self) -> Counter[int]:
        """How the workers ended, each time one did."""
        return Counter(status for slot in self.slots for status in slot.ended)

    def _launch(self, slot: Slot) -> None:
        log = self.log_file(slot)
        slot.log_mark = log.stat().st_size if log.exists() else 0
        home = self._folder / slot.name
        home.mkdir(exist_ok=True)
        slot.started = time.monotonic()
        command = [*self._program, str(self.clock_file(slot)), self._mutation]
        worker = Worker(self._shop, log, command=command, home=home)
        slot.worker = worker.__enter__()

    def _keep(self) -> None:
        while not self._stopping.wait(0.2):
            with self.lock:
                for slot in self.slots:
                    self._look_after(slot)
                self._looked.notify_all()

    def _look_after(self, slot: Slot) -> None:
        if slot.worker is not None and not slot.alive:
            status = slot.worker.process.wait()
            self._note_end(slot, status)
            slot.next_start = time.monotonic() + (2.0 if status == 1 else 0.5)
        if slot.wanted and slot.worker is None and time.monotonic() >= slot.next_start:
            self._launch(slot)

    def _note_end(self, slot: Slot, status: int) -> None:
        slot.ended.append(status)
        slot.worker = None
        said = self.said(slot)
        if status == 1 and (why := unexplained(said, excused=slot.started < self._excused_until)):
            self.unexplained.append(f"{slot.name} {why}; it last said:\n{said[-SAID:]}")


def unexplained(said: str, *, excused: bool) -> str:
    """What is wrong with an end with status 1 of a worker that ``said`` this; empty where nothing is.

    ``excused``: a broker was away while it lived, so that it may have found none. It says so itself then: an exception
    that nobody caught ends a process with the same status.
    """
    if "Traceback" in said and TOLD_END not in said:
        return "was ended by an exception that nobody caught"
    return "" if excused else "could not start, while no broker was away"
