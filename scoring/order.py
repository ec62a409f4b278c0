"""The order in which a lane takes the records of its two topics: by timestamp, as Kafka Streams does.

A full backlog gives the same order every time. Live, what has arrived decides, and the lane writes down the
order that it took. Record times are compared by their running maximum per topic, clamped to now + tolerance,
so that one record dated in the future starves nobody. Ties: the impression first.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.events import Source

Times = npt.NDArray[np.int64]
FOREVER = np.iinfo(np.int64).max


def stream_times(record_ms: Times, stream_ms: int, limit_ms: int) -> Times:
    """The lane's time at each record taken ``[N]``: the newest record time up to it, from ``stream_ms`` on.

    ``limit_ms``: the watermark after them, which a record dated in the future does not pass.
    """
    return np.maximum.accumulate(np.maximum(np.minimum(record_ms, limit_ms), stream_ms))


@dataclass(frozen=True, slots=True)
class Taken:
    """``order [N]``: the `Source` of each record taken, in turn; ``watermarks_ms``: running maxima after them."""

    order: npt.NDArray[np.uint8]
    watermarks_ms: tuple[int, int]

    @property
    def counts(self) -> tuple[int, int]:
        """Records taken per source."""
        clicks = int(self.order.sum())
        return len(self.order) - clicks, clicks


def take(
    queued_ms: tuple[Times, Times],
    watermarks_ms: tuple[int, int],
    complete: tuple[bool, bool],
    limit_ms: int,
    records_max: int,
    span_ms: int = FOREVER,
) -> Taken:
    """Choose the next records of a lane.

    ``queued_ms``: record times queued per source, in offset order. ``complete``: whether nothing older is to be
    waited for from that source (it is caught up, and was given its time). ``limit_ms``: now + tolerance, to
    which record times are clamped. A source that is not complete holds back what is newer than its last
    record, since its next record may be as old as that. What is taken ends where the lane's time enters another
    span of ``span_ms`` than it has at the first record.
    """
    effective = [
        np.maximum.accumulate(np.maximum(np.minimum(times, limit_ms), mark))
        for times, mark in zip(queued_ms, watermarks_ms, strict=True)
    ]
    ends = [
        FOREVER if done else int(times[-1]) if len(times) else mark
        for times, mark, done in zip(effective, watermarks_ms, complete, strict=True)
    ]
    impressions, clicks = effective
    impressions = impressions[: np.searchsorted(impressions, ends[Source.CLICK], side="right")]
    clicks = clicks[: np.searchsorted(clicks, ends[Source.IMPRESSION], side="left" if not complete[0] else "right")]
    times = np.concatenate([impressions, clicks])
    order = np.argsort(times, kind="stable")[:records_max]
    spans = np.maximum(times[order], max(watermarks_ms)) // span_ms
    order = order[: np.count_nonzero(spans == spans[:1])]  # the lane's time never goes back
    taken = (order >= len(impressions)).astype(np.uint8)
    counts = len(taken) - int(taken.sum()), int(taken.sum())
    marks = tuple(
        int(times[count - 1]) if count else mark
        for times, count, mark in zip((impressions, clicks), counts, watermarks_ms, strict=True)
    )
    return Taken(taken, (marks[0], marks[1]))
