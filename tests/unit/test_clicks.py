"""The click layer's model: where it starts, what it learns, and that serving predicts what River does."""

import doctest

import numpy as np
import pytest
from river import linear_model, metrics

import scoring.clicks
from scoring.calibration import PERSONAL, Calibration, Calibrator, chance_of, no_evidence
from scoring.catalogue import Catalogue, Entry
from scoring.clicks import (
    CAUTION,
    CAUTION_MAX,
    FEATURES,
    LIFT_MEMORY,
    LIFT_PRIOR,
    NUMBERS,
    RATE,
    AdLifts,
    ClickModel,
    PersonLifts,
    example,
    person_numbers,
    probability,
)
from scoring.features import Content
from scoring.feedback import ClickLayer, Learning
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM, SURFACES, context_of, history_of
from scoring.pool import Pool
from scoring.rows import ROW
from streams.columns import columns
from tests.builders import START_MS, click, impression

CURVE = np.array([1.0, 0.8, 0.6])
NOBODY = Pool().others(0)
"""There is one lane."""
PEOPLE = np.array([11, 12, 13, 14], dtype=np.uint64)


def untaught(context: np.ndarray, candidates: int) -> Calibration:
    """What a lane that has learned nothing serves with."""
    return Calibrator().calibration(PEOPLE[: len(context)], context, np.zeros((len(context), candidates), np.int64))


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
        assert model.chance(example([logit, 0, 0, 0.3, 0.2, 1, 1], 3)) == pytest.approx(probability(logit))


def test_what_is_expected_without_lifts_is_the_chance_of_an_ad_and_a_person_like_any_other() -> None:
    model = random_model()
    for numbers in ([0.4, 0.7, -0.5, 0.3, 0.2, 1.0, 1.0], [0.4, 0.0, 0.0, 0.3, 0.2, 1.0, 1.0]):
        plain = [numbers[0], 0.0, 0.0, *numbers[3:]]
        expected = [model.chance(example(each, 3)) for each in (numbers, plain)]
        assert model.chances(numbers, 3) == pytest.approx(expected)


def test_of_a_person_it_is_told_how_often_they_look_long_and_click_and_how_much_they_were_shown() -> None:
    row = np.zeros(1, dtype=ROW)
    row["impressions"], row["long_views"], row["clicks"] = 90, 19, 29
    now_ms, place = np.array([START_MS]), np.array([5], dtype=np.uint16)

    numbers, surface = person_numbers(context_of(row, history_of(row, now_ms), now_ms, place))

    assert numbers[0].tolist() == pytest.approx([0.2 - 0.1, 0.3 - 0.1, np.log1p(90) / 5])
    assert surface.tolist() == [5]


def shop(ads: int) -> Catalogue:
    catalogue = Catalogue()
    catalogue.upsert([Entry(Content(f"ad-{number}")) for number in range(ads)])
    return catalogue


def test_serving_predicts_from_arrays_what_river_predicts_from_dictionaries() -> None:
    model, context, catalogue = random_model(), contexts(4), shop(6)
    logit = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    control = np.array([False, True, False, False])
    layer, calibrator = ClickLayer(), Calibrator()
    layer.learner(0).model = model
    for ad in catalogue.ad.tolist()[:5]:
        layer.lifts.learn(ad, 1, ad % 7 / 3)
    for at, person in enumerate(PEOPLE.tolist()[:3]):
        layer.people.meet(person, 0)
        layer.people.learn(person, 0, 1, at)
    calibrator.update(layer, catalogue, NOBODY)
    everything = np.tile(np.arange(6), (4, 1))
    served = chance_of(calibrator.calibration(PEOPLE, context, everything).log_odds(logit, context, control))
    numbers, surface = person_numbers(context)
    for person in range(4):
        for slot, ad in enumerate(catalogue.ad.tolist()):
            lifts = layer.lifts.lift(ad), layer.people.lift(int(PEOPLE[person]))
            values = [logit[person, slot], *lifts, *numbers[person], not control[person]]
            x = example([float(value) for value in values], int(surface[person]))
            assert served[person, slot] == pytest.approx(model.chance(x), abs=1e-6)


