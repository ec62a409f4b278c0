"""Inputs at the edges of what can come: the same each time, finite, and of every kind that inputs tell apart."""

from dataclasses import fields

import numpy as np
import pytest

from scoring.attention import AttentionModel, load
from scoring.inputs import COUNTED_MAX, HistoryKind, ModelInputs, empty_inputs
from scoring.probes import CANDIDATES, PEOPLE, ROUNDS, probes
from tests.models import DIM, toy_model


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "text"])
def model(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AttentionModel:
    return load(toy_model(tmp_path_factory.mktemp("toy"), text=request.param))


def all_of(model: AttentionModel) -> dict[str, np.ndarray]:
    drawn = list(probes(model))
    return {field.name: np.concatenate([getattr(each, field.name) for each in drawn]) for field in fields(ModelInputs)}


def test_probes_are_inputs_as_models_take_them_and_the_same_each_time(model: AttentionModel) -> None:
    drawn, usual = all_of(model), empty_inputs(ROUNDS * PEOPLE, CANDIDATES, DIM)
    for name, array in all_of(model).items():
        expected = getattr(usual, name)
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
        assert np.isfinite(array).all()
        np.testing.assert_array_equal(array, drawn[name])


def test_probes_reach_the_edges_of_context_history_interest_and_stats(model: AttentionModel) -> None:
    drawn = all_of(model)
    assert drawn["context"][:, 0].min() == 0
    assert drawn["context"][:, 0].max() == pytest.approx(np.log1p(COUNTED_MAX) / 5)
    assert drawn["context"][:, 1].min() < 1
    assert drawn["context"][:, 1].max() > 1 + np.log(100)
    assert set(np.unique(drawn["history_kind"])) == set(HistoryKind)
    assert {0.0, 1.0} <= set(drawn["history_mask"].mean(axis=1).tolist())
    assert drawn["history_age"].max() > np.log1p(9 * 365 * 86_400)
    assert not drawn["interest"][0].any()
    assert np.linalg.norm(drawn["interest"], axis=1).max() > 1
    spread = np.ptp(drawn["candidate_stats"], axis=(0, 1))
    assert (spread > 0).all()
