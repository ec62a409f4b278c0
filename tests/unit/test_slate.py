"""Slots under rules, by example: what is drawn evenly, what is left as it was, and what is shut."""

import numpy as np
import pytest

from scoring.ranking import EMPTY_SLOT
from scoring.slate import Limits, Wanted, fill
from scoring.variety import Variety

ADS = np.array([[1, 2, 3]], dtype=np.uint64)
SEED = np.ones(1, dtype=np.uint64)
ALL = np.ones((1, 3), dtype=np.bool_)
VALUE = np.array([[9.0, 1.0, 1.0]])
GREEDY = np.zeros(1)


def test_who_is_ranked_at_random_is_so_where_others_are_drawn_by_thompson_sampling() -> None:
    wanted = Wanted(VALUE, np.array([np.inf]), np.full((1, 3), 0.01))
    np.testing.assert_allclose(fill(wanted, ADS, SEED, 3, Limits(ALL)).propensity, [[1 / 3, 1 / 2, 1]])


def test_what_the_rules_say_of_people_is_not_changed_by_filling_their_slots() -> None:
    room, allowed = np.full((1, 3), 2), ALL.copy()
    scopes = ((np.full((1, 3), 7, dtype=np.uint64), room),)
    made = fill(Wanted(VALUE, GREEDY), ADS, SEED, 3, Limits(allowed, scopes))
    assert made.chosen.tolist() == [[0, 1, EMPTY_SLOT]]
    assert (made.shut.tolist(), room.tolist(), allowed.all()) == ([[False, False, True]], [[2, 2, 2]], True)


@pytest.mark.parametrize(
    ("ads", "slots"), [(4, 10), (8, 4), (8, 6)], ids=["fewer candidates", "fewer slots", "one slot too few"]
)
def test_an_ad_that_is_pinned_beyond_the_last_slot_that_can_be_filled_is_like_any_other(ads: int, slots: int) -> None:
    wanted = Wanted(np.arange(ads, 0, -1.0)[None], np.zeros(1))
    pinned = np.full((1, ads), EMPTY_SLOT)
    pinned[0, 0] = 6
    limits = Limits(np.ones((1, ads), dtype=np.bool_), pinned=pinned)

    made = fill(wanted, np.arange(1, ads + 1, dtype=np.uint64)[None], SEED, slots, limits)

    assert made.chosen[0].tolist() == [*range(min(ads, slots))] + [EMPTY_SLOT] * (slots - ads)
    assert pinned[0, 0] == 6


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_what_is_drawn_next_to_cold_goes_by_variety_as_much_as_what_is_given_to_the_best(strength: float) -> None:
    vectors = np.array([[[1, 0], [1, 0], [0, 1]]], dtype=np.float32)
    value = np.array([[9.0, 4.0, 1.0]])  # the second loses a factor of e^strength for being the first's like

    def chosen(temperature: float) -> list[list[int]]:
        variety = Variety("mmr", strength, vectors)
        return fill(Wanted(value, np.array([temperature])), ADS, SEED, 3, Limits(ALL), variety).chosen.tolist()

    assert chosen(0.0) == chosen(1e-3) == [[0, 1, 2] if strength < 1 else [0, 2, 1]]
