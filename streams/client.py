"""Subscribe to placements from Python: the latest one of every user, in memory.

    async with PlacementView("127.0.0.1:9092") as view:
        placement = view.get("user-1")

The view reads the compacted topic from its beginning, belongs to no consumer group and needs no worker.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec import UNSET

from scoring.units import HOUR_MS
from streams import followed
from streams.clock import wall_ms
from streams.connection import aiokafka_options
from streams.fetching import BYTES_MAX, fetch
from streams.leaving import end_reading, start
from streams.mendable import MendableError
from streams.wire import UNREADABLE, Click, Impression, Placement, Slot

USERS_MAX = 100_000
"""Placements held: about 5 KB each with ten slots, half a gigabyte at most."""
RECORDS_PER_READ = 1_000
"""Decoding so many blocks the event loop for about 10 ms."""
FETCH_WAIT_MS = 500
"""As long as Kafka's own clients: two fetches a second and broker when nothing comes."""
LOST_MS = HOUR_MS
"""A worker that has lost a lane finds out long before: its session, or its transaction, ends within minutes."""

OnPlacement = Callable[[Placement], None]
_decode = msgspec.json.Decoder(Placement).decode


def priced(event: Impression | Click, placement: Placement) -> Impression | Click:
    """``event``, ready to send, with its ad's price and seal from ``placement``; unchanged if it is not from there.

    Without price and seal the event counts for interest, but charges nobody.
    """
    for slot in placement.slots:
        if slot.ad_id == event.ad_id and placement.placement_id == event.placement_id:
            return msgspec.structs.replace(event, price_micros=slot.price_micros, seal=slot.seal)
    return event


def _runs(slot: Slot, now_ms: float) -> bool:
    """Whether the slot's ad has not ended by ``now_ms``."""
    return slot.until_ms is UNSET or now_ms < slot.until_ms


class ViewError(MendableError):
    """The view cannot follow its topic; the message says why and what to do."""


@dataclass(slots=True)
class Counts:
    """What became of the records taken."""

    placements: int = 0
    repeats: int = 0
    tombstones: int = 0
    malformed: int = 0
    evicted: int = 0
    older: int = 0


