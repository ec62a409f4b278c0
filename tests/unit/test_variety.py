"""What variety costs, slot after slot, by its definitions."""

from itertools import combinations

import numpy as np
import pytest

from scoring.arrays import Singles
from scoring.variety import Method, Variety, intra_list_distance, unit

ONE = np.ones(1, dtype=np.bool_)
STRENGTH = 2.0


def placed(method: Method, vectors: Singles, *places: int) -> Variety:
    variety = Variety(method, STRENGTH, vectors)
    for place in places:
        variety.place(np.array([place]), ONE)
    return variety


def test_by_mmr_a_candidate_loses_for_the_one_above_that_it_is_most_like() -> None:
    vectors = np.array([[[0.1, 0], [0.03, 0.04], [0, 2], [-1, 0], [0, 0]]], dtype=np.float32)
    assert placed("mmr", vectors, 0).cost[0] == pytest.approx([2, 1.2, 0, 0, 0])
    assert placed("mmr", vectors, 0, 2).cost[0] == pytest.approx([2, 1.6, 2, 0, 0])
    assert placed("mmr", vectors, 4, 2).cost[0] == pytest.approx([0, 1.6, 2, 0, 0])  # nothing is like what has nothing


def test_by_a_determinantal_process_it_loses_for_the_volume_that_it_would_not_add() -> None:
    vectors = np.random.default_rng(4).normal(size=(1, 6, 4)).astype(np.float32)
    vectors[0, 5] = 3 * vectors[0, 0]
    directions = unit(vectors)[0].astype(float)
    for above in ([0], [0, 3], [0, 3, 1]):
        span = directions[above]
        rest = directions - directions @ np.linalg.pinv(span) @ span
        left = np.maximum((rest**2).sum(axis=1), 1e-4)
        found = placed("dpp", vectors, *above).cost[0]
        assert found == pytest.approx(-0.5 * STRENGTH * np.log(left), abs=0.01)
        assert found[5] == pytest.approx(4.6 * STRENGTH, abs=0.02)  # all that it can lose


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_who_was_given_nothing_in_a_slot_loses_nothing_for_it(method: Method) -> None:
    vectors = np.random.default_rng(4).normal(size=(2, 5, 4)).astype(np.float32)
    variety = Variety(method, STRENGTH, vectors)
    for place in (0, 1):
        variety.place(np.array([place, place]), np.array([True, False]))
    assert variety.cost[1].tolist() == [0] * 5
    assert variety.cost[0] == pytest.approx(placed(method, vectors[:1], 0, 1).cost[0])
    variety.place(np.array([2, 0]), np.array([False, True]))
    assert variety.cost[1] == pytest.approx(placed(method, vectors[1:], 0).cost[0], abs=1e-6)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_list_is_as_varied_as_its_pairs_are_apart_on_the_mean(size: int) -> None:
    lists = np.random.default_rng(4).normal(size=(4, size, 3)).astype(np.float32)
    apart = [[1 - one @ other for one, other in combinations(each.astype(float), 2)] for each in unit(lists)]
    assert intra_list_distance(lists) == pytest.approx(np.mean(apart, axis=1), abs=1e-6)
