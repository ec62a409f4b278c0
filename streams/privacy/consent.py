"""Who may become state, and what may not come back: consent and watermarks, asked for every event. No I/O.

A refusal, on an event or on the control topic, and an erasure have the same effect: the row and the placement go, and
a watermark stays under a hash of the user, so that nothing that happened until then is applied, whether it is replayed
or comes late. The watermarks are rows of the lane's changelog under reserved keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import xxhash

from streams.control_wire import Consent, Erasure
from streams.deadlines import Deadlines
from streams.wire import RESERVED

ERASED_KEY = RESERVED + b"erased/"
"""Key of a watermark, before the user's digest; the value is its time in ms, 8 bytes big-endian."""
AHEAD_MS = 300_000
"""What a person says of their consent is dated at most so long after its record: else a device whose clock is ahead
would lock its owner out until then, and nothing later could mend it."""
_NO = RESERVED + b"no/"
"""Before a user's name whose no on an event has a mark of its own among the watermarks: no user is called that."""
_NEVER_MS = 1 << 50
"""Added to the times of these: they hold as long as the consent that they end may stand, and beyond every time."""


class Verdict(IntEnum):
    """Whether an event may become state."""

    ADMITTED = 0
    WITHOUT = 1
    """Nobody has said yes: no state, and a placement of context alone."""
    REFUSED = 2
    """Somebody has said no: likewise, and what is held is forgotten."""
    ERASED = 3
    """It happened before the user's watermark, or came before they were erased: passed over, unless it is a no of whom
    something is held again."""


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

    def no_of(self, user: bytes) -> int:
        """When a no on an event ended the user's consent on the control topic; -1 where none did."""
        return max(self.of(_NO + user) - _NEVER_MS, -1)

    def say_no(self, user: bytes, time_ms: int) -> None:
        """Let a no on an event at ``time_ms`` end the consents before it."""
        self.raise_to(_NO + user, _NEVER_MS + time_ms)

    def agree(self, user: bytes, answer: Consent) -> None:
        """Let a consent count from its own time on, where a watermark is, and end a no that was told before it."""
        if self.of(user) >= 0:
            self.raise_to(user, answer.time_ms - 1)
        if self.no_of(user) < answer.told_ms:
            self.unsay_no(user)

    def unsay_no(self, user: bytes) -> None:
        """Drop what a no on an event has left."""
        self.drop([_digest(_NO + user)])

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
    """Who may become state, by what people have asked for (``answers``, ``erasures``) and what was forgotten.

    ``presumed``: what silence means (`SALIENCE_CONSENT_PRESUMED`). ``ahead_ms``: so much later than its record a no may
    be dated, as other events may be than now.
    """

    answers: Mapping[str, Consent] = field(default_factory=dict)
    erasures: Mapping[str, Erasure] = field(default_factory=dict)
    watermarks: Watermarks = field(default_factory=Watermarks)
    presumed: bool = True
    ahead_ms: int = AHEAD_MS

    def stands_open(self, said: bool) -> bool:
        """Whether every event would be admitted; ``said``: whether any says yes or no itself."""
        return self.presumed and not (said or self.answers or self.erasures or self.watermarks.until_ms)

    def judge(self, user: bytes, said: bool | None, time_ms: int, sent_ms: int, held_ms: int = -1) -> Verdict:
        """The verdict on an event of ``user`` at ``time_ms`` that itself ``said`` yes, no or nothing.

        ``sent_ms``: its record's own time, that of the event where the record tells none. What was sent before the
        record of an erasure is what that was to take, whatever its device's clock says and whenever it is read.
        ``held_ms``: the newest that is held of the user, -1 where nothing is. A no
        that was sent after both is a new one, of a device whose clock is behind, and so is one that was sent after the
        consent that raised the watermark, of a device whose clock is ahead; another is an old one once more. One that
        a producer sends again as a new record counts as new: of the two mistakes the one that forgets.
        """
        until_ms = self.watermarks.of(user)
        answer = self.answers.get(user.decode()) if self.answers else None
        erasure = self.erasures.get(user.decode()) if self.erasures else None
        if time_ms <= until_ms or (erasure is not None and sent_ms <= erasure.told_ms):
            since = answer is not None and answer.granted and until_ms < answer.time_ms and answer.told_ms <= sent_ms
            anew = said is False and held_ms >= 0 and (since or max(held_ms, until_ms) < sent_ms)
            return Verdict.REFUSED if anew else Verdict.ERASED
        if said is False or (answer is not None and not answer.granted):
            return Verdict.REFUSED
        if said or self.presumed:
            return Verdict.ADMITTED
        stands = answer is not None and answer.time_ms <= time_ms and self.watermarks.no_of(user) < answer.told_ms
        return Verdict.ADMITTED if stands else Verdict.WITHOUT

    def overrule(self, user: bytes, sent_ms: int) -> None:
        """Let a no on an event end a consent that stands on the control topic and was told before: silence leans on it.

        By the records' own times, for devices' clocks are ahead and behind.
        """
        answer = self.answers.get(user.decode()) if self.answers and not self.presumed else None
        if answer is not None and answer.granted and answer.told_ms <= sent_ms:
            self.watermarks.say_no(user, sent_ms)
