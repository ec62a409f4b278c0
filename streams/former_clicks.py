"""Click layers as they were kept while the slot was one of the weights' features, read as those of today.

The weights go on without that one, and how likely slots are looked at is learned anew. A record of what was open had
log1p of its slot where it now has how likely the slot was looked at, which its prediction knew in another way.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.clicks import FEATURES, NUMBERS
from scoring.examination import NOWHERE
from scoring.pending import PENDING

LAYOUT = "1ed00b3a7ed45df6"
"""Of rows that are read so."""
_SLOT = 1 + len(NUMBERS)
"""Where the weight was: after the bias and the other numbers."""


def floats(kept: bytes) -> npt.NDArray[np.float64]:
    """Weights, or their sums of squares, ``[F]``, of today or of then."""
    values = np.frombuffer(kept)
    return values if len(values) == len(FEATURES) else np.delete(values, _SLOT)


def opened(rows: bytes) -> npt.NDArray[Any]:
    """Records of then as `PENDING`, ``[N]``; they teach nothing of slots."""
    out = np.frombuffer(rows, dtype=PENDING).copy()
    out["slot"], out["examined"] = NOWHERE, 1.0
    return out
