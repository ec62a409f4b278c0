"""Thompson sampling's chances: those of the definition, whatever is shut, in whatever order and batch."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import bandit, proba

from scoring.allocation import best_chances
from scoring.arrays import Bools, Floats
from scoring.thompson import Thompson, chances_of_most

OFF_MAX = 0.001
"""By which a chance may be off the definition's, on a grid laid for others too: 0.0005 in 10,000 draws."""
KNOWN = st.lists(st.tuples(st.floats(-2, 2), st.floats(0.025, 0.5)), min_size=1, max_size=12)
"""Mean and standard deviation of log values; those of lifts differ twentyfold where an ad has 3,200 clicks."""


def arrays(known: list[tuple[float, float]]) -> tuple[Floats, Floats, Floats]:
    """Means of the log values, spreads, and values whose sampled log values have those means."""
    mean, spread = (np.array(column) for column in zip(*known, strict=True))
    return mean, spread, np.exp(mean + spread**2 / 2)


def slots_of(value: Floats, spread: Floats, *opens: Bools) -> list[Floats]:
    """Chances of one person's candidates, slot after slot, of whom these are open."""
    by = Thompson(value[None], spread[None], np.zeros(1, dtype=np.bool_))
    return [np.exp(by.utilities(open_[None], None)[0]) for open_ in opens]


@given(KNOWN)
def test_they_are_the_chances_of_being_the_largest_of_normal_samples(known: list[tuple[float, float]]) -> None:
    mean, spread, value = arrays(known)
    np.testing.assert_allclose(chances_of_most(value, spread), best_chances(mean, spread**2), atol=OFF_MAX)


def test_river_draws_as_often() -> None:
    mean, spread = np.array([0.1, 0.3, -0.2, 0.35, 0.0]), np.array([0.4, 0.15, 0.5, 0.1, 0.3])
    river = bandit.ThompsonSampling(reward_obj=proba.Gaussian(), seed=7)
    for arm, (m, s) in enumerate(zip(mean.tolist(), spread.tolist(), strict=True)):
        river.update(arm, m)  # an arm of its own seed, whose rewards have been these
        for reward in (m - s, m + s):
            river.update(arm, reward)
    known = [river._rewards[arm] for arm in range(5)]  # what its sampling draws from
    mean, spread = (np.array([getattr(one, name) for one in known]) for name in ("mu", "sigma"))
    pulls = 20_000
    drawn = np.bincount([river.pull(list(range(5))) for _ in range(pulls)], minlength=5)
    expected = pulls * chances_of_most(np.exp(mean + spread**2 / 2), spread)
    assert ((drawn - expected) ** 2 / expected).sum() < 18.47  # four free, p = 0.001


@given(KNOWN, st.data())
def test_they_are_so_over_the_open_whoever_was_shut_before(known: list[tuple[float, float]], data: Any) -> None:
    mean, spread, value = arrays(known)
    some = st.lists(st.booleans(), min_size=len(value), max_size=len(value)).filter(any).map(np.array)
    opens = [data.draw(some) for _ in range(4)]
    for open_, chances in zip(opens, slots_of(value, spread, *opens), strict=True):
        assert chances.sum() == pytest.approx(1)
        assert (chances[~open_] == 0).all()
        np.testing.assert_allclose(chances[open_], best_chances(mean[open_], spread[open_] ** 2), atol=OFF_MAX)


def test_ads_of_which_much_is_known_are_told_apart_on_a_grid_laid_for_one_of_which_little_is() -> None:
    mean, spread = np.array([1.5, 0.1, 0.0]), np.array([0.8, 0.1, 0.1])
    last = np.array([False, True, True])
    _, chances = slots_of(np.exp(mean + spread**2 / 2), spread, np.ones(3, dtype=np.bool_), last)
    np.testing.assert_allclose(chances[last], best_chances(mean[last], spread[last] ** 2), atol=OFF_MAX)


