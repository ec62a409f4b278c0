"""What a changelog may hold: rows, a lane row, tombstones; anything else is refused with the way out."""

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from msgspec.structs import replace

from scoring.rows import ROW_BYTES, RowStore, row_bytes
from streams.lanes.clicks import person_key
from streams.lanes.recovery import Recovered, RecoveryError, _load, recover
from streams.settings import Settings
from streams.wire import LANE_KEY
from tests.builders import Record
from tests.cancelling import cancelled_after
from tests.unit.test_identity import ROW as STANDING


def load(key: bytes, value: bytes | None) -> Recovered:
    base = Recovered(RowStore())
    _load(base, [Record("state-changelog", 0, 0, 0, key, value)])
    return base


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"version": "one"})])
def test_a_lane_row_that_cannot_be_read_is_refused_with_the_way_out(value: bytes) -> None:
    with pytest.raises(RecoveryError, match="Run the version that wrote it"):
        load(LANE_KEY, value)


@pytest.mark.parametrize("value", [b"", b"x", bytes(ROW_BYTES), b"\xff" * ROW_BYTES])
def test_bytes_that_are_no_row_are_refused_with_the_way_out(value: bytes) -> None:
    with pytest.raises(RecoveryError, match="Run the version that wrote it"):
        load(b"user-1", value)


def test_a_tombstone_of_nobody_changes_nothing() -> None:
    assert len(load(b"user-1", None).store) == 0


def test_what_the_lane_kept_of_somebody_is_gone_with_its_tombstone_in_the_same_read_or_a_later_one() -> None:
    kept, gone = (Record("state-changelog", 0, 0, 0, person_key(b"ann"), value) for value in (b"learned", None))
    for reads in ([[kept, gone]], [[kept], [gone]]):
        base = Recovered(RowStore())
        for read in reads:
            _load(base, read)
        assert base.parts == {}
    _load(base, [gone, kept])
    assert base.parts == {person_key(b"ann"): b"learned"}


def test_a_person_is_gone_with_their_tombstone_in_the_same_read_or_a_later_one_and_may_come_back() -> None:
    store = RowStore()
    at = store.row_of(b"ann")
    store.rows["clicks"][at] = 7
    (row,) = row_bytes(store.rows[[at]])
    kept, gone, other = (
        Record("state-changelog", 0, 0, 0, user, value)
        for user, value in ((b"ann", row), (b"ann", None), (b"bob", row))
    )
    for reads in ([[kept, other, gone]], [[kept, other], [gone]]):
        base = Recovered(RowStore())
        for read in reads:
            _load(base, read)
        assert (base.store.find(b"ann") >= 0, base.store.find(b"bob") >= 0) == (False, True)
    _load(base, [gone, kept])
    assert base.store.rows["clicks"][base.store.find(b"ann")] == 7


class Changelog:
    """A reader of a log that gives a record a read; a marker, which is none, moves it on and gives nothing.

    ``begins``: the first offset that has not been deleted.
    """

    def __init__(self, log: list[Record | None], begins: int = 0) -> None:
        self._log, self._begins = log, begins
        self._at = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, *_: object) -> None: ...

    def seek(self, _: object, offset: int) -> None:
        self._at = offset

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self._begins)

    async def position(self, _: object) -> int:
        return self._at

    async def getmany(self, tp: TopicPartition, **_: object) -> dict[TopicPartition, list[Record]]:
        if self._at < self._begins:
            raise OffsetOutOfRangeError({tp: self._at})
        self._at += 1
        found = self._log[self._at - 1]
        return {} if found is None else {tp: [found]}


def test_a_recovery_reads_until_its_position_is_at_the_end_and_waits_for_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[Record | None] = [
        None,
        *(Record("state-changelog", 0, n, 0, person_key(b"p%d" % n), b"x") for n in (1, 2)),
    ]
    changelog = TopicPartition("state-changelog", 0)
    told: dict[str, Any] = {}
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", lambda **options: told.update(options) or Changelog(log))
    for end in (2, 3, 4):  # behind a record, behind another, behind a marker
        log += [None] * (end - len(log))
        monkeypatch.setattr("streams.lanes.recovery.log_ends", AsyncMock(return_value={changelog: end}))
        whole = asyncio.run(recover(Settings(), changelog, Recovered(RowStore())))
        assert (whole.offset, len(whole.parts)) == (end, min(end, 3) - 1)
    assert told["isolation_level"] == "read_committed"


