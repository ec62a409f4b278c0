"""The drift drills: what turns, what does not, and what is told of it."""

import copy

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'salience[train]'")

from onnx_models.drill import BLOCK, BLOCKS, Drill, Found, changed, hold, turned, watched
from onnx_models.examples import Examples, collect, in_time_order
from onnx_models.trial import Trial, same_rows
from scoring.events import EVENT, Kind
from scoring.feedback import OUTCOME
from scoring.watch import Alarm, Answer, Detector
from streams.cli.trials import trial_of
from tests.builders import made_up_log

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def trial() -> Trial:
    log = made_up_log(5, events=900, users=20, surface="home")
    return trial_of(log, lambda _done, _total: None, share=0.4)


def again(trial: Trial, ads: np.ndarray, from_ms: int) -> Examples:
    store = same_rows(trial.store)
    events = in_time_order(turned(trial.stream.events, ads, from_ms), store)
    return collect(events, store, trial.catalogue, rates=copy.deepcopy(trial.rates))[0]


def test_turned_ads_tell_the_opposite_and_all_else_what_it_told(trial: Trial) -> None:
    was, from_ms, ads = trial.stateful, int(np.median(trial.stateful.time_ms)), trial.catalogue.ad[::3]
    now = again(trial, ads, from_ms)
    for name in ("time_ms", "row", "item"):
        np.testing.assert_array_equal(getattr(now, name), getattr(was, name))
    of = np.isin(trial.catalogue.ad[was.item], ads) & (was.time_ms >= from_ms)
    assert 20 < of.sum() < len(was) - 20
    np.testing.assert_array_equal(now.label[of], 1 - was.label[of])
    np.testing.assert_array_equal(now.label[~of], was.label[~of])
    earlier = was.time_ms < from_ms
    np.testing.assert_array_equal(now.context[earlier], was.context[earlier])
    assert (now.context[~earlier] != was.context[~earlier]).any()  # people's state follows what is told
    assert (now.stats[~earlier] != was.stats[~earlier]).any()


def test_an_impression_that_is_doubled_gets_one_click(trial: Trial) -> None:
    events, ads = trial.stream.events, trial.catalogue.ad
    doubled = events[events["kind"] == Kind.SHOWN].copy()
    doubled["event"] += np.uint64(1)
    assert len(turned(np.concatenate([events, doubled]), ads, 0)) == len(turned(events, ads, 0)) + len(doubled)


def test_of_what_does_not_turn_nothing_is_changed(trial: Trial) -> None:
    assert turned(trial.stream.events, trial.catalogue.ad[:0], 0).tobytes() == trial.stream.events.tobytes()


def test_people_change_places_with_their_answers_and_keep_their_past(trial: Trial) -> None:
    events, from_ms = trial.stream.events, int(np.median(trial.stateful.time_ms))
    now = changed(events, from_ms)
    of = events["shown_ms"] >= from_ms
    for name in EVENT.names or ():
        assert name == "row" or (now[name] == events[name]).all(), name
    assert (now["row"][~of] == events["row"][~of]).all()
    assert (now["row"][of] != events["row"][of]).all()
    pairs = set(zip(events["row"][of].tolist(), now["row"][of].tolist(), strict=True))
    assert len(pairs) == len({old for old, _ in pairs}) == len({new for _, new in pairs})  # one to one


def test_alarms_since_the_turn_are_told_and_calibration_in_blocks() -> None:
    outcomes = np.zeros(200 + BLOCK * (BLOCKS + 1), dtype=OUTCOME)
    outcomes["shown_ms"] = outcomes["due_ms"] = outcomes["time_ms"] = np.arange(len(outcomes))
    outcomes["predicted"], outcomes["clicked"] = 0.5, np.arange(len(outcomes)) % 2
    outcomes["predicted"][200 : 200 + BLOCK] = 0.25
    told = [(150, Answer.RETRAIN), (500, Answer.QUICKEN), (900, Answer.FALL_BACK)]
    alarms = [Alarm(Detector.SURPRISE, answer, learned, 0.0, 0.1) for learned, answer in told]
    since = [Found(300, "surprise", "quicken"), Found(700, "surprise", "fall-back")]
    assert watched(alarms, outcomes, 200) == Drill(200, since, [2.0] + [1.0] * (BLOCKS - 1))
    assert watched([], outcomes[:700], 200) == Drill(200, [], [])


def test_clicks_that_are_known_before_the_rest_of_their_time_wait_for_it() -> None:
    count, window_ms, rng = 4 * BLOCK, 5_000, np.random.default_rng(1)
    shown = np.zeros(count, dtype=OUTCOME)
    shown["shown_ms"], shown["clicked"] = np.arange(count), rng.random(count) < 0.5
    shown["predicted"] = shown["clicked"].mean()
    shown["due_ms"] = shown["shown_ms"] + window_ms
    shown["time_ms"] = np.where(shown["clicked"], shown["shown_ms"] + 1, shown["due_ms"])
    told = shown[np.argsort(shown["time_ms"], kind="stable")]
    told = told[told["time_ms"] < 2.5 * BLOCK + window_ms]  # as far as the stream goes
    assert watched([], told, 0).calibration == pytest.approx([1.0, 1.0], abs=0.1)


def test_drills_leave_the_trial_as_it_is(trial: Trial) -> None:
    rows, rates, events = trial.store.rows.tobytes(), trial.rates.total.tolist(), trial.stream.events.tobytes()
    first, second = (hold(trial, lambda examples: np.full(len(examples), 0.4), 7) for _ in range(2))
    assert first == second
    assert first.named()["false_alarms"] == 7
    assert min(first.ads_turn.outcomes_before, first.people_change_places.outcomes_before) > 50
    assert (trial.store.rows.tobytes(), trial.rates.total.tolist()) == (rows, rates)
    assert trial.stream.events.tobytes() == events
