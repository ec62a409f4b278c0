"""Drift of the click layer: what is detected, what is not, and what is done about it."""

import re

import msgspec
import numpy as np
import pytest
import river
import xxhash
from structlog.testing import capture_logs

from scoring.clicks import CAUTION_MAX, NUMBERS, ClickModel, example
from scoring.learner import Learner
from scoring.watch import (
    GOOD_EVERY,
    GOOD_WITHIN,
    KEPT_BY,
    LEAST_CHANGED,
    LOOK_EVERY,
    QUICKER,
    SOON,
    Adwin,
    Alarm,
    Answer,
    Detector,
    KeptError,
    Watch,
)
from streams.lanes.learner_rows import WatchRow


def outcomes(count: int, seed: int = 1, turned: float = 0.0) -> list[tuple[int, float]]:
    """True predictions and what came; a share of them turned against the predictions."""
    rng = np.random.default_rng(seed)
    predicted = 1 / (1 + np.exp(-rng.normal(0, 1.2, count)))
    clicked = (rng.random(count) < predicted) ^ (rng.random(count) < turned)
    return list(zip(clicked.astype(int).tolist(), predicted.tolist(), strict=True))


def run(watch: Watch, model: ClickModel, told: list[tuple[int, float]], learned: int = 0) -> list[Alarm]:
    found = []
    for number, (clicked, predicted) in enumerate(told, start=learned + 1):
        found += watch.outcome(model, number, clicked, predicted)
    return found


def a_model() -> ClickModel:
    model = ClickModel()
    for step in range(300):
        model.learn_one(example([0.1] * len(NUMBERS), 0), step % 2 == 0)
    return model


def test_true_predictions_raise_no_alarm() -> None:
    assert run(Watch(), a_model(), outcomes(60_000)) == []


def test_outcomes_that_turn_for_a_third_are_detected_within_two_thousand_although_their_mean_stays() -> None:
    watch, model = Watch(), a_model()
    run(watch, model, outcomes(10_000))
    alarms = run(watch, model, outcomes(2_000, seed=2, turned=1 / 3), learned=10_000)
    assert alarms
    assert alarms[0].detector is Detector.SURPRISE
    assert alarms[0].answer is Answer.QUICKEN
    assert alarms[0].now > alarms[0].was == pytest.approx(0, abs=0.02)


def test_more_clicks_than_predicted_are_a_drift_of_calibration() -> None:
    watch, model = Watch(), a_model()
    run(watch, model, outcomes(10_000))
    shifted = [(clicked, predicted * 0.7) for clicked, predicted in outcomes(2_000, seed=2)]
    assert Detector.CALIBRATION in {alarm.detector for alarm in run(watch, model, shifted, learned=10_000)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [0.6, 1.5])
def test_predictions_that_are_right_again_after_a_drift_are_no_drift(seed: int, rate: float) -> None:
    """What would answer it: the weights of before the drift, which are the wrong ones now."""
    watch, model = Watch(), a_model()
    run(watch, model, outcomes(10_000, seed))
    moved = [(clicked, predicted * rate) for clicked, predicted in outcomes(2_500, seed + 10) if predicted * rate < 1]
    assert run(watch, model, moved, learned=10_000)
    assert run(watch, model, outcomes(SOON, seed + 20), learned=10_000 + len(moved)) == []


def learnt(count: int, seed: int, dull_from: int, mean: float, spread: float) -> list[Alarm]:
    """The alarms of a layer beneath whose model log-odds are right until ``dull_from``, and then mean nothing."""
    rng, learner, found = np.random.default_rng(seed), Learner(), list[Alarm]()
    said, true = rng.normal(mean, spread, (2, count))
    true[:dull_from] = said[:dull_from]
    clicks = rng.random(count) < 1 / (1 + np.exp(-true))
    for logit, clicked in zip(said.tolist(), clicks.tolist(), strict=True):
        told = example([logit, *[0.0] * (len(NUMBERS) - 1)], 1)
        found += learner.outcome(int(clicked), learner.model.chance(told), np.nan)
        learner.model.learn_one(told, clicked)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_tells_nothing_any_more_asks_once_for_a_new_one_when_the_layer_no_longer_believes_it(
    seed: int,
) -> None:
    alarms = [alarm for alarm in learnt(40_000, seed, 15_000, -0.5, 1.0) if alarm.detector is Detector.GAIN]
    (alarm,) = alarms
    assert alarm.answer is Answer.RETRAIN
    assert alarm.learned in (20_000, 25_000)
    assert alarm.now < alarm.was / 2


