"""Who may become state, and what may not come back: consent and watermarks, asked for every event. No I/O.

A refusal, on an event or on the control topic, and an erasure have the same effect: the row and the placement go, and
a watermark stays under a hash of the user, so that nothing that happened until then is applied, whether it is replayed
or comes late. The watermarks are rows of the lane's changelog under reserved keys.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import xxhash

from scoring.rows import USERS_MAX
from streams.control_wire import Consent
from streams.wire import RESERVED

ERASED_KEY = RESERVED + b"erased/"
"""Key of a watermark, before the user's digest; the value is its time in ms, 8 bytes big-endian."""


class Verdict(IntEnum):
    """Whether an event may become state."""

    ADMITTED = 0
    WITHOUT = 1
    """Nobody has said yes: no state, and a placement of context alone."""
    REFUSED = 2
    """Somebody has said no: likewise, and what is held is forgotten."""
    ERASED = 3
    """It happened before the user's watermark: passed over."""


class Watermarks:
    """Users forgotten, by digest, and until when; 140 bytes a user, and none of them the user's name.

    Since anybody may say no on an event, they are bounded: by as many as a lane has rows for.
    """

    def __init__(self, until_ms: Mapping[bytes, int] | None = None, most: int = USERS_MAX) -> None:
        """``most``: beyond it those that end first go, an eighth at a time."""
        self.until_ms = dict(until_ms or {})
        self._most = most
        self._changed: set[bytes] = set()

    def of(self, user: bytes) -> int:
        """The newest time of what may not be applied; -1 where nothing is held back."""
        return self.until_ms.get(_digest(user), -1) if self.until_ms else -1

    def raise_to(self, user: bytes, time_ms: int) -> None:
        """Hold back what happened until ``time_ms``; a watermark never falls."""
        digest = _digest(user)
        if time_ms > self.until_ms.get(digest, -1):
            self.until_ms[digest] = time_ms
            self._changed.add(digest)
            if len(self.until_ms) > self._most:
                self._make_room()

    def expire(self, before_ms: int) -> None:
        """Drop watermarks before ``before_ms``: whatever they hold back is on no topic any more."""
        self._drop([digest for digest, until_ms in self.until_ms.items() if until_ms < before_ms])

    def _make_room(self) -> None:
        """Drop those that end first: what they hold back is the likeliest to be on no topic any more."""
        count = max(1, self._most // 8)
        ends = np.fromiter(self.until_ms.values(), dtype=np.int64, count=len(self.until_ms))
        digests = list(self.until_ms)
        self._drop([digests[at] for at in np.argpartition(ends, count)[:count].tolist()])

    def _drop(self, digests: list[bytes]) -> None:
        for digest in digests:
            del self.until_ms[digest]
        self._changed.update(digests)

    def changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Changelog keys and values of what has changed since the last call, in the order of the keys."""
        changed, self._changed = sorted(self._changed), set()
        for digest in changed:
            until_ms = self.until_ms.get(digest)
            yield ERASED_KEY + digest, None if until_ms is None else until_ms.to_bytes(8, "big")

    def parts(self) -> dict[bytes, bytes]:
        """All of them, as the changelog holds them."""
        return {ERASED_KEY + digest: until_ms.to_bytes(8, "big") for digest, until_ms in self.until_ms.items()}

    @classmethod
    def restore(cls, parts: Mapping[bytes, bytes], most: int = USERS_MAX) -> "Watermarks":
        """Those that ``parts``, what stands under the lane's reserved keys, speak of."""
        until_ms = {
            key.removeprefix(ERASED_KEY): int.from_bytes(value, "big")
            for key, value in parts.items()
            if key.startswith(ERASED_KEY)
        }
        return cls(until_ms, most)


def _digest(user: bytes) -> bytes:
    return xxhash.xxh3_128_digest(user)


@dataclass(slots=True)
class Gate:
    """Who may become state. ``presumed``: what silence means (`SALIENCE_CONSENT_PRESUMED`)."""

    answers: Mapping[str, Consent] = field(default_factory=dict)
    watermarks: Watermarks = field(default_factory=Watermarks)
    presumed: bool = True

    def stands_open(self, said: bool) -> bool:
        """Whether every event would be admitted; ``said``: whether any says yes or no itself."""
        return self.presumed and not (said or self.answers or self.watermarks.until_ms)

    def judge(self, user: bytes, said: bool | None, time_ms: int) -> Verdict:
        """The verdict on an event of ``user`` at ``time_ms`` that itself ``said`` yes, no or nothing."""
        if time_ms <= self.watermarks.of(user):
            return Verdict.ERASED
        answer = self.answers.get(user.decode()) if self.answers else None
        if said is False or (answer is not None and not answer.granted):
            return Verdict.REFUSED
        if said or self.presumed or (answer is not None and time_ms >= answer.time_ms):
            return Verdict.ADMITTED
        return Verdict.WITHOUT
