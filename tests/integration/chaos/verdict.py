"""What follows from what is on the topics: lost, doubled, reordered. A judgement without I/O."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from scoring.arrays import Ints
from scoring.events import Source
from scoring.ids import id64
from scoring.rows import decode_rows
from streams.decode import Record
from streams.identity import partitioner
from streams.placement_ids import placement_id
from streams.step import LaneState, Slice, Step
from streams.wire import Click, Impression, LaneRow
from tests.integration.chaos.recorder import READ_WITHIN_S, Recorded, placement_offsets

Inputs = Mapping[tuple[Source, int], Sequence[Record]]
FAR_MS = 4_000_000_000_000
"""A time after every event: none was of the future when it came."""


@dataclass(slots=True)
class Evidence:
    """Everything that is there when all is over. ``inputs``: of each topic and lane, in order of their offsets."""

    lanes: int
    inputs: Inputs
    acknowledged: Mapping[Source, set[str]]
    recorded: Recorded
    committed: Mapping[int, tuple[int, int]]
    """The group's offsets of each lane."""
    offsets: dict[tuple[Source, int], Ints] = field(init=False)
    """Of the inputs' records."""
    exactly_once: bool
    """Or at least once: an output may be there again, and a slice done again may be cut elsewhere, so that sums of
    floats differ by rounding; what is counted in the rows is counted once all the same."""
    step: Step
    """A step of the workers' own settings and catalogue, which scores nothing."""

    def __post_init__(self) -> None:
        self.offsets = {
            where: np.array([record.offset for record in records], dtype=np.int64)
            for where, records in self.inputs.items()
        }


@dataclass(slots=True)
class Verdict:
    """Counts of what must not be, and the first of each in words."""

    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    other: int = 0
    """What is none of the three: a state that is not the replayed one, offsets that were ahead of the output."""
    ended: int = 0
    """Workers that ended as none should."""
    findings: list[str] = field(default_factory=list)

    def add(self, kind: str, count: int, what: str) -> None:
        if count:
            setattr(self, kind, getattr(self, kind) + count)
            self.findings.append(f"{kind}: {count} {what}")


def judge(evidence: Evidence) -> Verdict:
    """All checks over ``evidence``."""
    verdict = Verdict()
    slowest_s = evidence.recorded.slowest_s
    verdict.add(
        "other", slowest_s > READ_WITHIN_S, f"recorder was {slowest_s:.0f} s late: rows may have been compacted"
    )
    there = _events(evidence)
    for source, ids in evidence.acknowledged.items():
        missing = ids - there[source].keys()
        verdict.add("lost", len(missing), f"acknowledged {source.name.lower()}s are not in their topic")
    _check_slices(evidence, verdict)
    _check_counters(evidence, verdict)
    if evidence.exactly_once:
        _check_replay(evidence, verdict)
    _check_placements(evidence, verdict)
    _check_dead_letters(evidence, verdict)
    _check_committed(evidence, verdict)
    verdict.add("reordered", evidence.recorded.rows_went_back, "rows were written over by older ones")
    verdict.add("reordered", evidence.recorded.placements_went_back, "placements follow newer ones of their user")
    return verdict


# --- inputs ----------------------------------------------------------------------------------------------------


def _decoded(source: Source, record: Record) -> Impression | Click | None:
    try:
        if source == Source.CLICK:
            return msgspec.json.decode(record.value or b"", type=Click)
        return msgspec.json.decode(record.value or b"", type=Impression)
    except msgspec.MsgspecError:
        return None


def _events(evidence: Evidence) -> dict[Source, Counter[str]]:
    """How often each event is in its topic, wherever."""
    found: dict[Source, Counter[str]] = {source: Counter() for source in Source}
    for (source, _lane), records in evidence.inputs.items():
        found[source].update(event.event_id for record in records if (event := _decoded(source, record)))
    return found


# --- slices ----------------------------------------------------------------------------------------------------


