"""A lane's click layer as its changelog keeps it, but for the records of ads and people."""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.pending import PENDING
from streams.lanes import former_clicks
from streams.lanes.learner_rows import LearnerRow

CHUNK_LAYOUT = 5


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a row of any layout says of itself: its other fields may be others than a `LayerRow`'s."""

    layout: str


class LayerRow(msgspec.Struct, frozen=True, kw_only=True):
    """What stands under the layer's own key. ``learners``: by number of the attention model.

    ``head``, ``tail``: of the queue of open impressions. ``asked``: the first of them that still waits for a click; 0
    in rows of the former layout, which learned a non-click when its window ended. ``examined``: of slots, as
    `scoring.examination.Examination.record`; older rows lack it.
    """

    layout: str
    clock_ms: int
    learned: int
    dropped: int = 0  # nothing is, any more; former versions want to be told
    head: int
    tail: int
    models: dict[int, str]
    live: int
    learners: dict[int, LearnerRow]
    asked: int = 0
    examined: bytes = b""


class ChunkRow(msgspec.Struct, frozen=True, kw_only=True):
    """Records numbered from ``first``, and the numbers (int64) of records that were answered.

    ``settled``: once the queue's head has come this far, nothing of the chunk matters. ``layout``: of the records; 4
    is the former one. ``window_ms``: how long the windows were when their ends were noted; 0, in older rows: unknown.
    """

    first: int
    settled: int
    rows: bytes
    answered: bytes
    layout: int = 1
    window_ms: int = 0

    def opened(self, window_ms: int) -> npt.NDArray[Any]:
        """The records, of `PENDING`.

        Where windows were shorter than the ``window_ms`` of today, the ends of theirs are moved on by the difference:
        how long a click has been waited for is computed from the time that is left.
        """
        if self.layout != CHUNK_LAYOUT:
            return former_clicks.opened(self.rows, self.layout)
        rows = np.frombuffer(self.rows, dtype=PENDING).copy()
        if self.window_ms:
            rows["due_ms"] += max(window_ms - self.window_ms, 0)
        return rows


decode_kept = msgspec.msgpack.Decoder(Kept).decode
decode_layer = msgspec.msgpack.Decoder(LayerRow).decode
decode_chunk = msgspec.msgpack.Decoder(ChunkRow).decode
