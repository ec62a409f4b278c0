"""Click layers in the layouts of former versions, read as one of today. What these lack:

- A person's lift among the features. Its weight begins anew, nothing is known of anybody, and impressions that are open
  teach nothing of people.
- The closeness of open impressions. It is unknown.
- A shadow's chance of open impressions. They are no evidence of shadows.

All of them learned a non-click when its window ended. Where one was set to learn non-clicks at once, those of the
impressions that are open are learned a second time.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.clicks import CAUTION, FEATURES, START
from scoring.pending import PENDING

LAYOUTS = ("516662e851ce3a32", "e278bd2fafa5158c", "dafb9a2dedd950b1")
"""Of the rows that are read here, the oldest first."""
_NEW = "person_lift"
_LACKING = {
    2: (_NEW, "person", "closeness", "shadow_predicted"),
    3: ("closeness", "shadow_predicted"),
    4: ("shadow_predicted",),
}
"""Fields of `PENDING` that records of open impressions lack, by the layout of their chunk."""
_UNKNOWN = {"closeness": np.nan, "shadow_predicted": np.nan}
"""What stands for a field that is missing, where it is not 0."""

Floats = npt.NDArray[np.float64]


def weights(kept: bytes) -> Floats:
    """Weights ``[F]``, of any layout."""
    return _with(np.frombuffer(kept), START[_NEW])


def sums(kept: bytes) -> Floats:
    """AdaGrad's sums of squares ``[F]``, of any layout."""
    return _with(np.frombuffer(kept), CAUTION)


def _with(values: Floats, new: float) -> Floats:
    return values if len(values) == len(FEATURES) else np.insert(values, FEATURES.index(_NEW), new)


def opened(rows: bytes, layout: int) -> npt.NDArray[Any]:
    """Records of a former layout as `PENDING`, ``[N]``."""
    lacking = _LACKING.get(layout, _LACKING[min(_LACKING)])
    kept = [name for name in PENDING.names or () if name not in lacking]
    former = np.frombuffer(rows, dtype=[(name, PENDING[name]) for name in kept])
    out = np.zeros(len(former), dtype=PENDING)
    for name in PENDING.names or ():
        out[name] = former[name] if name in kept else _UNKNOWN.get(name, 0)
    return out
