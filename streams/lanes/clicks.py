"""A lane's click layer, and how it is kept: in the lane's changelog, under reserved keys, in the slice's transaction.

Every slice writes what was learned of each attention model, under `KEY`, and the records of the ads and people that it
has touched, each under its own key. Impressions whose outcome is open are a log within the log: every slice adds a
*chunk* of the impressions that are new, and of the numbers of those that clicks have answered. A chunk gets its
tombstone when all impressions that it names have left the queue. A snapshot holds the same keys and values, but all
people's records under one key.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import structlog

from scoring.arrays import Ids
from scoring.calibration import Calibrator
from scoring.catalogue import Catalogue
from scoring.cleaning import Rules
from scoring.clicks import FEATURES, PERSON_RECORD, Lifts
from scoring.engine import Engine
from scoring.events import Events, Outcome
from scoring.exposure import apply_and_score
from scoring.features import specification_hash
from scoring.feedback import ClickLayer, Learning, Observed
from scoring.ids import MISSING, id64
from scoring.models import Models, number_of
from scoring.pending import LOST, PENDING
from scoring.policies import in_control
from scoring.pool import Others, Pool
from scoring.rates import Counts, RateTable
from scoring.rows import RowStore
from scoring.update import Applied
from scoring.watch import Alarm
from streams.feeds.layers import SHARE_MS, shares
from streams.lanes import former_clicks
from streams.lanes.layer_rows import CHUNK_LAYOUT, ChunkRow, Kept, LayerRow, decode_chunk, decode_kept, decode_layer
from streams.lanes.learner_rows import LearnerRow
from streams.lanes.sound_clicks import OPEN_MAX, DamagedError, require_sound, require_within
from streams.message import Message
from streams.wire import RESERVED

log = structlog.get_logger()

KEY = RESERVED + b"clicks"
_AD, _PERSON, _CHUNK = KEY + b"/ad/", KEY + b"/person/", KEY + b"/open/"
_PEOPLE = KEY + b"/people"
_RECORD = np.dtype([("person", ">u8"), ("record", "<f8", (PERSON_RECORD,))])
"""Of a person among those of `_PEOPLE`."""
_ROWS_PER_CHUNK = 3_000
"""At most half a megabyte: a chunk must fit a batch."""
_MODELS_MAX = 32
"""Attention models whose names are kept for the outcomes that are open; a model lives longer than a window."""
GONE_EVERY = 1_000
"""To look through 100,000 records takes 20 ms: not for every ad that is gone."""
LAYOUT = specification_hash(FEATURES, str(PENDING.descr), "watch/2", "learners/1")
"""A layer of another layout learns anew, in minutes, but for the one that `streams.lanes.former_clicks` reads."""

Change = tuple[bytes, bytes | None]
"""Key and value; None is a tombstone."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    number: int
    first: int
    end: int
    settled: int