def test_where_who_was_above_is_shut_the_others_are_told_apart_below_where_its_grid_began() -> None:
    mean, spread = np.array([1.0, 0.0, -0.1]), np.array([0.25, 0.1, 0.3])
    last = np.array([False, True, True])
    _, chances = slots_of(np.exp(mean + spread**2 / 2), spread, np.ones(3, dtype=np.bool_), last)
    np.testing.assert_allclose(chances[last], best_chances(mean[last], spread[last] ** 2), atol=OFF_MAX)


@pytest.mark.parametrize("known", [0.05, 0.005, 0.0005, 0.0])
def test_who_is_known_well_has_the_chance_against_who_is_not_wherever_it_lies_between_points(known: float) -> None:
    means, spread = np.linspace(-1, 1, 81), np.array([0.5, known])
    found = [chances_of_most(np.exp(np.array([0.0, mean]) + spread**2 / 2), spread)[1] for mean in means.tolist()]
    of_the_difference = NormalDist(0.0, float(np.linalg.norm(spread)))
    np.testing.assert_allclose(found, [of_the_difference.cdf(mean) for mean in means.tolist()], atol=OFF_MAX)


@pytest.mark.parametrize("alike", [2, 3, 5, 10, 40, 100, 300])
@pytest.mark.parametrize("known", [0.05, 0.005, 0.0005])
def test_of_many_alike_the_largest_varies_less_than_they_do_and_has_its_chance_against_who_is_known_little(
    alike: int, known: float
) -> None:
    spread = np.array([0.5, *[known] * alike])
    found = chances_of_most(np.exp(spread**2 / 2), spread)
    levels = (np.arange(1_000) + 0.5) / 1_000
    largest = [known * NormalDist().inv_cdf(level ** (1 / alike)) for level in levels.tolist()]
    above = np.mean([NormalDist().cdf(-each / 0.5) for each in largest])
    np.testing.assert_allclose(found, [above, *[(1 - above) / alike] * alike], atol=0.0012)


@given(KNOWN, st.randoms(use_true_random=False))
def test_they_do_not_depend_on_where_the_candidates_stand(known: list[tuple[float, float]], random: Any) -> None:
    order = list(range(len(known)))
    random.shuffle(order)
    _, spread, value = arrays(known)
    np.testing.assert_allclose(
        chances_of_most(value[order], spread[order]), chances_of_most(value, spread)[order], rtol=1e-9
    )


@given(st.integers(0, 2**32))
def test_a_person_has_the_same_in_any_batch(seed: int) -> None:
    draw = np.random.default_rng(seed)
    value, spread = np.exp(draw.normal(0, 1, (5, 30))), draw.uniform(0.0, 0.5, (5, 30))
    open_, even = draw.random((5, 30)) < 0.7, np.arange(5) == 3
    together = Thompson(value, spread, even).utilities(open_, None)
    for person in range(5):
        one = slice(person, person + 1)
        alone = Thompson(value[one], spread[one], even[one]).utilities(open_[one], None)
        np.testing.assert_array_equal(alone[0], together[person])
    assert set(together[3, open_[3]].tolist()) == {0.0}  # all as likely


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12, unique=True))
def test_where_all_is_known_the_best_has_the_slot(logs: list[float]) -> None:
    ordered = np.sort(logs)
    if len(ordered) > 1 and ordered[-1] - ordered[-2] < 1e-3:
        return
    chances = chances_of_most(np.exp(np.array(logs)), np.zeros(len(logs)))
    assert chances[int(np.argmax(logs))] == pytest.approx(1, abs=1e-9)


def test_an_ad_that_is_like_those_above_has_less_of_a_chance_and_none_may_be_open() -> None:
    value, spread = np.ones((1, 3)), np.full((1, 3), 0.3)
    by, open_ = Thompson(value, spread, np.zeros(1, dtype=np.bool_)), np.ones((1, 3), dtype=np.bool_)
    first = np.exp(by.utilities(open_, np.zeros((1, 3)))[0])
    later = np.exp(by.utilities(open_, np.array([[0.5, 0.0, 0.0]]))[0])
    assert first == pytest.approx(np.full(3, 1 / 3))
    assert later[0] < 0.1
    assert later[1] == pytest.approx(later[2])
    assert np.isneginf(by.utilities(~open_, None)).all()
