"""Records to columns: decode, validate, and make dead letters of records that fail."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ints
from scoring.events import EVENT, Events, Source, only
from scoring.rows import RowStore
from streams import wire
from streams.columns import Event, Places, fill
from streams.message import size_of
from streams.noes import believed, no_in
from streams.privacy.consent import AHEAD_MS, Gate, Verdict
from streams.refusal import Refusal, ahead
from streams.topics import BATCH_BYTES
from streams.wire import UNREADABLE

Passed = tuple[Places, list[Event]]


class Record(Protocol):
    """The fields that we use of an aiokafka ``ConsumerRecord``."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


DECODERS: dict[int, Callable[[bytes], Event]] = {
    Source.IMPRESSION: msgspec.json.Decoder(wire.Impression).decode,
    Source.CLICK: msgspec.json.Decoder(wire.Click).decode,
}
"""Decoders of a record's value by `Source`; they raise one of `UNREADABLE`."""
RECORD_BYTES_MAX = BATCH_BYTES - 1_024
"""Largest record that can be sent on to its own partition, with one header more."""
_CONTROL = re.compile(wire.CONTROL)


@dataclass(slots=True)
class Decoded:
    """``events``: what may be applied, in order. ``dead``: refused records with stage, error class and message.

    ``misplaced``: records whose key belongs to another partition, to be sent there. ``places``: index of each event's
    record. ``strangers``: users who acted without consent to be remembered, with the index of the record; their events
    are in ``told``, not in ``events``. ``withdrawn``: users who have withdrawn consent, and whose rows are gone.
    ``erased``: how many events were before their user's watermark, or before a withdrawal in the same call. ``arms``:
    experiment tags of placement ids, by the tag's id64.
    """

    events: Events
    places: Places
    dead: list[tuple[Record, str, str, str]] = field(default_factory=list)
    misplaced: list[Record] = field(default_factory=list)
    strangers: list[tuple[bytes, int]] = field(default_factory=list)
    told: Events = field(default_factory=lambda: np.zeros(0, dtype=EVENT))
    withdrawn: list[bytes] = field(default_factory=list)
    erased: int = 0
    arms: dict[int, str] = field(default_factory=dict)

    def misplace(self, record: Record) -> None:
        """Have ``record`` sent on, or make it a dead letter if it is too large for that."""
        size = size_of(record.key, record.value, record.headers)
        if size > RECORD_BYTES_MAX:
            message = f"{size:,} bytes, at most {RECORD_BYTES_MAX:,} can be sent on; partition by murmur2 of the key"
            self.dead.append((record, "reroute", "RecordTooLarge", message))
        else:
            self.misplaced.append(record)


def decode(
    records: Sequence[Record],
    sources: npt.NDArray[np.uint8],
    store: RowStore,
    *,
    latest_ms: int,
    belongs_here: Callable[[bytes], bool],
    gate: Gate | None = None,
) -> Decoded:
    """Decode ``records`` in order. New users get rows; users who withdraw their consent lose theirs.

    ``latest_ms``: now + tolerance, the newest time that an event may have. ``belongs_here(key)``: whether the
    partitioner puts the key in this lane; asked once per row, since the answer never changes. ``gate``: who may become
    state; None: everyone but those whose own events say no.
    """
    out, gate = Decoded(np.zeros(len(records), dtype=EVENT), np.arange(len(records))), gate or Gate()
    keys = [record.key for record in records]
    refused: dict[int, Refusal] = {}
    said: dict[int, bool] = {}
    taken = np.zeros(len(records), dtype=np.bool_)
    for source in Source:
        places = np.flatnonzero(sources == source)
        of = [records[place] for place in places.tolist()]
        places, events = _passed(places, _read(source, of, latest_ms, gate.ahead_ms), of, latest_ms, refused)
        out.arms |= fill(out.events, places, source, events)
        taken[places] = True
        told = zip(places.tolist(), events, strict=True)
        said |= {place: event.consent for place, event in told if event.consent is not None}
    heard = _noes(refused, records, latest_ms, gate.ahead_ms)
    for place in [at for at in heard if (key := records[at].key or b"") not in store and not belongs_here(key)]:
        out.misplace(records[place])  # its own lane hears the refusal, and makes the dead letter
        del heard[place], refused[place]
    out.events["time_ms"][[*heard]] = [*heard.values()]
    said |= dict.fromkeys(heard, False)
    out.dead += [(records[at], "decode", *refused[at]) for at in sorted(refused)]
    out.events["offset"] = np.fromiter((record.offset for record in records), dtype=np.int64, count=len(records))
    if not gate.stands_open(bool(said)):
        _judge(gate, out, records, said, taken, store, belongs_here, latest_ms)
    rows = store.find_all(keys)
    unknown = np.flatnonzero(taken & (rows < 0))
    rows[unknown] = _rows_of_new(out, [records[place] for place in unknown.tolist()], store, belongs_here)
    out.events["row"] = rows
    out.places = np.flatnonzero(taken & (rows >= 0))
    out.events = only(out.events, taken & (rows >= 0))
    out.events["stream_ms"] = np.maximum.accumulate(out.events["time_ms"])
    return out


