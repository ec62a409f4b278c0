"""Credit learned from purchases and from visits that came to none: nearer the truth than last touch, or by position."""

import numpy as np
import pytest

from scoring.attribution import by_position
from scoring.touches import AGES_MS, COUNT_MAX, DRIFT, FEATURES, PURCHASES_MIN, VARIANCE, TouchWeights
from scoring.units import HOUR_MS

TOUCHES, WEEK_MS = 12, 168 * HOUR_MS


class World:
    """A shop of which it is known what a touch does to the logarithm of the chance of a purchase, by its age."""

    def __init__(self, seed: int, visits: int, effects: tuple[float, ...], first: float = 0.0) -> None:
        draw = np.random.default_rng(seed)
        count = np.minimum(draw.poisson(1.6, visits), TOUCHES)
        recent = draw.random((visits, TOUCHES)) < 0.5
        age = np.where(recent, draw.exponential(4 * HOUR_MS, recent.shape), draw.uniform(0, WEEK_MS, recent.shape))
        self.age_ms = -np.sort(-np.minimum(age, WEEK_MS).astype(np.int64), axis=1)
        self.touch = np.arange(TOUCHES) >= TOUCHES - count[:, None]
        oldest = (np.cumsum(self.touch, axis=1) == 1) & self.touch
        self.effect = np.array(effects)[np.searchsorted(AGES_MS, self.age_ms)] * self.touch + first * oldest
        self.bought = draw.random(visits) < np.minimum(0.01 * np.exp(self.effect.sum(axis=1)), 0.6)

    def teach(self, weights: TouchWeights, start: int = 0, end: int | None = None) -> None:
        """Let the weights see the visits from ``start`` to ``end``, each before its purchase."""
        touch, age_ms, bought = self.touch[start:end], self.age_ms[start:end], self.bought[start:end]
        visit = np.repeat(np.arange(len(bought)), 1 + bought)
        purchase = np.append(False, visit[1:] == visit[:-1])
        weights.learn(touch[visit], age_ms[visit], purchase)

    def apart(self, shares: np.ndarray) -> float:
        """How much of a purchase is credited to other touches than it should be, on average."""
        truth = self.effect / np.maximum(self.effect.sum(axis=1, keepdims=True), 1e-12)
        told = self.bought & (self.touch.sum(axis=1) > 1) & (self.effect.sum(axis=1) > 0)
        return float(np.abs(shares - truth)[told].sum(axis=1).mean() / 2)


def by_last(touch: np.ndarray) -> np.ndarray:
    return (np.arange(TOUCHES) == TOUCHES - 1) & touch


@pytest.mark.parametrize("first", [0.0, 0.5])
def test_learned_credit_is_nearer_the_truth_than_the_last_touchs_and_the_position_weighted(first: float) -> None:
    effects = (1.2, 0.8, 0.4, 0.0, 0.0)  # what is older than a day does nothing
    weights = TouchWeights()
    World(1, 20_000, effects, first).teach(weights)
    unseen = World(2, 20_000, effects, first)
    learned = unseen.apart(weights.shares(unseen.touch, unseen.age_ms))
    assert learned < 0.11
    assert learned < 0.7 * unseen.apart(by_position(unseen.touch))
    assert learned < 0.2 * unseen.apart(by_last(unseen.touch))


def test_touches_that_do_nothing_earn_next_to_nothing() -> None:
    weights = TouchWeights()
    World(3, 60_000, (0.0,) * 5).teach(weights)
    assert np.abs(weights.weights[1:]).max() < 0.35


def test_weights_are_believed_after_so_many_purchases_and_go_on_where_they_were_kept() -> None:
    world, whole, parts = World(4, 6_000, (1.2, 0.8, 0.4, 0.0, 0.0)), TouchWeights(), TouchWeights()
    believed = []
    for start in range(0, 6_000, 500):
        world.teach(whole, start, start + 500)
        world.teach(parts, start, start + 500)
        parts = TouchWeights.restore(parts.kept)
        believed.append(whole.known)
        assert whole.known == (whole.purchases >= PURCHASES_MIN)
    assert parts.kept == whole.kept
    assert (believed[0], believed[-1]) == (False, True)


@pytest.mark.parametrize("kept", [b"", b"\0" * 8, b"\0" * 8 * (FEATURES + FEATURES**2 + 2), b"\0" * 13])
def test_what_another_layout_has_kept_is_as_if_nothing_had_been_learned(kept: bytes) -> None:
    assert TouchWeights.restore(kept).kept == TouchWeights().kept


def test_a_touch_that_costs_purchases_earns_nothing_and_the_others_share_what_there_is() -> None:
    weights = TouchWeights()
    weights.weights = np.array([-3.0, 0.0, 0.0, 2.0, 1.0, -1.0, 0.0, 0.0])
    age_ms = np.array([[12, 3, 0.5, 0]]) * HOUR_MS
    touch = np.array([[True, True, True, False]])
    assert weights.shares(touch, age_ms)[0] == pytest.approx([0, 1 / 3, 2 / 3, 0])
    assert weights.shares(touch[:, :1], age_ms[:, :1])[0] == pytest.approx([0])


def test_a_touch_is_of_the_first_age_that_it_is_not_beyond() -> None:
    weights = TouchWeights()
    weights.weights = np.array([-3.0, 0.0, 0.0, 1.0, 2.0, 4.0, 8.0, 16.0])
    hours = np.array([[73, 72, 24, 6, 1, 0]])
    age_ms = hours * HOUR_MS
    touch = np.ones(age_ms.shape, dtype=bool)
    assert weights.shares(touch, age_ms)[0] == pytest.approx(np.array([16, 8, 4, 2, 1, 1]) / 32)
    assert weights.shares(touch, age_ms + 1)[0] == pytest.approx(np.array([16, 16, 8, 4, 2, 1]) / 47)


