"""What may be learnt from the topics, by the workers' own checks and their rule of who is remembered. No I/O.

The rule is of people as they stand now, and what they say last may stand anywhere on the topics. So all events are
heard first, then the requests are settled, what people did before they were forgotten is recalled, and then all events
are judged.
"""

import sys
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from scoring.events import Source
from scoring.rows import RowStore
from streams.control import Control
from streams.control_wire import Consent, Erasure
from streams.decode import DECODERS, Decoded, Event, Record, decode, valid
from streams.feeds.catalogue import read_ad
from streams.logs import mistimed
from streams.privacy.consent import Gate, Watermarks
from streams.privacy.requests import Requests, settle
from streams.wire import UNREADABLE, Ad


class _Heard(Watermarks):
    """Those of noes that have all been heard: none raises one any more where it is read."""

    def __init__(self, of: Watermarks) -> None:
        super().__init__()
        self.until_ms, self.no_ms = of.until_ms, of.no_ms  # the same

    def raise_to(self, user: bytes, time_ms: int) -> None:
        """Stays as it is."""

    def say_no(self, user: bytes, sent_ms: int) -> None:
        """Stays as it is."""


class Learnable:
    """Takes the control topic whole (``control``), then events: `hear` all, `settle`, `recall` all, and `take` all.

    What is learnt does not depend on how the topics are cut into batches, each of one partition.

    ``ends``: of the events, by topic and partition, as they were at one moment; ``presumed``: what a person's silence
    means; ``now_ms``, ``tolerance_ms``: events may be so much later than that; ``entries_max``: of the control topic
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
        # As many watermarks as people on the topics: if one were dropped, somebody would be learnt from after all.
        self._watermarks = Watermarks(most=sys.maxsize)
        self._answers, self._erasures = self.control.all(Consent), self.control.all(Erasure)
        by_digest = self._requests.answers, self._requests.erasures
        self._gate = Gate(*by_digest, _Heard(self._watermarks), presumed, tolerance_ms)
        self._latest_ms, self._tolerance_ms = now_ms + tolerance_ms, tolerance_ms
        self._refused_ms: dict[bytes, int] = {}
        """When a user's last refusal on an event came, by its record: a lane forgets what had come by then.

        Also of one that a lane passes over as an old one once more: whether it does follows from what it held at that
        moment, and so from an order among topics that nobody knows any more. Of the two mistakes the one that forgets.
        """
        self._refusing_ms: dict[bytes, int] = {}
        """When a user's refusals on events were, by the user's clock, as far as workers believe it: the newest."""
        self._refused_at: dict[tuple[str, int, bytes], int] = {}
        """And at which offset of a partition: what stands before it there had come, whatever clocks say."""
        self._forgotten: set[bytes] = set()
        """Users of whom something that had come may be forgotten."""
        self.invalid = 0
        """Events that the workers make dead letters, and those of a time that no log may hold (`mistimed`)."""
        self.refused = 0
        """Events of people who are not remembered, or whose events of then are not."""

    def hear(self, source: Source, records: Sequence[Record]) -> None:
        """Note who says no on an event: it takes all that had come by then."""
        records = self._until(records)
        places, events = valid(source, records, self._latest_ms, self._gate.ahead_ms)
        for place, event in zip(places.tolist(), events, strict=True):
            if event.consent is False:  # silence takes nothing back
                user, record = event.user_id.encode(), records[place]
                came_ms = record.timestamp if record.timestamp >= 0 else event.time_ms
                self._refused_ms[user] = max(came_ms, self._refused_ms.get(user, 0))
                refusing_ms = min(event.time_ms, came_ms + self._tolerance_ms)
                self._refusing_ms[user] = max(refusing_ms, self._refusing_ms.get(user, 0))
                at = record.topic, record.partition, user
                self._refused_at[at] = max(record.offset, self._refused_at.get(at, 0))

    def settle(self) -> bool:
        """Meet all requests, once all events have been heard; whether there is anything to `recall`.

        A consent that stands may have taken the place of a refusal, which the compacted topic then tells no more: what
        came before it is taken for forgotten.
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
        """Raise watermarks to the newest of what is forgotten: as a lane does, which holds back what is dated before.

        A time of its own for this, since only once all is heard is it known of whom to remember anything. No lane held
        anything dated later than it came, and than the forgetting, by more than the tolerance: what was in the future
        then was a dead letter, though its date has passed. Senders' clocks may be slow, so the later of the two bounds.
        """
        records = [each for each in self._until(records) if each.key in self._forgotten and self._had_come(each)]
        places, events = valid(source, records, self._latest_ms, self._gate.ahead_ms)
        for place, event in zip(places.tolist(), events, strict=True):
            user, came_ms = event.user_id.encode(), records[place].timestamp
            held_ms = max(came_ms if came_ms >= 0 else event.time_ms, self._forgotten_ms(user)) + self._tolerance_ms
            self._watermarks.raise_to(user, min(event.time_ms, held_ms))

    def _forgotten_ms(self, user: bytes) -> int:
        """The latest time at which one of the forgotten was, by any clock that tells it."""
        name = user.decode()
        told = self._erasures.get(name), self._answers.get(name)
        asked_ms = (max(request.time_ms, request.told_ms) for request in told if request is not None)
        return max(self._refused_ms.get(user, 0), self._refusing_ms.get(user, 0), *asked_ms, 0)

    def take(self, source: Source, records: Sequence[Record]) -> list[Event]:
        """The events that may be learnt from; the others are counted, but for those after the ends."""
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
        """Those before the ends: who takes back what follows may not have been heard."""
        return [each for each in records if each.offset < self._ends.get((each.topic, each.partition), 0)]

    def _taken_back(self, record: Record, time_ms: int) -> bool:
        """Whether what happened at ``time_ms`` had come when its user was forgotten, or had happened by their last no.

        Either, since a lane also holds back what comes late.
        """
        return record.key in self._forgotten and (
            self._had_come(record) or time_ms <= self._refused_ms.get(record.key or b"", -1)
        )

    def _had_come(self, record: Record) -> bool:
        """Whether a record of one of the forgotten had come by their erasure, their consent or their last no.

        By their consent, since until then a refusal may have stood. One that does not tell when it was sent (-1) may
        have come before any erasure or no; of consents its event's own time tells.
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
    """Ads as the topic tells them last. One that is withdrawn was shown before: it stays, and has ended.

    ``for_log``: a version with a time that no log may hold (`mistimed`) is passed over, and the one before stays.
    """

    def __init__(self, *, for_log: bool = False) -> None:
        self._for_log = for_log
        self.ads: dict[bytes, Ad] = {}
        self.invalid = 0
        """Records that the workers make dead letters, and what was passed over."""

    def take(self, records: Sequence[Record]) -> None:
        """Take records in order."""
        for record in records:
            key = record.key or b""
            try:
                key.decode()  # what is no text is no ad's name, though nothing is told of it but that it is withdrawn
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
