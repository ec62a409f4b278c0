"""The click layer's model: where it starts, what it learns, and that serving predicts what River does."""

import doctest

import numpy as np
import pytest
from river import metrics

import scoring.clicks
from scoring.clicks import (
    CAUTION,
    FEATURES,
    LIFT_MEMORY,
    NUMBERS,
    AdLifts,
    ClickModel,
    Weights,
    chance_of,
    example,
    person_numbers,
    probability,
)
from scoring.inputs import CONTEXT_DIM, SURFACES


def contexts(count: int, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = rng.random((count, CONTEXT_DIM)).astype(np.float32)
    out[:, -SURFACES:] = np.eye(SURFACES, dtype=np.float32)[rng.integers(SURFACES, size=count)]
    return out


def random_model(seed: int = 5) -> ClickModel:
    rng = np.random.default_rng(seed)
    model = ClickModel()
    model.restore(rng.normal(size=len(FEATURES)), np.full(len(FEATURES), CAUTION))
    return model


def test_the_docstrings_examples_hold() -> None:
    assert doctest.testmod(scoring.clicks).failed == 0
    assert doctest.testmod(scoring.clicks).attempted > 0


def test_before_the_first_outcome_the_prediction_is_the_attention_models_own() -> None:
    model = ClickModel()
    for logit in (-4.0, 0.0, 1.5):
        assert model.chance(example([logit, 0, 0.3, 0.2, 1, 1, 2], 3)) == pytest.approx(probability(logit))


def test_serving_predicts_from_arrays_what_river_predicts_from_dictionaries() -> None:
    model, context = random_model(), contexts(4)
    rng = np.random.default_rng(1)
    logit, lift = rng.normal(size=(4, 6)).astype(np.float32), rng.normal(size=(4, 6))
    served = chance_of(Weights(model.array).log_odds(logit, lift, context))
    numbers, surface = person_numbers(context)
    for person in range(4):
        for candidate in range(6):
            values = [logit[person, candidate], lift[person, candidate], *numbers[person], 1, 0]
            x = example([float(value) for value in values], int(surface[person]))
            assert served[person, candidate] == pytest.approx(model.chance(x), abs=1e-12)


def test_a_slot_further_down_is_moved_by_the_slots_weight() -> None:
    weights = Weights(np.array([0.5 if name == "slot" else 0.0 for name in FEATURES]))
    assert weights.of_slots(np.zeros((1, 3)))[0] == pytest.approx(0.5 * np.log([1, 2, 3]))


def test_predicting_changes_nothing_and_learning_is_rivers_own() -> None:
    model = random_model()
    before = model.array
    x = example([0.4] * len(NUMBERS), 2)
    model.chance(x)
    assert (model.array == before).all()
    loss = metrics.LogLoss()
    for step in range(400):
        clicked = step % 3 == 0
        loss.update(clicked, model.predict_proba_one(x))
        model.learn_one(x, clicked)
    assert model.chance(x) == pytest.approx(1 / 3, abs=0.05)
    assert model.predict_proba_one(x)[True] == pytest.approx(model.chance(x))


def test_a_restored_model_goes_on_exactly_as_the_one_it_was_taken_from() -> None:
    model, again = ClickModel(), ClickModel()
    rng = np.random.default_rng(2)
    for step in range(200):
        if step == 90:
            again.restore(model.array, model.caution)
        x = example(rng.normal(size=len(NUMBERS)).tolist(), step % SURFACES)
        clicked = bool(rng.random() < 0.3)
        model.learn_one(x, clicked)
        if step >= 90:
            again.learn_one(x, clicked)
    assert (model.array == again.array).all()
    assert (model.caution == again.caution).all()


def test_quickening_lets_the_next_outcomes_count_more() -> None:
    slow, quick = ClickModel(), ClickModel()
    x = example([0.0] * len(NUMBERS), 0)
    for model in (slow, quick):
        for step in range(500):
            model.learn_one(x, step % 2 == 0)
    quick.quicken(5)
    for model in (slow, quick):
        model.learn_one(x, True)
    assert quick.chance(x) > slow.chance(x) > 0.5


def test_an_ads_lift_is_drawn_to_nothing_until_outcomes_speak() -> None:
    lifts = AdLifts()
    assert lifts.lift(7) == 0
    lifts.learn(7, 1, 0.5)
    once = lifts.lift(7)
    for _ in range(20):
        lifts.learn(7, 1, 0.5)
    assert 0 < once < 0.15 < lifts.lift(7) < np.log(2)


def test_an_ads_record_forgets_what_is_older_than_its_memory() -> None:
    lifts = AdLifts()
    for clicks in (1.0, 0.0):
        for _ in range(2_000):
            lifts.learn(7, clicks, 0.5)
        assert lifts.record(7)[1] == pytest.approx(LIFT_MEMORY)
    assert lifts.lift(7) < -2
