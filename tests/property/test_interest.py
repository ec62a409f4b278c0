"""Interest is a sum that halves with time, whatever the order, the cut or the numbers."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.events import Kind
from scoring.interest import HALF_LIVES_MS, WEIGHT_MAX, WEIGHTS, accumulate, decayed, weight_of

START_MS = 1_700_000_000_000
ROWS, K = 4, 8

events = st.lists(
    st.tuples(
        st.integers(0, ROWS - 1),
        st.integers(0, 3 * HALF_LIVES_MS[1]),  # three weeks
        st.sampled_from([0.0, 0.3, 0.7, 1.0, 2.5, WEIGHT_MAX]),
        st.integers(0, K - 1),
    ),
    min_size=1,
    max_size=40,
)
Event = tuple[int, int, float, int]
State = tuple[np.ndarray, np.ndarray]


def empty() -> State:
    return np.zeros((ROWS, 2, K), dtype=np.float32), np.zeros(ROWS, dtype=np.int64)


def learn(state: State, batch: list[Event]) -> State:
    index, age, weight, place = (np.array(column) for column in zip(*batch, strict=True))
    accumulate(*state, index, START_MS + age, weight.astype(np.float32), np.eye(K, dtype=np.float32)[place])
    return state


def by_definition(batch: list[Event]) -> np.ndarray:
    """Σ weight · 2^(−age / half-life) as of each row's newest time, in double precision, one event at a time."""
    out = np.zeros((ROWS, 2, K))
    for row, time, weight, place in batch:
        newest = max((t for r, t, w, _ in batch if r == row and w), default=0)
        for horizon, half_life in enumerate(HALF_LIVES_MS):
            out[row, horizon, place] += weight * 2.0 ** -((newest - time) / half_life) if weight else 0
    return out


@given(events)
def test_it_is_the_decayed_sum_of_what_was_attended_to(batch: list[Event]) -> None:
    vectors, _ = learn(empty(), batch)
    np.testing.assert_allclose(vectors, by_definition(batch), rtol=1e-5, atol=1e-5)


@given(events, st.lists(st.integers(1, 39), max_size=4))
def test_it_does_not_depend_on_how_a_stream_is_cut(batch: list[Event], cuts: list[int]) -> None:
    whole = learn(empty(), batch)
    bounds = sorted({0, len(batch), *(cut for cut in cuts if cut < len(batch))})
    pieces = empty()
    for start, end in pairwise(bounds):
        learn(pieces, batch[start:end])
    np.testing.assert_allclose(pieces[0], whole[0], rtol=1e-5, atol=1e-5)
    assert pieces[1].tolist() == whole[1].tolist()


@given(events, st.randoms(use_true_random=False))
def test_it_does_not_depend_on_the_order(batch: list[Event], random: Random) -> None:
    one_by_one, shuffled = empty(), list(batch)
    random.shuffle(shuffled)
    for event in shuffled:
        learn(one_by_one, [event])
    whole = learn(empty(), batch)
    np.testing.assert_allclose(one_by_one[0], whole[0], rtol=1e-5, atol=1e-5)
    assert one_by_one[1].tolist() == whole[1].tolist()


@given(st.integers(0, 10), st.sampled_from([0, 1]))
def test_it_halves_with_every_half_life(halvings: int, horizon: int) -> None:
    vectors, reference = learn(empty(), [(0, 0, 2.0, 5)])
    now = np.array([START_MS + halvings * HALF_LIVES_MS[horizon]])
    assert decayed(vectors[:1], reference[:1], now)[0, horizon, 5] == pytest.approx(2.0 * 0.5**halvings)


@given(st.integers(0, 10**12))
def test_looking_back_grows_nothing(back_ms: int) -> None:
    vectors, reference = learn(empty(), [(0, 0, 2.0, 5)])
    assert (decayed(vectors[:1], reference[:1], np.array([START_MS - back_ms])) == vectors[:1]).all()


@given(events)
def test_rows_without_events_stay_as_they_are(batch: list[Event]) -> None:
    state = learn(empty(), [(row, 0, 1.0, row) for row in range(ROWS)])
    before = state[0].copy(), state[1].copy()
    learn(state, batch)
    untouched = [row for row in range(ROWS) if not any(event[0] == row and event[2] for event in batch)]
    assert (state[0][untouched] == before[0][untouched]).all()
    assert (state[1][untouched] == before[1][untouched]).all()


@given(
    st.lists(
        st.tuples(st.integers(0, 8) | st.integers(0, 255), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=50
    ),
)
def test_no_event_counts_more_than_the_bound(pairs: list[tuple[int, int]]) -> None:
    kind = np.array([pair[0] for pair in pairs], dtype=np.uint8)
    weight = weight_of(kind, np.array([pair[1] for pair in pairs], dtype=np.int64))
    assert weight.dtype == np.float32
    assert ((weight >= 0) & (weight <= WEIGHT_MAX)).all()
    assert not weight[(kind <= Kind.SHOWN) | (kind > max(Kind))].any()


@given(events, st.integers(0, 4_102_444_800_000 - START_MS))
def test_times_from_1970_to_2100_leave_it_finite(batch: list[Event], jump_ms: int) -> None:
    state = learn(learn(empty(), batch), [(0, jump_ms, WEIGHT_MAX, 0), (1, -START_MS, WEIGHT_MAX, 0)])
    assert np.isfinite(state[0]).all()
    assert (np.abs(state[0]) <= WEIGHT_MAX * (len(batch) + 2)).all()
    assert np.isfinite(decayed(*state, np.full(ROWS, 4_102_444_800_000))).all()


def test_the_stronger_kind_counts_more() -> None:
    assert (np.diff(WEIGHTS[Kind.SHOWN :]) > 0).all()


def test_no_events_are_nothing_to_learn() -> None:
    state = learn(empty(), [(0, 0, 1.0, 0)])
    none = np.zeros(0, dtype=np.int64)
    accumulate(*state, none, none, none.astype(np.float32), np.zeros((0, K), dtype=np.float32))
    assert state[1].tolist() == [START_MS, 0, 0, 0]
