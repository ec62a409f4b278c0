"""What models are compared with and by: rates without a future, intervals, folds, the layer as the worker runs it."""

import gc
import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'salience[train]'")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'salience[evaluate]'")

import torch

from onnx_models import comparison
from onnx_models.alternatives import nets
from onnx_models.alternatives.features import PRIOR, Rates
from onnx_models.alternatives.incremental import river_models
from onnx_models.alternatives.nets import (
    ActivationUnit,
    MeanPooling,
    Net,
)
from onnx_models.alternatives.popularity import Popularity
from onnx_models.bootstrap import Draws, interval
from onnx_models.card import card
from onnx_models.comparison import Line, Outcome, fit_all
from onnx_models.curves import curves
from onnx_models.examples import Examples, Items
from onnx_models.folds import folds, spread
from onnx_models.heads import Heads
from onnx_models.metrics import Metrics, auc, grouped_auc, log_loss, ndcg
from onnx_models.network import Network
from onnx_models.predicting import predict
from onnx_models.training import Config, TrainResult
from onnx_models.trial import Span, Trial, logit_of
from scoring.feedback import WINDOW_MS, ClickLayer, Learning
from scoring.impressions import Impressions
from scoring.inputs import OF_AD, RATED
from scoring.manifest import FORMAT, Manifest
from scoring.rows import RING_SIZE
from scoring.watch import Detector
from streams.cli.evaluated import _sure

pytestmark = pytest.mark.train


def test_rates_know_what_came_before_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    key, time_ms = rng.integers(0, 5, 300), np.sort(rng.integers(0, 1_000, 300))
    label = rng.integers(0, 2, 300).astype(float)
    rates = Rates()
    rates.fit(key, time_ms, label, rate=0.3)

    known = rates.known(key, time_ms)

    for at in range(300):
        earlier = (key == key[at]) & (time_ms < time_ms[at])
        expected = (label[earlier].sum() + PRIOR * 0.3) / (earlier.sum() + PRIOR)
        assert known[at] == pytest.approx([np.log1p(earlier.sum()), expected])


def test_outcomes_are_known_when_the_windows_have_passed_for_which_they_are_labelled(trial: Trial) -> None:
    for examples in (trial.learn, trial.frozen, trial.stateful):
        np.testing.assert_array_equal(examples.known_ms, examples.time_ms + WINDOW_MS)


