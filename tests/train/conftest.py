"""What tests of several models are tried on."""

from typing import TYPE_CHECKING

import pytest

from streams.cli.trials import trial_of
from tests.builders import made_up_log

if TYPE_CHECKING:
    from onnx_models.trial import Trial


@pytest.fixture(scope="module")
def trial() -> "Trial":
    """A small log, parted by its time."""
    log = made_up_log(3, events=600, users=12, surface="home", brands=3)
    return trial_of(log, lambda _done, _total: None)
