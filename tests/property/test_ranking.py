"""Ranking draws what it logs: slots by Plackett-Luce, each with the exact chance that it had."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.arrays import Ids
from scoring.ids import id64s
from scoring.ranking import Ranked, rank

DRAWS = 40_000
ADS = id64s([f"ad-{number}" for number in range(12)])


def ranked(pctr: list[float], bids: list[int], seeds: Ids, temperature: float, slots: int, ads: Any = None) -> Ranked:
    """The same candidates ranked for every seed."""
    people, count = len(seeds), len(pctr)
    return rank(
        np.broadcast_to(np.array(bids, dtype=np.float64) * np.array(pctr, dtype=np.float32), (people, count)),
        np.broadcast_to(ADS[:count] if ads is None else ads, (people, count)),
        seeds,
        np.full(people, temperature),
        slots,
    )


def chances(values: list[float], order: tuple[int, ...], temperature: float) -> list[float]:
    """The definition: chance of each slot's ad among what is left, in proportion to value^(1/temperature)."""
    left, out = set(range(len(values))), []
    for place in order:
        best = max(values[other] for other in left)  # powers of ratios, since values' own powers overflow
        weights = {other: (values[other] / best) ** (1 / temperature) for other in left}
        out.append(weights[place] / math.fsum(weights.values()))
        left.remove(place)
    return out


CANDIDATES = st.lists(
    st.tuples(st.integers(1, 1_023).map(lambda part: part / 1_024), st.integers(0, 10**9)),
    min_size=1,
    max_size=len(ADS),
)
SEEDS = st.integers(0, 2**64 - 1).map(lambda seed: np.array([seed], dtype=np.uint64))
TEMPERATURES = st.sampled_from([0.0, 0.01, 0.05, 0.5, 1.0, 10.0, math.inf])


@pytest.mark.parametrize(("temperature", "slots"), [(1.0, 4), (0.5, 4), (3.0, 2), (math.inf, 4), (math.inf, 2)])
def test_orders_are_drawn_as_often_as_their_logged_propensities_say(temperature: float, slots: int) -> None:
    pctr, bids = [0.02, 0.04, 0.1, 0.03], [1_000, 2_000, 500, 4_000]
    values = [bid * float(np.float32(p)) for p, bid in zip(pctr, bids, strict=True)]

    drawn = ranked(pctr, bids, np.arange(DRAWS, dtype=np.uint64), temperature, slots)

    orders, first, counts = np.unique(drawn.chosen, axis=0, return_index=True, return_counts=True)
    assert len(orders) == math.perm(4, slots)
    expected = drawn.propensity[first].prod(axis=1) * DRAWS
    assert expected.sum() == pytest.approx(DRAWS)
    assert ((counts - expected) ** 2 / expected).sum() < _chi_square_999(len(orders) - 1)
    for order, propensity in zip(orders.tolist(), drawn.propensity[first].tolist(), strict=True):
        assert propensity == pytest.approx(chances(values, tuple(order), temperature))


def _chi_square_999(freedom: int) -> float:
    """99.9 % quantile of chi-square, by Wilson and Hilferty."""
    return float(freedom * (1 - 2 / (9 * freedom) + 3.0902 * math.sqrt(2 / (9 * freedom))) ** 3)


def test_the_control_arm_draws_every_order_alike_whatever_the_bids() -> None:
    drawn = ranked([0.9, 0.001, 0.5], [10**9, 0, 1], np.arange(DRAWS, dtype=np.uint64), math.inf, 3)

    _, counts = np.unique(drawn.chosen, axis=0, return_counts=True)
    assert counts.tolist() == pytest.approx([DRAWS / 6] * 6, rel=0.05)
    assert drawn.propensity[:10].tolist() == [pytest.approx([1 / 3, 1 / 2, 1])] * 10


@given(CANDIDATES, SEEDS, st.integers(1, 12))
def test_greedy_is_by_value_then_by_ad(candidates: list[tuple[float, int]], seed: Any, slots: int) -> None:
    pctr, bids = [pctr for pctr, _ in candidates], [bid for _, bid in candidates]

    out = ranked(pctr, bids, seed, 0.0, slots)

    best = sorted(range(len(bids)), key=lambda place: (-bids[place] * pctr[place], int(ADS[place])))[:slots]
    assert out.chosen[0].tolist() == best
    assert out.propensity[0].tolist() == [1.0] * len(best)


@given(CANDIDATES, SEEDS, TEMPERATURES, st.randoms(use_true_random=False))
def test_a_draw_does_not_depend_on_where_the_candidates_stand(
    candidates: list[tuple[float, int]], seed: Any, temperature: float, random: Any
) -> None:
    order = list(range(len(candidates)))
    random.shuffle(order)
    pctr, bids = [pctr for pctr, _ in candidates], [bid for _, bid in candidates]

    one = ranked(pctr, bids, seed, temperature, 5)
    other = ranked([pctr[i] for i in order], [bids[i] for i in order], seed, temperature, 5, ads=ADS[order])

    assert [order[place] for place in other.chosen[0].tolist()] == one.chosen[0].tolist()
    np.testing.assert_allclose(other.propensity, one.propensity, rtol=1e-9)


@given(CANDIDATES, SEEDS, TEMPERATURES, st.integers(1, 20))
def test_every_slot_has_a_chance_above_0_and_at_most_1_and_no_ad_twice(
    candidates: list[tuple[float, int]], seed: Any, temperature: float, slots: int
) -> None:
    out = ranked([pctr for pctr, _ in candidates], [bid for _, bid in candidates], seed, temperature, slots)

    assert out.chosen.shape == out.propensity.shape == (1, min(slots, len(candidates)))
    assert len(set(out.chosen[0].tolist())) == out.chosen.shape[1]
    assert ((out.propensity > 0) & (out.propensity <= 1)).all()


@given(CANDIDATES, SEEDS, st.sampled_from([0.05, 0.5, 1.0, 10.0]))
def test_logged_propensities_are_those_defined(
    candidates: list[tuple[float, int]], seed: Any, temperature: float
) -> None:
    candidates = [(pctr, max(bid, 1)) for pctr, bid in candidates]
    out = ranked([pctr for pctr, _ in candidates], [bid for _, bid in candidates], seed, temperature, 12)

    values = [pctr * bid for pctr, bid in candidates]
    assert out.propensity[0].tolist() == pytest.approx(
        chances(values, tuple(out.chosen[0].tolist()), temperature), rel=1e-6
    )
