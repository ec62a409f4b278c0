"""Auction prices against brute force, on every small case that hypothesis can think of."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.auction import best_left, externalities, prices
from scoring.examination import assumed
from scoring.value import BidType, paid_chance, value_of

BIDDERS = st.lists(
    st.tuples(st.integers(1, 5_000_000), st.floats(0.001, 0.9), st.floats(0.5, 1.5)), min_size=1, max_size=6
)


def arrays(bidders):
    bids = np.array([[bid for bid, _, _ in bidders]])
    chance = np.array([[chance for _, chance, _ in bidders]])
    quality = np.array([[quality for _, _, quality in bidders]])
    return bids, chance, quality, bids * chance * quality


@given(BIDDERS, st.integers(1, 4), st.integers(0, 1_000_000))
def test_a_second_price_is_the_least_bid_that_keeps_the_place(bidders, slots, reserve):
    bids, chance, quality, value = arrays(bidders)
    slots = min(slots, len(bidders))
    chosen = np.argsort(-value[0], kind="stable")[None, :slots]
    paid = prices("gsp", value, chosen, best_left(value, chosen), chance, bids, quality, reserve)[0]
    for slot, place in enumerate(chosen[0].tolist()):
        rivals = [v for at, v in enumerate(value[0].tolist()) if at not in chosen[0, : slot + 1].tolist()]
        owed = max(rivals, default=0.0)
        least = owed / (chance[0, place] * quality[0, place])
        assert paid[slot] <= bids[0, place]
        assert paid[slot] >= min(reserve, bids[0, place])
        if reserve <= least:
            assert paid[slot] == pytest.approx(min(math.ceil(least * (1 - 1e-12)), bids[0, place]))
            assert paid[slot] * chance[0, place] * quality[0, place] >= owed * (1 - 1e-9)  # it would still win


@given(BIDDERS, st.lists(st.integers(0, 1_000_000), min_size=6, max_size=6), st.integers(1, 4))
def test_beside_a_price_of_attention_the_bid_makes_up_for_the_rest_alone(bidders, told, slots):
    bids, chance, quality, _ = arrays(bidders)
    beside = np.array([told[: len(bidders)]]) * 2.5
    value = (bids * chance + beside) * quality
    slots = min(slots, len(bidders))
    chosen = np.argsort(-value[0], kind="stable")[None, :slots]
    paid = prices("gsp", value, chosen, best_left(value, chosen), chance, bids, quality, attention=beside)[0]
    for slot, place in enumerate(chosen[0].tolist()):
        rivals = [v for at, v in enumerate(value[0].tolist()) if at not in chosen[0, : slot + 1].tolist()]
        rival = max(rivals, default=0.0) / quality[0, place]
        assert 0 <= paid[slot] <= bids[0, place]
        assert paid[slot] * chance[0, place] + beside[0, place] >= rival * (1 - 1e-9)  # it would still win
        one_less = (paid[slot] - 1) * chance[0, place] + beside[0, place]
        assert paid[slot] == 0 or one_less < rival * (1 + 1e-9)


def welfare(value, alpha):
    """The most that an assignment of bidders to slots is worth, by trying all."""
    count, best = min(len(value), len(alpha)), 0.0
    for chosen in itertools.permutations(range(len(value)), count):
        best = max(best, sum(alpha[slot] * value[place] for slot, place in enumerate(chosen)))
    return best


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 4))
def test_an_externality_is_what_the_others_lose_by_brute_force(values, slots):
    slots = min(slots, len(values))
    alpha = assumed(slots, 0.4)
    value = np.array([values])
    chosen = np.argsort(-value[0], kind="stable")[None, :slots]
    owed = externalities(value, chosen, best_left(value, chosen), alpha)[0]
    for slot, place in enumerate(chosen[0].tolist()):
        others = [v for at, v in enumerate(values) if at != place]
        with_it = sum(alpha[at] * values[other] for at, other in enumerate(chosen[0].tolist()) if other != place)
        assert owed[slot] * alpha[slot] == pytest.approx(welfare(others, alpha) - with_it, abs=1e-6)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8), st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5))
def test_an_externality_is_at_least_the_best_that_got_no_slot_and_falls_whatever_curve_was_learned(values, curve):
    slots = min(len(curve), len(values))
    value = np.array([values])
    chosen = np.argsort(-value[0], kind="stable")[None, :slots]
    owed = externalities(value, chosen, best_left(value, chosen), np.array(curve))[0]
    assert (owed >= best_left(value, chosen)[0, -1] - 1e-9).all()
    assert (owed <= best_left(value, chosen)[0] + 1e-9).all()
    assert (np.diff(owed) <= 1e-9).all()


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=8), st.data())
def test_no_rule_makes_an_explored_slot_pay_more_than_its_bid(values, data):
    order = data.draw(st.permutations(range(len(values))))[:3]
    value, chosen = np.array([values]), np.array([order])
    bids = np.round(value * 1e6).astype(np.int64)
    ones = np.ones_like(value)
    for rule in ("first", "gsp", "vcg"):
        paid = prices(rule, bids * ones, chosen, best_left(bids * ones, chosen), ones, bids, ones)
        assert (paid <= np.take_along_axis(bids, chosen, axis=1)).all()
        assert (paid >= 0).all()


def test_each_bid_type_pays_for_its_own_event():
    types = np.array([BidType.CPC, BidType.CPM, BidType.CPA, BidType.ATTENTION], dtype=np.uint8)
    pctr, pcvr, seconds = (np.full(4, number) for number in (0.1, 0.05, 6.0))
    chance = paid_chance(types, pctr, pcvr, seconds)
    np.testing.assert_allclose(chance, [0.1, 0.001, 0.005, 6.0])
    bids, attention = np.array([2_000_000, 5_000_000, 40_000_000, 30_000]), np.array([0, 0, 0, 1_000])
    np.testing.assert_allclose(value_of(bids, chance, attention, seconds), [200_000, 5_000, 200_000, 186_000])
