"""Ablations: each takes away from a network what it says, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'salience[train]'")

from onnx_models.alternatives.nets import (
    nameless,
    untitled,
    without_decay,
    without_history,
    without_interest,
)
from onnx_models.trial import Trial
from scoring.inputs import OF_AD, OF_RING
from scoring.interest import WEIGHTS
from scoring.rows import HORIZONS
from scoring.text import TEXT_DIM

pytestmark = pytest.mark.train


def test_ablations_take_away_what_they_say(trial: Trial) -> None:
    examples = trial.stateful

    assert not (without_history(examples).history >= 0).any()
    assert not without_history(examples).stats[:, OF_AD].any()
    assert not without_history(examples).context[:, OF_RING].any()
    assert not without_interest(examples).interest.any()
    timeless = without_decay(examples, trial.items)
    assert not timeless.age.any()
    of_ring = timeless.context[:, OF_RING]
    assert of_ring.any(axis=0).tolist() == [True, True, False, False, False, False, True]
    assert examples.context[:, OF_RING].any(axis=0).all()
    assert not nameless(trial.items).tokens[:, 0].any()
    texts = replace(trial.items, dense=np.pad(trial.items.dense, ((0, 0), (0, TEXT_DIM)), constant_values=1.0))
    np.testing.assert_array_equal(untitled(texts).dense, trial.items.dense)
    assert examples.interest.any()
    assert trial.items.tokens[:, 0].all()


def test_without_decay_it_does_not_matter_when_a_person_did_what(trial: Trial) -> None:
    examples = trial.learn
    order = np.random.default_rng(1).permutation(examples.history.shape[1])
    history, kind, age = (part[:, order] for part in (examples.history, examples.kind, 1 + examples.age))
    other = replace(examples, history=history, kind=kind, age=age)
    once, again = (without_decay(each, trial.items) for each in (examples, other))
    np.testing.assert_allclose(once.interest, again.interest, atol=1e-6)
    np.testing.assert_allclose(once.stats, again.stats, atol=1e-6)
    drawn = once.interest.any(axis=1)
    assert drawn.mean() > 0.5
    np.testing.assert_allclose(np.linalg.norm(once.interest[drawn], axis=1), HORIZONS, rtol=1e-5)
    weighs = np.append(WEIGHTS, 0)[examples.kind] > 0
    (one,) = np.nonzero(weighs.sum(axis=1) == 1)
    assert len(one)
    for at in one.tolist():  # who has attended to one item is drawn to it
        (item,) = examples.history[at][weighs[at]]
        np.testing.assert_allclose(once.interest[at], HORIZONS * trial.items.features[item], atol=1e-5)