@pytest.mark.parametrize(("mean", "spread"), [(-0.5, 1.0), (-3.0, 0.5), (-1.0, 0.0)])
def test_a_model_that_tells_as_much_as_ever_asks_for_none_however_little_that_is(mean: float, spread: float) -> None:
    assert Detector.GAIN not in {alarm.detector for alarm in learnt(40_000, 4, 40_000, mean, spread)}


def test_predictions_that_fade_step_by_step_ask_once_when_they_tell_less_than_half_of_what_they_once_did() -> None:
    """Though they stay true, tell something still, and no step loses half of the one before."""
    watch, model, found = Watch(), a_model(), list[Alarm]()
    for part, spread in enumerate((1.6, 1.6, 1.3, 1.1, 0.9, 0.7)):
        rng = np.random.default_rng(part)
        predicted = 1 / (1 + np.exp(-rng.normal(0, spread, GOOD_EVERY)))
        clicked = (rng.random(GOOD_EVERY) < predicted).astype(int)
        some = list(zip(clicked.tolist(), predicted.tolist(), strict=True))
        found += run(watch, model, some, learned=part * GOOD_EVERY)
    assert [alarm.detector for alarm in found] == [Detector.GAIN]
    assert 0 < found[0].now < found[0].was / 2
    assert found[0].learned > 4 * GOOD_EVERY


def test_a_gain_that_may_have_been_chance_is_not_missed() -> None:
    """Of 25 outcomes 13 are on the side of 51 to 49 that was predicted: .0006 nats, known to within .0008."""
    watch, model = Watch(), a_model()
    lucky = [(at % 2, 0.51 if (at % 2 == 1) == (at % 25 < 13) else 0.49) for at in range(GOOD_EVERY)]
    nothing = [(at % 2, 0.5001 if at % 4 < 2 else 0.4999) for at in range(GOOD_EVERY)]
    assert run(watch, model, lucky) + run(watch, model, nothing, learned=GOOD_EVERY) == []
    assert watch.gained == 0


def test_a_gain_that_has_come_back_may_be_lost_again() -> None:
    watch, model, found = Watch(), a_model(), []
    for part, turned in enumerate((0.0, 0.5, 0.0, 0.5)):
        found += run(watch, model, outcomes(2 * GOOD_EVERY, part, turned), learned=2 * part * GOOD_EVERY)
    assert [alarm.learned // GOOD_EVERY for alarm in found if alarm.detector is Detector.GAIN] == [3, 7]


def test_a_gain_is_kept_and_sums_from_before_losses_were_begin_anew() -> None:
    watch, model = Watch(), a_model()
    run(watch, model, outcomes(2 * GOOD_EVERY) + outcomes(GOOD_EVERY + 700, 2, turned=0.5))
    assert watch.dull
    row = WatchRow.of(watch)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=WatchRow).watch()
    kept = ("gained", "dull", "loss", "loss_squared", "clicked", "predicted", "unjudged")
    assert [getattr(again, name) for name in kept] == [getattr(watch, name) for name in kept]
    since = ("loss", "loss_squared", "gained", "dull")
    former = {
        name: value for name, value in msgspec.to_builtins(row, builtin_types=(bytes,)).items() if name not in since
    }
    before = msgspec.convert(former, WatchRow, builtin_types=(bytes,)).watch()
    assert [getattr(before, name) for name in kept] == [0, False, 0, 0, 0, 0, 0]
    assert before.last_alarm == watch.last_alarm


def test_predictions_that_get_better_than_they_think_raise_no_alarm() -> None:
    watch, model = Watch(), a_model()
    run(watch, model, outcomes(10_000))
    certain = [(int(predicted > 0.5), predicted) for _, predicted in outcomes(4_000, seed=3)]
    alarms = run(watch, model, certain, learned=10_000)
    assert Detector.SURPRISE not in {alarm.detector for alarm in alarms}


