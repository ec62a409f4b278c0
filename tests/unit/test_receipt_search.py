"""Receipts found by their ids: by few reads where a lane's log is as workers write it, and by more in any other."""

import asyncio
import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.placement_ids import Origin, placement_id
from streams.receipt_search import WINDOW, approach, receipt_among, rings
from tests.builders import Record

SLICES, PEOPLE = 600, 500


def log_of(slices: int, seed: int, clicks_share: float = 0.2, lane: int = 0) -> list[Record]:
    """A lane's receipts: each slice takes some events of both topics, and places whoever has one, in any order."""
    rng, ends, rows = np.random.default_rng(seed), [0, 0], dict[int, list[int]]()
    found: list[Record] = []
    for _ in range(slices):
        placed = set[int]()
        for _ in range(int(rng.integers(1, 40))):
            source, person = int(rng.random() < clicks_share), int(rng.integers(PEOPLE))
            rows.setdefault(person, [-1, -1])[source] = ends[source]
            ends[source] += 1
            placed.add(person)
        for person in rng.permutation(sorted(placed)).tolist():
            first, second = rows[person]
            name = placement_id(lane, b"user-%d" % person, (first, second))
            value = msgspec.json.encode({"placement_id": name, "offsets": (first, second), "row": "of the rest"})
            found.append(Record("decisions", lane, len(found), 0, b"u", value))
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
        return log[offset : offset + WINDOW]

    near, more = asyncio.run(approach(read, 0, len(log), origin)), 0
    for low, high in rings(0, near, len(log)):
        more += high - low
        if any(name.encode() in (record.value or b"") for record in log[low:high]):
            return near, reads, more
    raise AssertionError(f"{name} is in no ring")


@pytest.mark.parametrize("clicks_share", [0.02, 0.2, 0.5])
def test_a_receipt_among_ten_thousand_is_found_by_fourteen_reads_and_its_neighbours(clicks_share: float) -> None:
    log = log_of(SLICES, seed=1, clicks_share=clicks_share)
    assert 8_192 < len(log) < 16_384
    looked = [searched(log, name_of(record)) for record in [*log[:50], *log[::97], *log[-50:]]]
    assert max(reads for _, reads, _ in looked) <= 14
    near = sorted(more for *_, more in looked)
    assert near[len(near) * 9 // 10] <= 2 * WINDOW
    assert near[-1] < len(log) / 2


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
    log = [Record("decisions", 0, at, 0, b"u", each.value) for at, each in enumerate([*former, *later])]
    for record in log[:: len(log) // 50]:
        searched(log, name_of(record))


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
    assert Origin.of(name) == Origin.of(name + ".1:a") == Origin(lane, offsets)