def test_lifts_follow_a_catalogue_that_grows_and_ads_that_learn() -> None:
    catalogue, layer, calibrator = shop(2), ClickLayer(), Calibrator()
    lifts = layer.lifts
    lifts.learn(int(catalogue.ad[1]), 2, 9)  # of which nothing is heard any more when there are more ads
    calibrator.update(layer, catalogue, NOBODY)
    lifts.touched.clear()
    catalogue.upsert([Entry(Content("ad-new"))])
    lifts.learn(int(catalogue.ad[0]), 1, 0)
    calibrator.update(layer, catalogue, NOBODY)
    lifts.touched.clear()
    calibrator.update(layer, catalogue, NOBODY)
    found = calibrator.calibration(PEOPLE[:1], contexts(1), np.array([[0, 1, 2]]))
    assert found.lift[0] == pytest.approx([*map(lifts.lift, catalogue.ad.tolist()[:2]), 0])
    assert found.evidence[0] == pytest.approx(LIFT_PRIOR + np.array([1, 2, 0]))
    assert found.lift[0, 0] > 0 > found.lift[0, 1]


def test_without_a_layer_the_click_rates_are_the_attention_models_own() -> None:
    logit, context = np.array([[0.5, -2.0]], dtype=np.float32), contexts(1)
    odds = untaught(context, 2).log_odds(logit, context, np.array([False]))
    assert odds == pytest.approx(logit)


def test_a_slot_further_down_is_clicked_as_it_is_looked_at() -> None:
    weights, lift, known = np.zeros((1, len(PERSONAL))), np.zeros((1, 4), dtype=np.float32), no_evidence((1, 4))
    assert Calibration(weights, lift, known, CURVE).in_slots(np.zeros((1, 4)))[0] == pytest.approx([0.5, 0.4, 0.3, 0.3])
    assert Calibration(weights, lift, known).in_slots(np.zeros((1, 4)))[0] == pytest.approx(0.5)


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


def test_a_step_is_the_one_that_river_takes() -> None:
    own, rivers, rng = random_model(), random_model(), np.random.default_rng(2)
    for step in range(300):
        x = example(rng.normal(0, 2, size=len(NUMBERS)).tolist(), step % SURFACES)
        told = bool(rng.random() < 0.3), float(rng.uniform(0.1, 3))
        own.learn_one(x, *told)
        linear_model.LogisticRegression.learn_one(rivers, x, *told)
    assert own.array == pytest.approx(rivers.array, rel=1e-9)
    assert own.caution == pytest.approx(rivers.caution, rel=1e-9)


@pytest.mark.parametrize("weight", [1.0, 10.0, 100.0, 10_000.0])
@pytest.mark.parametrize("caution", [CAUTION, CAUTION_MAX])
def test_no_outcome_moves_a_weight_by_more_than_the_rate_however_many_it_stands_for(
    weight: float, caution: float
) -> None:
    for clicked in (False, True):
        model = ClickModel()
        model.restore(model.array, np.full(len(FEATURES), caution))
        before = model.array

        model.learn_one(example([9.0, 1.0, -1.0, 0.9, 0.9, 2.0, 1.0], 2), clicked, weight)

        moved = np.abs(model.array - before)
        assert 0 < moved.max() <= RATE * (1 + 1e-9)
        assert model.caution.max() <= CAUTION_MAX


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


def test_quickened_five_times_the_next_outcome_counts_five_times_as_much() -> None:
    slow, quick = ClickModel(), ClickModel()
    x = example([0.0] * len(NUMBERS), 0)
    for model in (slow, quick):
        for step in range(2_000):
            model.learn_one(x, step % 2 == 0)
    before = slow.array
    quick.quicken(5)
    for model in (slow, quick):
        model.learn_one(x, True)
    assert quick.chance(x) > slow.chance(x) > 0.5
    moved = slow.array != before
    assert (quick.array - before)[moved] == pytest.approx(5 * (slow.array - before)[moved], rel=0.05)