def _rows_of_new(out: Decoded, records: list[Record], store: RowStore, belongs_here: Callable[[bytes], bool]) -> Ints:
    """Make rows for the users of ``records [N]``, who have none yet; return them, -1 where no row was made.

    Records of another lane are sent on. If the lane is full, records of new users become dead letters; known users are
    served on.
    """
    keys = [record.key or b"" for record in records]  # the users of events that were taken
    here = [key for key in dict.fromkeys(keys) if belongs_here(key)]
    left = set(here[store.add(here) :])
    rows = store.find_all(keys)
    for record in (records[at] for at in np.flatnonzero(rows < 0).tolist()):
        if record.key in left:
            out.dead.append((record, "state", "LaneFull", store.full))
        else:
            out.misplace(record)
    return rows


def _judge(
    gate: Gate,
    out: Decoded,
    records: Sequence[Record],
    said: dict[int, bool],
    taken: Bools,
    store: RowStore,
    belongs_here: Callable[[bytes], bool],
    latest_ms: int,
) -> None:
    """Clear ``taken`` of events that may not become state, in order; remove the rows of users who withdraw consent.

    ``said``: what records say of consent, by place; a refusal there that is not ``taken`` is in a dead letter.

    What such a user did earlier in the same call is left out as well, since it would be forgotten anyway. The watermark
    is raised over that and over all that the row held: a device's clock may have dated the refusal earlier, and none of
    it may come back.
    """
    refused: dict[bytes, int] = {}
    newest_ms: dict[bytes, int] = {}  # of what was admitted in this call
    times_ms = out.events["time_ms"].tolist()
    asked = taken.copy()
    asked[[*said]] = True
    for place in np.flatnonzero(asked).tolist():
        user, time_ms = records[place].key or b"", times_ms[place]
        sent_ms = sent(records[place], time_ms, latest_ms)
        verdict = gate.judge(user, said.get(place), time_ms, sent_ms)
        if verdict is Verdict.ADMITTED:
            newest_ms[user] = max(time_ms, newest_ms.get(user, 0))
            continue
        if user not in store and not belongs_here(user):
            continue
        is_event, taken[place] = bool(taken[place]), False
        if said.get(place) is False:
            gate.watermarks.say_no(user, sent_ms)
        if verdict is Verdict.ERASED:
            out.erased += is_event
            continue
        if is_event:
            out.strangers.append((user, place))
        if verdict is Verdict.REFUSED:  # also for a user without a row: earlier events of theirs may still come
            gate.watermarks.raise_to(user, max(time_ms, _held_ms(store, user), newest_ms.get(user, -1)))
            refused[user] = place
            if store.remove(user):
                out.withdrawn.append(user)
    if refused:
        earlier = [at for at in np.flatnonzero(taken).tolist() if at < refused.get(records[at].key or b"", 0)]
        taken[earlier] = False
        out.erased += len(earlier)
        out.withdrawn = [*dict.fromkeys([*out.withdrawn, *(records[at].key or b"" for at in earlier)])]
    out.told = out.events[[place for _, place in out.strangers]]


def sent(record: Record, time_ms: int, latest_ms: int) -> int:
    """When the record of an event at ``time_ms`` was sent: its timestamp, or ``time_ms`` where it has none (-1)."""
    return time_ms if record.timestamp < 0 else min(record.timestamp, latest_ms)


def _held_ms(store: RowStore, user: bytes) -> int:
    """The newest time in the user's row; -1 where there is none."""
    row = store.find(user)
    return int(store.rows["time_ms"][row]) if row >= 0 else -1


