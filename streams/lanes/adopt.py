"""Lanes adopt recreated or shortened topics: state is kept, and a recreated one is read from its beginning.

In a topic that is as it was a lane goes on where it stood. A topic that is the same but ends before that place has lost
its end, as after an unclean leader election, or everything, as with a disk that came back empty. There the lane goes on
at the first record that is newer than all that it has read: the records before that one were applied.

Each row holds the last offset applied per source; those mean nothing in another topic and would make the lane
skip its first events, so all rows are written again without them before the lane row names the new topics.
If the command is interrupted, the lane row still names the old topics: workers still refuse, and it can be run again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from aiokafka import TopicPartition

from scoring.events import Source
from scoring.rows import RowStore
from streams.aside import aside
from streams.identity import TopicIdentity, check_partitions, identify
from streams.lag.poller import Poller
from streams.lanes.outbox import Outbox, transactional_id
from streams.lanes.recovery import Recovered, recover
from streams.leaving import at_work
from streams.mendable import MendableError
from streams.message import Message
from streams.reading import groupless, log_ends
from streams.settings import Settings
from streams.topics import CHANGELOG, LANE_INPUTS
from streams.wire import LANE_KEY, LaneRow

ROWS_PER_TRANSACTION = 20_000
"""About 30 MB, written well within a transaction's timeout."""


class WorkersRunError(MendableError):
    """Workers of the group still run, or have not been missed yet."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A lane that now stands at ``next_offsets`` of the topics as they are."""

    lane: int
    users: int
    next_offsets: tuple[int, int]


async def adopt(settings: Settings) -> list[Adopted]:
    """Adopt the topics in every lane that cannot go on in them. Each lane is fenced.

    Raises `WorkersRunError` while the group has members: fencing would end them; `RecoveryError` where the topics have
    other partitions than when the lanes ran: no worker would take such a lane over, whatever it is told to stand at.
    """
    identity = await aside(identify, settings)
    await aside(_check_nobody_runs, settings)
    adopted = [await _adopt_lane(settings, identity, lane) for lane in range(identity.lanes)]
    return [lane for lane in adopted if lane is not None]


def _check_nobody_runs(settings: Settings) -> None:
    seen = Poller(settings.bootstrap, [settings.group], settings.topic_prefix).poll().groups.get(settings.group)
    if seen is not None and seen.state != "empty":
        raise WorkersRunError(
            f"workers of the group {settings.group} still run; stop them first. One that was killed is missed after "
            f"SALIENCE_SESSION_TIMEOUT_MS, {settings.session_timeout_ms / 1000:g} s"
        )


async def _adopt_lane(settings: Settings, identity: TopicIdentity, lane: int) -> Adopted | None:
    outbox = Outbox(settings, transactional_id(settings, lane))
    await outbox.start()
    try:
        await outbox.begin()
        await outbox.abort()
        changelog = TopicPartition(settings.topic_prefix + CHANGELOG, lane)
        recovered = await recover(settings, changelog, Recovered(RowStore(settings.rows_per_lane_max)))
        row = recovered.lane_row
        if row is None:
            return None
        check_partitions(lane, row, identity)
        bounds = await _bounds(settings, lane, row)
        others = [of for of in Source if row.topic_ids[of] != identity.inputs[of]]
        shorter = [of for of in Source if of not in others and bounds[of].end < row.next_offsets[of]]
        if not (others or shorter or any(row.next_offsets[of] < bounds[of].begin for of in Source)):
            return None
        if others or shorter:  # there an offset names another record than it did
            rows = _rows_without_offsets(recovered.store, [*others, *shorter])
            for start in range(0, len(rows), ROWS_PER_TRANSACTION):
                await _write(outbox, changelog, rows[start : start + ROWS_PER_TRANSACTION])
        stood = [0 if of in others else bounds[of].newer if of in shorter else row.next_offsets[of] for of in Source]
        first, second = (max(bounds[of].begin, stood[of]) for of in Source)
        begin = first, second
        lane_row = msgspec.structs.replace(
            row,
            from_offsets=begin,
            next_offsets=begin,
            records=0,
            order=b"",
            topic_ids=identity.inputs,
        )
        await _write(outbox, changelog, [Message(LANE_KEY, msgspec.msgpack.encode(lane_row))])
        return Adopted(lane, len(recovered.store), begin)
    finally:
        await outbox.stop()


class _Bounds(NamedTuple):
    """Of a topic where it begins and ends, and the first record that is newer than what a lane had read of it."""

    begin: int
    end: int
    newer: int


async def _bounds(settings: Settings, lane: int, row: LaneRow) -> tuple[_Bounds, _Bounds]:
    """Those of the lane's impressions and clicks."""
    inputs = [TopicPartition(settings.topic_prefix + name, lane) for name in LANE_INPUTS]
    since = {tp: time_ms + 1 for tp, time_ms in zip(inputs, row.watermarks_ms, strict=True)}
    async with at_work(groupless(settings.bootstrap, committed=False)) as consumer:
        begin = await consumer.beginning_offsets(inputs)
        newer = await consumer.offsets_for_times(since)
    end = await log_ends(settings.bootstrap, inputs)
    first, second = (_Bounds(begin[tp], end[tp], end[tp] if newer[tp] is None else newer[tp].offset) for tp in inputs)
    return first, second


def _rows_without_offsets(store: RowStore, sources: list[Source]) -> list[Message]:
    rows = store.rows.copy()
    rows["offset"][:, sources] = -1
    return [Message(user, rows[place].tobytes()) for place, user in enumerate(store.users) if user is not None]


async def _write(outbox: Outbox, changelog: TopicPartition, messages: Sequence[Message]) -> None:
    await outbox.begin()
    await outbox.send(changelog.topic, changelog.partition, messages)
    await outbox.delivered()
    await outbox.commit()
