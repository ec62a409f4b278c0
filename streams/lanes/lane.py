"""A lane: everything of one partition number. It is taken over, steps slice by slice, and is forgotten.

A lane is never in two steps at once. Its state lives in memory and in its changelog; the lane row in there, not
the group's offsets, is where it resumes. A failure anywhere ends the process: a restart recovers from the log.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from scoring.rows import RowStore
from scoring.traffic import Traffic
from streams.aside import aside
from streams.clock import tick_ms, wall_ms
from streams.compute import Compute
from streams.feeds.refused_ads import LANE
from streams.group_offsets import GroupOffsets
from streams.identity import TopicIdentity, check_resume, check_topics
from streams.lanes.ahead import right_time, set_back
from streams.lanes.clicks import LaneClicks
from streams.lanes.ledger import LaneLedger
from streams.lanes.outbox import UNUSED_MAX_MS, Outbox, transactional_id
from streams.lanes.queues import LaneQueues
from streams.lanes.recovery import Recovered, recover, unreadable
from streams.lanes.saving import Saving
from streams.lanes.snapshots import Snapshots
from streams.laps import Laps
from streams.message import Message
from streams.metrics.worker import Metrics
from streams.privacy.consent import Watermarks
from streams.privacy.guests import Guests
from streams.reading import log_ends
from streams.settings import Settings
from streams.step import Effects, LaneState, Slice, Step
from streams.topics import ADS, CHANGELOG, CONTROL, LANE_INPUTS
from streams.traces import Traces
from streams.vitals import LaneVitals, Stage
from streams.wire import LANE_KEY, UNREADABLE

log = structlog.get_logger()


class LaneLostError(RuntimeError):
    """The group no longer counts this worker as the lane's owner."""


class FenceError(RuntimeError):
    """The lane's former owner could not be fenced."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all lanes of a worker use. ``outbox`` makes a lane's producer."""

    settings: Settings
    consumer: AIOKafkaConsumer
    offsets: GroupOffsets
    step: Step
    compute: Compute
    identity: TopicIdentity
    snapshots: Snapshots
    outbox: Callable[[Settings, str | None], Outbox] = Outbox
    metrics: Metrics = field(default_factory=Metrics)
    traces: Traces | None = None


