"""Prices by example: empty slots, whole prices, and events that never come."""

import numpy as np
import pytest

from scoring.auction import best_left, externalities, prices
from scoring.ids import id64
from scoring.market import Market, Terms
from tests.unit.test_market import decide, shop

ONES = np.ones((1, 3))
VALUE, BIDS = np.array([[9.0, 4.0, 2.0]]), np.array([[9, 4, 2]])


def test_an_empty_slot_of_one_person_takes_nothing_from_another() -> None:
    value = np.array([[5.0, 3.0, 4.0], [5.0, 3.0, 1.0]])
    assert best_left(value, np.array([[0], [-1]])).tolist() == [[4.0], [5.0]]
    assert best_left(value, np.array([[-1], [0]])).tolist() == [[5.0], [3.0]]


def test_by_vcg_nobody_pays_for_an_empty_slot_between_two() -> None:
    chosen = np.array([[1, -1, 2]])
    owed = externalities(VALUE, chosen, best_left(VALUE, chosen), np.array([1.0, 0.5, 0.25]))
    assert owed[0, [0, 2]].tolist() == [2 * 0.25 + 9 * 0.25, 9]


@pytest.mark.parametrize("rule", ["first", "gsp", "vcg"])
def test_an_empty_slot_costs_nothing_by_any_rule(rule) -> None:
    chosen = np.array([[-1, 1, -1]])
    paid = prices(rule, VALUE, chosen, best_left(VALUE, chosen), ONES, BIDS, reserve_micros=1)
    assert paid[0, [0, 2]].tolist() == [0, 0]
    assert paid[0, 1] > 0


def test_a_whole_price_is_not_raised_by_a_floats_last_bit() -> None:
    for chance in (0.07, 0.29, 0.11, 0.013):
        for micros in range(1, 200):
            value = np.array([[1_000.0 * chance, micros * chance]])
            kept_out, chances = best_left(value, np.array([[0]])), np.full((1, 2), chance)
            paid = prices("gsp", value, np.array([[0]]), kept_out, chances, np.array([[1_000, micros]]))
            assert paid.tolist() == [[micros]]


def test_who_will_never_be_charged_pays_the_bid_where_anyone_is_left_and_else_the_reserve() -> None:
    never, first, anyone, nobody = np.array([[0.0, 1.0, 1.0]]), np.array([[0]]), np.array([[4.0]]), np.zeros((1, 1))
    assert prices("gsp", VALUE * never, first, anyone, never, BIDS).tolist() == [[9]]
    assert prices("gsp", VALUE * never, first, nobody, never, BIDS).tolist() == [[0]]
    assert prices("gsp", VALUE * never, first, nobody, never, BIDS, reserve_micros=2).tolist() == [[2]]


@pytest.mark.parametrize(("bid", "paid"), [(3_000, 2_500), (2_500, 2_500), (200, 200)])
def test_a_pinned_ad_pays_up_to_its_bid_for_the_best_that_its_pin_keeps_out(bid: int, paid: int) -> None:
    stock = shop(("c1", "a1", "hats", bid), ("c2", "a2", "hats", 2_500), ("c3", "a3", "hats", 40))
    made = decide(Market(Terms(pinned=((id64("ad-0"), 0),), reserve_micros=10)), stock=stock, slots=2)
    assert made.chosen.tolist() == [[0, 1]]
    assert made.prices_micros.tolist() == [[paid, 40]]