def _check_slices(evidence: Evidence, verdict: Verdict) -> None:
    """Every record is in one slice: the lane rows that were committed cover the inputs without gap or overlap."""
    for lane in range(evidence.lanes):
        rows = evidence.recorded.lane_rows.get(lane, [])
        before, after = (0, 0), -1
        for offset, row in rows:
            for source in Source:
                start, end = row.from_offsets[source], before[source]
                name = f"records of lane {lane}, {source.name.lower()}s,"
                where = f"{start}; the changelog's rows are {after} and {offset}"
                verdict.add("lost", max(0, start - end), f"{name} are in no slice before {where}")
                verdict.add("doubled", max(0, end - start), f"{name} are in two slices after {start}")
            before, after = row.next_offsets, offset
        for source in Source:
            left = int((evidence.offsets[source, lane] >= before[source]).sum())
            verdict.add("lost", left, f"records of lane {lane}, {source.name.lower()}s, are in no slice at the end")


class _Lane:
    """The records of a lane, to be cut into the slices that its rows tell of."""

    def __init__(self, evidence: Evidence, lane: int) -> None:
        self._records = [evidence.inputs[source, lane] for source in Source]
        self._offsets = [evidence.offsets[source, lane] for source in Source]

    def slice(self, row: LaneRow) -> Slice:
        """The records that a lane row says it took, in their order. Raises `IndexError` where they are not there."""
        order = np.unpackbits(np.frombuffer(row.order, dtype=np.uint8))[: row.records]
        at = [int(np.searchsorted(offsets, row.from_offsets[source])) for source, offsets in enumerate(self._offsets)]
        taken = []
        for source in order.tolist():
            taken.append(self._records[source][at[source]])
            at[source] += 1
        return Slice(taken, order, row.watermarks_ms)


def _check_replay(evidence: Evidence, verdict: Verdict) -> None:
    """The rows are those that the pure step makes of the slices, byte for byte, and say the same of each slice."""
    replayed: dict[bytes, bytes] = {}
    for lane in range(evidence.lanes):
        rows = evidence.recorded.lane_rows.get(lane, [])
        if not rows:
            continue
        state, records = LaneState(lane, rows[0][1].topic_ids, evidence.lanes), _Lane(evidence, lane)
        for _offset, row in rows:
            state.next_offsets = row.from_offsets
            try:
                effects = evidence.step.run(state, records.slice(row), FAR_MS)
            except IndexError:
                verdict.add("other", 1, f"slice of lane {lane} from {row.from_offsets} has more records than are there")
                return
            if _apart(evidence, lane, effects.lane_row.next_offsets, row.next_offsets):
                verdict.add("reordered", 1, f"slice of lane {lane} from {row.from_offsets} did not end where it says")
        for place, user in enumerate(state.store.users):
            if user is not None:
                replayed[user] = state.store.rows[place].tobytes()
    got = evidence.recorded.rows
    differ = [user for user in replayed.keys() & got.keys() if replayed[user] != got[user]]
    verdict.add("other", len(differ), f"rows are not those of the replay: {_differences(replayed, got, differ)}")
    verdict.add("lost", len(replayed.keys() - got.keys()), "users of the replay have no row")
    verdict.add("other", len(got.keys() - replayed.keys()), "users have a row that the replay does not know")


def _differences(replayed: Mapping[bytes, bytes], got: Mapping[bytes, bytes], users: Sequence[bytes]) -> dict[str, int]:
    """In how many rows each field differs."""
    first, second = (decode_rows([rows[user] for user in users]) for rows in (replayed, got))
    counts = {}
    for name in first.dtype.names or ():
        ours, theirs = (rows[name].tolist() for rows in (first, second))
        counts[name] = sum(one != other for one, other in zip(ours, theirs, strict=True))
    return {name: count for name, count in counts.items() if count}


# --- rows and outputs -------------------------------------------------------------------------------------------


