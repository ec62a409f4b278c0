"""Receipts found by their ids: by few reads where a lane's log is as workers write it, and by more in any other."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.asyncapi_examples import DECISION
from streams.placement_ids import SLICE_END, Origin, placement_id, slice_end, slice_end_of
from streams.receipt_search import SLICE, approach, receipt_among, rings
from streams.wire import encode_json
from tests.builders import Record

SLICES, EVENTS, PEOPLE = 600, 40, 500


def log_of(slices: int, seed: int, clicks_share: float = 0.2, lane: int = 0, people: int = PEOPLE) -> list[Record]:
    """A lane's receipts: each slice takes some events of both topics, and places whoever has one, in any order."""
    rng, ends, rows = np.random.default_rng(seed), [0, 0], dict[int, list[int]]()
    found: list[Record] = []
    for _ in range(slices):
        placed = set[int]()
        for _ in range(int(rng.integers(1, EVENTS))):
            source, person = int(rng.random() < clicks_share), int(rng.integers(people))
            rows.setdefault(person, [-1, -1])[source] = ends[source]
            ends[source] += 1
            placed.add(person)
        for person in rng.permutation(sorted(placed)).tolist():
            first, second = rows[person]
            name = placement_id(lane, b"user-%d" % person, (first, second))
            value = encode_json(msgspec.structs.replace(DECISION, placement_id=name, offsets=(first, second)))
            found.append(Record("decisions", lane, len(found), 0, b"u", value, slice_end((ends[0], ends[1]))))
    return found


def name_of(record: Record) -> str:
    name: str = msgspec.json.decode(record.value or b"")["placement_id"]
    return name


def searched(log: Sequence[Record], name: str) -> tuple[int, int, int]:
    """Where the search comes to, after how many reads, and how many receipts are then read until it is found."""
    reads, origin = 0, Origin.of(name)
    assert origin is not None

    async def read(offset: int) -> Sequence[Record]:
        nonlocal reads
        reads += 1
        return log[offset : offset + 1]

    near, more = asyncio.run(approach(read, 0, len(log), origin)), 0
    for low, high in rings(0, near, len(log)):
        more += high - low
        if any(name.encode() in (record.value or b"") for record in log[low:high]):
            return near, reads, more
    raise AssertionError(f"{name} is in no ring")


@pytest.mark.parametrize("people", [PEOPLE, 10**9])  # the latter never come again
@pytest.mark.parametrize("clicks_share", [0.0, 0.002, 0.05, 0.5, 1.0])
def test_a_receipt_among_ten_thousand_is_found_by_fourteen_reads_and_those_of_its_slice(
    clicks_share: float, people: int
) -> None:
    log = log_of(SLICES, seed=1, clicks_share=clicks_share, people=people)
    assert 8_192 < len(log) < 16_384
    for record in [*log[:50], *log[::97], *log[-50:]]:
        near, reads, looked = searched(log, name_of(record))
        assert reads <= 14
        assert looked <= SLICE
        assert near == next(at for at, each in enumerate(log) if each.headers == record.headers)


@given(st.integers(0, 2**32), st.integers(1, 12), st.floats(0.0, 1.0))
def test_whichever_receipt_of_a_lane_is_sought_is_found(seed: int, slices: int, clicks_share: float) -> None:
    log = log_of(slices, seed, clicks_share)
    for record in log[:: 1 + len(log) // 20]:
        searched(log, name_of(record))


@given(st.integers(0, 1_000_000), st.integers(0, 100_000), st.floats(0.0, 1.0))
def test_rings_are_all_of_a_log_once_and_the_nearest_first(begin: int, length: int, share: float) -> None:
    near, end = begin + round(share * length), begin + length
    found = rings(begin, near, end)
    assert len(found) < 16
    after, before = [ring for ring in found if ring[0] >= near], [ring for ring in found if ring[1] <= near]
    assert (after, before) == (sorted(after), sorted(before, reverse=True))
    places = sorted(found)
    assert sum(high - low for low, high in places) == length
    assert all(one[1] == other[0] for one, other in itertools.pairwise(places))
    assert not places or (places[0][0], places[-1][1]) == (begin, end)


def test_a_receipt_is_found_where_a_lanes_input_topics_were_made_anew() -> None:
    former, later = log_of(40, seed=2), log_of(40, seed=3)
    log = [replace(each, offset=at) for at, each in enumerate([*former, *later])]
    for record in log[:: len(log) // 50]:
        searched(log, name_of(record))


def test_a_slice_that_was_run_again_hides_no_receipt() -> None:
    log = log_of(60, seed=5)
    again = [*log[: len(log) // 2], *log[len(log) // 4 :]]
    for record in log[:: len(log) // 50]:
        searched(again, name_of(record))


def test_receipts_of_a_former_version_which_tell_no_slice_are_found_too() -> None:
    former, later = log_of(40, seed=6), log_of(80, seed=6)
    log = [*(replace(each, headers=()) for each in former), *later[len(former) :]]
    for record in log[:: len(log) // 50]:
        searched(log, name_of(record))


@pytest.mark.parametrize("told", [None, b"", b"1", b"1-", b"1-x", b"-1-1", b"1-1-1", b"1" * 17 + b"-1"])
def test_a_header_that_tells_no_slice_is_as_none(told: bytes | None) -> None:
    assert slice_end_of([("other", b"1-1"), (SLICE_END, told)]) is None
    assert slice_end_of([(SLICE_END, told), (SLICE_END, b"1f-0")]) == (31, 0)


def test_records_that_are_no_receipts_do_not_end_the_search() -> None:
    log = log_of(20, seed=4)
    bad = [Record("decisions", 0, 0, 0, b"u", value) for value in (None, b"", b"[", b"\xff", b'{"placement_id": 1}')]
    mixed = [each for record in log for each in (record, *bad)]
    for record in log[::17]:
        searched(mixed, name_of(record))
    assert receipt_among(bad, "0-1-1-0000000000000000") is None


@pytest.mark.parametrize("name", ["", "p", "0-1-1", "x-1-1-0000000000000000", "0-1-1-00", "0-1-1-0000000000000000-1"])
def test_what_is_no_id_of_a_placement_has_no_origin(name: str) -> None:
    assert Origin.of(name) is None


@given(st.integers(0, 65_535), st.tuples(st.integers(-1, 2**63 - 2), st.integers(-1, 2**63 - 2)), st.binary())
def test_an_id_tells_what_it_was_made_from(lane: int, offsets: tuple[int, int], user: bytes) -> None:
    name = placement_id(lane, user, offsets)
    assert Origin.of(name) == Origin.of(name + ".1:a") == Origin(lane, (offsets[0] + 1, offsets[1] + 1))
