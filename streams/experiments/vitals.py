"""What a referee shows of itself, and whether it judges: else no guardrail is enforced. No I/O."""

from collections import Counter
from collections.abc import Callable, Iterable

from streams.clock import tick_ms
from streams.experiments.report import ExperimentReport

SILENT_LOOKS, SILENT_MS = 5, 30_000
"""Without a look that could judge for so many, and for so long, it is silent: one at a million people takes seconds."""


class Vitals:
    """A referee that looks every ``every_ms``; ``clock``: milliseconds that never go back."""

    def __init__(self, every_ms: int, clock: Callable[[], int] = tick_ms) -> None:
        self._silent_ms = max(SILENT_LOOKS * every_ms, SILENT_MS)
        self._clock, self._last_ms = clock, clock()
        self.judged_ms = 0
        """UTC, of the last look that could judge; 0 before the first."""
        self.failing = ""
        """Why the last look could not."""
        self.found: Counter[str] = Counter()
        """Experiments of the last look that could, by what they show."""
        self.broken = 0
        """Guardrails, since the start."""
        self.behind: dict[str, int] = {}
        """Records that are still to be read, by topic without prefix."""
        self._caught_up = False
        """Whether all has been read that was there at the start."""

    def judged(self, reports: Iterable[ExperimentReport], time_ms: int, *, caught_up: bool) -> None:
        """Learn of a look at ``time_ms`` that could judge."""
        self._last_ms, self.judged_ms, self.failing = self._clock(), time_ms, ""
        self.found = Counter(one.finding.code for one in reports if one.finding)
        self._caught_up |= caught_up

    def unwell(self) -> str:
        """Why experiments are not judged now by all that is known; empty where they are."""
        if not self._caught_up:
            return f"has not caught up; records to be read: {sum(self.behind.values())}"
        silent_ms = self._clock() - self._last_ms
        if silent_ms > self._silent_ms:
            return f"nothing judged for {silent_ms / 1000:.0f} s" + (f": {self.failing}" if self.failing else "")
        return ""
