"""Which events may become state, by consent and watermarks: both are checked for every event. No I/O.

A refusal, on an event or on the control topic, and an erasure have the same effect: the user's row and placement go,
and a watermark stays under a hash of the user. No event up to the watermark is applied, be it replayed or late. The
watermark also has the time of the user's last no on an event. That ends the consents recorded before it, as does an
erasure while it stands. Watermarks are records of the lane's changelog under reserved keys.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import ClassVar

import xxhash

from scoring.rows import USERS_MAX
from streams.control_wire import Consent, Erasure
from streams.deadlines import Deadlines
from streams.wire import RESERVED

ERASED_KEY = RESERVED + b"erased/"
"""Prefix of a watermark's key; the user's digest follows. The value is the watermark's time in ms, 8 bytes big-endian;
where the user has said no on an event, 8 more bytes tell when the newest no was sent."""
AHEAD_MS = 300_000
"""How far the time of a consent or a no may be ahead of its record's. Without a bound, a device whose clock is ahead
would lock its owner out until that time, and nothing later could mend it."""
_NEVER_MS = 1 << 50
"""Above the time of every watermark: from here on a value is another mark, as development versions kept among them."""


class Verdict(IntEnum):
    """Whether an event may become state."""

    ADMITTED = 0
    WITHOUT = 1
    """The user has not said yes: no state, and a placement of context alone."""
    REFUSED = 2
    """The user has said no: likewise, and what is held of them is forgotten."""
    ERASED = 3
    """It happened up to the user's watermark, or was sent before their erasure or their newest no: it is skipped. But a
    new no that was sent after the erasure is `REFUSED`."""


class Watermarks(Deadlines):
    """Forgotten users by digest, never by name; each has one or two times, by different clocks.

    ``until_ms``: events up to then are held back, by the time of the event (the device's clock). ``no_ms``: when the
    newest no on an event was sent, by the time of its record; only for users who have said one. Neither ever falls.

    Anybody may say no on an event, so watermarks are bounded by the number of rows in a lane (`Gate.bound`): 140 bytes
    each, and 140 more for a no.
    """

    prefix = ERASED_KEY
    named = "a watermark"
    layouts: ClassVar[Mapping[int, Struct]] = {8: Struct(">Q"), 16: Struct(">QQ")}

    def __init__(self, most: int = USERS_MAX) -> None:
        super().__init__(most)
        self.no_ms: dict[bytes, int] = {}

    def of(self, user: bytes) -> int:
        """The time up to which the user's events are held back; -1 where none are."""
        return self.until_ms.get(digest_of(user), -1) if self.until_ms else -1

    def raise_to(self, user: bytes, time_ms: int) -> None:
        """Hold back events up to ``time_ms``.

        The changelog gets a record even where nothing changes: it tells its readers that the user is forgotten.
        """
        digest = digest_of(user)
        self.put(digest, max(time_ms, self.until_ms.get(digest, 0)))

    def say_no(self, user: bytes, sent_ms: int) -> None:
        """Remember that a no on an event was sent at ``sent_ms``: it ends the consents recorded up to then."""
        digest = digest_of(user)
        if sent_ms > self.no_ms.get(digest, -1):
            self.no_ms[digest] = sent_ms
            self.put(digest, self.until_ms.get(digest, 0))

    def agree(self, user: bytes, answer: Consent) -> None:
        """Where the user has a watermark, raise it to just before a consent, which counts from its own time on."""
        if 0 <= self.of(user) < answer.time_ms - 1:
            self.raise_to(user, answer.time_ms - 1)

    def hold(self, digest: bytes, until_ms: int, no_ms: int = -1) -> None:
        """Take a watermark from a changelog or a file. It may be older than what is held: later times win."""
        if until_ms >= _NEVER_MS:
            self._changed.add(digest)  # a tombstone for it goes to the changelog
            return
        self.until_ms[digest] = max(until_ms, self.until_ms.get(digest, 0))
        if no_ms > self.no_ms.get(digest, -1):
            self.no_ms[digest] = no_ms

    def take(self, key: bytes, value: bytes | None) -> None:
        """Take what a changelog holds under ``key``, with its prefix; the changelog itself needs no record of that.

        Raises `ValueError` where the value is of a layout that this version does not read.
        """
        digest = key.removeprefix(self.prefix)
        if value is not None:
            self._read(digest, value)
        elif self.until_ms.pop(digest, None) is not None:
            self.no_ms.pop(digest, None)

    def drop(self, keys: Iterable[bytes]) -> list[bytes]:
        """Forget ``keys``, with both times. Returns those that were there."""
        gone = super().drop(keys)
        for digest in gone:
            self.no_ms.pop(digest, None)
        return gone

    def _told(self, key: bytes) -> bytes:
        no_ms = self.no_ms.get(key)
        return super()._told(key) + (b"" if no_ms is None else no_ms.to_bytes(8, "big"))

    def _read(self, key: bytes, value: bytes) -> None:
        self.hold(key, *self.times(value))


def watermark_key(user: bytes) -> bytes:
    """The key of the user's watermark in a changelog."""
    return ERASED_KEY + digest_of(user)


def digest_of(user: bytes) -> bytes:
    """The key of a user's watermark, answer and erasure in memory: 16 bytes."""
    return xxhash.xxh3_128_digest(user)


@dataclass(slots=True)
class Gate:
    """Decides who may become state, by what people have asked for (``answers``, ``erasures``) and by ``watermarks``.

    All three are keyed by the user's digest (`digest_of`), so that a watermark's answer can be looked up. ``presumed``:
    whether silence means yes (`SALIENCE_CONSENT_PRESUMED`). ``ahead_ms``: how far the time of a no may be ahead of its
    record's; that of other events may be as far ahead of now.
    """

    answers: Mapping[bytes, Consent] = field(default_factory=dict)
    erasures: Mapping[bytes, Erasure] = field(default_factory=dict)
    watermarks: Watermarks = field(default_factory=Watermarks)
    presumed: bool = True
    ahead_ms: int = AHEAD_MS

    def stands_open(self, said: bool) -> bool:
        """Whether every event would be admitted; ``said``: whether any event says yes or no itself."""
        return self.presumed and not (said or self.answers or self.erasures or self.watermarks.until_ms)

    def judge(self, user: bytes, said: bool | None, time_ms: int, sent_ms: int) -> Verdict:
        """The verdict on an event of ``user`` at ``time_ms`` that itself ``said`` yes, no or nothing.

        ``sent_ms``: the time of its record, or of the event where the record has none. Devices' clocks are ahead or
        behind, so a no is compared with other noes and with the control topic by ``sent_ms``. A no is a repetition if
        one sent then or later is known: of two noes sent in one millisecond, the second counts only if its event time
        is after the watermark. If a producer sends a no again as a new record, it counts as new: of the two possible
        mistakes, that is the one that forgets. Of all else, what was sent before the newest no is skipped. What came in
        its millisecond goes by event times, since a device may send at once what was done within hours. An erasure
        takes all that was sent up to the time of its own record, whatever the device's clock says and whenever it is
        read; the consents recorded up to then end with it. A consent counts for what was sent after its own record.
        """
        digest = digest_of(user)
        answer, erasure = self.answers.get(digest), self.erasures.get(digest)
        until_ms, no_ms = self.watermarks.until_ms.get(digest, -1), self.watermarks.no_ms.get(digest, -1)
        had_come = erasure is not None and sent_ms <= erasure.told_ms
        if said is False and not had_come and sent_ms > no_ms:
            return Verdict.REFUSED
        if had_come or time_ms <= until_ms or (said is not False and sent_ms < no_ms):
            return Verdict.ERASED
        if said is False or (answer is not None and not answer.granted):
            return Verdict.REFUSED
        if said or self.presumed:
            return Verdict.ADMITTED
        ended_ms = no_ms if erasure is None else max(no_ms, erasure.told_ms)
        stands = answer is not None and ended_ms < answer.told_ms <= sent_ms and answer.time_ms <= time_ms
        return Verdict.ADMITTED if stands else Verdict.WITHOUT

    def expire(self, before_ms: int) -> None:
        """Drop watermarks before ``before_ms``: no topic holds anything that they hold back.

        A watermark stays if its no has ended a consent that stands: otherwise that consent would count again.
        """
        ended = self.watermarks.before(before_ms)
        self.watermarks.drop({*ended} - self._ending(ended))

    def bound(self) -> None:
        """Drop surplus watermarks, the oldest first: topics are the least likely to hold events so old.

        Watermarks that a request on the control topic needs (an erasure, or a consent that a no has ended) go last, so
        that whoever may write events cannot push them out.
        """
        marks = self.watermarks
        if marks.too_many:
            marks.drop(marks.surplus(self._ending(marks.no_ms) | self.erasures.keys()))

    def _ending(self, among: Iterable[bytes]) -> set[bytes]:
        """The digests of ``among`` whose no has ended a consent that stands.

        Whatever ``presumed`` says now: an operator may change it later, and the consent would count again.
        """
        no_ms, found = self.watermarks.no_ms, ((digest, self.answers.get(digest)) for digest in among)
        return {digest for digest, it in found if it and it.granted and it.told_ms <= no_ms.get(digest, -1)}