class LaneClicks:
    """The layer of one lane, its serving side, and its log."""

    def __init__(self, learning: Learning | None = None) -> None:
        self.layer = ClickLayer(learning)
        self.calibrator = Calibrator()
        self.rates = RateTable()
        self.models: dict[int, str] = {}
        self._chunks: deque[_Chunk] = deque()
        self._next_chunk = 0
        self._untold: set[int] = set()
        self._told_ms = 0
        self._strange: set[bytes] = set()
        """Keys that a layer of another layout has left, until `commit` gives them their tombstones."""
        self.anew = ""
        """Why this layer began anew, where something else was kept."""
        self._look_at = GONE_EVERY
        """How many ads the catalogue has lost when records of ads are looked through; if restored, at once."""
        self._shown_last = np.zeros(0, dtype=np.uint64)
        """Ads whose impressions were in the queue when it was restored."""

    def apply(self, store: RowStore, events: Events, engine: Engine, rules: Rules) -> tuple[Applied, Observed]:
        """Apply ``events`` to ``store``, predict the impressions among them and learn the outcomes that they bring.

        Events that the rules keep from interest are no impressions and answer none. An event that was applied before
        a crash may answer an impression that is still open.
        """
        self.heed(engine.models)
        touched = np.unique(events["row"])
        users64 = np.array([id64(store.users[row] or b"") for row in touched.tolist()], dtype=np.uint64)
        users = users64[np.searchsorted(touched, events["row"])]
        self.follow(engine.catalogue)
        exposed = apply_and_score(store, events, users, engine.models, rules, engine.scorers, self.rates)
        self.count(events["ad"], exposed.counts)
        outcome = exposed.applied.outcome
        counts = (outcome == Outcome.APPLIED) | (outcome == Outcome.REPLAYED)
        shown = exposed.impressions
        seen = replace(shown, place=np.cumsum(counts)[shown.place] - 1)
        control = in_control(users, engine.policy.control_share)
        observed = self.layer.observe(events[counts], users[counts], control[counts], seen)
        return exposed.applied, observed

    def heed(self, models: Models) -> None:
        """Keep a learner for each model that is held, and for no other; and the names of models with open outcomes.

        The learner of a model that has a role is kept, too, while this worker cannot get the model.
        """
        self.layer.heed(models.live.number)
        held = {served.number: served.version for served in models.held}
        self.layer.keep(held.keys() | {number_of(version) for version in models.roles.versions})
        for number, version in held.items():
            self.layer.learner(number)
            self.models[number] = self.models.pop(number, version)  # held last, and so dropped last
        gone = [number for number in self.models if number not in held]
        for number in gone[: max(0, len(self.models) - _MODELS_MAX)]:
            del self.models[number]

    def follow(self, catalogue: Catalogue) -> None:
        """Let ``rates``, the lane's own, have what the records tell of ads that are new in the catalogue."""
        if len(new := self.rates.follow(catalogue)):
            self.rates.set(new, self.layer.lifts.records(catalogue.ad[new].tolist())[:, 2:])

    def count(self, ads: Ids, counts: Counts) -> None:
        """Add to the records of ``ads [E]`` what ``rates`` has counted of them, ``counts [E, 2]``."""
        of = np.flatnonzero(counts.any(axis=1))
        named, which = np.unique(ads[of], return_inverse=True)
        self.layer.lifts.count(named, np.column_stack([np.bincount(which, each) for each in counts[of].T]))

    # --- what a slice has changed ----------------------------------------------------------------------------

    def serve(self, catalogue: Catalogue, others: Others | None = None) -> None:
        """Bring the serving side up to date.

        ``others``: what other lanes have learned, None where nothing is to be joined.
        """
        self.calibrator.update(self.layer, catalogue, others or Pool().others(0))

    def commit(self, catalogue: Catalogue, others: Others | None = None) -> list[Change]:
        """`serve`, and the changes for the changelog; once after every slice that had events."""
        layer, gone = self.layer, self._gone(catalogue)
        self.serve(catalogue, others)
        self._untold |= layer.lifts.touched
        changes: list[Change] = [*gone, *_changed(_AD, layer.lifts), *_changed(_PERSON, layer.people)]
        changes += self._new_chunks()
        while self._chunks and self._chunks[0].settled <= layer.pending.head:
            changes.append((_chunk_key(self._chunks.popleft().number), None))
        left, self._strange = self._strange - {key for key, _ in changes}, set()
        return [*((key, None) for key in sorted(left)), *changes, (KEY, self._row())]

    def _gone(self, catalogue: Catalogue) -> list[Change]:
        """Forget ads that the catalogue lacks: at first, and whenever it has lost `GONE_EVERY` more.

        Before a worker's first step it has read the topic of ads to its end. A topic that is being filled anew, or is
        another one, has few of the lane's ads by then, or none: this waits while the catalogue is empty, and at first
        keeps everything where most ads are missing, unless most of those shown last are there. A new worker's catalogue
        has no withdrawn ads: where ads live for days, the lane's former owner has left more of them than of others.
        """
        if catalogue.gone < self._look_at or not len(catalogue):
            return []
        first, self._look_at, lifts = self._look_at == 0, catalogue.gone + GONE_EVERY, self.layer.lifts
        ads = np.fromiter(lifts, dtype=np.uint64, count=len(lifts))
        gone = ads[catalogue.slots_of(ads) == MISSING].tolist()
        if first and 2 * len(gone) > len(ads):
            lost, of = int((catalogue.slots_of(self._shown_last) == MISSING).sum()), len(self._shown_last)
            if 2 * lost >= of:
                if lost:
                    why = "most ads that a lane showed last are not on ads; what it has learned of them is kept"
                    log.warning(why, missing=lost, of=of)
                return []
        for ad in gone:
            lifts.forget(ad)
        return [(_AD + ad.to_bytes(8, "big"), None) for ad in gone]

    def _row(self) -> bytes:
        layer, pending = self.layer, self.layer.pending
        return msgspec.msgpack.encode(
            LayerRow(
                layout=LAYOUT,
                clock_ms=layer.clock_ms,
                learned=layer.learned,
                head=pending.head,
                tail=pending.tail,
                asked=pending.asked,
                models=self.models,
                live=layer.live,
                learners={number: LearnerRow.of(learner) for number, learner in layer.learners.items()},
                examined=layer.examination.record.tobytes(),
            )
        )

    def _new_chunks(self) -> Iterator[Change]:
        pending, answered = self.layer.pending, self.layer.answered
        first = max(self._chunks[-1].end if self._chunks else pending.head, pending.head)
        while first < pending.tail or answered:
            end = min(first + _ROWS_PER_CHUNK, pending.tail)
            told, answered = answered[:_ROWS_PER_CHUNK], answered[_ROWS_PER_CHUNK:]
            chunk = _Chunk(self._next_chunk, first, end, pending.tail)
            yield _chunk_key(chunk.number), self._chunk_row(chunk, told)
            self._chunks.append(chunk)
            self._next_chunk += 1
            first = end
        self.layer.answered = []

    def _chunk_row(self, chunk: _Chunk, answered: list[int]) -> bytes:
        rows = self.layer.pending.between(max(chunk.first, self.layer.pending.head), chunk.end)
        return msgspec.msgpack.encode(
            ChunkRow(
                first=chunk.end - len(rows),
                settled=chunk.settled,
                rows=rows.tobytes(),
                answered=np.array(answered, dtype=np.int64).tobytes(),
                layout=CHUNK_LAYOUT,
                window_ms=self.layer.learning.window_ms,
            )
        )

    def forget(self, users: Iterable[bytes]) -> list[Change]:
        """Drop what was learned of ``users``; a tombstone for each of them, to be written at once.

        Even for those whom this layer does not know: the changelog may hold their records in another layout.
        """
        keys = [person_key(user) for user in users]
        self._strange.difference_update(keys)
        for key in keys:
            self.layer.people.forget(int.from_bytes(key[-8:], "big"))
        return [(key, None) for key in keys]

    def alarms(self) -> list[Alarm]:
        """The drifts detected since this was last asked."""
        alarms, self.layer.alarms = self.layer.alarms, []
        return alarms

    def share(self, lane: int) -> list[Message]:
        """What the other lanes are to hear, where it is time."""
        if self.layer.clock_ms < self._told_ms + SHARE_MS:
            return []
        self._told_ms, untold, self._untold = self.layer.clock_ms, self._untold, set()
        return shares(lane, self.layer, untold)

    # --- all of it -------------------------------------------------------------------------------------------

    def parts(self) -> dict[bytes, bytes]:
        """Everything, by key, as a snapshot holds it; `spread` makes of it what compaction leaves in the changelog.

        While a layer of another layout stands there: its keys alone, under a layout that no version has.
        """
        if self._strange:
            return {KEY: msgspec.msgpack.encode(Kept(layout=""))} | dict.fromkeys(sorted(self._strange), b"")
        people = np.empty(len(self.layer.people), dtype=_RECORD)
        people["person"], people["record"] = self.layer.people.arrays()
        people = people[np.argsort(people["person"])]  # the same whatever order they came in
        out = {KEY: self._row(), _PEOPLE: people.tobytes()} | dict(_records(_AD, self.layer.lifts, [*self.layer.lifts]))
        return out | {_chunk_key(chunk.number): self._chunk_row(chunk, []) for chunk in self._chunks}

    @classmethod
    def restore(cls, learning: Learning | None, parts: Mapping[bytes, bytes]) -> "LaneClicks":
        """The layer in ``parts``, the values under the lane's reserved keys; a new one where there is none.

        A new one, too, where its layout is another one, or its numbers are none that a layer comes to: `anew` says so,
        and minutes of outcomes teach it again. ``learning`` None: the layer is only looked at. Raises one of
        `UNREADABLE` where its layout is known by name and it has another, as a later version may give it.
        """
        if KEY not in parts:
            return cls(learning)
        layout = decode_kept(parts[KEY]).layout
        if layout not in (LAYOUT, former_clicks.LAYOUT):
            return cls._begun_anew(learning, parts, f"it was kept in another layout, {layout}")
        try:
            return cls._restored(learning, decode_layer(parts[KEY]), parts)
        except DamagedError as error:
            return cls._begun_anew(learning, parts, f"what was kept is damaged: {error}")

    @classmethod
    def _begun_anew(cls, learning: Learning | None, parts: Mapping[bytes, bytes], why: str) -> "LaneClicks":
        out = cls(learning)
        out.anew, out._strange = why, {key for key in parts if key.startswith(KEY + b"/")}
        return out

    @classmethod
    def _restored(cls, learning: Learning | None, row: LayerRow, parts: Mapping[bytes, bytes]) -> "LaneClicks":
        out = cls(learning)
        layer = out.layer
        layer.live, layer.learners = row.live, {number: kept.learner() for number, kept in row.learners.items()}
        layer.clock_ms, layer.learned = row.clock_ms, row.learned
        require_within("open impressions", np.array([row.tail - row.head]), 0, OPEN_MAX)
        layer.examination.restore(np.frombuffer(row.examined).reshape(2, -1))
        out.models = dict(row.models)
        _take(_AD, layer.lifts, parts)
        _take(_PERSON, layer.people, spread(parts))
        # The other lanes may not have heard what its former owner learned last.
        out._untold, out._look_at = set(layer.lifts), 0
        out._restore_pending(row, parts, learning.window_ms if learning else 0)
        require_sound(layer)
        return out

    def _restore_pending(self, row: LayerRow, parts: Mapping[bytes, bytes], window_ms: int) -> None:
        """The queue from its chunks. Without transactions they may go beyond ``row`` (left out) or lack some (lost)."""
        rows = np.full(row.tail - row.head, LOST, dtype=PENDING)
        for key in sorted(key for key in parts if key.startswith(_CHUNK)):
            chunk = decode_chunk(parts[key])
            added = chunk.opened(window_ms)
            number, end = int.from_bytes(key[len(_CHUNK) :], "big"), chunk.first + len(added)
            numbers = np.arange(chunk.first, end)
            held = (numbers >= row.head) & (numbers < row.tail)
            rows[numbers[held] - row.head] = added[held]
            answered = np.frombuffer(chunk.answered, dtype=np.int64)
            rows["open"][answered[(answered >= row.head) & (answered < row.tail)] - row.head] = 0
            self._chunks.append(_Chunk(number, chunk.first, min(end, row.tail), chunk.settled))
            self._next_chunk = number + 1
        self._shown_last = np.unique(rows["ad"][rows["ad"] != LOST["ad"]])
        self.layer.reopen(row.head, rows, row.asked)


