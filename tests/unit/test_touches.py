"""Credit learned from purchases and from visits that came to none: nearer the truth than last touch, or by position."""

import numpy as np
import pytest

from scoring.attribution import by_position
from scoring.touches import AGES_MS, HOUR_MS, PURCHASES_MIN, TouchWeights

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
    assert TouchWeights.restore(b"\0" * 8).kept == TouchWeights().kept


def test_a_touch_that_costs_purchases_earns_nothing_and_the_others_share_what_there_is() -> None:
    weights = TouchWeights()
    weights.weights = np.array([-3.0, 0.0, 0.0, 2.0, 1.0, -1.0, 0.0, 0.0])
    age_ms = np.array([[12, 3, 0.5, 0]]) * HOUR_MS
    touch = np.array([[True, True, True, False]])
    assert weights.shares(touch, age_ms)[0] == pytest.approx([0, 1 / 3, 2 / 3, 0])
    assert weights.shares(touch[:, :1], age_ms[:, :1])[0] == pytest.approx([0])
