"""Calibration, log loss, AUC and drift of click predictions, from outcomes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from scoring.feedback import OUTCOME
from streams.quality import KEPT, LEAST, Quality


def outcomes(predicted: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    found = np.zeros(len(predicted), dtype=OUTCOME)
    found["predicted"], found["clicked"] = predicted, clicked
    return found


def world(count: int, seed: int, factor: float = 1.0) -> np.ndarray:
    """Chances of a few per cent; clicks come ``factor`` times as often as predicted."""
    random = np.random.default_rng(seed)
    predicted = random.beta(2, 40, count)
    return outcomes(predicted, random.random(count) < factor * predicted)


def test_too_few_outcomes_tell_nothing() -> None:
    quality = Quality()
    quality.observe(world(LEAST - 1, 1))
    assert all(map(math.isnan, quality.figures()))


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_calibration_is_how_many_clicks_there_are_for_one_predicted(factor: float) -> None:
    quality = Quality()
    quality.observe(world(KEPT, 2, factor))
    assert quality.figures()[0] == pytest.approx(factor, rel=0.1)


@given(st.integers(0, 2**32), st.lists(st.integers(0, 700), max_size=8))
def test_figures_are_those_of_the_library_however_outcomes_are_cut(seed: int, cuts: list[int]) -> None:
    found = world(2_000, seed)
    found["predicted"] = found["predicted"].round(2)  # many ties
    quality = Quality()
    for part in np.split(found, np.cumsum(cuts)[np.cumsum(cuts) < len(found)]):
        quality.observe(part)

    calibration, loss, auc = quality.figures()

    assert calibration == pytest.approx(found["clicked"].sum() / found["predicted"].sum())
    sure = np.clip(found["predicted"], 1e-7, 1 - 1e-7)
    assert loss == pytest.approx(log_loss(found["clicked"], sure))
    assert auc == pytest.approx(roc_auc_score(found["clicked"], found["predicted"]))


def test_only_the_latest_outcomes_count() -> None:
    quality = Quality()
    quality.observe(world(KEPT, 3, factor=3.0))
    quality.observe(world(2 * KEPT, 4))
    assert quality.figures()[0] == pytest.approx(1.0, rel=0.1)


def test_without_a_click_there_is_no_order_to_judge() -> None:
    quality = Quality()
    quality.observe(outcomes(np.full(LEAST, 0.02), np.zeros(LEAST)))
    calibration, loss, auc = quality.figures()
    assert (calibration, math.isnan(auc)) == (0.0, True)
    assert loss == pytest.approx(-math.log(0.98))


def test_a_change_of_what_people_do_is_a_drift_and_a_steady_world_is_none() -> None:
    steady = Quality()
    steady.observe(world(100_000, 5))
    assert steady.drifts == 0
    changed = Quality()
    changed.observe(world(60_000, 6))
    changed.observe(world(60_000, 7, factor=3.0))
    assert changed.drifts >= 1
