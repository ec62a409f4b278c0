"""Dead letters by origin and reason: counts, and the newest of each kind. No I/O."""

import sys
from collections import Counter
from collections.abc import Sequence

import msgspec

from streams.dead_letters import Letter

KINDS_MAX = 64
"""Most pairs of origin and error. Beyond it, the one seen longest ago is dropped."""
MESSAGE_MAX = 240
"""Characters shown of a message."""
RECENT_MS = 60_000
"""A topic counts as poisoned if a record of it was refused within this time."""
SECONDS_MAX = 120
"""Newest seconds of each kind for which letters are counted; a minute of them is shown."""


class RefusedKind(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one topic refused for one reason. ``recent``: within `RECENT_MS` of now, to a second. The other fields
    are of the newest letter.
    """

    topic: str
    stage: str
    error: str
    count: int
    recent: int
    message: str
    partition: str
    offset: str
    time_ms: int


class _Kind:
    """Letters of a kind: how many, when, and facts of the newest to show (never its content)."""

    def __init__(self) -> None:
        self.count = self.time_ms = 0
        self._of_second: Counter[int] = Counter()
        self.message = self.partition = self.offset = ""

    def add(self, letter: Letter, now_ms: int) -> None:
        self.count += 1
        self.time_ms = letter.timestamp_ms
        self._of_second[min(letter.timestamp_ms, now_ms) // 1_000] += 1
        if len(self._of_second) > SECONDS_MAX:
            del self._of_second[min(self._of_second)]
        self.message = letter.told("message")[:MESSAGE_MAX]
        self.partition, self.offset = letter.told("partition"), letter.told("offset")

    def since(self, time_ms: int) -> int:
        """How many letters have come since ``time_ms``."""
        return sum(count for second, count in self._of_second.items() if second >= time_ms // 1_000)


class Refused:
    """Counts of the letters read."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], _Kind] = {}
        self._now_ms = sys.maxsize
        """Time of the last `told`. A letter dated later, by a worker whose clock is ahead, counts as of this time."""

    def take(self, letters: Sequence[Letter]) -> None:
        """Take letters, oldest first."""
        for letter in letters:
            name = letter.told("topic"), letter.told("stage"), letter.told("error")
            self._kinds[name] = kind = self._kinds.pop(name, None) or _Kind()  # the newest kind last
            kind.add(letter, self._now_ms)
        while len(self._kinds) > KINDS_MAX:
            del self._kinds[next(iter(self._kinds))]

    def told(self, now_ms: int) -> list[RefusedKind]:
        """Every kind, the one with the newest letter first."""
        self._now_ms = now_ms
        return [
            RefusedKind(
                topic=topic,
                stage=stage,
                error=error,
                count=kind.count,
                recent=kind.since(now_ms - RECENT_MS),
                message=kind.message,
                partition=kind.partition,
                offset=kind.offset,
                time_ms=kind.time_ms,
            )
            for (topic, stage, error), kind in reversed(self._kinds.items())
        ]