def test_people_who_click_on_other_things_than_drew_them_ask_for_a_new_model_and_leave_the_weights() -> None:
    watch, model, rng = Watch(), a_model(), np.random.default_rng(6)
    weights, cautious = model.array, model.caution
    alarms = []
    for learned, (clicked, predicted) in enumerate(outcomes(20_000)):
        close = rng.normal(0.56 if learned < 10_000 else 0.50, 0.16)
        alarms += watch.outcome(model, learned, clicked, predicted, close)
    assert [(alarm.detector, alarm.answer) for alarm in alarms] == [(Detector.INTEREST, Answer.RETRAIN)]
    assert 10_000 < alarms[0].learned < 15_000
    assert (model.array.tolist(), model.caution.tolist()) == (weights.tolist(), cautious.tolist())
    closer = [watch.outcome(model, 20_000 + at, 1, 0.999, rng.normal(0.6, 0.16)) for at in range(5_000)]
    assert Detector.INTEREST not in {alarm.detector for told in closer for alarm in told}


def test_answers_go_from_learning_faster_to_the_last_good_weights_to_asking_for_a_new_model() -> None:
    watch, model = Watch(), a_model()
    run(watch, model, outcomes(GOOD_EVERY))
    good, cautious = model.array, model.caution
    assert watch.good is not None
    answers = []
    learned = GOOD_EVERY
    for turn in range(6):
        told = outcomes(1_500, seed=10 + turn, turned=0.9 if turn % 2 == 0 else 0.0)
        for alarm in run(watch, model, told, learned):
            if not answers:
                assert (model.caution <= cautious).all()
            answers.append(alarm.answer)
            model.learn_one(example([1.0] * len(NUMBERS), 1), True)
            if answers == [Answer.QUICKEN, Answer.FALL_BACK]:
                assert model.array[1] == pytest.approx(good[1], abs=0.2)
        learned += 1_500
    assert answers[:2] == [Answer.QUICKEN, Answer.FALL_BACK]
    assert set(answers[2:]) == {Answer.RETRAIN}
    assert learned < GOOD_EVERY + 2 * SOON


@pytest.mark.parametrize(
    ("detector", "was", "now", "worse"),
    [
        (Detector.CALIBRATION, 0.1, -0.2, True),
        (Detector.CALIBRATION, -0.2, 0.1, False),
        (Detector.CALIBRATION, -0.1, -0.2, True),
        (Detector.SURPRISE, 0.1, -0.2, False),
        (Detector.SURPRISE, -0.2, 0.1, True),
        (Detector.INTEREST, 0.6, 0.5, True),
        (Detector.INTEREST, 0.5, 0.6, False),
        *((each, 0.1, 0.1, False) for each in Detector),
    ],
)
def test_predictions_are_worse_further_from_the_truth_and_people_further_from_what_drew_them(
    detector: Detector, was: float, now: float, worse: bool
) -> None:
    assert detector.worse(was, now) == worse


def test_an_alarm_is_soon_after_the_one_before_within_so_many_outcomes_of_it() -> None:
    watch, model = Watch(), a_model()
    assert watch._answer(model, 1) is Answer.QUICKEN  # however early it comes, it is the first
    watch = Watch()
    at, answers = 10_000, []
    for after in (0, SOON - 1, SOON - 1, SOON - 1, SOON, 1):
        at += after
        answers.append(watch._answer(model, at))
    nothing_good = [Answer.QUICKEN, Answer.RETRAIN, Answer.RETRAIN, Answer.RETRAIN, Answer.QUICKEN, Answer.RETRAIN]
    assert answers == nothing_good
    watch.good = model.array, model.caution
    assert [watch._answer(model, at + 2 * SOON), watch._answer(model, at + 2 * SOON)] == [
        Answer.QUICKEN,
        Answer.FALL_BACK,
    ]


