"""Do the topics hold what a log should have led to? They are read from the outside and compared with the pure core.

The pure core applies the log by `scoring.update.apply` without a broker, lane by lane, in the order in which a lane
takes a full backlog. If the states are equal, the whole path (fetching, queues, slices, transactions, recovery)
neither lost, doubled nor reordered an event.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec
import numpy as np

from scoring.arrays import Bools
from scoring.catalogue import Catalogue
from scoring.cleaning import Rules
from scoring.engine import Engine
from scoring.events import Events
from scoring.order import FOREVER, stream_times, take
from scoring.rows import ROW, Rows, RowStore, decode_rows
from scoring.update import Applied, apply
from streams import topics
from streams.columns import source_of
from streams.conservation import account
from streams.decode import Record, decode
from streams.feeds.catalogue import entry_of
from streams.identity import partitioner
from streams.lanes.clicks import LaneClicks
from streams.layer_audit import Core, Layers
from streams.logs import Event, Log
from streams.placement_ids import placement_id
from streams.reading import read_topic
from streams.wire import LANE_KEY, RESERVED, LaneRow, encode_json

EVENTS_PER_APPLY = 7_777
"""On purpose not the size of a slice: the state must not depend on where a stream is cut."""
FLOAT_TOLERANCE = 1e-5
"""Of max(1, |x|): sums of float32 in another order differ by rounding, and by nothing else."""
DIFFERENCES_TOLD = 10


@dataclass(frozen=True, slots=True)
class State:
    """Users, sorted, and the row of each ``[N]`` of `ROW`."""

    users: list[bytes]
    rows: Rows

    @classmethod
    def of(cls, users: Sequence[bytes], rows: Rows) -> "State":
        order = sorted(range(len(users)), key=users.__getitem__)
        return cls([users[at] for at in order], rows[order])


@dataclass(frozen=True, slots=True)
class Expected:
    """What the pure core makes of a log: the state, and the events by fate, as in a lane row's totals.

    ``repeated``: events whose id occurred before in the log, for the same user and topic.
    """

    state: State
    totals: Counter[str]
    repeated: int
    layers: Layers = field(default_factory=Layers)


@dataclass(slots=True)
class Seen:
    """What a read-committed reader finds."""

    state: State = field(default_factory=lambda: State([], np.zeros(0, dtype=ROW)))
    lanes: dict[int, LaneRow] = field(default_factory=dict)
    """The last lane row of each lane."""
    slices: int = 0
    """Slices, counted as lane rows: only those that compaction has left."""
    placements: Counter[str] = field(default_factory=Counter)
    """How often each placement id is there."""
    placed: dict[bytes, str] = field(default_factory=dict)
    """The last placement of each user who has one."""
    dead: list[Record] = field(default_factory=list)
    layers: Layers = field(default_factory=Layers)

    @property
    def doubled(self) -> list[str]:
        """Placement ids that are there more than once."""
        return [name for name, count in self.placements.items() if count > 1]

    def stale(self, lanes: int) -> list[bytes]:
        """Users whose last placement does not follow from their row: one of the two topics lacks a write."""
        partition_of = partitioner(lanes)
        rows = zip(self.state.users, self.state.rows["offset"].tolist(), strict=True)
        due = {user: placement_id(partition_of(user), user, (first, second)) for user, (first, second) in rows}
        return [user for user, name in self.placed.items() if due.get(user) != name]

    @property
    def totals(self) -> Counter[str]:
        """Counts over all lanes."""
        return sum((Counter(row.totals) for row in self.lanes.values()), Counter[str]())


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of a user's row. A user on one side only differs in the field "" ."""

    user: str
    field: str
    expected: object
    got: object


