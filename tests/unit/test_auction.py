"""Prices by example: empty slots, whole prices, and events that never come."""

from dataclasses import replace

import numpy as np
import pytest

from scoring.auction import best_left, externalities, prices
from scoring.ids import id64, id64s
from scoring.market import Market, Terms
from tests.unit.test_market import decide, shop

ONES = np.ones((1, 3))
VALUE, BIDS = np.array([[9.0, 4.0, 2.0]]), np.array([[9, 4, 2]])


def test_an_empty_slot_of_one_person_takes_nothing_from_another() -> None:
    value = np.array([[5.0, 3.0, 4.0], [5.0, 3.0, 1.0]])
    assert best_left(value, np.array([[0], [-1]])).tolist() == [[4.0], [5.0]]
    assert best_left(value, np.array([[-1], [0]])).tolist() == [[5.0], [3.0]]
    assert best_left(np.array([[5.0]]), np.array([[0, -1]])).tolist() == [[0.0, 0.0]]  # an empty slot is worth nothing


def test_a_slot_keeps_out_the_best_of_all_that_stand_after_it_whatever_order_they_were_drawn_in() -> None:
    value = np.array([[2.0, 1.0, 9.0, 4.0]])
    assert best_left(value, np.array([[0, 1, 2]])).tolist() == [[9.0, 9.0, 4.0]]


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


@pytest.mark.parametrize("rule", ["first", "gsp", "vcg"])
def test_people_who_are_decided_for_together_pay_what_each_would_pay_alone(rule) -> None:
    draw, people, ads = np.random.default_rng(3), 5, 4
    chance, quality = draw.uniform(0.1, 0.9, (people, ads)), draw.uniform(0.5, 1.5, (people, ads))
    bids, attention = draw.integers(1_000, 9_000, (people, ads)), draw.uniform(0, 400, (people, ads))
    value = (bids * chance + attention) * quality
    chosen = draw.permuted(np.tile([0, 1, 2, 3, -1], (people, 1)), axis=1)[:, :3]
    curve = np.array([1.0, 0.6, 0.3])

    def paid(who: slice) -> np.ndarray:
        kept_out = best_left(value[who], chosen[who])
        told = chance[who], bids[who], quality[who], 10, curve, attention[who]
        return prices(rule, value[who], chosen[who], kept_out, *told)

    alone = np.concatenate([paid(slice(person, person + 1)) for person in range(people)])
    assert paid(slice(None)).tolist() == alone.tolist()
    assert len(np.unique(alone)) > people  # else all could pay what the first of them does


@pytest.mark.parametrize("terms", [Terms(), Terms(separate="category")], ids=["free slots", "slots under rules"])
def test_who_is_blocked_or_has_spent_the_budget_sets_no_price_not_even_of_a_micro(terms: Terms) -> None:
    stock = shop(("c1", "a1", "hats", 3_000), ("c2", "a2", "hats", 2_500), ("c3", "a3", "hats", 2_000))
    market = Market(replace(terms, blocked_ads=frozenset([id64("ad-1")])))
    market.pace(id64s(["c3"]), np.array([0.0]))
    made = decide(market, stock=stock, slots=1)
    assert (made.chosen.tolist(), made.prices_micros.tolist()) == ([[0]], [[0]])


def test_a_placement_has_no_more_slots_than_there_are_candidates_and_shares_are_of_those() -> None:
    stock = shop(*((f"c{at}", f"a{at}", "hats", 4_000 - at) for at in range(3)), ("c9", "a9", "shoes", 10))
    for terms, chosen in ((Terms(), [0, 1, 2, 3]), (Terms(category_share=0.5), [0, 1, 3, -1])):
        made = decide(Market(terms), stock=stock, slots=10)
        assert made.chosen.tolist() == [chosen]
        assert made.prices_micros.shape == made.propensity.shape == (1, 4)
        assert len(made.examined) == 4
