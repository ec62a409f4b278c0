"""Mistakes in the numbered order, made in a worker's process: the harness must find each of them."""

import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from scoring import exposure, update
from scoring.cleaning import Rules
from scoring.events import Events
from scoring.rows import Rows
from streams.lanes import lane, outbox
from streams.lanes.lane import Lane
from streams.lanes.outbox import Outbox
from streams.laps import Laps
from streams.settings import Settings
from streams.step import Effects, Message
from streams.wire import LANE_KEY


def commit_before_delivery() -> None:
    """The group's offsets are committed before what they stand for is produced."""
    deliver = Lane._deliver

    async def committed_first(self: Lane, effects: Effects, laps: Laps) -> None:
        offsets = dict(zip(self.inputs, effects.lane_row.next_offsets, strict=True))
        await self._shared.consumer.commit(offsets)
        await deliver(self, effects, laps)

    Lane._deliver = committed_first


def deliveries_not_awaited() -> None:
    """What became of a batch is not looked at: `commit_transaction` succeeds without a batch that was refused."""
    delivered = Outbox.delivered

    async def hopeful(self: Outbox) -> dict[tuple[str, int], int]:
        try:
            return await delivered(self)
        except Exception:  # noqa: BLE001 - the mistake
            return _Nowhere()

    Outbox.delivered = hopeful


class _Nowhere(dict[tuple[str, int], int]):
    def __missing__(self, key: tuple[str, int]) -> int:
        return 0


def no_fence() -> None:
    """Each owner of a lane has a transactional id of its own, so that none fences another."""
    lane.transactional_id = lambda _settings, number: f"unfenced-{number}-{uuid.uuid4()}"


def no_seek() -> None:
    """A lane goes on where the group's offsets put the consumer, not where its lane row says."""
    Lane.seek = lambda _self: None


def no_offset_in_row() -> None:
    """Rows do not hold the last offset that was applied to them."""
    clean = update.clean

    def forgetful(rows: Rows, events: Events, rules: Rules) -> Any:
        before = rows["offset"].copy()
        outcome = clean(rows, events, rules)
        rows["offset"] = before
        return outcome

    exposure.clean = update.clean = forgetful  # of a worker that scores, and of one that does not


def lane_row_first() -> None:
    """The lane row is committed in a transaction of its own, before the rows that it speaks for."""
    send = Outbox.send

    async def in_two(self: Lane, effects: Effects, laps: Laps) -> None:
        box = self._outbox
        assert box is not None
        await box.begin()
        row = Message(LANE_KEY, msgspec.msgpack.encode(effects.lane_row))
        await send(box, self._topic("state-changelog").topic, self.number, [row])
        await box.delivered()
        await box.commit()
        await deliver(self, effects, laps)

    async def without_lane_row(self: Outbox, topic: str, partition: int, messages: Any) -> None:
        kept = [message for message in messages if message.key != LANE_KEY]
        if kept:
            await send(self, topic, partition, kept)

    async def delivered(self: Outbox) -> dict[tuple[str, int], int]:
        return _Nowhere(await awaited(self))

    deliver, awaited = Lane._deliver, Outbox.delivered
    Lane._deliver, Outbox.send, Outbox.delivered = in_two, without_lane_row, delivered


def transactions_off() -> None:
    """The steps of ``exactly_once`` without its transactions."""
    outbox.transactional_id = lane.transactional_id = _no_id


def _no_id(_settings: Settings, _lane: int) -> None:
    return None


MUTATIONS: dict[str, Callable[[], None]] = {
    mutation.__name__: mutation
    for mutation in (
        commit_before_delivery,
        deliveries_not_awaited,
        no_fence,
        no_seek,
        no_offset_in_row,
        lane_row_first,
        transactions_off,
    )
}

FOUND_BY: dict[str, frozenset[str]] = {
    "commit_before_delivery": frozenset({"other"}),  # a sample of the group's offsets is ahead
    "deliveries_not_awaited": frozenset({"lost"}),
    "no_fence": frozenset({"doubled", "reordered"}),  # a slice of the former owner's, and rows written over
    "no_seek": frozenset({"reordered", "other"}),  # slices hold other records than their lane rows say
    "no_offset_in_row": frozenset({"doubled", "other"}),  # rows are not the replay's, and names of placements repeat
    "lane_row_first": frozenset({"lost"}),
    "transactions_off": frozenset({"doubled"}),
}
"""The kinds of findings (`verdict.Verdict`) that tell of each; what else is found may have other causes."""
