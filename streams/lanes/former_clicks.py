"""Click layers as they were kept by former versions, read as those of today.

Before a person's lift was among the weights' features: its weight begins anew, and nothing is known of anybody; what
was open teaches nothing of people. Before closeness was kept of what is open: nothing is known of that. Before the
chance that a shadow gave was: what is open is no evidence of shadows. All of them learned a non-click when its window
ended, unless they were told to do so at once: then what is open is learned as one twice, once.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.clicks import CAUTION, FEATURES, START
from scoring.pending import PENDING

LAYOUTS = ("516662e851ce3a32", "e278bd2fafa5158c", "dafb9a2dedd950b1")
"""Of rows that are read so, the oldest first."""
_NEW = "person_lift"
_LACKING = {
    2: (_NEW, "person", "closeness", "shadow_predicted"),
    3: ("closeness", "shadow_predicted"),
    4: ("shadow_predicted",),
}
"""What records of what is open lack of `PENDING`, by the layout of their chunk."""
_UNKNOWN = {"closeness": np.nan, "shadow_predicted": np.nan}
"""What is not known, where it is not 0."""

Floats = npt.NDArray[np.float64]


def weights(kept: bytes) -> Floats:
    """Weights ``[F]`` of today or of then."""
    return _with(np.frombuffer(kept), START[_NEW])


def sums(kept: bytes) -> Floats:
    """AdaGrad's sums of squares ``[F]`` of today or of then."""
    return _with(np.frombuffer(kept), CAUTION)


def _with(values: Floats, new: float) -> Floats:
    return values if len(values) == len(FEATURES) else np.insert(values, FEATURES.index(_NEW), new)


def opened(rows: bytes, layout: int) -> npt.NDArray[Any]:
    """Records of then as `PENDING`, ``[N]``."""
    lacking = _LACKING.get(layout, _LACKING[min(_LACKING)])
    kept = [name for name in PENDING.names or () if name not in lacking]
    former = np.frombuffer(rows, dtype=[(name, PENDING[name]) for name in kept])
    out = np.zeros(len(former), dtype=PENDING)
    for name in PENDING.names or ():
        out[name] = former[name] if name in kept else _UNKNOWN.get(name, 0)
    return out
