"""Click layers as they were kept before a person's lift was among the weights' features, read as those of today.

Its weight begins anew, and nothing is known of anybody. What was open teaches nothing of people.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.clicks import CAUTION, FEATURES, START
from scoring.pending import PENDING

LAYOUT = "516662e851ce3a32"
"""Of rows that are read so."""
_NEW = "person_lift"
_PENDING = np.dtype([(name, PENDING[name]) for name in PENDING.names or () if name not in (_NEW, "person")])

Floats = npt.NDArray[np.float64]


def weights(kept: bytes) -> Floats:
    """Weights ``[F]`` of today or of then."""
    return _with(np.frombuffer(kept), START[_NEW])


def sums(kept: bytes) -> Floats:
    """AdaGrad's sums of squares ``[F]`` of today or of then."""
    return _with(np.frombuffer(kept), CAUTION)


def _with(values: Floats, new: float) -> Floats:
    return values if len(values) == len(FEATURES) else np.insert(values, FEATURES.index(_NEW), new)


def opened(rows: bytes) -> npt.NDArray[Any]:
    """Records of then as `PENDING`, ``[N]``."""
    former = np.frombuffer(rows, dtype=_PENDING)
    out = np.zeros(len(former), dtype=PENDING)
    for name in _PENDING.names or ():
        out[name] = former[name]
    return out