def valid(source: Source, records: Sequence[Record], latest_ms: int, ahead_ms: int = AHEAD_MS) -> Passed:
    """The events of ``records``, all of ``source``, that pass a lane's checks, in order, with their places.

    ``ahead_ms``: as `Gate` has it.
    """
    return _passed(np.arange(len(records)), _read(source, records, latest_ms, ahead_ms), records, latest_ms, {})


def noes(source: Source, records: Sequence[Record], latest_ms: int, ahead_ms: int) -> dict[int, int]:
    """The times of all refusals of consent in ``records``, all of ``source``, by place; in dead letters, too."""
    refused: dict[int, Refusal] = {}
    read = _read(source, records, latest_ms, ahead_ms)
    places, events = _passed(np.arange(len(records)), read, records, latest_ms, refused)
    told = zip(places.tolist(), events, strict=True)
    heard = {place: event.time_ms for place, event in told if event.consent is False}
    return heard | _noes(refused, records, latest_ms, ahead_ms)


def _noes(refused: Iterable[int], records: Sequence[Record], latest_ms: int, ahead_ms: int) -> dict[int, int]:
    """The times of refusals of consent among the ``refused`` of ``records``, by place."""
    return {at: no for at in refused if (no := no_in(records[at], latest_ms, ahead_ms)) is not None}


def _read(source: Source, records: Sequence[Record], latest_ms: int, ahead_ms: int) -> list[Event | Refusal]:
    """Each record's event, or why it is none: decoded in one go, and one by one only if a value fails."""
    decoder, values = DECODERS[source], [b"null" if record.value is None else record.value for record in records]
    read: list[Event | Refusal]
    try:
        read = list(map(decoder, values))
    except UNREADABLE:
        read = [_event_or_refusal(decoder, value) for value in values]
    for at, event in enumerate(read):
        if not isinstance(event, Refusal) and event.consent is False:
            read[at] = believed(event, records[at].timestamp, latest_ms, ahead_ms)
    return read


def _event_or_refusal(decoder: Callable[[bytes], Event], value: bytes) -> Event | Refusal:
    try:
        return decoder(value)
    except UNREADABLE as error:
        return Refusal.of(error, value)


def _passed(
    places: Places,
    read: list[Event | Refusal],
    records: Sequence[Record],
    latest_ms: int,
    refused: dict[int, Refusal],
) -> Passed:
    """The events that may be applied, with their places; ``refused`` gets why the others may not."""
    events, keys = [event for event in read if not isinstance(event, Refusal)], [record.key for record in records]
    if len(events) == len(read) and _all_pass(events, keys, latest_ms):
        return places, events
    passed: dict[int, Event] = {}
    for place, event, record in zip(places.tolist(), read, records, strict=True):
        try:
            if isinstance(event, Refusal):
                refused[place] = event
                continue
            _check(event, event.user_id.encode(), record, latest_ms)
            passed[place] = event
        except ValueError as error:
            refused[place] = Refusal.of(error)
    return np.array([*passed], dtype=np.int64), [*passed.values()]


def _all_pass(events: list[Event], keys: list[bytes | None], latest_ms: int) -> bool:
    """Whether `_check` passes every event, asked of all at once."""
    users = [event.user_id for event in events]
    times_ms = [event.time_ms for event in events]
    times_ms += [event.impression_time_ms or 0 for event in events if isinstance(event, wire.Click)]
    try:
        same = list(map(str.encode, users)) == keys
    except ValueError:
        return False
    return same and max(times_ms, default=0) <= latest_ms and "".join(users).isprintable()


def _check(event: Event, user: bytes, record: Record, latest_ms: int) -> None:
    """Check what the type cannot express. Raises `ValueError` with what is wrong and the fix, and no id of a person."""
    if not is_plain(event.user_id):
        raise ValueError("the user_id holds a control character; give every user a plain id")
    if user != record.key:
        found = f"the key has {len(record.key):,} bytes" if record.key else "there is no key"
        raise ValueError(f"{found}, expected the user_id, of {len(user):,} bytes; key both topics by user")
    if event.time_ms > latest_ms:
        raise ValueError(ahead("time_ms", event.time_ms, record.timestamp, latest_ms))
    if isinstance(event, wire.Click) and event.impression_time_ms is not None and event.impression_time_ms > latest_ms:
        raise ValueError(ahead("impression_time_ms", event.impression_time_ms, record.timestamp, latest_ms))


def is_plain(name: str) -> bool:
    """Whether an id holds no control character: the changelog's own keys begin with NUL, and are split at it."""
    return name.isprintable() or _CONTROL.search(name) is None
