"""Messages of the topics, or of a recorded log, as columns: each event once, people as numbers that no report shows.

An ad shown to a person twice within a second is one impression. The engine does the same: it finds a click's impression
by person, ad and second, and bills it once.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.arrays import Ids
from scoring.events import Source
from scoring.ids import id64, id64s, mix64
from scoring.order import Times
from scoring.pending import keys_of
from scoring.policies import CONTROL_ARM
from scoring.seal import Seal
from streams.columns import columns
from streams.decode import Record, valid
from streams.learnable import Offered
from streams.logs import Event
from streams.mendable import MendableError
from streams.reading import ends_of, read_topic
from streams.topics import AD_IMPRESSIONS, ADS, CLICKS, DECISIONS
from streams.wire import UNREADABLE, Ad, Click, Impression

EVENTS_MAX = 10_000_000
"""Impressions and actions of one report: 0.9 GB, and five times that while they are billed."""

HAPPENED = np.dtype(
    [
        ("time_ms", "<i8"),
        ("shown_ms", "<i8"),  # of the impression that it answers; its own time where it answers none
        ("user", "<u8"),
        ("ad", "<u8"),
        ("event", "<u8"),
        ("placement", "<u8"),  # id64 of the placement; 0 where none is named
        ("price_micros", "<i8"),  # of one event of the kind that its ad pays for; -1 where there is none
        ("seal", "<u8"),  # of that price; 0 where there is none
        ("own", "?"),  # the placement was made for the user
        ("value_micros", "<i8"),  # of a purchase
        ("viewed_ms", "<i8"),
        ("kind", "u1"),  # of `scoring.events.Kind`
        ("slot", "<i2"),  # of an impression; -1 where it is not known
        ("answers", "?"),  # whether an action names the impression that it answers
    ]
)
DECIDED = np.dtype([("placement", "<u8"), ("user", "<u8"), ("control", "u1"), ("share", "<f8"), ("fixed", "<u8")])
"""What a receipt says of its placement: for whom it was made, whether the control arm made it, and the share of users
meant for that arm. ``fixed``: a bit for each slot below 64 that was not drawn, as of a pinned ad; never for the last
slot, where only one ad may have been left."""

Table = npt.NDArray[Any]


class ReportError(MendableError):
    """No report can be made of the log: the message says what is wrong, and what to do."""


class _Decided(msgspec.Struct):
    """The fields read of a receipt, which has some kilobytes."""

    placement_id: str
    user_id: str
    arm: str
    policy: dict[str, float] = {}
    propensities: list[float] = []


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that a report is made of. ``impressions`` and ``actions``: of `HAPPENED` in time order, each event once.
    ``decisions``: of `DECIDED`, by placement. ``invalid``: records that are no valid messages, or that workers refuse.
    ``repeated``: events that came again, and impressions in the same second as one of the same ad. ``misdated``: events
    in the future, or too long past. ``seal``: of the secret at hand.
    """

    impressions: Table
    actions: Table
    decisions: Table
    ads: list[Ad]
    seal: Seal
    invalid: int = 0
    repeated: int = 0
    misdated: int = 0

    @property
    def span_ms(self) -> tuple[int, int]:
        """The first moment and the one after the last. Raises `ReportError` where nothing happened."""
        ends = [each["time_ms"][[0, -1]] for each in (self.impressions, self.actions) if len(each)]
        if not ends:
            raise ReportError(
                "there are no events to report on: see `salience tail ad-impressions`, or take an older --since"
            )
        return int(min(first for first, _ in ends)), int(max(last for _, last in ends)) + 1