class Lane:
    """Lane ``number``. `take_over` first; then `step` whenever `ready`; `close` last."""

    def __init__(self, number: int, shared: Shared) -> None:
        self.number = number
        self._shared = shared
        settings = shared.settings
        self.inputs = tuple(map(self._topic, LANE_INPUTS))
        self.queues = LaneQueues(settings.queue_records, settings.queue_bytes, settings.wait_other_topic_ms)
        self.running = False
        self.stage: Stage = "taking over"
        self.in_step = asyncio.Lock()
        self._state: LaneState | None = None
        self._recovering: Recovered | None = None
        self._outbox: Outbox | None = None
        self._changelog_offset = 0
        self._committed = False
        self._used_ms = tick_ms()
        self._is_due = False
        self._saving = Saving(number, shared.snapshots, shared.compute, settings.snapshot_every_ms)

    @property
    def state(self) -> LaneState:
        """The lane's rows and offsets. Only after `take_over`."""
        assert self._state is not None, "the lane has not been taken over"
        return self._state

    @property
    def held(self) -> LaneState | None:
        """The lane's rows and totals; None while it is being taken over."""
        return self._state

    @property
    def recovery_left(self) -> int:
        """Changelog offsets that its recovery has still to read."""
        return max(0, self._recovering.end - self._recovering.offset) if self._recovering else 0

    def vitals(self, ends: Mapping[TopicPartition, int]) -> LaneVitals:
        """Where it stands, and whether it has what to do: records queued, or records that it has not fetched."""
        if not self.running or self._state is None:
            recovered = self._recovering.offset if self._recovering else 0
            return LaneVitals(self.stage, (recovered,), busy=True)
        positions = tuple(queue.position for queue in self.queues.sources)
        unread = any(at < ends.get(tp, 0) for at, tp in zip(positions, self.inputs, strict=True))
        return LaneVitals(self.stage, (*self._state.next_offsets, *positions), busy=unread or len(self.queues) > 0)

    # --- taking over -------------------------------------------------------------------------------------

    async def take_over(self) -> None:
        """Fence the former owner, recover, seek. Raises `LaneLostError` where the lane is no longer ours."""
        started_ms, as_of_ms = tick_ms(), wall_ms()
        # 1. still a member, fence, and still a member: a zombie must not fence the lane's new owner
        await self._check_membership()
        self._outbox = await self._fence()
        await self._check_membership()
        # 2. rows
        base = await self._base()
        kept = len(base.store)
        recovered = await self._recover(base)
        if recovered.lane_row is None and len(recovered.store):  # without it the lane would begin anew, over old rows
            log.warning("snapshot beyond its lane row, read the changelog instead", lane=self.number)
            kept = 0
            recovered = await self._recover(Recovered(RowStore(self._shared.settings.rows_per_lane_max)))
        self._changelog_offset = recovered.lane_row_offset
        self._state = await self._resume(recovered)
        self._committed = True
        self._saving.committed(as_of_ms)
        # 3. where to go on
        self.seek()
        self._shared.offsets.put(self._next_offsets())
        self._recovering = None
        self.running, self.stage = True, "running"
        self._shared.metrics.recovery_seconds.observe((tick_ms() - started_ms) / 1000)
        log.info(
            "lane taken over",
            lane=self.number,
            users=len(recovered.store),
            from_snapshot=kept,
            next_offsets=self._state.next_offsets,
            first_start=recovered.lane_row is None,
            ms=tick_ms() - started_ms,
        )

    async def _fence(self) -> Outbox:
        """A producer that has fenced the former owner's, whose transaction has ended when this returns."""
        settings = self._shared.settings
        outbox = self._shared.outbox(settings, transactional_id(settings, self.number))
        try:
            await outbox.start()
            await outbox.begin()
            await outbox.abort()
        except asyncio.CancelledError:
            await outbox.stop()
            raise
        except KafkaError as error:
            await outbox.stop()
            raise FenceError(
                f"the broker does not open a transaction for lane {self.number}: {error}. A broker without "
                "transactions, such as the embedded one, wants SALIENCE_GUARANTEE=at_least_once"
            ) from error
        return outbox

    async def _check_membership(self) -> None:
        """Ask the group's coordinator: a commit carries the generation, and is refused from a former member."""
        consumer = self._shared.consumer
        try:
            offsets = {tp: await consumer.committed(tp) for tp in self.inputs}
            missing = [tp for tp, offset in offsets.items() if offset is None]
            offsets |= await consumer.beginning_offsets(missing) if missing else {}
            await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            raise LaneLostError(f"lane {self.number} was given to another worker: {error}") from error

    async def _recover(self, base: Recovered) -> Recovered:
        self._recovering = base
        return await recover(self._shared.settings, self._topic(CHANGELOG), base)

    async def _base(self) -> Recovered:
        """A snapshot of this lane, or nothing."""
        changelog = self._topic(CHANGELOG)
        begin = (await self._shared.consumer.beginning_offsets([changelog]))[changelog]
        end = (await log_ends(self._shared.settings.bootstrap, [changelog]))[changelog]
        return await asyncio.to_thread(self._shared.snapshots.load, self.number, begin, end)

    async def _resume(self, recovered: Recovered) -> LaneState:
        settings, identity = self._shared.settings, self._shared.identity
        begin = await self._shared.consumer.beginning_offsets(list(self.inputs))
        end = await log_ends(settings.bootstrap, list(self.inputs))
        # A rebalance may bring the lane back after its topics were recreated: the offsets alone would not tell.
        await aside(check_topics, settings, identity)
        state = await asyncio.to_thread(self._restored, recovered)
        if (budgets := self._shared.step.budgets) is not None:
            state.traffic = Traffic(budgets.traffic(self.number))
        state.control_id, state.ads_id = identity.id_of(CONTROL), identity.id_of(ADS)
        row = recovered.lane_row
        if row is None:
            first = begin if settings.first_start == "earliest" else end
            state.next_offsets = first[self.inputs[0]], first[self.inputs[1]]
            return state
        first, second = self.inputs
        check_resume(self.number, row, identity, (begin[first], begin[second]), (end[first], end[second]))
        state.next_offsets = row.next_offsets
        state.watermarks_ms = row.watermarks_ms
        state.stream_ms = row.stream_ms
        state.totals.update(row.totals)
        # Where the topic of ads was made anew, letters begin anew. A row of a former version does not name its topic.
        state.ads_next = row.ads_next if row.ads_id in (state.ads_id, "") else 0
        # Where the topic was made anew, all its requests are settled again: who came back since is forgotten again.
        state.control_next = row.control_next if row.control_id == state.control_id else 0
        return state

    def _restored(self, recovered: Recovered) -> LaneState:
        """State from the changelog. In a thread: many people take seconds, in which the loop must send heartbeats.

        Raises `RecoveryError` where some of it is of a layout that this version does not read.
        """
        parts, most, identity = recovered.parts, self._shared.settings.rows_per_lane_max, self._shared.identity
        try:
            clicks = LaneClicks.restore(self._shared.step.learning, parts)
            if clicks.anew:
                log.warning("the click layer begins anew", lane=self.number, reason=clicks.anew)
                self._shared.metrics.begun_anew()
            state = LaneState(self.number, identity.inputs, identity.lanes, store=recovered.store, clicks=clicks)
            state.ledger = LaneLedger.restore(parts)
            state.erased, state.guests = Watermarks.restore(parts, most), Guests.restore(parts, most)
        except UNREADABLE as error:
            raise unreadable(error) from error
        return state

    def seek(self) -> None:
        """Go to the lane's own offsets; what was queued or fetched before is dropped."""
        self.queues.clear()
        for tp, offset in zip(self.inputs, self.state.next_offsets, strict=True):
            self._shared.consumer.seek(tp, offset)
        for queue, offset in zip(self.queues.sources, self.state.next_offsets, strict=True):
            queue.position = offset

    def _topic(self, name: str) -> TopicPartition:
        return TopicPartition(self._shared.settings.topic_prefix + name, self.number)

    # --- stepping ----------------------------------------------------------------------------------------

    async def _cut(self) -> Slice | None:
        """The next slice, or None where there is none yet."""
        if not self.running:
            return None
        settings = self._shared.settings
        limit_ms = wall_ms() + settings.time_tolerance_ms
        if (time_ms := right_time(self.state, self.queues, limit_ms, settings.late_ms)) is not None:
            ahead_ms = self.state.stream_ms - time_ms
            log.warning("lane set back: it was ahead, as this machine's clock once was", lane=self.number, ms=ahead_ms)
            self._committed = False  # until the next slice is: the changelog does not have it yet
            await self._shared.compute.run(set_back, self.state, self._shared.step, time_ms)
            if not self.running:
                return None
        taken = self.queues.take(self.state.watermarks_ms, limit_ms, tick_ms(), settings.records_per_slice)
        if taken is None and self._is_asked:
            self._is_due = False
            return Slice([], np.zeros(0, dtype=np.uint8), self.state.watermarks_ms, self.queues.passed)
        return taken

    @property
    def has_work(self) -> bool:
        """Whether a slice may be cut."""
        return len(self.queues) > 0 or self._is_asked

    @property
    def _is_asked(self) -> bool:
        """Whether there is something to do without a record of the lane: requests, letters, news, what `idle` found."""
        state, step = self._state, self._shared.step
        if state is None:
            return False
        asked = step.requests is not None and step.requests.waits(self.number, state.control_next)
        asked = asked or self._is_due or state.models.waits(step.engine.models)
        return asked or (self.number == LANE and step.refused.beyond(state.ads_next))

    async def step(self) -> Counter[str] | None:
        """Steps 1 to 6 for one slice (`streams.step`); returns what it counted, None where there is no slice yet.

        The slice is cut when it can be computed, so that it takes along what came while other lanes computed.
        """
        async with self.in_step:
            laps = Laps()
            async with self._shared.compute.turn:
                taken = await self._cut()
                if taken is None:
                    return None
                self._committed, cut_ms = False, wall_ms()
                effects = await self._shared.compute.run(self._shared.step.run, self.state, taken, cut_ms, laps)
            # The transaction opens here: none is open during the wait for the compute thread, which all lanes share.
            async with asyncio.timeout(self._shared.settings.slice_deadline_ms / 1000):
                await self._deliver(effects, laps)
            self._committed, self._used_ms = True, tick_ms()
            self._saving.committed(cut_ms)
            self._shared.metrics.committed(taken, effects, laps.times, wall_ms())
            if self._shared.traces is not None:
                self._shared.traces.slice(self.number, len(taken.records), laps.times, 1_000_000 * wall_ms())
            await self._saving.some(self.state, self._changelog_offset)
        return effects.counts

    async def _deliver(self, effects: Effects, laps: Laps) -> None:
        outbox = self._outbox
        assert outbox is not None, "the lane has not been taken over"
        await outbox.begin()
        # 4. produce. Without transactions watermarks and the lane row go last, when all that they vouch for is
        # delivered; in a transaction they share the rows' batch, which saves a round trip.
        changelog = self._topic(CHANGELOG).topic
        closing = [*effects.watermarks, Message(LANE_KEY, msgspec.msgpack.encode(effects.lane_row))]
        for name, messages in effects.messages.items():
            last = closing if outbox.transactional and name == CHANGELOG else []
            await outbox.send(self._topic(name).topic, self.number, [*messages, *last])
        for (topic, partition), messages in effects.rerouted.items():
            await outbox.send(topic, partition, messages)
        await outbox.send(self._topic(CONTROL).topic, 0, effects.control)
        if not outbox.transactional:
            await outbox.delivered()
            await outbox.send(changelog, self.number, closing)
        # 5. every delivery
        begun = await outbox.delivered()
        laps("deliver")
        # 6. commit
        await outbox.commit()
        laps("commit")
        self._shared.offsets.put(self._next_offsets())
        # A snapshot stands before the last batch: whoever loads it reads that batch again.
        self._changelog_offset = begun[changelog, self.number]

    def _next_offsets(self) -> dict[TopicPartition, int]:
        return dict(zip(self.inputs, self.state.next_offsets, strict=True))

    def idle(self) -> None:
        """While the lane is idle, have a slice move its row past markers of transactions, which are no records.

        A row that stands at a marker would seem to lack records once retention has deleted the marker, and nobody could
        take the lane over. The group's offsets follow the row: before a marker, the lag would never be 0. A slice is
        due as well where the producer has not been used for `UNUSED_MAX_MS`.
        """
        if self.running and not self.has_work and not self.in_step.locked():
            at_marker = any(end > at for end, at in zip(self.queues.passed, self.state.next_offsets, strict=True))
            self._is_due = at_marker or tick_ms() - self._used_ms >= UNUSED_MAX_MS

    async def rest(self) -> None:
        """While the lane is idle, write the snapshot that is due: people forgotten since are still in the last one."""
        while self.running and not self.has_work and self._saving.waits:
            async with self.in_step:
                if not self.running:  # closed meanwhile, and given up where a step did not end in time
                    return
                if not (self._committed and await self._saving.some(self.state, self._changelog_offset)):
                    return

    # --- leaving -----------------------------------------------------------------------------------------

    async def close(self, deadline_ms: int) -> None:
        """Let a step under way end within ``deadline_ms``, then close the producer and forget everything.

        A slice that has not ended by then is given up: its transaction is ended by the lane's next owner. Committed
        state leaves a snapshot, since the next owner may well be this worker again.
        """
        self.running = False
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                await self.in_step.acquire()
                if self._state is not None and self._committed:
                    await self._saving.whole(self._state, self._changelog_offset)
        except TimeoutError:
            log.warning("lane given up in mid-slice; its next owner redoes it", lane=self.number)
        self._saving.end()
        self.queues.clear()
        self._state = None
        farewells = [self._shared.offsets.leave(self.inputs)]
        if self._outbox is not None:
            farewells.append(self._outbox.stop())
        await asyncio.gather(*farewells)
