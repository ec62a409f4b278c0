"""Whether a click layer from a changelog has only numbers that a layer comes to by itself.

One that has others fails in the middle of its lane's work, at each start again, or serves NaN for ever.
"""

from dataclasses import astuple
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.clicks import CAUTION, NUMBERS, SURFACES
from scoring.events import TIME_MS_MAX
from scoring.examination import NOWHERE
from scoring.feedback import ClickLayer
from scoring.learner import Learner
from scoring.units import DAY_MS

OPEN_MAX = 10_000_000
"""Most open impressions that a setting allows (``click_pending_max``)."""
LARGEST = np.finfo(np.float64).max
_BELOW_1 = 1 - np.finfo(np.float64).epsneg
_OPEN = {
    **dict.fromkeys(NUMBERS, (-LARGEST, LARGEST)),
    "examined": (np.finfo(np.float64).tiny, 1.0),
    "predicted": (np.finfo(np.float64).tiny, _BELOW_1),
    "expected": (0.0, 1.0),
    "surface": (0, SURFACES - 1),
    "slot": (0, NOWHERE),
    "shown_ms": (0, TIME_MS_MAX),
    "due_ms": (0, TIME_MS_MAX + 2 * DAY_MS),
}
"""The least and the most of a number of an open impression. A window is a day at most."""
_UNKNOWN = {"shadow_predicted": (0.0, 1.0), "closeness": (-2.0, 2.0)}
"""Likewise, of numbers that may be NaN, in single precision."""


class DamagedError(ValueError):
    """A number that no layer comes to; the message names it."""


def require_sound(layer: ClickLayer) -> None:
    """Raise `DamagedError` for the first number of a restored ``layer`` that is not within its bounds."""
    for number, learner in layer.learners.items():
        _require_learner(f"model {number}", learner)
    for name, lifts in (("ads", layer.lifts), ("people", layer.people)):
        require_within(f"the records of {name}", lifts.arrays()[1], 0.0, LARGEST)
    require_within("the records of slots", layer.examination.record, 0.0, LARGEST)
    require_within("clock_ms", np.array([layer.clock_ms]), 0, TIME_MS_MAX)
    rows = layer.pending.between(layer.pending.head, layer.pending.tail)
    _require_open(rows[~np.isnan(rows["predicted"])])


def _require_learner(of: str, learner: Learner) -> None:
    watch = learner.watch
    for weights, caution in ((learner.model.array, learner.model.caution), *([watch.good] if watch.good else [])):
        require_within(f"the weights of {of}", weights, -LARGEST, LARGEST)
        require_within(f"the caution of {of}", caution, CAUTION, LARGEST)
    sums = [watch.clicked, watch.predicted, watch.loss, watch.loss_squared, watch.gained, *astuple(learner.evidence)]
    require_within(f"the sums of {of}", np.array(sums, dtype=np.float64), 0.0, LARGEST)
    require_within(f"the means of {of}", np.array([*watch.means.values()], dtype=np.float64), -LARGEST, LARGEST)


def _require_open(rows: npt.NDArray[Any]) -> None:
    """Of ``rows [N]`` of `scoring.pending.PENDING`, none of them lost."""
    for name, (least, most) in _OPEN.items():
        require_within(f"{name} of open impressions", rows[name], least, most)
    for name, (least, most) in _UNKNOWN.items():
        require_within(f"{name} of open impressions", rows[name][~np.isnan(rows[name])], least, most)
    told = rows["shadow_logit"][~np.isnan(rows["shadow_predicted"])]
    require_within("shadow_logit of open impressions", told, -LARGEST, LARGEST)
    keys = np.unique(rows["key"][rows["open"] != 0], return_counts=True)
    require_within("open impressions of one key", keys[1], 1, 1)


def require_within(name: str, values: npt.NDArray[Any], least: float, most: float) -> None:
    """Raise `DamagedError` for the first of ``values [N]`` that is not within ``least`` and ``most``."""
    sound = (values >= least) & (values <= most)  # false for NaN, too
    if not sound.all():
        raise DamagedError(f"{name}: {values[~sound][0]}, expected {least:g} to {most:g}")
