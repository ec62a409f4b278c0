"""What a model must show of its haste."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from scoring.manifest import ModelError
from scoring.probes import ADS
from scoring.proof import ENCODE_MS_MAX, prove
from tests.models import toy_model


def ticking(step_ms: float) -> Callable[[], float]:
    """A clock on which everything takes ``step_ms``."""
    count = itertools.count()
    return lambda: step_ms / 1_000 * next(count)


def test_a_model_whose_encoder_would_hold_up_the_worker_at_every_change_of_ads_is_refused(tmp_path: Path) -> None:
    toy_model(tmp_path)
    prove(tmp_path, ticking(ENCODE_MS_MAX), score_ms_max=10_000.0)
    with pytest.raises(ModelError, match=rf"encoding {ADS} ads takes 500 ms; expected at most {ENCODE_MS_MAX:g} ms"):
        prove(tmp_path, ticking(2 * ENCODE_MS_MAX), score_ms_max=10_000.0)
