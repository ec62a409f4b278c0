"""Intervals of differences that are drawn again by people, of whom there may be few."""

import numpy as np
import pytest

from onnx_models.bootstrap import DRAWS, Draws, interval
from onnx_models.metrics import auc, log_loss


def told(people: int, worlds: int) -> np.ndarray:
    """The ends of the intervals of a mean that is 0 in truth, of ``people`` who differ; ``[worlds, 2]``."""
    rng, nothing = np.random.default_rng(people), np.zeros(1 + DRAWS)
    found = []
    for _ in range(worlds):
        each = rng.normal(size=people)
        draws = rng.multinomial(people, np.full(people, 1 / people), size=DRAWS) @ each / people
        one = interval(np.append(each.mean(), draws), nothing, people)
        assert np.append(each.mean(), draws).min() <= one.low < one.value < one.high <= draws.max()
        found.append((one.low, one.high))
    return np.array(found)


@pytest.mark.parametrize("people", [10, 20, 60])
def test_an_interval_over_few_people_holds_the_truth_as_often_as_one_over_many(people: int) -> None:
    ends = told(people, 500)
    assert ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean() >= 0.915  # of five hundred draws


def test_an_interval_over_few_people_is_wider_and_over_many_that_of_the_draws() -> None:
    draws = np.random.default_rng(1).normal(size=1 + DRAWS)
    draws[0] = 0.0
    few, many = (interval(draws, np.zeros(len(draws)), people) for people in (10, 1_000_000))
    assert (many.low, many.high) == pytest.approx(np.quantile(draws[1:], [0.025, 0.975]), rel=1e-4)
    factor = 2.262157 / 1.959964 * np.sqrt(10 / 9)  # Student's t of nine degrees of freedom, by the normal's
    assert (few.low, few.high) == pytest.approx((factor * many.low, factor * many.high), rel=0.002)


def test_a_draw_counts_all_examples_of_a_person_as_often_as_the_person_was_drawn() -> None:
    rng, people = np.random.default_rng(1), 12
    users = rng.integers(0, people, 300)
    labels, predicted = (rng.random(300) < 0.3).astype(np.float64), np.round(rng.random(300), 1)  # many alike
    draws, drawn = Draws(labels, users, seed=7), np.random.default_rng(7)
    aucs, losses = draws.auc(predicted), draws.log_loss(predicted)
    assert len(aucs) == len(losses) == 1 + DRAWS
    for of_auc, of_loss in zip(aucs[1:], losses[1:], strict=True):
        times = drawn.multinomial(people, np.full(people, 1 / people))
        each = np.repeat(np.arange(300), times[users])
        assert of_auc == pytest.approx(auc(labels[each], predicted[each]), abs=1e-12)
        assert of_loss == pytest.approx(log_loss(labels[each], predicted[each]), abs=1e-12)


def test_a_draw_without_the_one_person_who_clicked_tells_nothing_and_is_left_out() -> None:
    users = np.repeat(np.arange(12), 5)
    labels, rng = (np.arange(60) == 7).astype(np.float64), np.random.default_rng(2)
    draws = Draws(labels, users, seed=7)
    one, other = draws.auc(rng.random(60)), draws.auc(rng.random(60))
    drawn = np.random.default_rng(7).multinomial(12, np.full(12, 1 / 12), size=DRAWS)
    assert np.isnan(one[1:]).tolist() == (drawn[:, 1] == 0).tolist()
    found = interval(one, other, draws.people)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_labels_of_one_kind_tell_of_no_order(label: float) -> None:
    draws = Draws(np.full(60, label), np.repeat(np.arange(12), 5), seed=7)
    assert draws.auc(np.linspace(0.1, 0.9, 60)).tolist() == [0.5] * (1 + DRAWS)
