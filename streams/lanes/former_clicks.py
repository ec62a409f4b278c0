"""Click layers in the layout before this one, read as one of today.

Open impressions lack a shadow's chance there, so they are no evidence of shadows. A non-click was learned when its
window ended: where a layer is now set to learn non-clicks at once, those of the impressions that are open are learned a
second time.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.arrays import Floats
from scoring.pending import PENDING

LAYOUT, CHUNK_LAYOUT = "dafb9a2dedd950b1", 4
"""Of the row, and of the chunks of open impressions."""
_LACKING = "shadow_predicted"
_HELD = [name for name in PENDING.names or () if name != _LACKING]


def opened(rows: bytes, layout: int) -> npt.NDArray[Any]:
    """Records of open impressions as `PENDING`, ``[N]``. Raises `ValueError` where ``layout`` is another one's."""
    if layout != CHUNK_LAYOUT:
        known = f"{CHUNK_LAYOUT} and {CHUNK_LAYOUT + 1}"
        raise ValueError(f"open impressions are of layout {layout}; the layouts that this version reads are {known}")
    former = np.frombuffer(rows, dtype=[(name, PENDING[name]) for name in _HELD])
    out = np.zeros(len(former), dtype=PENDING)
    for name in _HELD:
        out[name] = former[name]
    out[_LACKING] = np.nan
    return out


def records(kept: Collection[bytes], numbers: int) -> Floats:
    """Records of ads or people ``[N, numbers]``; those of former versions are shorter, and are filled up with 0.

    Raises `ValueError` for longer ones.
    """
    size = max(map(len, kept), default=0)
    if size > 8 * numbers:
        raise ValueError(f"a click layer's record has {size} bytes; this version reads {8 * numbers} at most")
    return np.frombuffer(b"".join(each.ljust(8 * numbers, b"\0") for each in kept)).reshape(-1, numbers)
