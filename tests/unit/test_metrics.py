"""What the measures of predicted probabilities say of cases that can be told by hand."""

import numpy as np
import pytest

from onnx_models.metrics import platt


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 1.0), (2.0, -0.7)])
def test_scale_and_shift_are_found_again_from_what_they_made(scale: float, shift: float) -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(size=200_000)
    labels = (rng.random(len(logit)) < 1 / (1 + np.exp(-(scale * logit + shift)))).astype(np.float64)

    assert platt(logit, labels) == pytest.approx((scale, shift), abs=0.05)


def test_a_few_examples_move_a_calibration_little() -> None:
    scale, shift = platt(np.array([0.0, 0.0]), np.array([1.0, 1.0]))

    assert scale == pytest.approx(1)
    assert 0 < shift < 2
