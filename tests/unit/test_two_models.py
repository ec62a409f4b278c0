"""Where two models score, each impression is predicted by what was learnt about the one that scored it."""

import numpy as np
import pytest

from scoring.clicks import FEATURES, probability
from scoring.feedback import ClickLayer
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM
from tests.unit.test_feedback import LEARNING, events_of

LIVE, OTHER = 0, 3


def test_an_impression_is_predicted_by_the_weights_over_the_model_that_scored_it_whichever_is_live() -> None:
    """An arm of an experiment, or a model that has just been live, would else be judged by another's predictions."""
    layer = ClickLayer(LEARNING)
    for number, bias in ((LIVE, -1.0), (OTHER, 2.0)):
        model = layer.learner(number).model
        weights = model.array
        weights[FEATURES.index("bias")] = bias
        model.restore(weights, model.caution)
    logit, context = np.zeros(2, dtype=np.float32), np.zeros((2, CONTEXT_DIM), dtype=np.float32)
    seen = Impressions(np.arange(2), logit, context, model=np.array([OTHER, LIVE], dtype=np.uint32))
    events = events_of((1_000, "shown", 7, 1_000), (1_100, "shown", 8, 1_100))

    observed = layer.observe(events, np.ones(2, dtype=np.uint64), np.zeros(2, dtype=np.bool_), seen)

    assert observed.predicted == pytest.approx([probability(2.0), probability(-1.0)])