def test_what_follows_a_lane_row_is_read_as_well_and_the_newest_lane_row_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each slice leaves one: a recovery that ended at the first would lack whatever was done since."""
    changelog = TopicPartition("state-changelog", 0)
    lane_rows = [replace(STANDING, next_offsets=(at, 0)) for at in (1, 2)]
    log: list[Record | None] = []
    for lane_row in lane_rows:
        said = ((LANE_KEY, msgspec.msgpack.encode(lane_row)), (person_key(b"p%d" % len(log)), b"x"))
        log += [*(Record("state-changelog", 0, len(log) + at, 0, *each) for at, each in enumerate(said)), None]
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", lambda **_: Changelog(log))
    monkeypatch.setattr("streams.lanes.recovery.log_ends", AsyncMock(return_value={changelog: len(log)}))

    whole = asyncio.run(recover(Settings(), changelog, Recovered(RowStore())))

    assert whole.parts.keys() == {person_key(b"p0"), person_key(b"p3")}
    assert (whole.lane_row, whole.lane_row_offset, whole.offset) == (lane_rows[1], 3, len(log))


class Busy(Changelog):
    """One that has fetched all of its log already, and gives as much of it as it is asked for."""

    async def getmany(self, tp: TopicPartition, **asked: Any) -> dict[TopicPartition, list[Record]]:
        given = [record for record in self._log[self._at : self._at + asked["max_records"]] if record is not None]
        self._at += len(given)
        return {tp: given}


async def test_lanes_at_work_wait_for_a_thousand_rows_at_most_of_one_that_is_recovered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[Record | None] = [Record("state-changelog", 0, n, 0, person_key(b"p%d" % n), b"x") for n in range(3_000)]
    changelog, base = TopicPartition("state-changelog", 0), Recovered(RowStore())
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", lambda **_: Busy(log))
    monkeypatch.setattr("streams.lanes.recovery.log_ends", AsyncMock(return_value={changelog: len(log)}))
    recovery, held = asyncio.create_task(recover(Settings(), changelog, base)), [0]
    while not recovery.done():
        await asyncio.sleep(0)
        held.append(len(base.parts))
    assert max(after - before for before, after in pairwise(held)) <= 1_000
    assert len(base.parts) == 3_000


def test_where_the_log_begins_behind_a_snapshot_it_is_read_from_there_and_the_snapshot_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[Record | None] = [Record("state-changelog", 0, n, 0, person_key(b"p%d" % n), b"x") for n in range(5)]
    changelog, base = TopicPartition("state-changelog", 0), Recovered(RowStore(), offset=1, lane_row_offset=1)
    base.store.row_of(b"gone since")
    base.parts[person_key(b"gone since")] = b"x"
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", lambda **_: Changelog(log, begins=3))
    monkeypatch.setattr("streams.lanes.recovery.log_ends", AsyncMock(return_value={changelog: 5}))

    whole = asyncio.run(recover(Settings(), changelog, base))

    assert (whole.offset, whole.lane_row_offset, len(whole.store)) == (5, 0, 0)
    assert whole.parts.keys() == {person_key(b"p3"), person_key(b"p4")}


class Closing(Changelog):
    """One that is closed as aiokafka's is: by a task that it cancels, and it takes others' cancellation for that."""

    def __init__(self, log: list[Record | None], *, by_itself: bool) -> None:
        super().__init__(log)
        self._client, self._by_itself = self, by_itself
        self.closed = False

    async def stop(self) -> None:
        if self._by_itself:
            raise asyncio.CancelledError
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True


def recovering(monkeypatch: pytest.MonkeyPatch, reader: Changelog) -> asyncio.Task[Recovered]:
    changelog = TopicPartition("state-changelog", 0)
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", lambda **_: reader)
    monkeypatch.setattr("streams.lanes.recovery.log_ends", AsyncMock(return_value={changelog: 1}))
    return asyncio.create_task(recover(Settings(), changelog, Recovered(RowStore())))


async def test_a_recovery_that_is_cancelled_while_its_reader_closes_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await cancelled_after(20, recovering(monkeypatch, Closing([None], by_itself=False)))


async def test_a_recovery_whose_reader_ends_cancelled_by_nobody_has_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Closing([None], by_itself=True)
    assert (await recovering(monkeypatch, reader)).offset == 1
    assert reader.closed


def recovered(monkeypatch: pytest.MonkeyPatch, bound: int, told: list[tuple[bytes, bool]]) -> RowStore:
    """A lane of at most ``bound`` users, read one record at a time: of each a row, or a tombstone."""
    anybody = RowStore()
    (row,) = row_bytes(anybody.rows[[anybody.row_of(b"anybody")]])
    log: list[Record | None] = [
        Record("state-changelog", 0, at, 0, user, row if there else None) for at, (user, there) in enumerate(told)
    ]
    changelog = TopicPartition("state-changelog", 0)
    monkeypatch.setattr("streams.reading.AIOKafkaConsumer", lambda **_: Changelog(log))
    monkeypatch.setattr("streams.lanes.recovery.log_ends", AsyncMock(return_value={changelog: len(log)}))
    base = Recovered(RowStore(bound))
    return asyncio.run(recover(Settings(rows_per_lane_max=bound), changelog, base)).store


def test_a_full_lane_is_recovered_where_a_row_stands_before_the_tombstone_that_made_room_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = recovered(monkeypatch, 2, [(b"ann", True), (b"bob", True), (b"eve", True), (b"ann", False)])
    assert (store.find_all([b"ann", b"bob", b"eve"]) >= 0).tolist() == [False, True, True]
    with pytest.raises(MemoryError, match="holds 2 users, its bound"):  # though there are three places
        store.row_of(b"joe")


def test_a_lane_with_more_users_than_its_bound_at_the_end_of_its_changelog_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(RecoveryError, match="holds 3 users, its bound is 2; raise SALIENCE_ROWS_PER_LANE_MAX"):
        recovered(monkeypatch, 2, [(b"ann", True), (b"bob", True), (b"eve", True)])