def test_what_was_learned_counts_neither_less_than_a_first_outcome_nor_more_than_a_bound() -> None:
    model, sure = ClickModel(), example([100.0] * len(NUMBERS), 0)
    model.quicken(8)
    assert model.caution.tolist() == [CAUTION] * len(FEATURES)
    for step in range(20):
        model.learn_one(sure, step % 2 == 0)
    told = dict(zip(FEATURES, model.caution.tolist(), strict=True))
    assert {told[name] for name in NUMBERS} == {CAUTION_MAX}
    assert CAUTION < told["bias"] < CAUTION_MAX
    assert told["surface_1"] == CAUTION


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
            assert lifts.records([7])[0, 1] <= LIFT_MEMORY
        assert lifts.records([7])[0, 1] == pytest.approx(LIFT_MEMORY)
    assert lifts.lift(7) < -1.9


def test_of_a_person_all_counts_from_the_first_impression_on_until_they_are_forgotten() -> None:
    lifts = PersonLifts()
    lifts.meet(7, 3)
    assert lifts.touched == {7}
    lifts.meet(7, 9)
    for number in (2, 3, 5):
        lifts.learn(7, number, 1.0, 0.5)
    assert lifts.records([7]).tolist() == [[2.0, 1.0, 3.0]]
    lifts.forget(7)
    lifts.learn(7, 9, 1.0, 0.5)
    assert (len(lifts), lifts.touched, lifts.lift(7)) == (0, set(), 0.0)


@pytest.mark.parametrize(("rate", "logit"), [(7_000.0, 2_000.0), (7_000.0, -2_000.0), (1.0, 10.0)])
def test_a_person_beyond_all_that_was_learnt_from_turns_nobody_elses_weights(rate: float, logit: float) -> None:
    layer, context = ClickLayer(Learning(window_ms=10, wait_ms=10, pending_max=50)), contexts(2)
    context[:, [1, 2]] = rate  # of their own accord they click thousands of times as often as they are shown an ad
    shown, clicked = (columns([one], [0]) for one in (impression(), click(impression_time_ms=START_MS)))
    later = columns([impression(time_ms=START_MS + 20)], [0])
    nobody, users = np.zeros(1, dtype=np.bool_), np.ones(1, dtype=np.uint64)
    known = Impressions(np.zeros(1, dtype=np.int64), np.array([logit], dtype=np.float32), context[:1])
    told = layer.observe(shown, users, nobody, known).predicted
    if logit < 0:  # what comes of it is what was least expected
        none = Impressions(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), context[:0])
        layer.observe(clicked, users, nobody, none)
    layer.observe(later, users, nobody, known)
    assert layer.learned == 1
    assert np.abs(layer.model.array - ClickModel().array).max() <= RATE
    assert layer.model.caution.max() <= CAUTION + 10.0**2
    served = untaught(context[:1], 1).log_odds(np.array([[logit]], dtype=np.float32), context[:1], nobody)
    assert chance_of(served)[0] == pytest.approx(told, abs=1e-4)


def test_log_odds_beyond_what_is_learnt_from_keep_their_order_and_come_as_the_attention_model_has_them() -> None:
    logit, none = np.array([[-10.5, -12.5, -14.0, 11.0, 3.0]], dtype=np.float32), np.zeros(1, dtype=np.bool_)
    calibration = untaught(contexts(1), 5)
    assert calibration.log_odds(logit, contexts(1), none) == pytest.approx(logit.astype(np.float64))
    calibration.weights[:, PERSONAL.index("logit")] = 0.5
    halved = calibration.log_odds(logit, contexts(1), none)
    assert halved[0].tolist() == pytest.approx([-5.5, -7.5, -9.0, 6.0, 1.5])
