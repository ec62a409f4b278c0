"""Intake, the only hot-path consumer: puts the group's records into lanes, and lane tokens onto the channel.

The rebalance listener only marks lanes: no heartbeats are sent while it runs, and aiokafka swallows its exceptions.
Fencing, recovery and closing run in each lane's own task. The pump calls ``getmany`` for the partitions of lanes with
room. It never passes an empty list (which means all), and never pauses a partition (which throws records away).
"""

import asyncio
import os
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError, UnknownError
from mode import Service

from scoring.events import Source
from streams.clock import tick_ms
from streams.connection import aiokafka_options
from streams.fatal import CannotStartError, arm_exit, describe, end_now, guarded
from streams.fetching import BYTES_MAX, fetch
from streams.identity import check_lanes
from streams.joining import meet_coordinator
from streams.lanes.lane import FenceError, Lane, LaneLostError, Shared
from streams.lanes.queues import SourceQueue
from streams.lanes.tokens import Tokens
from streams.leaving import MembershipLostError, check_member, end_reading, start
from streams.settings import Settings
from streams.topics import LANE_INPUTS
from streams.vitals import Vitals

log = structlog.get_logger()

POLL_MS = 20
"""Longest wait for records. A lane that has room again is noticed after it."""
IDLE_S = 1.0
"""Time between two looks for idle lanes; a marker may show as their lag for as long."""
SUMMARY_S = 60.0
NAME_MAX = 249

Offer = Callable[[int], Awaitable[None]]


class SilenceError(RuntimeError):
    """The brokers do not answer; the message says what request, and for how long."""


def member_name(settings: Settings) -> str:
    """The worker's name within its group, by which `salience lag` tells owners on one host apart.

    It holds only characters that Kafka accepts everywhere, and no more than it accepts in a name.
    """
    name = settings.instance_id or f"salience-{socket.gethostname()}-{os.getpid()}"
    return re.sub(r"[^a-zA-Z0-9._-]", "-", name)[-NAME_MAX:]


def group_consumer(settings: Settings) -> AIOKafkaConsumer:
    """The consumer that joins the group. Range assignment puts partition p of both topics on one worker."""
    return AIOKafkaConsumer(
        client_id=member_name(settings),
        group_id=settings.group,
        group_instance_id=settings.instance_id,
        partition_assignment_strategy=(RangePartitionAssignor,),
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.heartbeat_ms,
        rebalance_timeout_ms=settings.rebalance_timeout_ms,
        fetch_max_wait_ms=settings.fetch_wait_ms,
        fetch_max_bytes=BYTES_MAX,  # of one partition 1 MiB at most, aiokafka's default
        **aiokafka_options(settings.bootstrap),
    )


def lanes_of(partitions: Iterable[TopicPartition], topics: Sequence[str], lanes_max: int) -> set[int]:
    """Lane numbers of an assignment. Raises `ValueError` where the topics' partitions differ, or are too many."""
    first, second = ({tp.partition for tp in partitions if tp.topic == topic} for topic in topics)
    if first != second:
        raise ValueError(
            f"assigned partitions {sorted(first)} of {topics[0]} but {sorted(second)} of {topics[1]}; a lane needs "
            "both. Another member of the group uses another assignor, or the partition counts differ: "
            "salience topics check"
        )
    if len(first) > lanes_max:
        raise ValueError(
            f"{len(first)} lanes on one worker, at most {lanes_max}; start more workers or raise SALIENCE_LANES_MAX"
        )
    return first


