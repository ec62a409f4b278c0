"""A lane's changelog as the referee reads it: rows, and who leaves."""

from collections.abc import Sequence

import pytest

from streams.experiments.changelog import Changelog
from streams.privacy.consent import Watermarks, watermark_key
from streams.topics import CHANGELOG
from streams.wire import LANE_KEY, RESERVED
from tests.builders import Record

LANE = (LANE_KEY, b"row")
Change = tuple[bytes, bytes | None]


def raises(user: bytes, until_ms: int = 100) -> Change:
    return watermark_key(user), until_ms.to_bytes(8, "big")


class Read:
    """A changelog, and what has been read of it. A change of None is a record that compaction has taken."""

    def __init__(self) -> None:
        self.erased = Watermarks()
        self.changelog = Changelog(self.erased)
        self.rows: dict[bytes, bytes] = {}
        self.forgotten: list[bytes] = []
        self.idle: list[bytes] = []
        self._end = 0

    def take(self, *changes: Change | None) -> None:
        told = enumerate(changes, start=self._end)
        records: Sequence[Record] = [Record(CHANGELOG, 0, at, 1, *change) for at, change in told if change is not None]
        self._end += len(changes)
        for forgotten, rows, idle in self.changelog.take(records):
            self.forgotten += forgotten
            self.rows = {user: row for user, row in self.rows.items() if user not in forgotten} | rows
            self.idle += idle


@pytest.mark.parametrize("cut", range(7))
def test_who_is_forgotten_does_not_depend_on_where_a_fetch_ends(cut: int) -> None:
    changes = ((b"a", b"1"), (b"back", b"2"), (b"b", None), raises(b"b"), raises(b"back"), LANE)
    read = Read()
    read.take(*changes[:cut])
    read.take(*changes[cut:])
    assert sorted(read.forgotten) == [b"b", b"back"]
    assert read.rows == {b"a": b"1", b"back": b"2"}
    assert read.changelog.whole == 6


def test_a_row_of_before_goes_with_the_tombstone_and_one_that_begins_anew_stays() -> None:
    read = Read()
    read.take((b"a", b"1"), (b"b", b"2"), LANE, (b"b", b"3"), (b"a", None), raises(b"a"), raises(b"b"), LANE)
    assert (sorted(read.forgotten), read.rows) == ([b"a", b"b"], {b"b": b"3"})


def test_who_is_idle_stays_though_they_were_forgotten_once_before() -> None:
    read = Read()
    read.take((b"a", None), raises(b"a"), LANE, (b"a", b"1"), LANE)
    read.take((b"a", None), raises(b"other"), LANE)
    assert (read.forgotten, read.rows, read.idle) == ([b"a"], {b"a": b"1"}, [b"a"])


def test_whose_row_begins_anew_in_a_slice_that_was_tried_twice_is_not_idle() -> None:
    read = Read()
    read.take((b"a", b"1"), LANE)
    read.take((b"a", None), (b"b", b"1"), (b"a", b"2"), LANE)  # without transactions, the first try stays on the topic
    assert (read.forgotten, read.rows, read.idle) == ([], {b"a": b"2", b"b": b"1"}, [])


def test_a_watermark_that_the_lane_gives_up_forgets_nobody() -> None:
    read = Read()
    read.take((b"a", None), (watermark_key(b"a"), None), LANE)
    assert read.forgotten == []


def test_where_compaction_has_been_whoever_has_a_tombstone_and_a_watermark_leaves() -> None:
    read = Read()
    read.take((b"a", None), None, raises(b"a"), None, (b"b", None), (b"c", b"1"), None, raises(b"c"), LANE)
    assert (read.forgotten, read.rows) == ([b"a"], {b"c": b"1"})  # c was erased before that row, or it would be none
    assert read.idle == []  # of b nobody knows when
    read.take((b"c", None), raises(b"c", 200), LANE)
    assert (read.forgotten, read.idle) == ([b"a", b"c"], [])


def test_markers_of_transactions_between_slices_are_no_gap_in_one() -> None:
    read = Read()
    read.take(None, (b"a", b"1"), LANE, None, (b"a", None), LANE, None, None, (b"b", b"2"), raises(b"b"), LANE)
    assert (read.forgotten, read.idle) == ([b"b"], [b"a"])


def test_of_a_compacted_changelog_no_more_is_kept_than_tombstones() -> None:
    read = Read()
    for number in range(3_000):
        read.take((b"u%d" % number, b"1"), None)
    assert len(read.changelog._rows) == 1


def test_what_the_lane_keeps_of_itself_is_nobodys_row_and_a_slice_half_read_is_read_again() -> None:
    read = Read()
    read.take((RESERVED + b"layer", b"1"), (b"", b"2"), LANE, (b"a", b"3"))
    assert (read.rows, read.changelog.whole) == ({}, 3)
    read.take(LANE)
    assert (read.rows, read.changelog.whole) == ({b"a": b"3"}, 5)


def test_rows_are_handed_on_slice_by_slice_and_of_one_that_is_half_read_none() -> None:
    changelog = Changelog(Watermarks())
    changes = [(b"a", b"1"), LANE, (b"a", b"2"), (b"b", b"1"), LANE, (b"b", b"2")]
    told = changelog.take([Record(CHANGELOG, 0, at, 1, *change) for at, change in enumerate(changes)])
    assert [part.rows for part in told] == [{b"a": b"1"}, {b"a": b"2", b"b": b"1"}]


def test_of_a_slice_with_no_end_no_more_rows_are_held_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.experiments.changelog.HELD_MAX", 3)
    read = Read()
    read.take((b"a", b"1"), (b"b", b"1"))
    assert read.rows == {}
    read.take((b"c", b"1"), (b"d", b"1"))
    assert (read.rows, read.changelog.whole) == ({b"a": b"1", b"b": b"1", b"c": b"1"}, 0)
    read.take(raises(b"a"), LANE)
    assert (read.rows, read.forgotten) == ({b"b": b"1", b"c": b"1", b"d": b"1"}, [b"a"])


def test_where_compaction_has_been_rows_wait_for_no_end() -> None:
    read = Read()
    read.take((b"a", b"1"), None, (b"b", b"1"))
    assert read.rows == {b"a": b"1", b"b": b"1"}