class Latest:
    """The latest placement of each of at most ``users_max`` users; no I/O.

    Beyond the bound, a user is dropped until his next placement: the least recently used (updated or asked for). A
    placement that has ended by the newest event read counts as the least recently used: at the start the old ones of
    one partition may be read after the newest of another. An event that is ahead of ``clock``, in ms, counts as of now.
    """

    def __init__(
        self,
        users_max: int = USERS_MAX,
        only: AbstractSet[str] | None = None,
        on_placement: OnPlacement | None = None,
        clock: Callable[[], int] = wall_ms,
    ) -> None:
        if users_max < 1:
            raise ValueError(f"users_max is {users_max}; expected at least 1")
        self.counts = Counts()
        self._clock = clock
        self._users_max = users_max
        self._only = None if only is None else frozenset(user.encode() for user in only)
        self._on_placement = on_placement
        self._held: OrderedDict[str, Placement] = OrderedDict()
        self._newest_ms = 0

    def __len__(self) -> int:
        """Users held, some perhaps with an expired placement: it goes when it is asked for, replaced or evicted."""
        return len(self._held)

    def get(self, user: str, now_ms: float) -> Placement | None:
        """The user's latest placement; None where there is none or it has expired by ``now_ms``.

        Slots whose ads have ended by then are left out of it.
        """
        placement = self._held.get(user)
        if placement is None:
            return None
        if placement.valid_until_ms <= now_ms:
            del self._held[user]
            return None
        self._held.move_to_end(user)
        if all(_runs(slot, now_ms) for slot in placement.slots):
            return placement
        return msgspec.structs.replace(placement, slots=tuple(slot for slot in placement.slots if _runs(slot, now_ms)))

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take a record of the topic; no value is a tombstone. Malformed records are counted and skipped."""
        if self._only is not None and key not in self._only:
            return
        try:
            user = (key or b"").decode()
            placement = None if value is None else _decode(value)
        except UNREADABLE:
            self.counts.malformed += 1
            return
        if placement is None:
            self.counts.tombstones += 1
            self._held.pop(user, None)
        elif placement.user_id != user:
            self.counts.malformed += 1
        else:
            self._hold(placement)

    def _hold(self, placement: Placement) -> None:
        user = placement.user_id
        held = self._held.get(user)
        if held is not None and held.placement_id == placement.placement_id:
            self.counts.repeats += 1
            return
        # An older placement comes from a worker that has lost the lane and does not know it yet: skip it. But when a
        # user withdraws consent, the placement from context alone replaces the one held, whatever their clock says; and
        # so does any that is older by `LOST_MS`: the one held is from a time when clocks were ahead.
        forgets = held is not None and placement.context_only and not held.context_only
        if held is not None and held.time_ms - LOST_MS < placement.time_ms < held.time_ms and not forgets:
            self.counts.older += 1
            return
        self.counts.placements += 1
        self._held[user] = placement
        # One that is dated ahead must not make all others seem to have expired.
        self._newest_ms = max(self._newest_ms, min(placement.time_ms, self._clock()))
        self._held.move_to_end(user, last=placement.valid_until_ms > self._newest_ms)
        if len(self._held) > self._users_max:
            self._held.popitem(last=False)
            self.counts.evicted += 1
        if self._on_placement is not None:
            self._on_placement(placement)


class PlacementView:
    """Follows the placements topic. Entering the context waits until all that the topic holds has been read.

    - ``topic_prefix``: the workers' ``SALIENCE_TOPIC_PREFIX``. ``security``: aiokafka's own options, such as
      ``{"security_protocol": "SASL_SSL", ...}``; they override those of the environment (`streams.connection`).
    - ``on_placement`` is called in the event loop for every new placement, those read at the start included.
      If it raises, the view ends with that error.
    - ``only``: users to hold; the others' records are skipped undecoded. ``users_max``: see `Latest`.
    - ``ready_within_s``: how long entering may take, whatever the brokers do; beyond it raises `ViewError`.
    - ``fetch_wait_ms``: how long a fetch waits for records. Kafka answers as soon as there are any. The embedded
      broker answers only after half of it: give it 10.
    - ``isolation``: with ``read_committed``, transactions that are open or were aborted are not seen.

    Two kinds of record are skipped: one with the ``placement_id`` already held (after a failover in
    ``at_least_once``), and one whose event is older than that of the placement held, unless it is from context alone
    and the one held is not, or it is older by `LOST_MS`. Malformed records, and those whose key is not their user, are
    counted. When partitions are added, all are read from their beginning again. A topic that is deleted or recreated
    ends the view within seconds; where ``security`` is given, only when aiokafka has noticed that it is gone.

    A view can be entered only once, even where that failed: a second time raises `ViewError`. Otherwise it would serve
    what it held before until it has caught up, placements of people erased meanwhile among them. To reconnect, open a
    new view.
    """

    def __init__(
        self,
        bootstrap: str = "127.0.0.1:9092",
        *,
        topic_prefix: str = "",
        on_placement: OnPlacement | None = None,
        only: AbstractSet[str] | None = None,
        users_max: int = USERS_MAX,
        isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
        ready_within_s: float = 60.0,
        fetch_wait_ms: int = FETCH_WAIT_MS,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        self._latest = Latest(users_max, only, on_placement)
        self._bootstrap = bootstrap
        self._topic = f"{topic_prefix}placements"
        self._ready_within_s = ready_within_s
        self._options = {**aiokafka_options(bootstrap), "isolation_level": isolation, **(security or {})}
        self._committed = isolation == "read_committed"
        self._fetch_wait_ms = fetch_wait_ms
        self._followed = None if security is not None else followed.Followed(bootstrap, [self._topic], subscribed=True)
        self._entered = False
        self._ready = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._consumer: Any = None

    def __len__(self) -> int:
        """Users held."""
        return len(self._latest)

    @property
    def counts(self) -> Counts:
        """What became of the records read so far."""
        return self._latest.counts

    @property
    def ready(self) -> bool:
        """Whether everything that the topic held when the view was started has been read."""
        return self._ready.is_set()

    def get(self, user: str, now_ms: int | None = None) -> Placement | None:
        """The user's latest placement; None if there is none or it has expired at ``now_ms`` (else: now).

        Slots whose ads have ended are left out. Keep the placement you show, for `priced`: a later answer may lack its
        slot. Raises `ViewError` when the view has stopped reading, rather than serve stale placements.
        """
        self._raise_if_stopped()
        return self._latest.get(user, time.time() * 1000 if now_ms is None else now_ms)

    async def until_stopped(self) -> None:
        """Wait while the view reads, then raise `ViewError`: for callers that only use ``on_placement``."""
        if self._reader is not None:
            await asyncio.wait({self._reader})
        self._raise_if_stopped()

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ViewError("A view is entered once, since it holds what it has read: open a new one.")
        self._entered = True
        limit = asyncio.timeout(self._ready_within_s)
        try:
            async with limit:
                await self._open()
        except BaseException as error:
            await self._close()
            if isinstance(error, TimeoutError) and limit.expired():
                raise ViewError(
                    f"{self._topic} was not read to the end within {self._ready_within_s:g} s "
                    f"({self.counts.placements} were): raise ready_within_s, or see to {self._bootstrap}."
                ) from error
            raise
        return self

    async def _open(self) -> None:
        await require_topic(self._topic, self._options)
        if self._followed is not None:
            await self._followed.check()
        self._consumer = AIOKafkaConsumer(
            self._topic, auto_offset_reset="earliest", enable_auto_commit=False,
            fetch_max_wait_ms=self._fetch_wait_ms, fetch_max_bytes=BYTES_MAX, **self._options,
        )  # fmt: skip
        await start(self._consumer)
        ends = await self._consumer.end_offsets(list(self._consumer.assignment()))
        self._reader = asyncio.create_task(self._read(ends), name=f"read {self._topic}")
        await self._wait_until_ready()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._raise_if_stopped()
        finally:
            await self._close()

    async def _wait_until_ready(self) -> None:
        assert self._reader is not None
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, self._reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        self._raise_if_stopped()

    async def _read(self, ends: dict[TopicPartition, int]) -> None:
        """Read for ever. The end is a position, not a record: markers and compaction leave gaps in the offsets."""
        waiting, due_s = dict(ends), time.monotonic() + followed.LOOK_S
        while True:
            if self._followed is not None:
                self._followed.look(self._consumer, self._consumer.assignment())
            if time.monotonic() >= due_s:
                self._check_assignment()
                due_s = time.monotonic() + followed.LOOK_S
            for partition, end in list(waiting.items()):
                if await self._consumer.position(partition) >= end:
                    del waiting[partition]
            if not waiting:
                self._ready.set()
            fetched = await fetch(
                self._consumer, [*self._consumer.assignment()], self._bootstrap,
                timeout_ms=FETCH_WAIT_MS, max_records=RECORDS_PER_READ, committed=self._committed,
            )  # fmt: skip
            for records in fetched.values():
                for record in records:
                    self._latest.take(record.key, record.value)

    def _check_assignment(self) -> None:
        """Raises `ViewError` where aiokafka has noticed that the topic is gone."""
        if not self._consumer.assignment():
            raise ViewError(f"{self._topic}: deleted or made anew; what is held was read from the former one")

    def _raise_if_stopped(self) -> None:
        if self._reader is None or self._consumer is None:
            raise ViewError("The view is not open; use it within `async with PlacementView(...)`.")
        if self._reader.done():
            error = None if self._reader.cancelled() else self._reader.exception()
            raise ViewError(f"The view stopped reading {self._topic}: {error!r}. Open a new one.") from error

    async def _close(self) -> None:
        try:
            if self._reader is not None:
                self._reader.cancel()
                await asyncio.gather(self._reader, return_exceptions=True)  # told by `get` and on leaving the context
            if self._followed is not None:
                await self._followed.leave()
        finally:
            if self._consumer is not None:
                await end_reading(self._consumer)
                self._consumer = None


async def require_topic(topic: str, options: Mapping[str, Any]) -> None:
    """Raise `ViewError` unless the broker has the topic; ``options`` are aiokafka's.

    It asks for all names: asking for a missing topic by name could create it.
    """
    asking = AIOKafkaConsumer(**options)
    try:
        await start(asking)
        names = await asking.topics()
    finally:
        await end_reading(asking)
    if topic not in names:
        from streams.reading import remedy  # noqa: PLC0415 - an ad server that finds its topic loads none of it

        bootstrap = options["bootstrap_servers"]
        raise ViewError(
            f"{bootstrap} has no topic {topic!r}. Create it: {remedy(bootstrap, topic)}; or name the prefix of yours."
        )
