"""Who may become state, and what may not come back: consent and watermarks, asked for every event. No I/O.

A refusal, on an event or on the control topic, and an erasure have the same effect: the row and the placement go, and
a watermark stays under a hash of the user, so that nothing that happened until then is applied, whether it is replayed
or comes late. The watermarks are rows of the lane's changelog under reserved keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import xxhash

from streams.control_wire import Consent
from streams.deadlines import Deadlines
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
    """It happened before the user's watermark: passed over, unless it is a no of whom something is held again."""


class Watermarks(Deadlines):
    """Users forgotten, by digest, and until when; none of them the user's name.

    Since anybody may say no on an event, they are bounded, by as many as a lane has rows for. Beyond it those go that
    end first: what they hold back is the likeliest to be on no topic any more.
    """

    prefix = ERASED_KEY

    def of(self, user: bytes) -> int:
        """The newest time of what may not be applied; -1 where nothing is held back."""
        return self.until_ms.get(_digest(user), -1) if self.until_ms else -1

    def raise_to(self, user: bytes, time_ms: int) -> None:
        """Hold back what happened until ``time_ms``; a watermark never falls."""
        digest = _digest(user)
        if time_ms > self.until_ms.get(digest, -1):
            self.put(digest, time_ms)
            self.drop(self.surplus())

    def take(self, key: bytes, value: bytes | None) -> None:
        """As of all deadlines, but for what is less than is held: it may have been written before that was raised."""
        if value is None or int.from_bytes(value, "big") > self.until_ms.get(key.removeprefix(self.prefix), -1):
            super().take(key, value)

    def expire(self, before_ms: int) -> None:
        """Drop watermarks before ``before_ms``: whatever they hold back is on no topic any more."""
        self.drop(self.before(before_ms))


def watermark_key(user: bytes) -> bytes:
    """Under which a changelog holds the user's watermark."""
    return ERASED_KEY + _digest(user)


def _digest(user: bytes) -> bytes:
    return xxhash.xxh3_128_digest(user)


@dataclass(slots=True)
class Gate:
    """Who may become state. ``presumed``: what silence means (`SALIENCE_CONSENT_PRESUMED`).

    ``overruled``: users whose last no on an event, at that time, is newer than the consent that stands: it says nothing
    any more, and is taken back from the control topic.
    """

    answers: Mapping[str, Consent] = field(default_factory=dict)
    watermarks: Watermarks = field(default_factory=Watermarks)
    presumed: bool = True
    overruled: dict[bytes, int] = field(default_factory=dict)

    def stands_open(self, said: bool) -> bool:
        """Whether every event would be admitted; ``said``: whether any says yes or no itself."""
        return self.presumed and not (said or self.answers or self.watermarks.until_ms)

    def judge(self, user: bytes, said: bool | None, time_ms: int, held_ms: int = -1, sent_ms: int = -1) -> Verdict:
        """The verdict on an event of ``user`` at ``time_ms`` that itself ``said`` yes, no or nothing.

        ``held_ms``: the newest that is held of the user, -1 where nothing is; ``sent_ms``: its record's own time. A no
        that was sent after both is a new one, of a device whose clock is behind; another is an old one once more. One
        that a producer sends again as a new record counts as new: of the two mistakes the one that forgets.
        """
        until_ms = self.watermarks.of(user)
        if time_ms <= until_ms:
            anew = said is False and 0 <= held_ms < sent_ms and until_ms < sent_ms
            return Verdict.REFUSED if anew else Verdict.ERASED
        answer = self.answers.get(user.decode()) if self.answers else None
        if said is False or (answer is not None and not answer.granted):
            return Verdict.REFUSED
        if said or self.presumed:
            return Verdict.ADMITTED
        stands = answer is not None and self.overruled.get(user, -1) < answer.time_ms <= time_ms
        return Verdict.ADMITTED if stands else Verdict.WITHOUT

    def overrule(self, user: bytes, no_ms: int) -> bool:
        """Let a no on an event, at ``no_ms``, end an older consent; whether one stands that silence would lean on."""
        answer = self.answers.get(user.decode()) if self.answers and not self.presumed else None
        if answer is None or not answer.granted or answer.time_ms > no_ms:
            return False
        self.overruled[user] = max(no_ms, self.overruled.get(user, -1))
        return True

    def settle(self) -> None:
        """Forget noes whose consent has been taken back, or given anew."""
        for user, no_ms in [*self.overruled.items()]:
            answer = self.answers.get(user.decode())
            if answer is None or not answer.granted or answer.time_ms > no_ms:
                del self.overruled[user]
