"""What a changelog may hold: rows, a lane row, tombstones; anything else is refused with the way out."""

import msgspec
import pytest

from scoring.rows import ROW_BYTES, RowStore
from streams.lane_clicks import person_key
from streams.recovery import Recovered, RecoveryError, _load
from streams.wire import LANE_KEY
from tests.builders import Record


def load(key: bytes, value: bytes | None) -> Recovered:
    base = Recovered(RowStore(), None, 0)
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
        base = Recovered(RowStore(), None, 0)
        for read in reads:
            _load(base, read)
        assert base.parts == {}
    _load(base, [gone, kept])
    assert base.parts == {person_key(b"ann"): b"learned"}