class Intake(Service, ConsumerRebalanceListener):
    """Feeds lanes. ``offer(lane)`` puts a lane's token on the channel; the agent that takes it calls `step`.

    ``stops``: whether the worker has been told to stop, which may happen before this service has started.
    """

    def __init__(
        self,
        settings: Settings,
        make_shared: Callable[[AIOKafkaConsumer], Shared],
        offer: Offer,
        stops: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._stops = stops
        self._settings = settings
        self._make_shared = make_shared
        self._offer = offer
        self._topics = [settings.topic_prefix + name for name in LANE_INPUTS]
        self._shared: Shared | None = None
        self._lanes: dict[int, Lane] = {}
        self._tokens = Tokens()
        self._closing: set[asyncio.Task[None]] = set()
        self._taking: dict[int, asyncio.Task[None]] = {}
        self._stopping = False
        self._joined = self._fenced = False
        self._polls = 0
        self._ending = ""
        self.counts: Counter[str] = Counter()

    @property
    def shared(self) -> Shared:
        """What all its lanes use, once it has started."""
        assert self._shared is not None, "the intake has not started"
        return self._shared

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """The group's member, once started."""
        return self.shared.consumer

    # --- life --------------------------------------------------------------------------------------------

    async def on_started(self) -> None:
        """Join the group and pump, unless the worker is to stop."""
        if self._stops():
            return
        await meet_coordinator(self._settings, self._stops)
        if self._stops():  # told so meanwhile
            return
        consumer = group_consumer(self._settings)
        self._shared = self._make_shared(consumer)
        await start(consumer)
        consumer.subscribe(self._topics, listener=self)
        self.add_future(self._pump())
        self.add_future(self._guarded(self._look_after_idle()))
        self.add_future(self._summarise())

    async def on_stop(self) -> None:
        """Stop fetching, let lanes in step end, close producers, leave the group."""
        self._stopping = True
        self._ending = self._ending or "stopping"
        log.info("stopping", lanes=len(self._lanes), queued=self._queued())
        if self._shared is None:
            return
        for task in self._taking.values():
            task.cancel()
        await asyncio.gather(*self._taking.values(), return_exceptions=True)
        closing = [lane.close(self._settings.stop_deadline_ms) for lane in self._lanes.values()]
        closed = await asyncio.gather(*closing, *self._closing, return_exceptions=True)
        await end_reading(self._shared.consumer, "the group's member")
        for failure in filter(None, closed):  # last: a lane that fails keeps neither others nor the group waiting
            raise failure

    def fail(self, error: BaseException) -> None:
        """End the process for a fatal error: in order if possible, within seconds if not.

        While the worker stops, errors are ignored: parts that are closed while in use raise some that mean nothing.
        """
        if not (self._stopping or self._stops()):
            self._stopping = True
            self._ending = describe(error)
            arm_exit(error)
            self.loop.create_task(self.crash(error))

    def ended(self, who: str) -> None:
        """A part that must run for ever has ended. Unless the worker stops, that is fatal: it must not go on deaf."""
        self.fail(RuntimeError(f"{who} ended"))

    def vitals(self, ends: Mapping[TopicPartition, int]) -> Vitals:
        """The vitals of the intake and its lanes, given the log ends as far as they are known."""
        lanes = {number: lane.vitals(ends) for number, lane in self._lanes.items()}
        return Vitals(polls=self._polls, joined=self._joined, ending=self._ending, lanes=lanes)

    @property
    def lanes(self) -> list[Lane]:
        """The lanes held now."""
        return list(self._lanes.values())

    def inputs(self) -> list[TopicPartition]:
        """Partitions of the lanes held now."""
        return [tp for lane in self._lanes.values() for tp in lane.inputs]

    # --- membership --------------------------------------------------------------------------------------

    def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Mark the lanes; their own tasks end or abort the slice under way, then forget."""
        joined, self._joined = self._joined, False
        try:
            if joined:
                check_member(self.consumer, self._settings)
            for number in {tp.partition for tp in revoked}:
                self._release(number)
        except MembershipLostError as error:
            end_now(error)  # aiokafka joins again as soon as this returns: an orderly stop would come too late
        except BaseException as error:  # noqa: BLE001 - aiokafka would swallow it
            self.fail(error)

    def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Start a task for each lane, unless the worker stops: aiokafka ends a join under way before it leaves."""
        if self._stopping:
            return
        try:
            numbers = lanes_of(assigned, self._topics, self._settings.lanes_max)
            check_lanes(numbers, self.shared.identity.lanes)
            for number in numbers:
                self._acquire(number)
            self._joined = True
            self.shared.metrics.rebalances.inc()
        except BaseException as error:  # noqa: BLE001 - aiokafka would swallow it
            self.fail(error)

    def _release(self, number: int) -> None:
        if taking := self._taking.pop(number, None):
            taking.cancel()
        if lane := self._lanes.pop(number, None):
            lane.running = False
            task = self.loop.create_task(self._guarded(lane.close(self._settings.revoke_deadline_ms)))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _acquire(self, number: int) -> None:
        lane = self._lanes[number] = Lane(number, self.shared)
        closing = set(self._closing)

        async def take_over() -> None:  # a coroutine made out here would lack its await where the task ends unbegun
            await self._guarded(self._take_over(lane, closing))

        self._taking[number] = self.loop.create_task(take_over())

    async def _take_over(self, lane: Lane, closing: set[asyncio.Task[None]]) -> None:
        if closing:
            await asyncio.wait(closing)  # this worker may have held the lane a moment ago
        try:
            await lane.take_over()
        except LaneLostError as error:
            lane.stage = "lost"
            log.warning(
                "lane lost while taking it over; waiting for the rebalance",
                lane=lane.number,
                error=str(error),
            )
        except FenceError as error:
            # The broker has no transactions. If it has had them before, this is a failure like any other.
            if isinstance(error.__cause__, UnknownError) and not self._fenced:
                raise CannotStartError(str(error)) from error
            raise
        else:
            self._fenced = True
        self._taking.pop(lane.number, None)

    async def _guarded(self, work: Awaitable[None]) -> None:
        await guarded("a lane's work", work, self.fail)

    # --- the pump ----------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        try:
            await guarded("the pump", self._poll(), self.fail)
        finally:
            self.ended("the pump")

    async def _poll(self) -> None:
        while not self._stopping:
            self._polls += 1
            await self._tokens.wait_for_one(self._lanes.keys())
            await self._fetch()
            for lane in list(self._lanes.values()):
                await self._offer_if_ready(lane)

    async def _fetch(self) -> None:
        wanted = {
            tp: (lane, source)
            for lane in self._lanes.values()
            if lane.running
            for source, tp in zip(Source, lane.inputs, strict=True)
            if lane.queues.has_room(source)
        }
        if not wanted:
            await asyncio.sleep(POLL_MS / 1000)
            return
        settings = self._settings
        # A lane that waits for older records of its other topic must be looked at again when its wait ends.
        waits = any(len(lane.queues) and lane.number not in self._tokens for lane in self._lanes.values())
        timeout_ms = min(POLL_MS, settings.wait_other_topic_ms) if waits else POLL_MS

        def ours(tp: TopicPartition) -> bool:  # not revoked while we waited
            lane, _ = wanted[tp]
            return lane.running and self._lanes.get(lane.number) is lane

        most, at = settings.queue_records, settings.bootstrap
        records = await fetch(self.consumer, [*wanted], at, timeout_ms=timeout_ms, max_records=most, ours=ours)
        for tp, batch in records.items():
            if ours(tp):
                lane, source = wanted[tp]
                lane.queues.put(source, batch)
        for tp, (lane, source) in wanted.items():
            if lane.running:
                await self._note_position(lane.queues.sources[source], tp)

    async def _note_position(self, queue: SourceQueue, tp: TopicPartition) -> None:
        """Note the position, and whether it has reached the end that the broker last told; unknown counts as no.

        The end is the last stable offset, not the high watermark: a read-committed position cannot pass an open
        transaction, and the lane would wait for as long as the producer may keep that open. Its records follow in the
        order of their arrival, like everything that comes live.
        """
        queue.caught_up = False
        if tp not in self.consumer.assignment():  # revoked while we waited
            return
        try:
            queue.position = await self.consumer.position(tp)
        except IllegalStateError:  # revoked while we asked
            return
        end = self.consumer.last_stable_offset(tp)
        queue.caught_up = end is not None and 0 <= end <= queue.position

    async def _offer_if_ready(self, lane: Lane) -> None:
        """Put the lane's token on the channel unless it is there already or the lane is in step."""
        if lane.running and lane.number not in self._tokens and lane.has_work:
            self._tokens.put(lane.number)
            await self._offer(lane.number)

    async def step(self, number: int) -> None:
        """Run one slice of the lane, if there is one, as its token asks. A failure is fatal."""
        lane = self._lanes.get(number)
        counts = None
        try:
            if lane is not None:
                counts = await asyncio.shield(self._slice(lane))
                self.counts.update(counts or {})
        except BaseException as error:
            if lane is not None and lane.running and not self._stopping:
                self.fail(error)
                raise
            log.warning("slice given up with its lane", lane=number, error=str(error))
        finally:
            self._tokens.end(number)
        if lane is not None and counts is not None:  # there may be more to do; otherwise the pump will look again
            await self._offer_if_ready(lane)

    async def _slice(self, lane: Lane) -> Counter[str] | None:
        try:
            return await lane.step()
        except TimeoutError as error:
            within_s = self._settings.slice_deadline_ms / 1000
            setting = "SALIENCE_SLICE_RECORDS" + ("" if self._settings.scoring else "_UNSCORED")
            raise SilenceError(
                f"no answer from {self._settings.bootstrap} to a slice of lane {lane.number} within {within_s:g} s "
                "(SALIENCE_SLICE_DEADLINE_MS): they are away, fewer copies are in sync than min.insync.replicas, or a "
                f"quota throttles this worker (raise it, or lower {setting})"
            ) from error

    def _queued(self) -> int:
        return sum(len(lane.queues) for lane in self._lanes.values())

    async def _look_after_idle(self) -> None:
        """Have idle lanes move past markers, keep their producers in use, and write their snapshots."""
        while not self._stopping:
            await self.sleep(IDLE_S)
            # A lane whose token is on offer may have cut a slice that has left the queues and is not yet in step.
            idle = [lane for number, lane in self._lanes.items() if number not in self._tokens]
            for lane in idle:
                lane.idle()
            for lane in idle:
                await lane.rest()

    async def _summarise(self) -> None:
        """Log one line a minute; remove snapshots that are too old as often."""
        last_ms = tick_ms()
        while not self._stopping:
            await self.sleep(SUMMARY_S)
            counts, self.counts = self.counts, Counter()
            now_ms = tick_ms()
            seconds = (now_ms - last_ms) / 1000
            log.info("summary", lanes=len(self._lanes), queued=self._queued(), seconds=round(seconds, 1), **counts)
            last_ms = now_ms
            await asyncio.to_thread(self.shared.snapshots.remove_old)