# --- what should be ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _LogRecord:
    """An event as its topic holds it, provided that this log alone has filled the topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


def pure_core(
    log: Log,
    lanes: int,
    rules: Rules = Rules(),
    core: Core | None = None,
) -> Expected:
    """The state that ``log`` leads to on topics of ``lanes`` partitions that hold nothing else.

    ``rules``: the workers'; ``core``: their model, with an empty catalogue, where they have a click layer. No event is
    in the future. Unlike a worker, it never forgets users who were idle for ``SALIENCE_IDLE_TTL_MS`` of the log's time.
    """
    catalogue = Catalogue() if core is None else core.engine.catalogue
    catalogue.upsert([entry_of(ad) for ad in log.ads])
    partition_of = partitioner(lanes)
    lane_of = {user: partition_of(user.encode()) for user in {event.user_id for event in log.events}}
    queues: list[tuple[list[_LogRecord], list[_LogRecord]]] = [([], []) for _ in range(lanes)]
    for event in log.events:
        lane = lane_of[event.user_id]
        records = queues[lane][source_of(event)]
        records.append(_record(event, lane, len(records)))
    users: list[bytes] = []
    rows: list[Rows] = []
    totals: Counter[str] = Counter()
    layers = Layers()
    for lane, queue in enumerate(queues):
        apply_to = partial(apply, catalogue=catalogue, rules=rules)
        if core is not None:
            layers.lanes[lane] = clicks = LaneClicks(core.learning)
            apply_to = partial(_learn, clicks=clicks, layers=layers, engine=core.engine, rules=rules)
        store = _lane(queue, apply_to, totals)
        users += [user for user in store.users if user is not None]
        rows.append(store.rows[: len(store.users)])
    distinct = {(source_of(event), event.user_id, event.event_id) for event in log.events}
    return Expected(State.of(users, np.concatenate(rows)), totals, len(log.events) - len(distinct), layers)


def _learn(
    store: RowStore, events: Events, *, clicks: LaneClicks, layers: Layers, engine: Engine, rules: Rules
) -> Applied:
    applied, observed = clicks.apply(store, events, engine, rules)
    clicks.commit(engine.catalogue)
    layers.learned(observed.outcomes)
    return applied


def _record(event: Event, lane: int, offset: int) -> _LogRecord:
    topic = topics.LANE_INPUTS[source_of(event)]
    return _LogRecord(topic, lane, offset, event.time_ms, event.user_id.encode(), encode_json(event))


def _lane(
    queue: tuple[list[_LogRecord], list[_LogRecord]],
    apply_to: Callable[[RowStore, Events], Applied],
    totals: Counter[str],
) -> RowStore:
    """Apply one lane's backlog. It is taken as a whole, so the lane never waits for its other topic."""
    first, second = (np.array([record.timestamp for record in records], dtype=np.int64) for records in queue)
    order = take((first, second), (0, 0), (True, True), FOREVER, len(first) + len(second)).order
    rest = [iter(records) for records in queue]
    records = [next(rest[source]) for source in order.tolist()]
    stream_ms = stream_times(np.array([record.timestamp for record in records], dtype=np.int64), 0, FOREVER)
    store = RowStore()
    for start in range(0, len(records), EVENTS_PER_APPLY):
        cut = slice(start, start + EVENTS_PER_APPLY)
        decoded = decode(records[cut], order[cut], store, latest_ms=FOREVER, belongs_here=lambda _key: True)
        decoded.events["stream_ms"] = stream_ms[cut][decoded.places]
        applied = apply_to(store, decoded.events)
        totals.update(account(len(records[cut]), decoded, applied))
    return store


# --- what is -------------------------------------------------------------------------------------------------


class _PlacementId(msgspec.Struct):
    placement_id: str
    context_only: bool = False


_decode_id = msgspec.json.Decoder(_PlacementId).decode
_decode_lane_row = msgspec.msgpack.Decoder(LaneRow).decode


