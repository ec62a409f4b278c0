"""Who may become state, and what may not come back: consent and watermarks, asked for every event. No I/O.

A refusal, on an event or on the control topic, and an erasure have the same effect: the row and the placement go, and
a watermark stays under a hash of the user, so that nothing that happened until then is applied, whether it is replayed
or comes late. It also tells when the user last said no on an event, which ends the consents that were told before. The
watermarks are rows of the lane's changelog under reserved keys.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import xxhash

from scoring.rows import USERS_MAX
from streams.control_wire import Consent, Erasure
from streams.deadlines import Deadlines
from streams.wire import RESERVED

ERASED_KEY = RESERVED + b"erased/"
"""Key of a watermark, before the user's digest; the value is its time in ms, 8 bytes big-endian, and after it, of who
has said no on an event, when the newest of these was sent, likewise."""
AHEAD_MS = 300_000
"""What a person says of their consent is dated at most so long after its record: else a device whose clock is ahead
would lock its owner out until then, and nothing later could mend it."""
_TIME_BYTES = 8
_NEVER_MS = 1 << 50
"""No watermark's time: what is of this or a later one is another mark, which development versions kept among them."""


class Verdict(IntEnum):
    """Whether an event may become state."""

    ADMITTED = 0
    WITHOUT = 1
    """Nobody has said yes: no state, and a placement of context alone."""
    REFUSED = 2
    """Somebody has said no: likewise, and what is held is forgotten."""
    ERASED = 3
    """It happened before the user's watermark, or was sent before they were erased: passed over, unless it is a no that
    has not been heard."""


class Watermarks(Deadlines):
    """Users forgotten, by digest, none of them the user's name: two moments, each by a clock of its own.

    ``until_ms``: until when what they did is held back, as their devices date it. ``no_ms``: when their newest no on an
    event was sent, as records are dated; only of those who have said one. Neither ever falls.

    Since anybody may say no on an event, they are bounded, by as many as a lane has rows for (`Gate.bound`): 140 bytes
    each, and as many again of who has said one.
    """

    prefix = ERASED_KEY

    def __init__(self, most: int = USERS_MAX) -> None:
        super().__init__(most)
        self.no_ms: dict[bytes, int] = {}

    def of(self, user: bytes) -> int:
        """The newest time of what may not be applied; -1 where nothing is held back."""
        return self.until_ms.get(digest_of(user), -1) if self.until_ms else -1

    def no_of(self, user: bytes) -> int:
        """When the user's newest no on an event was sent; -1 where they have said none."""
        return self.no_ms.get(digest_of(user), -1) if self.no_ms else -1

    def raise_to(self, user: bytes, time_ms: int) -> None:
        """Hold back what happened until ``time_ms``.

        The changelog is told though it was held back before: so its readers know that the user is forgotten.
        """
        digest = digest_of(user)
        self.put(digest, max(time_ms, self.until_ms.get(digest, 0)))

    def say_no(self, user: bytes, sent_ms: int) -> None:
        """Remember that a no on an event was sent at ``sent_ms``: it ends the consents that were told until then."""
        digest = digest_of(user)
        if sent_ms > self.no_ms.get(digest, -1):
            self.no_ms[digest] = sent_ms
            self.put(digest, self.until_ms.get(digest, 0))

    def agree(self, user: bytes, answer: Consent) -> None:
        """Let a consent count from its own time on, where a watermark is."""
        if 0 <= self.of(user) < answer.time_ms - 1:
            self.raise_to(user, answer.time_ms - 1)

    def hold(self, digest: bytes, until_ms: int, no_ms: int = -1) -> None:
        """What a changelog or a file tells: it may have been written before either was raised."""
        if until_ms >= _NEVER_MS:
            self._changed.add(digest)  # the changelog is told that there is none
            return
        self.until_ms[digest] = max(until_ms, self.until_ms.get(digest, 0))
        if no_ms > self.no_ms.get(digest, -1):
            self.no_ms[digest] = no_ms

    def take(self, key: bytes, value: bytes | None) -> None:
        """What a changelog tells under ``key``, with its prefix: there is nothing to tell it of that."""
        digest = key.removeprefix(self.prefix)
        if value is not None:
            self._read(digest, value)
        elif self.until_ms.pop(digest, None) is not None:
            self.no_ms.pop(digest, None)

    def drop(self, keys: Iterable[bytes]) -> list[bytes]:
        """Forget ``keys``, with both moments; those that were there."""
        gone = super().drop(keys)
        for digest in gone:
            self.no_ms.pop(digest, None)
        return gone

    def _told(self, key: bytes) -> bytes:
        no_ms = self.no_ms.get(key)
        return super()._told(key) + (b"" if no_ms is None else no_ms.to_bytes(_TIME_BYTES, "big"))

    def _read(self, key: bytes, value: bytes) -> None:
        until, no = value[:_TIME_BYTES], value[_TIME_BYTES:]
        self.hold(key, int.from_bytes(until, "big"), int.from_bytes(no, "big") if no else -1)