def test_a_touch_is_the_first_alone_unless_another_is_the_last() -> None:
    weights, age_ms = TouchWeights(), np.zeros((1, 3), dtype=np.int64)
    weights.weights[:3] = [-3.0, 1.0, 2.0]
    assert weights.shares(np.array([[True, True, True]]), age_ms)[0] == pytest.approx([1 / 3, 0, 2 / 3])
    assert weights.shares(np.array([[False, True, False]]), age_ms)[0] == pytest.approx([0, 1, 0])
    weights.weights[1] = 0.0
    assert not weights.shares(np.array([[False, True, False]]), age_ms).any()


def learned(touches: int, age_ms: int = 0, *, visits: int = 1) -> TouchWeights:
    """What visits with so many touches before them, and a purchase after each, teach."""
    out, shape = TouchWeights(), (visits, TOUCHES)
    touch = np.broadcast_to(np.arange(TOUCHES) >= TOUCHES - touches, shape)
    out.learn(touch, np.full(shape, age_ms), np.ones(visits, dtype=bool))
    return out


def test_a_purchase_teaches_of_what_was_before_it_alone_and_of_touches_of_one_age_up_to_a_bound() -> None:
    of_age = 3 + AGES_MS.index(6 * HOUR_MS)
    assert np.flatnonzero(learned(0).weights != TouchWeights().weights).tolist() == [0]
    assert np.flatnonzero(learned(1, 6 * HOUR_MS).weights != TouchWeights().weights).tolist() == [0, 1, of_age]
    assert np.flatnonzero(learned(2, 6 * HOUR_MS).weights != TouchWeights().weights).tolist() == [0, 1, 2, of_age]
    assert learned(COUNT_MAX).kept == learned(COUNT_MAX + 1).kept == learned(TOUCHES).kept
    assert learned(COUNT_MAX).kept != learned(COUNT_MAX - 1).kept
    assert [learned(touches).purchases for touches in (0, 1, 9)] == [0, 1, 1]  # none without a touch


def test_what_is_known_grows_old_until_it_is_as_little_as_at_first() -> None:
    known = learned(0, visits=50).covariance.diagonal()
    assert known[0] < VARIANCE[0]
    assert known[1:].tolist() == VARIANCE[1:].tolist()  # nothing was learned of touches, and nothing forgotten
    certain = TouchWeights()
    certain.covariance[:] = 0.0
    certain.learn(np.zeros((3, 1), dtype=bool), np.zeros((3, 1), dtype=np.int64), np.zeros(3, dtype=bool))
    assert certain.covariance == pytest.approx(3 * DRIFT * np.eye(FEATURES), rel=1e-3)


@pytest.mark.parametrize("sure", [-1e4, 1e4])
def test_weights_that_are_quite_sure_learn_of_what_they_have_not_expected(sure: float) -> None:
    weights = TouchWeights()
    weights.weights[0] = sure
    weights.learn(np.zeros((2, 1), dtype=bool), np.zeros((2, 1), dtype=np.int64), np.array([True, False]))
    assert np.isfinite(weights.weights).all()
    assert abs(weights.weights[0]) < abs(sure)


def test_weights_have_changed_once_anything_was_learned() -> None:
    weights, nothing = TouchWeights(), np.zeros((0, TOUCHES), dtype=bool)
    weights.learn(nothing, nothing.astype(np.int64), np.zeros(0, dtype=bool))
    assert (weights.changed, weights.learned) == (False, False)
    for _ in range(2):  # a visit that comes to nothing is evidence, too
        weights.learn(np.zeros((1, 1), dtype=bool), np.zeros((1, 1), dtype=np.int64), np.zeros(1, dtype=bool))
        assert (weights.changed, weights.learned, weights.purchases) == (True, True, 0)
    weights.changed = False
    weights.learn(nothing, nothing.astype(np.int64), np.zeros(0, dtype=bool))
    assert not weights.changed


def test_each_example_adds_its_information_and_moves_the_weights_by_what_was_not_expected_of_it() -> None:
    """By precisions, which add up; the weights themselves keep the covariance, and never invert it."""
    draw, weights = np.random.default_rng(5), TouchWeights()
    expected, precision = weights.weights.copy(), np.diag(1 / VARIANCE)
    for _ in range(40):
        touch, age_ms = draw.random((1, 4)) < 0.6, -np.sort(-draw.integers(0, WEEK_MS, (1, 4)))
        bought, count = bool(draw.random() < 0.4), int(touch.sum())
        x = np.array([1, count > 0, count > 1, *np.bincount(np.searchsorted(AGES_MS, age_ms[touch]), minlength=5)])
        chance = 1 / (1 + np.exp(-(expected @ x)))

        weights.learn(touch, age_ms, np.array([bought]))

        precision = precision + chance * (1 - chance) * np.outer(x, x)
        covariance = np.linalg.inv(precision)
        expected = expected + covariance @ x * (bought - chance)
        assert weights.weights == pytest.approx(expected, rel=1e-6, abs=1e-8)
        covariance += np.diag(DRIFT * (covariance.diagonal() < VARIANCE))
        precision = np.linalg.inv(covariance)
        assert weights.covariance == pytest.approx(covariance, rel=1e-6, abs=1e-8)