@dataclass
class Gatherer:
    """Takes messages in any order, but receipts last: it keeps only those that an impression names, to bound them.

    ``since_ms``: events before it are left out. ``latest_ms``: the newest time that an event may have. ``late_ms``: how
    much older than its partition's newest so far an event may be; beyond that it is late, as in lanes. ``most``: bound
    on events. ``seal``: verifies prices.
    """

    since_ms: int = 0
    latest_ms: int = sys.maxsize
    late_ms: int = sys.maxsize
    most: int = EVENTS_MAX
    seal: Seal = field(default_factory=Seal)
    invalid: int = 0
    misdated: int = 0

    def __post_init__(self) -> None:
        self._parts: dict[type[Event], list[Table]] = {Impression: [], Click: []}
        self._decided: list[Table] = []
        self._offered = Offered()
        self._placements: Ids | None = None
        self._newest_ms: dict[tuple[Source, int], int] = {}
        self._count = 0

    def add(self, events: Sequence[Event]) -> None:
        """Take events. Raises `ReportError` where they are more than ``most``."""
        for kind, parts in self._parts.items():
            part = _table([event for event in events if isinstance(event, kind)])
            part = part[part["time_ms"] >= self.since_ms]
            self.misdated += int(np.count_nonzero(part["time_ms"] > self.latest_ms))
            part = part[part["time_ms"] <= self.latest_ms]
            self._count += len(part)
            parts.append(part)
        self._placements = None
        if self._count > self.most:
            raise ReportError(f"there are more than {self.most:,} events; report on fewer with --since")

    def offer(self, ads: Iterable[Ad]) -> None:
        """Take ads; the last of each id counts."""
        self._offered.ads |= {ad.ad_id.encode(): ad for ad in ads}

    def take(self, source: Source, records: Sequence[Record]) -> None:
        """Take records of one partition of an events topic; those that workers refuse, or call late, are only counted.

        An event that was in the future when it came counts once its time has passed: nothing tells when a worker read
        it, since the producer's clock may also date the record.
        """
        places, events = valid(source, records, self.latest_ms)
        self.invalid += len(records) - len(events)
        record_ms = np.array([records[at].timestamp for at in places.tolist()], dtype=np.int64)
        timely = self._timely((source, records[0].partition), events, record_ms)
        self.misdated += len(events) - len(timely)
        self.add(timely)

    def _timely(self, place: tuple[Source, int], events: Sequence[Event], record_ms: Times) -> list[Event]:
        """The ``events`` of a topic's partition that are not late when they come.

        The partition's time is the newest one so far of the smaller of an event's and its record's time. So one wrong
        clock, as of a device or a mirror, does not make other events late. Some brokers keep no record times (-1).
        """
        time_ms = np.array([event.time_ms for event in events], dtype=np.int64)
        told_ms = np.where(record_ms < 0, time_ms, np.minimum(record_ms, time_ms))
        newest_ms = np.maximum.accumulate([self._newest_ms.get(place, 0), *told_ms.tolist()])
        self._newest_ms[place] = int(newest_ms[-1])
        timely = (time_ms >= newest_ms[1:] - self.late_ms).tolist()
        return [event for event, is_timely in zip(events, timely, strict=True) if is_timely]

    def take_ads(self, records: Sequence[Record]) -> None:
        """Take records of the ads topic; those that workers refuse are counted.

        A withdrawn ad was shown before, so it keeps its names; it counts as ended.
        """
        before = self._offered.invalid
        self._offered.take(records)
        self.invalid += self._offered.invalid - before

    def decided(self, values: Sequence[bytes | None]) -> None:
        """Take records of the decisions topic. Tombstones are skipped; invalid messages are counted."""
        told = self._receipts([value for value in values if value is not None])
        part = np.zeros(len(told), dtype=DECIDED)
        part["placement"] = id64s([each.placement_id for each in told])
        part["user"] = id64s([each.user_id for each in told])
        part["control"] = [each.arm == CONTROL_ARM for each in told]
        part["share"] = [each.policy.get("control_share", 0.0) for each in told]
        part["fixed"] = [sum(1 << at for at, p in enumerate(each.propensities[:-1][:64]) if p >= 1) for each in told]
        named = self._named()
        if len(named):
            at = np.minimum(np.searchsorted(named, part["placement"]), len(named) - 1)
            self._decided.append(part[named[at] == part["placement"]])

    def _receipts(self, values: Sequence[bytes]) -> list[_Decided]:
        try:
            return list(map(_DECODE, values))
        except UNREADABLE:
            found = [message for value in values if (message := _or_none(value)) is not None]
            self.invalid += len(values) - len(found)
            return found

    def _named(self) -> Ids:
        """The placements that impressions name, sorted."""
        if self._placements is None:
            told = [part["placement"] for part in self._parts[Impression]]
            self._placements = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *told]))
        return self._placements

    def gathered(self) -> Gathered:
        """What has been taken. Event ids are unique only within a person, as in lanes."""
        came = {kind: _in_time(parts) for kind, parts in self._parts.items()}
        impressions, actions = (_once(each, each["event"] ^ mix64(each["user"])) for each in came.values())
        impressions = _once(impressions, keys_of(impressions["user"], impressions["ad"], impressions["shown_ms"]))
        repeated = sum(map(len, came.values())) - len(impressions) - len(actions)
        decisions = np.concatenate([np.zeros(0, dtype=DECIDED), *self._decided])
        _, first = np.unique(decisions["placement"], return_index=True)
        ads = list(self._offered.ads.values())
        left_out = self.invalid, repeated, self.misdated
        return Gathered(impressions, actions, decisions[first], ads, self.seal, *left_out)