def _check_counters(evidence: Evidence, verdict: Verdict) -> None:
    """By the records alone, without the step: a user's counters are the distinct events in the user's own lane."""
    partition_of = partitioner(evidence.lanes)
    due: dict[Source, Counter[bytes]] = {source: Counter() for source in Source}
    for (source, lane), records in evidence.inputs.items():
        distinct = {
            (record.key or b"", event.event_id)
            for record in records
            if (event := _decoded(source, record)) and partition_of(record.key or b"") == lane
        }
        due[source].update(user for user, _event in distinct)
    users = list(evidence.recorded.rows)
    if not users:
        verdict.add("lost", sum(counts.total() for counts in due.values()), "events: there is no row at all")
        return
    rows = decode_rows(evidence.recorded.rows.values())
    for source, column in ((Source.IMPRESSION, "impressions"), (Source.CLICK, "clicks")):
        counted = dict(zip(users, rows[column].tolist(), strict=True))
        short = sum(max(0, count - counted.get(user, 0)) for user, count in due[source].items())
        over = sum(max(0, count - due[source][user]) for user, count in counted.items())
        verdict.add("lost", short, f"{column} are in no row")
        verdict.add("doubled", over, f"{column} are in the rows twice")


def _check_placements(evidence: Evidence, verdict: Verdict) -> None:
    recorded = evidence.recorded
    twice = sum(count - 1 for count in recorded.placements.values())
    verdict.add("doubled", twice * evidence.exactly_once, "placement ids are there again for a read-committed reader")
    keys = {
        (source, lane, record.offset): record.key or b""
        for (source, lane), records in evidence.inputs.items()
        for record in records
    }
    rootless = 0
    for name in recorded.placements:
        lane, user = int(name.split("-")[0], 16), int(name.split("-")[3], 16)
        pairs = [(source, at) for source, at in zip(Source, placement_offsets(name), strict=True) if at >= 0]
        keys_there = [keys.get((source, lane, at)) for source, at in pairs]
        rootless += not pairs or any(key is None or id64(key) != user for key in keys_there)
    verdict.add("other", rootless, "placements whose inputs do not exist")
    partition_of = partitioner(evidence.lanes)
    stale = [
        user
        for user, offsets in recorded.row_offsets.items()
        if not recorded.placed.get(user, "").startswith(placement_id(partition_of(user), user, offsets))
    ]
    verdict.add("lost", len(stale), "users whose last placement does not follow from their row")


def _check_dead_letters(evidence: Evidence, verdict: Verdict) -> None:
    broken = {
        (record.topic, lane, record.offset)
        for (source, lane), records in evidence.inputs.items()
        for record in records
        if _decoded(source, record) is None
    }
    dead = evidence.recorded.dead
    verdict.add("lost", len(broken - dead.keys()), "broken records are no dead letter")
    twice = sum(count - 1 for count in dead.values())
    verdict.add("doubled", twice * evidence.exactly_once, "dead letters are there again")
    verdict.add("other", len(dead.keys() - broken), "dead letters of records that are not broken")


def _check_committed(evidence: Evidence, verdict: Verdict) -> None:
    """At no sample were the group's offsets beyond a lane row that had been delivered; in the end they are equal."""
    ahead = 0
    for lane, committed, end in evidence.recorded.samples:
        rows = evidence.recorded.lane_rows.get(lane, [])
        before = [row.next_offsets for offset, row in rows if offset < end]
        ahead += _between(evidence, lane, before[-1] if before else (0, 0), committed) > 0
    verdict.add("other", ahead, "samples of the group's offsets are ahead of what was delivered")
    for lane, committed in evidence.committed.items():
        rows = evidence.recorded.lane_rows.get(lane, [])
        delivered = rows[-1][1].next_offsets if rows else (0, 0)
        apart = _apart(evidence, lane, delivered, committed)
        verdict.add("other", apart, f"records of lane {lane} lie between the group's offsets and the lane row's")


def _apart(evidence: Evidence, lane: int, one: tuple[int, int], other: tuple[int, int]) -> int:
    """Records of a lane that one of two positions is before and the other is not."""
    return _between(evidence, lane, one, other) + _between(evidence, lane, other, one)


def _between(evidence: Evidence, lane: int, first: tuple[int, int], last: tuple[int, int]) -> int:
    """Records of a lane from ``first`` to before ``last``; the markers of transactions are none."""
    found = 0
    for source in Source:
        if first[source] < last[source]:
            offsets = evidence.offsets[source, lane]
            found += int(np.searchsorted(offsets, last[source]) - np.searchsorted(offsets, first[source]))
    return found
