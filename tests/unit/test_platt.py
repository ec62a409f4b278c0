"""Log-odds are scaled and shifted to fit what came of them, however far off a network is."""

from collections.abc import Callable

import numpy as np
import pytest

from onnx_models.metrics import level, line, log_loss, ndcg, normalised_entropy, platt

EXAMPLES = 5_000
OFF = [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (0.5, 0.0), (1.0, -2.5), (1.5, -1.0), (1.0, -9.0), (1.0, 9.0)]
"""Scale and shift of a network's log-odds over those that are right: too sure of itself, too low, too high."""


def chance(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds that are right, and what came of them; some 7 % are clicked."""
    draw = np.random.default_rng(seed)
    right = draw.normal(-3, 1, EXAMPLES)
    return right, (draw.random(EXAMPLES) < chance(right)).astype(np.float32)


@pytest.mark.parametrize(("scale", "shift"), OFF)
def test_platt_finds_the_right_log_odds_again_from_any_scale_and_shift(scale: float, shift: float) -> None:
    right, label = world()
    off = scale * right + shift
    fitted_scale, fitted_shift = platt(off, label)
    assert log_loss(label, chance(fitted_scale * off + fitted_shift)) < log_loss(label, chance(right)) + 0.002
    assert fitted_scale > 0


@pytest.mark.parametrize(("scale", "shift"), OFF)
@pytest.mark.parametrize("fit", [platt, level])
def test_no_fit_predicts_worse_than_what_it_was_given(
    fit: Callable[[np.ndarray, np.ndarray], tuple[float, float]], scale: float, shift: float
) -> None:
    right, label = world()
    off = scale * right + shift
    fitted_scale, fitted_shift = fit(off, label)
    assert log_loss(label, chance(fitted_scale * off + fitted_shift)) <= log_loss(label, chance(off))


@pytest.mark.parametrize(("scale", "shift"), OFF)
def test_level_predicts_as_many_clicks_as_there_are_from_any_scale_and_shift(scale: float, shift: float) -> None:
    right, label = world()
    off = scale * right + shift
    same, fitted_shift = level(off, label)
    assert same == 1
    assert chance(off + fitted_shift).sum() == pytest.approx(label.sum(), rel=0.05)


def test_a_fit_that_would_turn_the_order_around_sets_the_level_alone() -> None:
    right, label = world()
    assert platt(-right, label) == level(-right, label)


def test_full_steps_that_lower_the_loss_are_taken_as_they_are() -> None:
    """Bit for bit what Newton's method without halving gives, so that models that fitted well stay what they are."""
    right, label = world()
    off = 1.2 * right - 0.3
    x, start = np.column_stack([off, np.ones(EXAMPLES)]), np.array([1.0, 0.0])
    weights = start.copy()
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(x @ weights + np.zeros(EXAMPLES), -50, 50)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.eye(2)
        weights -= np.linalg.solve(hessian, x.T @ (p - label) + (weights - start))
    assert platt(off, label) == tuple(weights)


@pytest.mark.parametrize(("scale", "shift"), [(2.0, -1.0), (0.25, 3.0)])
def test_a_line_is_found_again_and_one_that_falls_or_says_nothing_sets_the_level_alone(
    scale: float, shift: float
) -> None:
    said = np.random.default_rng(1).normal(4, 1, 100)
    told = scale * said + shift
    assert line(said, told) == pytest.approx((scale, shift))
    assert line(-said, told) == (1.0, pytest.approx(told.mean() + said.mean()))
    assert line(np.full(100, 7.0), told) == (1.0, pytest.approx(told.mean() - 7.0))


def test_a_gain_counts_clicks_of_the_first_places_alone_and_no_group_of_which_all_is_clicked() -> None:
    group, predicted = np.zeros(12, dtype=np.int64), np.linspace(0.9, 0.1, 12)
    label = np.zeros((12, 12))
    np.fill_diagonal(label, 1.0)
    gains = [ndcg(each, predicted, group, places=10) for each in label]
    assert gains == pytest.approx([*(1 / np.log2(np.arange(2, 12))), 0, 0])
    of_two = np.concatenate([group, group + 1])
    both = np.concatenate([label[1], np.ones(12)])
    assert ndcg(both, np.tile(predicted, 2), of_two) == pytest.approx(gains[1])


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_where_all_labels_are_alike_the_loss_beside_that_of_always_saying_so_is_a_number(label: float) -> None:
    labels = np.full(50, label)
    assert 0 < normalised_entropy(labels, labels) < 1 < normalised_entropy(labels, np.full(50, 0.5)) < np.inf
