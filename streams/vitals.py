"""A worker's vital signs, and the judgement whether it is alive, without clock or I/O.

Silence is counted between looks, not read off a clock: a process that was stopped (SIGSTOP, a suspended laptop) and
goes on must not be found dead for the time in which nobody looked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["taking over", "running", "lost"]
DOUBT_MS = 10_000
"""After so long a lane that stands still is told: brokers that elect a leader keep it waiting for less."""


@dataclass(frozen=True, slots=True)
class LaneVitals:
    """A lane at one moment. ``mark`` changes whenever the lane makes progress; ``busy``: there is work to do."""

    stage: Stage
    mark: tuple[int, ...]
    busy: bool


@dataclass(frozen=True, slots=True)
class Vitals:
    """A worker at one moment.

    ``polls`` counts rounds of the poll loop; ``unread``: of the topics that it reads whole (ads, control and others)
    those whose end it has not reached yet; ``joined``: the group has assigned lanes, perhaps none; ``doubt``: what the
    watchdog has found that may yet pass, empty where it has found nothing; ``ending``: why it ends, empty while it goes
    on.
    """

    polls: int = 0
    unread: Sequence[str] = ()
    joined: bool = False
    doubt: str = ""
    ending: str = ""
    lanes: Mapping[int, LaneVitals] = field(default_factory=dict)

    def unready(self) -> str:
        """Why this worker is not ready; empty when it is. A worker without lanes stands by, and is ready."""
        if self.ending:
            return self.ending
        if self.unread:
            return f"topics not yet read to their end: {', '.join(self.unread)}"
        if not self.joined:
            return "the group is being joined or rebalanced"
        waiting = sorted(number for number, lane in self.lanes.items() if lane.stage != "running")
        return f"lanes {waiting} are being taken over" if waiting else self.doubt


class Judge:
    """Watches a worker's `Vitals` look by look, and says when it must end."""

    def __init__(self, *, stall_ms: int, silence_ms: int, rebalance_limit_ms: int) -> None:
        self._stall_ms = stall_ms
        self._silence_ms = silence_ms
        self._rebalance_limit_ms = rebalance_limit_ms
        self._last = Vitals()
        self._still_ms: dict[int, int] = {}
        self._silent_ms = 0
        self._rebalance_ms = 0

    def look(self, now: Vitals, passed_ms: int) -> str:
        """Why the worker must end; empty while it may go on. ``passed_ms``: since the last look, at most its interval.

        While the group rebalances, neither a silent poll loop (aiokafka blocks it) nor a lane that stands still counts.
        """
        last, self._last = self._last, now
        if now.ending:
            self._still_ms = {}
            return ""
        if not now.joined:
            self._silent_ms, self._still_ms = 0, {}
            self._rebalance_ms += 0 if now.unread else passed_ms
            if self._rebalance_ms >= self._rebalance_limit_ms:
                return f"no lanes from the group for {self._rebalance_ms / 1000:.0f} s"
            return ""
        self._rebalance_ms = 0
        self._silent_ms = self._silent_ms + passed_ms if now.polls == last.polls else 0
        self._still_ms = {
            number: self._still_ms.get(number, 0) + passed_ms
            for number, lane in now.lanes.items()
            if lane.busy and number in last.lanes and last.lanes[number].mark == lane.mark
        }
        return self._verdict()

    @property
    def doubt(self) -> str:
        """Which lane stands still, long before the worker must end for that; empty while none does."""
        return self._standing(DOUBT_MS)

    def _verdict(self) -> str:
        if self._silent_ms >= self._silence_ms:
            return f"the poll loop is silent for {self._silent_ms / 1000:.0f} s"
        return self._standing(self._stall_ms)

    def _standing(self, limit_ms: int) -> str:
        for number, still_ms in self._still_ms.items():
            if still_ms >= limit_ms:
                lane = self._last.lanes[number]
                return (
                    f"lane {number} ({lane.stage}) has stood at {lane.mark} for {still_ms / 1000:.0f} s, "
                    "and there is more to read"
                )
        return ""