def test_weights_that_are_gone_back_to_learn_faster_from_there() -> None:
    watch, model = Watch(), a_model()
    model.restore(model.array, np.full(len(model.caution), CAUTION_MAX))
    watch.good = weights, cautious = model.array, model.caution
    watch._answer(model, 10_000)
    assert model.caution == pytest.approx(cautious / QUICKER**2)
    model.learn_one(example([1.0] * len(NUMBERS), 1), True)
    assert watch._answer(model, 10_001) is Answer.FALL_BACK
    assert model.array.tolist() == weights.tolist()
    assert model.caution == pytest.approx(cautious / QUICKER**2)


@pytest.mark.parametrize(
    ("ratio", "learned", "last_alarm", "good"),
    [
        (1.0, GOOD_EVERY, -SOON, True),
        (1 + 0.9 * GOOD_WITHIN, GOOD_EVERY, -SOON, True),
        (1 - 0.9 * GOOD_WITHIN, GOOD_EVERY, -SOON, True),
        (1 + 1.1 * GOOD_WITHIN, GOOD_EVERY, -SOON, False),
        (1 - 1.1 * GOOD_WITHIN, GOOD_EVERY, -SOON, False),
        (1.0, GOOD_EVERY + LOOK_EVERY, -SOON, False),
        (1.0, 2 * GOOD_EVERY, GOOD_EVERY, True),
        (1.0, 2 * GOOD_EVERY, GOOD_EVERY + 1, False),
    ],
)
def test_weights_are_good_that_predict_as_many_clicks_as_there_are_while_no_alarm_is_raised(
    ratio: float, learned: int, last_alarm: int, good: bool
) -> None:
    watch, model = Watch(), a_model()
    watch.last_alarm, watch.clicked, watch.predicted = last_alarm, 1_000.0, 1_000.0 * ratio
    watch.unjudged = (learned - 1) % GOOD_EVERY + 1
    watch._look(model, learned)
    assert (watch.good is not None) == good
    if watch.good is not None:
        assert [kept.tolist() for kept in watch.good] == [model.array.tolist(), model.caution.tolist()]
    judged = learned % GOOD_EVERY == 0
    assert (watch.clicked, watch.predicted) == ((0.0, 0.0) if judged else (1_000.0, 1_000.0 * ratio))


def test_weights_of_which_no_click_is_known_are_not_good() -> None:
    watch = Watch()
    watch.predicted, watch.unjudged = 3.0, GOOD_EVERY
    watch._look(a_model(), GOOD_EVERY)
    assert watch.good is None


def test_a_promoted_shadows_weights_are_judged_by_as_many_outcomes_of_its_own_as_anyones() -> None:
    learner = Learner(a_model())
    for _ in range(GOOD_EVERY - 100):
        learner.beside(1, 0.5, 0.5, 0, 0)
    for number in range(GOOD_EVERY + 100):
        learner.outcome(number % 2, 0.5, np.nan)
        if number % 700 == 0:  # a restart continues where it was
            learner.watch = WatchRow.of(learner.watch).watch()
        if number == GOOD_EVERY - 1:
            assert learner.watch.good is None
    assert learner.learned == 2 * GOOD_EVERY
    assert learner.watch.good is not None
    assert (learner.watch.unjudged, learner.watch.predicted) == (0, 0)


def test_means_are_noted_every_so_many_outcomes_of_what_has_been_seen_as_often() -> None:
    watch, model = Watch(), a_model()
    told = outcomes(2 * LOOK_EVERY)
    run(watch, model, told[: LOOK_EVERY - 1])
    assert watch.means == {}
    run(watch, model, told[LOOK_EVERY - 1 : LOOK_EVERY], LOOK_EVERY - 1)
    assert watch.means.keys() == {Detector.CALIBRATION, Detector.SURPRISE}
    assert watch.means[Detector.CALIBRATION] == pytest.approx(np.mean([one - two for one, two in told[:LOOK_EVERY]]))
    for clicked, predicted in told:
        watch.outcome(model, 1, clicked, predicted, 0.5)
    watch._look(model, LOOK_EVERY)
    assert Detector.INTEREST not in watch.means  # fewer than so many were clicked
    assert watch._alarm(Detector.INTEREST, model, LOOK_EVERY) is None


