"""A lane's state from its changelog: read in bulk, by position, never waiting for a particular record."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from scoring.rows import RowError, RowStore, decode_rows
from streams.clock import tick_ms
from streams.decode import Record
from streams.fetching import BYTES_MAX, fetch
from streams.leaving import at_work
from streams.mendable import MendableError
from streams.reading import groupless, log_ends
from streams.settings import Settings
from streams.wire import LANE_KEY, RESERVED, UNREADABLE, LaneRow

log = structlog.get_logger()

RECORDS_PER_READ = 1_000
"""Rows decoded at once: some milliseconds of the event loop, for which lanes at work wait."""
READ_TIMEOUT_MS = 500
SAY_EVERY_MS = 2_000
"""Between two lines of a recovery; most are over before the first."""
_decode_lane_row = msgspec.msgpack.Decoder(LaneRow).decode


class RecoveryError(MendableError):
    """State that cannot be believed, with the command that resolves it."""


@dataclass(slots=True)
class Recovered:
    """Rows, the lane row (None: the lane has never run) and the changelog offset up to which they hold.

    ``parts``: what stands under the lane's other reserved keys, which begin with a NUL.
    """

    store: RowStore
    lane_row: LaneRow | None = None
    offset: int = 0
    lane_row_offset: int = 0
    """Where the lane row stands in the changelog, as far as it was read; a snapshot holds none and must not pass it."""
    end: int = 0
    """The watermark that recovery reads up to; 0 before it is known."""
    parts: dict[bytes, bytes] = field(default_factory=dict)

    def discard(self, rows_max: int) -> None:
        """Begin anew, in place: the lane reads off this object how far its recovery is."""
        self.store, self.lane_row, self.parts = RowStore(rows_max), None, {}
        self.offset = self.lane_row_offset = 0


async def recover(settings: Settings, changelog: TopicPartition, base: Recovered) -> Recovered:
    """Bring ``base`` (empty, or a snapshot) up to the changelog's high watermark, taken now.

    Reads committed records only; markers and compaction leave holes, so it is done when the *position* reaches
    the watermark. To be called after the lane's former owner was fenced. ``base`` is discarded where the log begins
    behind it, or comes to do so meanwhile: what went with its beginning is in neither. Raises `RecoveryError` where
    the changelog holds what is not a row, or in the end more users than a lane may have.
    """
    while True:
        try:
            return await _read_on(settings, changelog, base)
        except OffsetOutOfRangeError as error:
            log.warning("changelog deleted under its reader, read anew", lane=changelog.partition, error=str(error))
            base.discard(settings.rows_per_lane_max)


async def _read_on(settings: Settings, changelog: TopicPartition, base: Recovered) -> Recovered:
    # No bound while reading: there may be more users than the lane ever had. A slice's new rows stand before the
    # tombstones that made room for them; and where a row was used again, a snapshot may hold its later user while the
    # changelog behind it still has the earlier one.
    base.store.rows_max = sys.maxsize
    end = base.end = (await log_ends(settings.bootstrap, [changelog]))[changelog]
    reader = groupless(settings.bootstrap, auto_offset_reset="none", max_partition_fetch_bytes=BYTES_MAX)
    async with at_work(reader) as consumer:
        consumer.assign([changelog])
        # Asked in any case: a consumer that is left before it has waited for anything fails of it.
        beginning = (await consumer.beginning_offsets([changelog]))[changelog]
        start = base.offset or beginning
        consumer.seek(changelog, start)
        due_ms = tick_ms() + SAY_EVERY_MS
        while await consumer.position(changelog) < end:
            records = await fetch(
                consumer, [changelog], settings.bootstrap, timeout_ms=READ_TIMEOUT_MS, max_records=RECORDS_PER_READ
            )
            _load(base, records.get(changelog, []))
            base.offset = await consumer.position(changelog)
            if tick_ms() >= due_ms:
                due_ms = tick_ms() + SAY_EVERY_MS
                read = (base.offset - start) / max(end - start, 1)
                log.info("recovering", lane=changelog.partition, users=len(base.store), read=f"{read:.0%}")
            await asyncio.sleep(0)
        base.offset = await consumer.position(changelog)
    most = base.store.rows_max = settings.rows_per_lane_max
    if len(base.store) > most:
        raise RecoveryError(
            f"lane {changelog.partition} holds {len(base.store):,} users, its bound is {most:,}; raise "
            "SALIENCE_ROWS_PER_LANE_MAX"
        )
    return base


def _load(base: Recovered, records: Sequence[Record]) -> None:
    """Take the last value of each key; rows of one read are put in one go."""
    last = {record.key or b"": record.value for record in records}
    base.lane_row_offset = max([base.lane_row_offset, *(r.offset for r in records if r.key == LANE_KEY)])
    lane_row = last.pop(LANE_KEY, None)
    for key in [key for key in last if key.startswith(RESERVED)]:
        value = last.pop(key)
        if value is None:
            base.parts.pop(key, None)
        else:
            base.parts[key] = value
    for user in [user for user, value in last.items() if value is None]:
        base.store.remove(user)
        del last[user]
    try:
        if lane_row is not None:
            base.lane_row = _decode_lane_row(lane_row)
        if last:
            base.store.put(list(last), decode_rows(value for value in last.values() if value is not None))
    except (RowError, *UNREADABLE) as error:
        raise unreadable(error) from error


def unreadable(error: Exception) -> RecoveryError:
    """What to say of a changelog whose content no reader of this version knows, because of ``error``."""
    return RecoveryError(
        f"the changelog cannot be read: {error}. Run the version that wrote it, or begin anew under another "
        "SALIENCE_TOPIC_PREFIX"
    )
