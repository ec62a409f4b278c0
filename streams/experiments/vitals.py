"""What a referee shows of itself, and whether it judges: if it does not, no guardrail is enforced. No I/O."""

from collections import Counter
from collections.abc import Callable, Iterable

from streams.clock import tick_ms
from streams.experiments.report import ExperimentReport

SILENT_LOOKS, SILENT_MS = 5, 30_000
"""Silent means: no look could judge for so many periods, and so long. A look at a million people takes seconds."""


class Vitals:
    """A referee that looks every ``every_ms``; ``clock``: milliseconds that never go back."""

    def __init__(self, every_ms: int, clock: Callable[[], int] = tick_ms) -> None:
        self._silent_ms = max(SILENT_LOOKS * every_ms, SILENT_MS)
        self._clock, self._last_ms = clock, clock()
        self.judged_ms = 0
        """UTC time of the last look that could judge; 0 before the first."""
        self.failing = ""
        """Why the last look could not judge; empty if it could."""
        self.found: Counter[str] = Counter()
        """Experiments by their finding, at the last look that could judge."""
        self.broken = 0
        """Guardrails broken since the start."""
        self.unwatched = 0
        """Times that somebody found no place in the referee's file, at the last look that could judge."""
        self.behind: dict[str, int] = {}
        """Records still to be read, by topic without prefix."""
        self._caught_up = False
        """Whether the referee has read all that was there at the start."""

    def judged(self, reports: Iterable[ExperimentReport], time_ms: int, *, caught_up: bool) -> None:
        """Note a look at ``time_ms`` that could judge."""
        self._last_ms, self.judged_ms, self.failing = self._clock(), time_ms, ""
        self.found = Counter(one.finding.code for one in reports if one.finding)
        self._caught_up |= caught_up

    def unwell(self) -> str:
        """Why experiments are not judged now, or not by all that is on the topics; empty where they are."""
        if not self._caught_up:
            return f"has not caught up; records to be read: {sum(self.behind.values())}"
        silent_ms = self._clock() - self._last_ms
        if silent_ms > self._silent_ms:
            return f"nothing judged for {silent_ms / 1000:.0f} s" + (f": {self.failing}" if self.failing else "")
        return ""