@pytest.mark.parametrize("mean", [0.57, 0.5, 0.3, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_a_drift_tells_how_far_the_mean_has_gone_however_soon_it_is_detected(mean: float, seed: int) -> None:
    detector, rng = Adwin(), np.random.default_rng(seed)
    before = rng.normal(0.6, 0.15, 8_000).tolist()
    assert not any(detector.drifts(value) for value in before)
    assert any(detector.drifts(value) for value in rng.normal(mean, 0.15, 4_000))
    assert detector.gone_to(0.6) == pytest.approx(mean, abs=0.03)


def test_of_a_drift_of_few_values_their_estimate_is_told() -> None:
    detector = Adwin()
    assert not any(detector.drifts(0.25) for _ in range(LEAST_CHANGED - 1))
    assert detector.gone_to(0.5) == pytest.approx(0.25)


def test_an_alarm_is_raised_once_of_what_was_noted_and_says_when() -> None:
    watch, model = Watch(), a_model()
    for _ in range(LOOK_EVERY):
        watch.detectors[Detector.INTEREST].drifts(0.25)
    watch.means[Detector.INTEREST] = 0.5
    expected = Alarm(Detector.INTEREST, Answer.RETRAIN, 77, 0.5, pytest.approx(0.25))
    assert watch._alarm(Detector.INTEREST, model, 77) == expected
    assert watch._alarm(Detector.INTEREST, model, 78) is None  # until the means are noted again
    assert watch.last_alarm == -SOON  # of interest: weights are as good as they were


def test_a_detector_that_was_kept_as_it_detected_a_drift_begins_anew_as_it_would_have() -> None:
    whole = Adwin()
    values = [0.0] * 3_000 + [1.0] * 3_000
    at = next(place for place, value in enumerate(values) if whole.drifts(value))
    again = Adwin.of(whole.kept())
    assert again.drift_detected
    for value in values[at + 1 : at + 50]:
        assert whole.drifts(value) == again.drifts(value)
    assert (whole.width, whole.kept()) == (again.width, again.kept())


def test_a_detector_kept_by_name_without_a_state_is_refused() -> None:
    for kept in (KEPT_BY, KEPT_BY + xxhash.xxh3_64_digest(b"")):
        with pytest.raises(KeptError):
            Adwin.of(kept)


def test_a_kept_detector_goes_on_exactly_as_if_it_had_never_ended() -> None:
    rng = np.random.default_rng(5)
    values = [*rng.random(3_000).tolist(), *(rng.random(3_000) + 0.3).tolist()]
    whole, again, alarms = Adwin(), Adwin(), [0, 0]
    for place, value in enumerate(values):
        whole.update(value)
        again.update(value)
        alarms[0] += whole.drift_detected
        alarms[1] += again.drift_detected
        if place % 250 == 0 or whole.drift_detected:
            again = Adwin.of(again.kept())
    assert whole.estimation == again.estimation
    assert alarms[0] == alarms[1] > 0


@pytest.mark.parametrize("version", [b"", b"river 0.1.0\n", f"river {river.__version__}\n".encode()])
def test_a_detector_that_another_version_kept_is_refused(version: bytes) -> None:
    whole = Adwin()
    for _ in range(3_000):
        whole.drifts(0.1)
    with pytest.raises(KeptError, match=re.escape(f"expected {KEPT_BY!r}")):
        Adwin.of(version + whole.kept().removeprefix(KEPT_BY))


def test_a_detector_that_cannot_be_taken_begins_anew_and_the_log_says_which_and_why() -> None:
    watch = Watch()
    for _ in range(3_000):
        watch.detectors[Detector.SURPRISE].drifts(0.1)
        watch.detectors[Detector.CALIBRATION].drifts(0.1)
    row = WatchRow.of(watch)
    row.detectors["surprise"] = row.detectors["surprise"][:-1]
    with capture_logs() as told:
        again = row.watch()
    assert again.detectors[Detector.SURPRISE].width == 0
    assert not again.detectors[Detector.SURPRISE].drifts(0.5)
    assert again.detectors[Detector.CALIBRATION].width == 3_000
    (line,) = told
    assert (line["event"], line["detector"]) == ("a drift detector begins anew: what was kept is none", "surprise")
    assert "cut short or changed" in line["error"]
