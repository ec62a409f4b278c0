"""What serving takes of what was learned: weights by model, lifts and their evidence by ad, slots."""

import numpy as np
import pytest

from scoring.calibration import PERSONAL, Calibrator, chance_of
from scoring.clicks import LIFT_PRIOR, MARGIN, START_WEIGHTS, AdLifts, probability
from scoring.examination import over
from scoring.feedback import ClickLayer, Learning
from scoring.inputs import CONTEXT_DIM
from scoring.rates import RATES_DIM
from tests.unit.test_clicks import NOBODY, PEOPLE, contexts, random_model, shop


def test_chances_of_arrays_are_those_of_single_log_odds_however_far_out() -> None:
    odds = np.array([-1e9, -MARGIN - 1, -3.0, 0.0, 2.0, MARGIN + 1, 1e9])
    assert chance_of(odds).tolist() == pytest.approx([probability(each) for each in odds.tolist()], rel=1e-6)


def test_each_model_is_served_by_its_own_weights_and_one_of_which_nothing_was_learned_as_it_is() -> None:
    layer, calibrator, context = ClickLayer(), Calibrator(), contexts(2)
    layer.learner(0).model, layer.learner(3).model = random_model(1), random_model(2)
    calibrator.update(layer, shop(2), NOBODY)
    candidates, shared = np.zeros((2, 1), dtype=np.int64), len(PERSONAL) - 1
    for number, weights in ((0, random_model(1).array), (3, random_model(2).array), (9, START_WEIGHTS)):
        expected = weights[:shared].copy()
        expected[PERSONAL.index("person_lift")] = 0.0  # nothing is known of these people
        found = calibrator.calibration(PEOPLE[:2], context, candidates, number)
        assert found.weights[:, :shared] == pytest.approx(np.tile(expected, (2, 1)))
        assert found.lift_weights == pytest.approx([weights[PERSONAL.index("lift")]] * 2)


def test_a_lift_rests_on_the_clicks_of_its_ad_and_on_the_priors() -> None:
    catalogue, layer, calibrator = shop(3), ClickLayer(), Calibrator()
    layer.lifts.learn(int(catalogue.ad[1]), 3.0, 1.0)
    layer.lifts.learn(12_345, 40.0, 0.0)  # an ad that the catalogue does not know, or does not know any more
    calibrator.update(layer, catalogue, NOBODY)
    found = calibrator.calibration(PEOPLE[:1], contexts(1), np.array([[0, 1, 2]]))
    assert found.evidence.tolist() == [[LIFT_PRIOR, LIFT_PRIOR + 3, LIFT_PRIOR]]
    assert found.lift[0] == pytest.approx([0.0, np.log((3 + LIFT_PRIOR) / (1 + LIFT_PRIOR)), 0.0])


def test_an_ad_that_is_told_of_after_what_was_learned_of_it_has_its_lift_at_once() -> None:
    catalogue, layer, calibrator = shop(1), ClickLayer(), Calibrator()
    calibrator.update(layer, catalogue, NOBODY)
    layer.lifts.learn(int(shop(2).ad[1]), 3.0, 1.0)
    layer.lifts.touched.clear()  # it was learned long ago, or before the worker began
    catalogue.upsert(shop(2).entries)
    calibrator.update(layer, catalogue, NOBODY)
    found = calibrator.calibration(PEOPLE[:1], contexts(1), np.array([[0, 1]]))
    assert found.evidence.tolist() == [[LIFT_PRIOR, LIFT_PRIOR + 3]]
    assert found.lift[0, 1] > 0 == found.lift[0, 0]


def test_what_ads_were_shown_and_clicked_is_told_of_them_and_lanes_that_have_learned_nothing_tell_nothing() -> None:
    catalogue, layer, calibrator = shop(3), ClickLayer(), Calibrator()
    calibrator.update(layer, catalogue, NOBODY)
    assert not calibrator.rated(np.array([[0, 1, 2]])).any()
    layer.lifts.count(catalogue.ad[[2]], np.array([[50.0, 20.0]]))
    layer.lifts.learn(12_345, 40.0, 0.0)  # an ad that the catalogue does not know any more counts for no other
    calibrator.update(layer, catalogue, NOBODY)
    assert calibrator.rates.ads.tolist() == [[0.0, 0.0], [0.0, 0.0], [50.0, 20.0]]
    told = calibrator.rated(np.array([[0, 1, 2]]))
    assert told.shape == (1, 3, RATES_DIM)
    assert told[0, 2, :2].all()
    assert not told[0, :2, :2].any()


def test_while_no_ad_is_known_candidates_have_no_lift() -> None:
    found = Calibrator().calibration(PEOPLE[:2], np.zeros((2, CONTEXT_DIM), np.float32), np.zeros((2, 3), np.int64))
    assert found.lift.tolist() == [[0.0] * 3] * 2
    assert found.evidence.tolist() == [[LIFT_PRIOR] * 3] * 2
    assert found.examined is None


def test_slots_are_served_as_the_layer_says_that_they_are_looked_at() -> None:
    layer, calibrator = ClickLayer(Learning(examination=(1.0, 0.5))), Calibrator()
    calibrator.update(layer, shop(1), NOBODY)
    examined = calibrator.calibration(PEOPLE[:1], contexts(1), np.zeros((1, 1), dtype=np.int64)).examined
    assert examined is not None
    assert over(examined, 3).tolist() == [1.0, 0.5, 0.5]


def test_counts_of_an_ad_add_up_and_its_record_has_changed() -> None:
    lifts = AdLifts()
    lifts.learn(4, 1.0, 0.5)
    lifts.touched.clear()
    for _ in range(2):
        lifts.count(np.array([9, 4], dtype=np.uint64), np.array([[1.0, 0.0], [3.0, 1.0]]))
        assert lifts.touched == {4, 9}
        lifts.touched.clear()
    assert lifts.records([4, 9]).tolist() == [[1.0, 0.5, 6.0, 2.0], [0.0, 0.0, 2.0, 0.0]]
    for each in (lifts, AdLifts()):
        count = len(each)
        each.count(np.zeros(0, dtype=np.uint64), np.zeros((0, 2)))
        each.put(*AdLifts().arrays())
        assert (each.touched, len(each), each.records([]).shape) == (set(), count, (0, 4))