def watermark_key(user: bytes) -> bytes:
    """Under which a changelog holds the user's watermark."""
    return ERASED_KEY + digest_of(user)


def digest_of(user: bytes) -> bytes:
    """Under which a user's watermark, answer and erasure are held: 16 bytes."""
    return xxhash.xxh3_128_digest(user)


@dataclass(slots=True)
class Gate:
    """Who may become state, by what people have asked for (``answers``, ``erasures``) and what was forgotten.

    All three are held by the user's digest (`digest_of`): what a watermark has to do with an answer is looked up.
    ``presumed``: what silence means (`SALIENCE_CONSENT_PRESUMED`). ``ahead_ms``: so much later than its record a no may
    be dated, as other events may be than now.
    """

    answers: Mapping[bytes, Consent] = field(default_factory=dict)
    erasures: Mapping[bytes, Erasure] = field(default_factory=dict)
    watermarks: Watermarks = field(default_factory=Watermarks)
    presumed: bool = True
    ahead_ms: int = AHEAD_MS

    def stands_open(self, said: bool) -> bool:
        """Whether every event would be admitted; ``said``: whether any says yes or no itself."""
        return self.presumed and not (said or self.answers or self.erasures or self.watermarks.until_ms)

    def judge(self, user: bytes, said: bool | None, time_ms: int, sent_ms: int) -> Verdict:
        """The verdict on an event of ``user`` at ``time_ms`` that itself ``said`` yes, no or nothing.

        ``sent_ms``: its record's own time, that of the event where the record tells none. By it a no is compared with
        other noes and with what is told on the control topic, for devices' clocks are ahead and behind: it is an old
        one once more if one as new was heard, so that of two that were sent in one millisecond the second counts only
        where it is dated after all that is held back. One that a producer sends again as a new record counts as new:
        of the two mistakes the one that forgets. What was sent before the record of an erasure is what that was to
        take, whatever its device's clock says and whenever it is read.
        """
        digest = digest_of(user)
        answer, erasure = self.answers.get(digest), self.erasures.get(digest)
        until_ms, no_ms = self.watermarks.until_ms.get(digest, -1), self.watermarks.no_ms.get(digest, -1)
        had_come = erasure is not None and sent_ms <= erasure.told_ms
        if said is False and not had_come and sent_ms > no_ms:
            return Verdict.REFUSED
        if had_come or time_ms <= until_ms:
            return Verdict.ERASED
        if said is False or (answer is not None and not answer.granted):
            return Verdict.REFUSED
        if said or self.presumed:
            return Verdict.ADMITTED
        stands = answer is not None and answer.time_ms <= time_ms and no_ms < answer.told_ms
        return Verdict.ADMITTED if stands else Verdict.WITHOUT

    def expire(self, before_ms: int) -> None:
        """Drop watermarks before ``before_ms``: whatever they hold back is on no topic any more.

        Those stay whose no ends a consent that stands: else silence would lean on that again.
        """
        ended = self.watermarks.before(before_ms)
        self.watermarks.drop({*ended} - self._ending(ended))

    def bound(self) -> None:
        """Drop the surplus.

        Those first that end first: what they hold back is the likeliest to be on no topic any more. Last those that a
        request on the control topic needs, an erasure or a consent that a no has ended: whoever may write events cannot
        press out these.
        """
        marks = self.watermarks
        if marks.too_many:
            marks.drop(marks.surplus(self._ending(marks.no_ms) | self.erasures.keys()))

    def _ending(self, among: Iterable[bytes]) -> set[bytes]:
        """Those of ``among``, digests, whose no has ended a consent that stands.

        Whatever silence means now: an operator may ask for consents later, and it would lean on that one again.
        """
        no_ms, found = self.watermarks.no_ms, ((digest, self.answers.get(digest)) for digest in among)
        return {digest for digest, it in found if it and it.granted and it.told_ms <= no_ms.get(digest, -1)}
