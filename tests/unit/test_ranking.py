"""Ranking, by example: ties, cold temperatures, ads without a bid, money."""

from typing import Any

import numpy as np
import pytest

from scoring.arrays import Ids
from scoring.ids import id64s
from scoring.ranking import EMPTY_SLOT, Ranked, first_chances, rank, slot_chances

ADS = id64s([f"ad-{number}" for number in range(12)])


def ranked(pctr: list[float], bids: list[int], seeds: Ids, temperature: float, slots: int) -> Ranked:
    """The same candidates ranked for every seed."""
    shape = len(seeds), len(pctr)

    def alike(values: Any, dtype: Any) -> Any:
        return np.broadcast_to(np.array(values, dtype=dtype), shape)

    ads = alike(ADS[: len(pctr)], np.uint64)
    return rank(alike(pctr, np.float32) * alike(bids, np.float64), ads, seeds, np.full(len(seeds), temperature), slots)


def test_people_of_one_call_may_have_different_temperatures() -> None:
    people = 2_000
    temperatures = np.where(np.arange(people) % 2, np.inf, 0.0)
    values = np.broadcast_to(np.array([0.1, 0.2], dtype=np.float32), (people, 2))
    bids, ads = np.full((people, 2), 100), np.broadcast_to(ADS[:2], (people, 2))

    out = rank(values * bids, ads, np.arange(people, dtype=np.uint64), temperatures, 1)

    assert set(out.chosen[::2, 0].tolist()) == {1}
    assert set(out.propensity[::2, 0].tolist()) == {1.0}
    assert 400 < int(out.chosen[1::2, 0].sum()) < 600
    assert set(out.propensity[1::2, 0].tolist()) == {0.5}


def test_a_cold_temperature_leaves_the_later_slots_their_chances() -> None:
    # At 0.01 the second ad's weight beside the first is e^-1381, which no float holds; among what is left it is 1.
    out = ranked([0.5, 0.5, 0.5], [10**9, 10**3, 1], np.array([1], dtype=np.uint64), 0.01, 3)

    assert out.chosen[0].tolist() == [0, 1, 2]
    assert out.propensity[0].tolist() == pytest.approx([1, 1, 1])


def test_an_ad_without_a_bid_can_still_be_explored() -> None:
    drawn = ranked([0.1, 0.1], [0, 0], np.arange(1_000, dtype=np.uint64), 1.0, 1)

    assert 400 < int(drawn.chosen.sum()) < 600


def test_one_seed_gives_one_ranking_and_another_another() -> None:
    seeds = np.array([5, 5, 6], dtype=np.uint64)
    one, same, other = ranked([0.1] * 12, [100] * 12, seeds, 1.0, 12).chosen.tolist()

    assert one == same != other
    assert sorted(other) == list(range(12))


def test_among_values_that_are_next_to_nothing_the_later_slots_have_their_chances_too() -> None:
    out = ranked([1e-6] * 3, [1] * 3, np.array([1], dtype=np.uint64), 0.001, 2)

    assert out.propensity[0].tolist() == pytest.approx([1 / 3, 1 / 2])


def test_chances_are_by_value_down_to_a_millionth_of_a_millionth_of_a_micro() -> None:
    assert first_chances(np.array([3e-12, 1e-12, 0.0]), 1.0).tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert first_chances(np.array([1e-300, 1e300]), 0.01).tolist() == [0, 1]
    assert first_chances(np.array([5.0, 5.0, 4.9]), 0.0).tolist() == [0.5, 0.5, 0]
    assert slot_chances(np.array([5.0, 4.9, 4.9]), np.array([0, 2, 1]), 0.0).tolist() == [1, 0.5, 1]
    assert slot_chances(np.array([1.0, 1.0 + 1e-12]), np.array([1, 0]), 0.0).tolist() == [1, 1]  # best by a hair


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_who_is_not_allowed_stands_nowhere_and_an_empty_slot_was_sure(temperature: float) -> None:
    value, allowed = np.array([[3.0, 2.0, 1.0]]), np.array([[False, True, False]])

    out = rank(value, ADS[None, :3], np.ones(1, dtype=np.uint64), np.array([temperature]), 2, allowed)

    assert (out.chosen.tolist(), out.propensity.tolist()) == ([[1, EMPTY_SLOT]], [[1.0, 1.0]])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_finite_number_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="not a number"):
        rank(np.array([[1.0, wrong]]), ADS[None, :2], np.ones(1, dtype=np.uint64), np.zeros(1), 1)
