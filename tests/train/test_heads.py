"""What a network says beside clicks, of purchases and of seconds looked, and how good it is said to be."""

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'salience[train]'")

from onnx_models.examples import Examples, Items
from onnx_models.heads import heads
from onnx_models.predicting import Ready, chance
from onnx_models.training import Config, TrainResult, train
from tests.train.test_training import CONFIG, KINDS, planted

pytestmark = pytest.mark.train

WEIGHTS = replace(CONFIG, viewed_weight=0.5, conversion_weight=0.5)
DEAR, CHEAP = 0.1, 0.7
"""Chance that a click on the first kind of thing, and on the others, becomes a purchase."""
LONG_S, SHORT_S = 30.0, 2.0
"""Seconds of a look at the second kind of thing, and at the others, where it is clicked; else it is not told."""


def told(examples: Examples, seed: int = 5) -> Examples:
    """The same, with purchases and looks that depend on the kind of thing."""
    rng, kind = np.random.default_rng(seed), examples.item * KINDS // (examples.item.max() + 1)
    bought = (rng.random(len(examples)) < np.where(kind == 0, DEAR, CHEAP)) & (examples.label > 0)
    looked = np.where(kind == 1, LONG_S, SHORT_S) * (examples.label > 0)
    return replace(examples, converted=bought.astype(np.float32), viewed_s=looked.astype(np.float32))


@pytest.fixture(scope="module")
def log() -> tuple[Examples, Items]:
    examples, items = planted(1)
    return told(examples), items


@pytest.fixture(scope="module")
def trained(log: tuple[Examples, Items]) -> TrainResult:
    return train(log[0].time_split(0.8)[0], log[1], WEIGHTS)


def test_which_clicks_become_purchases_and_how_long_people_look_is_learnt_and_measured(
    log: tuple[Examples, Items], trained: TrainResult
) -> None:
    learn, test = log[0].time_split(0.8)
    found = heads(Ready.of(trained.network, log[1]).say(test), learn, test)
    assert (found.clicks, found.purchases) == (int(test.label.sum()), int(test.converted.sum()))
    assert found.looks == found.clicks
    assert found.conversion.auc > 0.65
    assert found.conversion.log_loss < found.always.log_loss
    assert found.conversion.calibration == pytest.approx(1, abs=0.15)
    assert found.explained > 0.3
    assert found.viewed_calibration == pytest.approx(1, abs=0.15)


def test_heads_are_brought_to_the_level_of_the_newest_part(log: tuple[Examples, Items], trained: TrainResult) -> None:
    early, _ = log[0].time_split(0.8)
    _, newest = early.time_split(1 - WEIGHTS.validation)
    said, clicked = Ready.of(trained.network, log[1]).say(newest), newest.label > 0
    assert said.viewed.mean() == pytest.approx(np.log1p(newest.viewed_s).mean(), rel=0.01)
    assert chance(said.conversion[clicked]).sum() == pytest.approx(newest.converted[clicked].sum(), rel=0.02)


def test_nothing_is_said_of_what_a_test_does_not_tell(log: tuple[Examples, Items], trained: TrainResult) -> None:
    learn, test = log[0].time_split(0.8)
    nothing = np.zeros_like(test.label)
    silent = replace(test, converted=nothing, viewed_s=nothing)
    found = heads(Ready.of(trained.network, log[1]).say(silent), learn, silent)
    assert (found.purchases, found.looks) == (0, 0)
    assert all(
        map(math.isnan, (found.conversion.auc, found.always.log_loss, found.explained, found.viewed_calibration))
    )
    assert found.named()["conversion_auc"] is found.named()["viewed_explained"] is None


def test_a_log_without_purchases_or_looks_trains_all_the_same() -> None:
    examples, items = planted(3, moments=10)
    network = train(examples, items, Config(vocabulary=256, epochs=1)).network
    said = Ready.of(network, items).say(examples)
    assert all(np.isfinite(each).all() for each in said)