def person_key(user: bytes) -> bytes:
    """The key of a person's record."""
    return _PERSON + id64(user).to_bytes(8, "big")


def spread(parts: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """``parts`` of a snapshot as the changelog has them: with a key for each person, by which to forget them later."""
    out = dict(parts)
    people = np.frombuffer(out.pop(_PEOPLE, b""), dtype=_RECORD)
    keys, records = (people[name].tobytes() for name in ("person", "record"))
    size = 8 * PERSON_RECORD
    for at in range(len(people)):
        out[_PERSON + keys[8 * at : 8 * at + 8]] = records[size * at : size * (at + 1)]
    return out


def _records(prefix: bytes, lifts: Lifts, ids: list[int]) -> list[tuple[bytes, bytes]]:
    """The records of ``ids``, by key."""
    records = lifts.records(ids).tobytes()
    size = 8 * lifts.numbers
    return [(prefix + one.to_bytes(8, "big"), records[at * size : (at + 1) * size]) for at, one in enumerate(ids)]


def _changed(prefix: bytes, lifts: Lifts) -> list[tuple[bytes, bytes]]:
    """The records that have changed since this was last asked."""
    ids = list(lifts.touched)
    lifts.touched.clear()
    return _records(prefix, lifts, ids)


def _take(prefix: bytes, lifts: Lifts, parts: Mapping[bytes, bytes]) -> None:
    """Put the records among ``parts`` into ``lifts``."""
    held = {key: record for key, record in parts.items() if key.startswith(prefix)}
    keys = np.frombuffer(b"".join(key[len(prefix) :] for key in held), dtype=">u8")
    lifts.put(keys.astype(np.uint64), former_clicks.records(held.values(), lifts.numbers))


def _chunk_key(number: int) -> bytes:
    return _CHUNK + number.to_bytes(8, "big")
