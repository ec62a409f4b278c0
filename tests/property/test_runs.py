"""Runs of equal values against a loop that looks at every place."""

from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scoring.runs import begins, runs

KEYS = st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 1)), max_size=12)


@given(KEYS)
def test_a_run_goes_on_for_as_long_as_no_key_changes(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    lengths = [len(list(places)) for _, places in groupby(pairs)]
    starts = [sum(lengths[:at]) for at in range(len(lengths))]
    start, count = runs(first, second)
    assert (start.tolist(), count.tolist()) == (starts, lengths)
    assert np.flatnonzero(begins(first, second)).tolist() == starts


@given(st.lists(st.integers(0, 3), max_size=12))
def test_ids_of_64_bits_are_told_apart_whatever_their_values(values: list[int]) -> None:
    ids = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)[np.array(values, dtype=np.int64)]
    assert np.repeat(ids[runs(ids)[0]], runs(ids)[1]).tolist() == ids.tolist()