async def audit(bootstrap: str, prefix: str, progress: Callable[[int], None] = lambda _records: None) -> Seen:
    """Read changelog, outcomes, placements and dead letters whole; ``progress`` hears how many records each read had.

    Raises `streams.reading.MissingTopicError`.
    """
    seen = Seen()
    last: dict[bytes, bytes | None] = {}
    parts: dict[int, dict[bytes, bytes]] = {}
    async for records in read_topic(bootstrap, prefix + topics.CHANGELOG):
        _read_changelog(seen, last, parts, records)
        progress(len(records))
    seen.layers = Layers.kept(parts)
    async for records in read_topic(bootstrap, prefix + topics.OUTCOMES):
        seen.layers.read(records)
        progress(len(records))
    held = {user: row for user, row in last.items() if row is not None}
    seen.state = State.of(list(held), decode_rows(held.values()))
    async for records in read_topic(bootstrap, prefix + topics.PLACEMENTS):
        for record in records:
            if record.value is None:
                seen.placed.pop(record.key or b"", None)
            else:
                _placed(seen, record.key or b"", _decode_id(record.value))
        progress(len(records))
    async for records in read_topic(bootstrap, prefix + topics.DEAD_LETTERS):
        seen.dead.extend(records)
        progress(len(records))
    return seen


def _placed(seen: Seen, user: bytes, placement: _PlacementId) -> None:
    """Count a placement; one from context alone follows from no row."""
    seen.placements[placement.placement_id] += 1
    seen.placed.pop(user, None)
    if not placement.context_only:
        seen.placed[user] = placement.placement_id


def _read_changelog(
    seen: Seen, last: dict[bytes, bytes | None], parts: dict[int, dict[bytes, bytes]], records: Sequence[Record]
) -> None:
    for record in records:
        key = record.key or b""
        if not key.startswith(RESERVED):
            last[key] = record.value
        elif key == LANE_KEY and record.value is not None:
            seen.slices += 1
            seen.lanes[record.partition] = _decode_lane_row(record.value)
        elif record.value is not None:
            parts.setdefault(record.partition, {})[key] = record.value
        else:
            parts.setdefault(record.partition, {}).pop(key, None)


# --- whether they are the same -------------------------------------------------------------------------------


def compare(expected: State, got: State, *, offsets: bool = True) -> list[Difference]:
    """The first `DIFFERENCES_TOLD` differences; none where the states are equal.

    Integers, ids, times and their order must be equal, sums of floats within `FLOAT_TOLERANCE`. ``offsets``: compare
    offsets, too; they are the log's own positions only where it alone has filled the topics.
    """
    there, here = set(expected.users), set(got.users)
    differences = [Difference(_text(user), "", "a row", "none") for user in sorted(there - here)]
    differences += [Difference(_text(user), "", "none", "a row") for user in sorted(here - there)]
    wanted = expected.rows[np.array([user in here for user in expected.users], dtype=bool)]
    found = got.rows[np.array([user in there for user in got.users], dtype=bool)]
    both = [user for user in expected.users if user in here]
    differences += _fields(both, wanted, found, offsets=offsets)
    return differences[:DIFFERENCES_TOLD]


def _fields(users: Sequence[bytes], wanted: Rows, found: Rows, *, offsets: bool) -> Iterable[Difference]:
    names = [name for name in ROW.names or () if offsets or name != "offset"]
    differs = {name: _differs(wanted[name], found[name]) for name in names}
    anywhere = np.flatnonzero(np.any(list(differs.values()), axis=0))
    for at in anywhere[:DIFFERENCES_TOLD].tolist():
        for name in names:
            if differs[name][at]:
                yield Difference(_text(users[at]), name, wanted[name][at].tolist(), found[name][at].tolist())


def _differs(wanted: Rows, found: Rows) -> Bools:
    """Whether each row differs in this column, ``[N]``."""
    same = wanted == found
    if wanted.dtype.kind == "f":
        same = np.abs(found - wanted) <= FLOAT_TOLERANCE * np.maximum(1, np.abs(wanted))  # no NaN is near
    differs: Bools = ~same.all(axis=tuple(range(1, same.ndim)))
    return differs


def _text(user: bytes) -> str:
    return user.decode(errors="backslashreplace")
