"""The map from ids to slots is a dict, looked up in arrays."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scoring.ids import EMPTY, MISSING, IdMap, mix64

# Small ids, ids that share their low bits, and ids at the end of the table, so that probes collide and wrap around.
KEYS = st.one_of(
    st.integers(1, 40),
    st.integers(1, 40).map(lambda high: high << 32),
    st.integers(1, 40).map(lambda high: (high << 32) | 0xFFFF_FFFF),
    st.integers(1, 2**64 - 1),
)
PAIRS = st.lists(st.tuples(KEYS, st.integers(0, 1_000)), max_size=120)


def filled(pairs: list[tuple[int, int]], capacity: int) -> IdMap:
    ids = IdMap(capacity)
    for key, slot in pairs:
        ids.set(key, slot)
    return ids


@given(PAIRS, st.lists(KEYS, max_size=60), st.integers(0, 100))
def test_a_map_equals_a_dict_whatever_its_first_capacity(
    pairs: list[tuple[int, int]], asked: list[int], capacity: int
) -> None:
    ids, reference = filled(pairs, capacity), dict(pairs)
    keys = [*asked, *reference]

    assert len(ids) == len(reference)
    assert ids.get(np.array(keys, dtype=np.uint64)).tolist() == [reference.get(key, MISSING) for key in keys]


@given(PAIRS, st.sampled_from([(0,), (4, 3), (2, 3, 2)]))
def test_a_look_up_keeps_the_shape_and_finds_nothing_for_the_empty_id(
    pairs: list[tuple[int, int]], shape: tuple[int, ...]
) -> None:
    slots = filled(pairs, 0).get(np.full(shape, EMPTY))

    assert slots.shape == shape
    assert (slots == MISSING).all()


@given(PAIRS)
def test_a_map_is_at_most_half_full_and_no_larger_than_that_needs(pairs: list[tuple[int, int]]) -> None:
    ids = filled(pairs, 8)

    places = ids.nbytes // 16
    assert len(ids) <= places / 2
    assert places <= max(16, 4 * len(ids))


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=100, unique=True))
def test_mixing_keeps_different_ids_different(values: list[int]) -> None:
    assert len(set(mix64(np.array(values, dtype=np.uint64)).tolist())) == len(values)