_DECODE = msgspec.json.Decoder(_Decided).decode


def _or_none(value: bytes) -> _Decided | None:
    try:
        return _DECODE(value)
    except UNREADABLE:
        return None


def _table(events: Sequence[Event]) -> Table:
    """Events as `HAPPENED`, in the order given."""
    out = np.zeros(len(events), dtype=HAPPENED)
    if not events:
        return out
    engines = columns(events, np.zeros(len(events), dtype=np.int32).tolist())
    for name in HAPPENED.names or ():
        if name not in ("user", "placement", "price_micros"):
            out[name] = engines[name]
    out["user"] = id64s([event.user_id for event in events])
    out["placement"] = [id64(event.placement_id) if event.placement_id else 0 for event in events]
    # A price of 0 is a price only where it has a seal.
    out["price_micros"] = [event.price_micros if event.price_micros or event.seal else -1 for event in events]
    return out


def _in_time(parts: Sequence[Table]) -> Table:
    """All events by time."""
    events = np.concatenate([np.zeros(0, dtype=HAPPENED), *parts])
    return events[np.argsort(events["time_ms"], kind="stable")]


def _once(events: Table, ids: Ids) -> Table:
    """The first event of each of ``ids [E]``, in order."""
    _, first = np.unique(ids, return_index=True)
    return events[np.sort(first)]


async def read_topics(bootstrap: str, prefix: str, gatherer: Gatherer, progress: Callable[[str, int], None]) -> None:
    """Give ``gatherer`` all that the topics hold now. Their ends are all taken first: otherwise events that come while
    one topic is read would be found only on the later topics, such as clicks without their impressions.

    Raises `MissingTopicError` and `ReportError`.
    """
    takers: dict[str, Callable[[Sequence[Record]], None]] = {
        ADS: gatherer.take_ads,
        AD_IMPRESSIONS: partial(gatherer.take, Source.IMPRESSION),
        CLICKS: partial(gatherer.take, Source.CLICK),
        DECISIONS: lambda records: gatherer.decided([record.value for record in records]),
    }
    ends = await ends_of(bootstrap, [prefix + name for name in takers])
    for name, take in takers.items():
        async for records in read_topic(bootstrap, prefix + name):
            end = ends.get((prefix + name, records[0].partition), 0)
            if told := [record for record in records if record.offset < end]:
                take(told)
            progress(name, len(records))
