"""Which events may be learnt from, by the workers' own checks and their rule of who is remembered. No I/O.

The rule is about people as they stand now, and a person's last word may be anywhere on the topics. So the order is:
hear all events, settle the requests, recall what people did before they were forgotten, then judge all events.
"""

import sys
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from scoring.events import Source
from scoring.rows import RowStore
from streams.control import Control
from streams.control_wire import Consent, Erasure
from streams.decode import DECODERS, Decoded, Event, Record, decode, noes, valid
from streams.feeds.catalogue import read_ad
from streams.logs import mistimed
from streams.privacy.consent import Gate, Watermarks
from streams.privacy.requests import Requests, settle
from streams.wire import UNREADABLE, Ad


class _Heard(Watermarks):
    """Watermarks after all refusals have been heard: none raises one again when its event is judged."""

    def __init__(self, of: Watermarks) -> None:
        super().__init__()
        self.until_ms, self.no_ms = of.until_ms, of.no_ms  # shared, not copied

    def raise_to(self, user: bytes, time_ms: int) -> None:
        """Stays as it is."""

    def say_no(self, user: bytes, sent_ms: int) -> None:
        """Stays as it is."""


class Learnable:
    """Takes the control topic whole (``control``), then events: `hear` all, `settle`, `recall` all, and `take` all.

    Each batch is of one partition; the result does not depend on where the topics are cut into batches.

    ``ends``: log ends of the events, by topic and partition, taken at one moment; ``presumed``: what a person's silence
    means; ``tolerance_ms``: how much later than ``now_ms`` an event may be; ``entries_max``: bound of the control topic
    (`Control`).
    """

    def __init__(
        self,
        ends: Mapping[tuple[str, int], int],
        *,
        presumed: bool,
        now_ms: int,
        tolerance_ms: int,
        entries_max: int,
    ) -> None:
        self._ends = ends
        self.control = Control(entries_max)
        self._requests = Requests(self.control, lambda _user: 0)
        # No bound: if a watermark were dropped, events of a forgotten person would be learnt from after all.
        self._watermarks = Watermarks(most=sys.maxsize)
        self._answers, self._erasures = self.control.all(Consent), self.control.all(Erasure)
        by_digest = self._requests.answers, self._requests.erasures
        self._gate = Gate(*by_digest, _Heard(self._watermarks), presumed, tolerance_ms)
        self._latest_ms, self._tolerance_ms = now_ms + tolerance_ms, tolerance_ms
        self._refused_ms: dict[bytes, int] = {}
        """When a user's last refusal on an event came, by its record's time: a lane forgets what had come by then.

        A refusal that a lane passes over as a repeated old one counts, too. Whether the lane does so depends on what it
        held at that moment, and so on an order among topics that nobody recorded. When in doubt, forget.
        """
        self._refusing_ms: dict[bytes, int] = {}
        """When a user's newest refusal on an event was made, by the user's clock, as far as workers believe it."""
        self._refused_at: dict[tuple[str, int, bytes], int] = {}
        """Offset of a user's last refusal in a partition: records before it had come by then, whatever clocks say."""
        self._forgotten: set[bytes] = set()
        """Users of whom some records may have to be forgotten."""
        self.invalid = 0
        """Events that workers would make dead letters, and those with a time that no log may hold (`mistimed`)."""
        self.refused = 0
        """Events of people who are not remembered, or from before they were forgotten."""

    def hear(self, source: Source, records: Sequence[Record]) -> None:
        """Note refusals on events: a refusal takes back all that had come by then. Silence takes nothing back."""
        records = self._until(records)
        for place, time_ms in noes(source, records, self._latest_ms, self._gate.ahead_ms).items():
            record = records[place]
            user = record.key or b""
            came_ms = record.timestamp if record.timestamp >= 0 else time_ms
            self._refused_ms[user] = max(came_ms, self._refused_ms.get(user, 0))
            refusing_ms = min(time_ms, came_ms + self._tolerance_ms)
            self._refusing_ms[user] = max(refusing_ms, self._refusing_ms.get(user, 0))
            at = record.topic, record.partition, user
            self._refused_at[at] = max(record.offset, self._refused_at.get(at, 0))

    def settle(self) -> bool:
        """Settle all requests, once all events have been heard; return whether there is anything to `recall`.

        A consent that stands may have replaced a refusal that compaction has removed. So what came before the consent
        counts as forgotten.
        """
        agreed = [answer.user_id.encode() for answer in self._answers.values() if answer.granted]
        for user in agreed:
            self._watermarks.raise_to(user, 0)
        settle(self._requests.since(0, 0), RowStore(), self._watermarks)
        for user, refusing_ms in self._refusing_ms.items():
            self._watermarks.say_no(user, self._refused_ms[user])
            self._watermarks.raise_to(user, refusing_ms)
        self._forgotten = {*self._refused_ms, *agreed, *(user.encode() for user in self._erasures)}
        return bool(self._forgotten)

    def recall(self, source: Source, records: Sequence[Record]) -> None:
        """Raise watermarks to the newest event that is forgotten, as a lane does: it holds back what is dated before.

        This is a pass of its own: only when all has been heard is it known whom to remember. No lane held an event that
        was dated later than both its arrival and the forgetting by more than the tolerance: it was in the future then,
        and became a dead letter, though its date may have passed since. Senders' clocks may be slow, so the later of
        the two is the bound.
        """
        records = [each for each in self._until(records) if each.key in self._forgotten and self._had_come(each)]
        places, events = valid(source, records, self._latest_ms, self._gate.ahead_ms)
        for place, event in zip(places.tolist(), events, strict=True):
            user, came_ms = event.user_id.encode(), records[place].timestamp
            held_ms = max(came_ms if came_ms >= 0 else event.time_ms, self._forgotten_ms(user)) + self._tolerance_ms
            self._watermarks.raise_to(user, min(event.time_ms, held_ms))

    def _forgotten_ms(self, user: bytes) -> int:
        """The latest time at which ``user`` was forgotten, by any clock that tells it."""
        name = user.decode()
        told = self._erasures.get(name), self._answers.get(name)
        asked_ms = (max(request.time_ms, request.told_ms) for request in told if request is not None)
        return max(self._refused_ms.get(user, 0), self._refusing_ms.get(user, 0), *asked_ms, 0)

    def take(self, source: Source, records: Sequence[Record]) -> list[Event]:
        """The events that may be learnt from. The others are counted, except those after the ends."""
        records = self._until(records)
        decoded = self._judged(source, records)
        self.invalid += len(decoded.dead)
        judged = zip(decoded.places.tolist(), decoded.events["time_ms"].tolist(), strict=True)
        left = [records[place] for place, time_ms in judged if not self._taken_back(records[place], time_ms)]
        self.refused += len(decoded.strangers) + decoded.erased + len(decoded.places) - len(left)
        events = [DECODERS[source](each.value or b"") for each in left]
        found = [event for event in events if not mistimed(event)]
        self.invalid += len(events) - len(found)
        return found

    def _until(self, records: Sequence[Record]) -> list[Record]:
        """The records before the ends: of later ones, a refusal that takes them back may not have been heard."""
        return [each for each in records if each.offset < self._ends.get((each.topic, each.partition), 0)]

    def _taken_back(self, record: Record, time_ms: int) -> bool:
        """Whether an event at ``time_ms`` had come when its user was forgotten, or happened before their last refusal.

        Either counts, since a lane also holds back what comes late.
        """
        return record.key in self._forgotten and (
            self._had_come(record) or time_ms <= self._refused_ms.get(record.key or b"", -1)
        )

    def _had_come(self, record: Record) -> bool:
        """Whether the record of a forgotten user had come by their erasure, their consent or their last refusal.

        By their consent, since until then a refusal may have stood. A record without a time (-1) may have come before
        any erasure or refusal; whether before a consent, its event's own time decides.
        """
        user = record.key or b""
        name = user.decode()
        if (erasure := self._erasures.get(name)) is not None and record.timestamp <= erasure.told_ms:
            return True
        answer = self._answers.get(name)
        if answer is not None and answer.granted and 0 <= record.timestamp < answer.told_ms:
            return True
        if (refused_ms := self._refused_ms.get(user)) is None:
            return False
        before = self._refused_at.get((record.topic, record.partition, user), -1)
        return record.timestamp <= refused_ms or record.offset < before

    def _judged(self, source: Source, records: Sequence[Record]) -> Decoded:
        return decode(
            records,
            np.full(len(records), source, dtype=np.uint8),
            RowStore(),
            latest_ms=self._latest_ms,
            belongs_here=lambda _user: True,
            gate=self._gate,
        )


class Offered:
    """The newest version of each ad on the topic. A withdrawn ad was shown before, so it stays, as one that has ended.

    ``for_log``: a version with a time that no log may hold (`mistimed`) is skipped, and the one before stays.
    """

    def __init__(self, *, for_log: bool = False) -> None:
        self._for_log = for_log
        self.ads: dict[bytes, Ad] = {}
        self.invalid = 0
        """Records that workers would make dead letters, and versions that were skipped."""

    def take(self, records: Sequence[Record]) -> None:
        """Take records in order."""
        for record in records:
            key = record.key or b""
            try:
                key.decode()  # a key that is not UTF-8 names no ad, even on a tombstone
                told = None if record.value is None else read_ad(record.key, record.value)
            except UNREADABLE:
                self.invalid += 1
                continue
            if self._for_log and told is not None and mistimed(told):
                self.invalid += 1
            elif told is not None:
                self.ads[key] = told
            elif key in self.ads:
                self.ads[key] = msgspec.structs.replace(self.ads[key], status="ended")
