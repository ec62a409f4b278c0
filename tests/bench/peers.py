"""Other engines on the same topics, each run as a process of its own: ``python -m tests.bench.peers NAME PLAN``.

- ``aiokafka``: ``getmany``, decode, commit; no state. The least that any engine on aiokafka does.
- ``faust_stock``: agents with ``take()`` and a table in memory, as Faust's guide has it.
- ``quix``: Quix Streams with state in RocksDB.

All decode with msgspec into our wire types. Faust and Quix keep less than we do: counters, the newest time and the
last 50 ads of a user, as a dict in their own JSON; no interest, no removal of duplicates.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

import msgspec

from streams.wire import Click, Impression
from tests.bench.pace import Sample, pace

RECENT = 50
TAKE, WITHIN_S = 256, 0.1
LOOK_EVERY = 256
"""Events between two looks at the clock, where events come one by one."""
CHECKPOINT_EVERY = 10_000
"""Events between two checkpoints of Quix, so that a slice of the backlog has several; by default one in 5 s."""
FETCH_BYTES = 4 * 1024 * 1024
"""Per partition and fetch, as our intake asks for."""

Event = Impression | Click
DECODERS: dict[str, Callable[[bytes], Event]] = {
    "ad-impressions": msgspec.json.Decoder(Impression).decode,
    "clicks": msgspec.json.Decoder(Click).decode,
}


class Plan(msgspec.Struct, frozen=True):
    """Where to read, and how many events."""

    bootstrap: str
    prefix: str
    events: int
    lanes: int


class Found(msgspec.Struct, frozen=True):
    """What a peer prints."""

    events_per_s: float
    version: str


class Meter:
    """Samples of the events done; ``done`` once there are as many as planned."""

    def __init__(self, plan: Plan) -> None:
        self._events = plan.events
        self._count = 0
        self.samples: list[Sample] = [(time.perf_counter(), 0)]

    def add(self, events: int) -> None:
        self._count += events
        self.samples.append((time.perf_counter(), self._count))

    @property
    def done(self) -> bool:
        return self._count >= self._events


def new() -> dict[str, Any]:
    """The state of a user who did nothing yet."""
    return {"impressions": 0, "clicks": 0, "time_ms": 0, "recent": []}


def update(state: dict[str, Any], event: Event) -> None:
    """Apply ``event``, in place."""
    state["clicks" if isinstance(event, Click) else "impressions"] += 1
    state["time_ms"] = max(state["time_ms"], event.time_ms)
    recent = state["recent"]
    recent.append(event.ad_id)
    del recent[:-RECENT]


def aiokafka(plan: Plan) -> Found:
    """Read, decode, commit."""
    meter = Meter(plan)
    asyncio.run(_aiokafka(plan, meter))
    return Found(pace(meter.samples), version("aiokafka"))


async def _aiokafka(plan: Plan, meter: Meter) -> None:
    from aiokafka import AIOKafkaConsumer

    async with AIOKafkaConsumer(
        *(plan.prefix + name for name in DECODERS),
        bootstrap_servers=plan.bootstrap,
        group_id=plan.prefix + "aiokafka",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
    ) as consumer:
        while not meter.done:
            batches = await consumer.getmany(timeout_ms=100)
            for partition, records in batches.items():
                decode = DECODERS[partition.topic.removeprefix(plan.prefix)]
                for record in records:
                    decode(record.value)
            if batches:
                await consumer.commit()
                meter.add(sum(map(len, batches.values())))


def faust_stock(plan: Plan) -> Found:
    """Does not return: a worker's stop takes longer than the measurement."""
    import faust

    meter = Meter(plan)
    app = faust.App(
        plan.prefix + "faust",
        broker=f"kafka://{plan.bootstrap}",
        store="memory://",
        web_enabled=False,
        topic_partitions=plan.lanes,
        topic_disable_leader=True,
    )
    table = app.Table("users", default=new, partitions=plan.lanes, use_partitioner=True)

    def agent(name: str) -> None:
        decode = DECODERS[name]
        topic = app.topic(
            plan.prefix + name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )

        @app.agent(topic, name=f"on-{name}")
        async def agent_of_topic(stream: Any) -> None:
            async for values in batches_of(stream):
                touched: dict[str, dict[str, Any]] = {}
                for event in map(decode, values):
                    update(touched.setdefault(event.user_id, table[event.user_id]), event)
                for user, state in touched.items():
                    table[user] = state
                meter.add(len(values))
                if meter.done:
                    report(Found(pace(meter.samples), version("faust-streaming")))
                    os._exit(0)

    for name in DECODERS:
        agent(name)
    worker = faust.Worker(app, loglevel="ERROR", redirect_stdouts=False, quiet=True)
    worker.spinner = None  # it would write control sequences to the pipe
    worker.execute_from_commandline()
    raise AssertionError("the Faust worker ended before its events did")


def batches_of(stream: Any) -> AsyncIterator[list[bytes]]:
    """Faust's own batches."""
    taken: AsyncIterator[list[bytes]] = stream.take(TAKE, within=WITHIN_S)
    return taken


def quix(plan: Plan) -> Found:
    """Both topics as one stateful stream."""
    quixstreams: Any = import_module("quixstreams")  # of an extra: type checks must not depend on it
    meter = Meter(plan)
    with tempfile.TemporaryDirectory() as folder:
        app = quixstreams.Application(
            broker_address=plan.bootstrap,
            consumer_group=plan.prefix + "quix",
            auto_offset_reset="earliest",
            processing_guarantee="at-least-once",
            commit_every=CHECKPOINT_EVERY,
            state_dir=folder,
            loglevel="ERROR",
        )
        counted = 0

        def apply(event: Event, state: Any) -> None:
            nonlocal counted
            held = state.get("user") or new()
            update(held, event)
            state.set("user", held)
            counted += 1
            if counted % LOOK_EVERY == 0 or counted == plan.events:
                meter.add(LOOK_EVERY if counted % LOOK_EVERY == 0 else counted % LOOK_EVERY)
                if meter.done:
                    app.stop()

        first, second = (
            app.dataframe(app.topic(plan.prefix + name, value_deserializer="bytes")).apply(decode)
            for name, decode in DECODERS.items()
        )
        first.concat(second).apply(apply, stateful=True)
        app.run()
    return Found(pace(meter.samples), version("quixstreams"))


PEERS = {peer.__name__: peer for peer in (aiokafka, faust_stock, quix)}


def report(found: Found) -> None:
    """One line of JSON, the last on stdout."""
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    report(PEERS[sys.argv[1]](msgspec.json.decode(sys.argv[2], type=Plan)))
