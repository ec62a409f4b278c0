"""What the demo counts: rates, latency, and the click rates of the engine and of the random control arm.

No clock: times are arguments, in seconds of one monotonic clock, except where they end in ``_ms``.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scoring.confidence import by_person

LATENCIES_MAX = 20_000
"""Latencies kept for the percentiles: the latest, a few minutes' worth."""
SENT_MAX = 50_000
"""Events without a placement that are remembered; beyond, the oldest are dropped."""
UNANSWERED_S = 5.0
"""A user who has waited longer counts as unanswered. At a load of five for each processor p99 is 2 s."""
RATE_OVER_S = 5.0
"""Rates are means over this time."""


@dataclass(slots=True)
class Arm:
    """Impressions and clicks of one way of choosing ads, by user: two numbers for each shopper."""

    _of: dict[str, tuple[int, int]] = field(default_factory=dict)

    def see(self, user: str, impressions: int, clicks: int) -> None:
        """Add ``impressions`` of ``user``, and ``clicks`` on them."""
        before = self._of.get(user, (0, 0))
        self._of[user] = before[0] + impressions, before[1] + clicks

    @property
    def impressions(self) -> int:
        """Impressions of all users."""
        return sum(impressions for impressions, _ in self._of.values())

    @property
    def clicks(self) -> int:
        """Clicks of all users."""
        return sum(clicks for _, clicks in self._of.values())

    @property
    def ctr(self) -> float | None:
        """Clicks per impression; None before the first."""
        return self.clicks / self.impressions if self.impressions else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the click rate. Its unit is the user, as of tastes and arms. None before the first."""
        if not self.impressions:
            return None
        impressions, clicks = np.array(list(self._of.values()), dtype=np.int64).T
        return by_person(clicks, impressions)


@dataclass(slots=True)
class Rate:
    """How often something has happened a second lately."""

    total: int = 0
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=1_000))

    def per_s(self, now_s: float) -> float:
        """The mean since the oldest look within `RATE_OVER_S`; 0 at the first look."""
        self._marks.append((now_s, self.total))
        while len(self._marks) > 2 and now_s - self._marks[1][0] >= RATE_OVER_S:
            self._marks.popleft()
        then_s, then = self._marks[0]
        return (self.total - then) / (now_s - then_s) if now_s > then_s else 0.0


class Meter:
    """Counts what is sent, what arrives, and what comes of it."""

    def __init__(self) -> None:
        self.events, self.placements = Rate(), Rate()
        self.engine, self.control = Arm(), Arm()
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES_MAX)
        self._sent_s: dict[tuple[str, int], float] = {}
        self._waiting: dict[str, tuple[int, float]] = {}
        """By user, the time of the newest event without a placement, and since when no placement has come."""
        self._silent_from_s: float | None = None

    def sent(self, user: str, time_ms: int, now_s: float) -> None:
        """Note that an event of ``user`` with the time ``time_ms`` was handed to the producer."""
        self.events.total += 1
        self._sent_s.setdefault((user, time_ms), now_s)
        if len(self._sent_s) > SENT_MAX:
            del self._sent_s[next(iter(self._sent_s))]
        newest_ms, since_s = self._waiting.get(user, (time_ms, now_s))
        self._waiting[user] = max(newest_ms, time_ms), since_s
        if self._silent_from_s is None:
            self._silent_from_s = now_s

    def arrived(self, user: str, time_ms: int, now_s: float) -> None:
        """Note that a placement for ``user`` was consumed, caused by the event of ``time_ms``.

        If one event has several placements, the first counts for the latency.
        """
        self.placements.total += 1
        sent_s = self._sent_s.pop((user, time_ms), None)
        if sent_s is not None:
            self._latencies_s.append(now_s - sent_s)
        newest_ms, _ = self._waiting.pop(user, (time_ms, now_s))
        if newest_ms > time_ms:
            self._waiting[user] = newest_ms, now_s
        self._silent_from_s = None

    def unanswered(self, now_s: float) -> int:
        """Users whose newest event has no placement of its time or later, and who have had none for `UNANSWERED_S`."""
        return sum(now_s - since_s > UNANSWERED_S for _, since_s in self._waiting.values())

    def silent_s(self, now_s: float) -> float:
        """How long events have been sent without any placement; 0 where a placement came after the last event."""
        return 0.0 if self._silent_from_s is None else now_s - self._silent_from_s

    def seen(self, user: str, arm: str, impressions: int, clicks: int) -> None:
        """Note that ``user`` looked at a placement of ``arm`` ("engine" or "control")."""
        counted = self.control if arm == "control" else self.engine
        counted.see(user, impressions, clicks)

    def latency_ms(self, percents: Sequence[float]) -> list[float | None]:
        """Percentiles of the time from event produced to placement consumed; None before the first."""
        if not self._latencies_s:
            return [None for _ in percents]
        found = np.percentile(np.array(self._latencies_s) * 1000, list(percents)).tolist()
        return [round(value, 2) for value in found]
