"""The click-layers topic: each lane publishes what its click layer has learned, and every worker reads it.

The key ``LANE`` has what a layer has learned apart from ads; the key ``LANE-BUCKET`` has the records of its ads in one
bucket. Each record is whole by itself, and the newest of its key counts (`scoring.pool`). A former version published
shorter records under ``LANE/...``; readers skip those, since a lane that is taken over publishes all of its ads anew.
"""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from scoring.arrays import Floats
from scoring.clicks import CAUTION, FEATURES, RECORD
from scoring.examination import SLOTS_MAX
from scoring.features import specification_hash
from scoring.feedback import ClickLayer
from scoring.pool import BUCKETS, Learned, Pool
from streams.decode import Record
from streams.message import Message
from streams.wire import UNREADABLE

log = structlog.get_logger()


SHARE_MS = 10_000
"""A lane's event time between two publications. On KuaiRand even five minutes cost nothing measurable."""
AD = np.dtype([("ad", "<u8"), ("record", "<f8", (RECORD,))])
"""An ad's 64-bit id, and its record as `scoring.clicks.AdLifts` has it."""
ADS_TOLD_MAX = 13_000
"""Ads published of a bucket: those shown most. So many fit the smallest batch that `SALIENCE_BATCH_BYTES` allows."""
_SHOWN = 2
"""Place in a record of how often the ad was shown."""
LARGEST = 1e9
"""Bound on weights, sums of squares and the numbers of records: what exceeds it is refused."""
LAYOUT = specification_hash(FEATURES)
"""Names the layout of the weights: this version refuses weights of another layout."""
RECORDS_PER_READ = 2_000
"""Records decoded in one call: those of some thirty lanes with all their buckets."""


class LayerShare(msgspec.Struct, frozen=True, kw_only=True):
    """What a lane publishes of its layer apart from ads. Arrays are little-endian float64.

    ``models``: weights and AdaGrad's sums by number of attention model; ``slots``: clicks and expected clicks by slot.
    """

    layout: str
    models: dict[int, tuple[bytes, bytes]]
    slots: tuple[bytes, bytes]


_DECODE = msgspec.msgpack.Decoder(LayerShare).decode


def shares(lane: int, layer: ClickLayer, ads: Collection[int]) -> list[Message]:
    """The messages of ``lane``: its layer, and each bucket with one of ``ads``, those touched since the last call."""
    learned = Learned.of(layer)
    told = LayerShare(
        layout=LAYOUT,
        models={number: (one.tobytes(), other.tobytes()) for number, (one, other) in learned.models.items()},
        slots=(learned.slots[0].tobytes(), learned.slots[1].tobytes()),
    )
    out = [Message(b"%d" % lane, msgspec.msgpack.encode(told))]
    if ads:
        ids, of_ads = layer.lifts.arrays()
        records = np.zeros(len(ids), dtype=AD)
        records["ad"], records["record"] = ids, of_ads
        bucket = ids % BUCKETS
        touched = np.unique(np.fromiter(ads, np.uint64, len(ads)) % BUCKETS).tolist()
        out += [Message(b"%d-%d" % (lane, one), _most_shown(records[bucket == one]).tobytes()) for one in touched]
    return out


def _most_shown(records: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The `ADS_TOLD_MAX` most shown of ``records [N]`` of `AD`, or all where there are fewer."""
    if len(records) <= ADS_TOLD_MAX:
        return records
    log.warning("not all ads of a bucket are told to other lanes", ads=len(records), told=ADS_TOLD_MAX)
    return records[np.argsort(-records["record"][:, _SHOWN], kind="stable")[:ADS_TOLD_MAX]]


def hear(pool: Pool, records: Sequence[Record]) -> int:
    """Take ``records`` of the topic: of each key the last that can be read, since it is whole by itself.

    Until its segment ends, the topic keeps what every lane has told every `SHARE_MS`: a worker that starts reads each
    key many times. Returns how many were unreadable, or of another layout: those change nothing.
    """
    refused, heard = 0, set[bytes | None]()
    for record in reversed(records):
        if record.key in heard:
            continue
        try:
            _hear(pool, record.key or b"", record.value)
        except UNREADABLE as error:
            refused += 1
            log.warning("what a click layer told is refused", offset=record.offset, error=str(error))
        else:
            heard.add(record.key)
    return refused


def _hear(pool: Pool, key: bytes, value: bytes | None) -> None:
    if b"/" in key:
        return
    name, dash, bucket = key.partition(b"-")
    lane = int(name)
    if dash:
        records = np.frombuffer(value or b"", dtype=AD)  # a tombstone names no ads
        pool.tell_bucket(lane, int(bucket), records["ad"], _checked(records["record"], least=0.0))
    elif value is not None:
        pool.tell(lane, _learned(value))
    else:
        pool.learned.pop(lane, None)


def _learned(value: bytes) -> Learned:
    told = _DECODE(value)
    if told.layout != LAYOUT:
        raise ValueError(f"layout {told.layout}; expected {LAYOUT}: a worker of another version tells it")
    models = {number: _pair(pair, -LARGEST, CAUTION) for number, pair in told.models.items()}
    if any(weights.shape != (len(FEATURES),) for weights, _ in models.values()):
        raise ValueError(f"weights of another number than {len(FEATURES)}")
    clicks, expected = _pair(told.slots, 0.0, 0.0)
    if len(clicks) > SLOTS_MAX:
        raise ValueError(f"{len(clicks)} slots; expected at most {SLOTS_MAX}")
    return Learned(models, np.array([clicks, expected]))


def _pair(told: tuple[bytes, bytes], least: float, least_of_other: float) -> tuple[Floats, Floats]:
    one, other = np.array([np.frombuffer(each) for each in told])
    return _checked(one, least), _checked(other, least_of_other)


def _checked(values: Floats, least: float) -> Floats:
    if not ((values >= least) & (values <= LARGEST)).all():
        raise ValueError(f"a number that is not within {least:g} to {LARGEST:g}")
    return values