@pytest.mark.parametrize("window_ms", [1_000, 60_000])
@pytest.mark.parametrize("number", [None, 1])
def test_what_is_followed_tells_its_outcome_when_that_is_known_and_not_before(
    trial: Trial, number: int | None, window_ms: int
) -> None:
    asked = replace(trial.stateful, known_ms=trial.stateful.time_ms + window_ms)
    moment = asked.time_ms[len(asked) // 2]
    turned = np.where(asked.known_ms > moment, 1 - asked.label, asked.label)
    told, otherwise = [], []
    for label, said in ((asked.label, told), (turned.astype(np.float32), otherwise)):
        model = Popularity() if number is None else river_models(1)[number]
        model.fit(trial.learn, trial.items)
        said.extend(model.predict(replace(asked, label=label), follow=True).tolist())
    same = asked.time_ms <= moment
    assert 0 < same.sum() < len(same)
    assert told[: same.sum()] == otherwise[: same.sum()]
    assert told != otherwise


def test_draws_are_kept_by_person_however_many_impressions_there_are() -> None:
    labels = np.tile([0.0, 1.0], 20_000)
    draws = Draws(labels, np.arange(40_000) % 20, seed=1)
    held = sum(array.nbytes for array in gc.get_referents(*vars(draws).values()) if isinstance(array, np.ndarray))
    assert held < labels.nbytes


def test_a_tree_that_has_met_no_click_expects_none(trial: Trial) -> None:
    _, tree, _ = river_models(1)
    tree.fit(trial.learn.at(trial.learn.label == 0), trial.items)
    assert (tree.predict(trial.frozen) == 0.001).all()  # the least that it tells


def test_the_bootstraps_first_draw_is_everything_and_a_model_does_not_differ_from_itself() -> None:
    rng = np.random.default_rng(2)
    labels, users = rng.integers(0, 2, 500).astype(float), rng.integers(0, 50, 500)
    good, bad = (np.clip((labels + noise * rng.normal(size=500)) / 3 + 0.3, 0.01, 0.99).round(2) for noise in (1, 3))
    draws = Draws(labels, users, seed=1, draws=100)

    assert draws.auc(good)[0] == pytest.approx(auc(labels, good))
    assert draws.log_loss(good)[0] == pytest.approx(log_loss(labels, good))
    assert interval(draws.auc(good), draws.auc(good), draws.people).high == 0
    gap = interval(draws.auc(good), draws.auc(bad), draws.people)
    assert 0 < gap.low < gap.value < gap.high


def test_draws_without_a_click_tell_of_no_order_and_leave_the_interval_to_the_others() -> None:
    """All clicks are of one of twelve people, of whom one model is right and the other wrong."""
    labels, users = np.zeros(60), np.repeat(np.arange(12), 5)
    labels[:5] = 1
    draws, right = Draws(labels, users, seed=1), np.linspace(1, 0, 60)
    found = draws.auc(right)
    assert np.isnan(found).any()
    assert np.nanmin(found) == 1
    told = interval(found, draws.auc(right[::-1]), draws.people)
    assert (told.value, told.low, told.high) == (1, 1, 1)
    assert (Draws(np.zeros(60), users, seed=1).auc(right) == 0.5).all()


@pytest.mark.parametrize("people", [1, 9])
def test_a_difference_over_a_handful_of_people_is_told_without_an_interval(people: int) -> None:
    labels, one = np.tile([0.0, 1.0], 30), np.linspace(0.1, 0.9, 60)
    draws = Draws(labels, np.arange(60) % people, seed=1)
    gap = interval(draws.log_loss(one), draws.log_loss(np.full(60, 0.5)), draws.people)
    value = log_loss(labels, one) - log_loss(labels, np.full(60, 0.5))
    assert gap.named() == {"value": pytest.approx(value, abs=1e-5), "low": None, "high": None}
    assert _sure(gap) == f"{value:+.4f} [–]"


def test_trees_are_drawn_by_the_seed(trial: Trial) -> None:
    pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install 'salience[evaluate]'")
    from onnx_models.alternatives.boosting import Boosting

    def chances(seed: int) -> np.ndarray:
        trees = Boosting(seed)
        trees.fit(trial.learn, trial.items)
        return trees.predict(trial.frozen)

    np.testing.assert_array_equal(chances(1), chances(1))
    assert (chances(1) != chances(2)).any()


def test_auc_within_groups_is_the_mean_of_theirs_by_size() -> None:
    rng = np.random.default_rng(3)
    group, labels = rng.integers(0, 20, 400), rng.integers(0, 2, 400).astype(float)
    predicted = rng.integers(0, 6, 400) / 6  # with ties

    each = [auc(labels[group == g], predicted[group == g]) for g in range(20)]

    assert grouped_auc(labels, predicted, group) == pytest.approx(np.average(each, weights=np.bincount(group)))


def test_discounted_gain_is_one_for_the_best_order_and_less_for_a_click_that_comes_second() -> None:
    labels, group = np.array([1.0, 0, 0, 1]), np.array([1, 1, 2, 2])

    assert ndcg(labels, np.array([0.9, 0.1, 0.1, 0.9]), group) == 1
    assert ndcg(labels, np.array([0.9, 0.1, 0.9, 0.1]), group) == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_where_nobody_has_both_a_click_and_a_non_click_no_order_is_known() -> None:
    labels, predicted, everybody = np.array([1.0, 0, 1]), np.array([0.2, 0.3, 0.4]), np.arange(3)
    assert math.isnan(grouped_auc(labels, predicted, everybody))
    assert math.isnan(ndcg(labels, predicted, everybody))
    line = Line(0.5, 0.7, 1.0, 1.0, gauc=math.nan, ndcg_10=math.nan)
    assert line.named()["gauc"] is line.named()["ndcg_10"] is None


def test_folds_learn_from_all_that_is_earlier_and_test_on_what_follows(trial: Trial) -> None:
    parts = list(folds(trial.learn, 3))

    for learn, test in parts:
        assert len(learn)
        assert learn.time_ms.max() < test.time_ms.min()
    assert [len(learn) for learn, _ in parts] == sorted(len(learn) for learn, _ in parts)
    assert parts[-1][1].time_ms.max() == trial.learn.time_ms.max()
    with pytest.raises(ValueError, match="expected 2 to"):
        list(folds(trial.learn, 1))


def test_the_interval_over_folds_is_students() -> None:
    found = spread([Metrics(0.7, 0.5, 1), Metrics(0.8, 0.5, 1)])["auc"]

    half = 12.706205 * 0.05
    assert (found.mean, found.low, found.high) == pytest.approx((0.75, 0.75 - half, 0.75 + half))


def test_the_interval_of_what_is_above_0_is_above_0() -> None:
    found = spread([Metrics(0.7, 0.03, 0.5), Metrics(0.8, 0.06, 1.9)])
    assert found["log_loss"].mean == pytest.approx(0.045)
    assert 0 < found["log_loss"].low < 0.03
    assert found["log_loss"].low * found["log_loss"].high == pytest.approx(0.03 * 0.06)  # by ratios
    assert 0 < found["calibration"].low < 0.5
    assert found["calibration"].high > 1.9


def test_the_layer_predicts_alike_in_one_go_and_slice_by_slice(trial: Trial) -> None:
    """As in the worker, whose slices are cut by what has arrived."""
    stream, rng = trial.stream, np.random.default_rng(4)
    logit = rng.normal(size=len(trial.stateful))
    learning = Learning(window_ms=20_000, wait_ms=5_000)
    at_once, observed = stream.observe(logit, trial.stateful, learning)
    assert at_once.watch.detectors[Detector.INTEREST].width > 0
    whole, layer, parts = observed.predicted, ClickLayer(learning), []
    for start in range(0, len(stream.events), 7):
        cut = slice(start, start + 7)
        within = (stream.place >= start) & (stream.place < start + 7)
        shown = Impressions(
            stream.place[within] - start, logit[within].astype(np.float32), trial.stateful.context[within]
        )
        nobody = np.zeros(len(stream.events[cut]), dtype=np.bool_)
        parts.append(layer.observe(stream.events[cut], stream.users[cut], nobody, shown).predicted)

    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert layer.learned > 0


def test_a_layer_that_has_learnt_nothing_says_what_the_model_says(trial: Trial) -> None:
    logit = logit_of(np.full(len(trial.stateful), 0.3))

    assert trial.stream.observe(logit, trial.stateful)[1].predicted[0] == pytest.approx(0.3)


def test_the_frozen_and_the_following_test_are_of_the_same_impressions(trial: Trial) -> None:
    for field in ("time_ms", "row", "item", "surface", "label"):
        np.testing.assert_array_equal(getattr(trial.frozen, field), getattr(trial.stateful, field))
    assert trial.learn.time_ms.max() < trial.cut_ms <= trial.stateful.time_ms.min()
    assert (trial.frozen.history != trial.stateful.history).any()


def test_by_content_alone_nothing_is_told_of_how_often_the_ad_was_clicked_and_by_whom_it_was_met(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, asked = Net("attention", Config(epochs=1)), []
    net.fit(trial.learn, trial.items)

    def told(network: Network, examples: Examples, items: Items) -> Any:
        asked.append((examples.stats, items.tokens))
        return predict(network, examples, items)

    monkeypatch.setattr(nets, "predict", told)
    net.predict_unnamed(trial.stateful)
    ((stats, tokens),) = asked
    assert not stats[:, RATED : RATED + 2].any()
    assert not stats[:, OF_AD].any()
    assert not tokens[:, 0].any()
    assert trial.stateful.stats[:, RATED].any()
    assert trial.stateful.stats[:, OF_AD].any(axis=0).all()


def test_mean_pooling_weighs_past_items_alike_and_both_ways_leave_empty_places_out() -> None:
    torch.manual_seed(1)
    mask = torch.zeros(1, RING_SIZE)
    mask[0, -4:] = 1
    history = torch.randn(1, RING_SIZE, 32) * mask.unsqueeze(2)
    for kind in (MeanPooling, ActivationUnit):
        network = Network(300, attention=kind)
        keys, _, scores = network.attention.past(history, torch.zeros(1, RING_SIZE), mask.long(), mask)
        weights = network.attention.weigh(torch.randn(1, 2, 32), keys, scores)
        assert weights.shape == (1, 2, RING_SIZE + 1)
        assert not weights[:, :, 1:-4].any()
        if kind is MeanPooling:
            assert weights[0, 0, -4:].tolist() == pytest.approx([0.2] * 4)


def test_the_card_tells_the_training_and_the_picture_is_one() -> None:
    epochs = [Metrics(0.7, 0.6, 1.0), Metrics(0.72, 0.59, 1.0)]
    result = TrainResult(Network(300), epochs[-1], epochs, [0.7, 0.65], Config())
    manifest = Manifest(
        format=FORMAT, name="x", spec_hash="s", dim=32, vocabulary=300, opset=17, data="a log", files={}, golden="g"
    )
    others = Heads(2_000, 80, Metrics(0.61, 0.1612, 0.98), Metrics(0.5, 0.1679, 1.1), 700, 0.414, math.nan)
    before = Span(800, 1_649_484_000_000, 1_650_812_400_000)
    text = card(manifest, result, before, {"the model": epochs[-1]}, others, spread(epochs), pictured=True)

    assert "| 2 | 0.6500 | 0.5900 | 0.7200 |" in text
    assert "learning_curves.png" in text
    assert "looks at 800 impressions, 2022-04-09 06:00 UTC to 2022-04-24 15:00 UTC |" in text
    assert "2,000 clicks, 80 with one | AUC 0.6100, log loss 0.1612 (always the share that trained: 0.1679)" in text
    assert "700 looks told, else 0 | explains 0.414 of the variance, told / said – |" in text
    assert "## Over folds in time" in text
    assert curves(result).startswith(b"\x89PNG")


class Taking(Popularity):
    """A model that does ``first`` before it is fitted."""

    def __init__(self, name: str, first: Callable[[], Any]) -> None:
        super().__init__()
        self.name, self._first = name, first

    def fit(self, learn: Examples, items: Items) -> None:
        self._first()
        super().fit(learn, items)


def refuse() -> None:
    raise ValueError("nothing to learn from")


def nobody_is_left(children: list[Any]) -> bool:
    return multiprocessing.active_children() == children and not comparison._SHARED


def test_a_model_that_cannot_learn_ends_the_comparison_though_others_would_take_forever(trial: Trial) -> None:
    children = multiprocessing.active_children()
    models = [Taking("bad", refuse), *(Taking(name, signal.pause) for name in ("one", "two", "three"))]
    with pytest.raises(ValueError, match="nothing to learn from"):
        fit_all(models, trial, "none", 2, lambda _: None)
    assert nobody_is_left(children)


def test_whoever_interrupts_a_comparison_waits_for_no_model_and_leaves_no_process(trial: Trial) -> None:
    def interrupt(_: Outcome) -> None:
        raise KeyboardInterrupt

    children = multiprocessing.active_children()
    models = [Popularity(), *(Taking(name, signal.pause) for name in ("one", "two", "three"))]
    with pytest.raises(KeyboardInterrupt):
        fit_all(models, trial, "none", 2, interrupt)
    assert nobody_is_left(children)


def test_an_interrupt_is_answered_by_the_command_and_not_by_the_processes_that_fit(trial: Trial) -> None:
    models = [Taking("interrupted", lambda: os.kill(os.getpid(), signal.SIGINT))]
    assert fit_all(models, trial, "none", 1, lambda _: None).keys() == {"interrupted"}


def test_what_the_command_has_left_is_not_ended_by_the_processes_that_fit(trial: Trial, tmp_path: Path) -> None:
    """A Kafka client whose threads are not in that process crashes it."""

    class Client:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            (tmp_path / f"ended by {os.getpid()}").touch()

    gc.collect()
    gc.disable()
    try:
        Client()
        assert fit_all([Taking("collects", gc.collect)], trial, "none", 1, lambda _: None).keys() == {"collects"}
    finally:
        gc.enable()
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == [f"ended by {os.getpid()}"]
