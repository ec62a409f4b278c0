"""Click layers in the layout before this one, read as one of today.

Open impressions lack a shadow's chance there, so they are no evidence of shadows. A non-click was learned when its
window ended: where a layer is now set to learn non-clicks at once, those of the impressions that are open are learned a
second time.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.pending import PENDING

LAYOUT = "dafb9a2dedd950b1"
_LACKING = "shadow_predicted"
_HELD = [name for name in PENDING.names or () if name != _LACKING]


def opened(rows: bytes) -> npt.NDArray[Any]:
    """Records of open impressions as `PENDING`, ``[N]``."""
    former = np.frombuffer(rows, dtype=[(name, PENDING[name]) for name in _HELD])
    out = np.zeros(len(former), dtype=PENDING)
    for name in _HELD:
        out[name] = former[name]
    out[_LACKING] = np.nan
    return out
