"""How soon a worker has its users back: from the changelog of a real broker, and from its own snapshots.

The worker runs on one core. It says itself when each lane is taken over and how long that took; lanes are taken over
at the same time, so that the slowest one's time is the worker's.
"""

import asyncio
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from scoring.rows import LAYOUT_VERSION, ROW, ROW_BYTES
from streams import topic_admin, topics
from streams.identity import identify, partitioner
from streams.settings import Settings
from streams.step import LANE_ROW_VERSION
from streams.wire import LANE_KEY, LaneRow
from tests.bench import state
from tests.bench.bed import LANES, Bed, BenchError, Child, bed
from tests.bench.load import KEPT_FOR_EVER, START_MS
from tests.bench.report import Report, Say, repeated, rounded

WITHIN_S = 180.0
LOOK_EVERY_S = 0.1
BATCH_BYTES = 900_000
"""As the lanes write them."""


def run(users: int, runs: int, say: Say) -> Report:
    """What `tests.bench.state` measures in memory, and recovery through a broker, as the JSON has it.

    Raises `tests.bench.bed.BenchError` and `deploy.brokers.BrokerError`.
    """
    with tempfile.TemporaryDirectory(prefix="salience-bench-") as folder, bed(Path(folder), say) as there:

        def once() -> Report:
            there.say(f"{users:,} users in memory")
            alone = state.run(users)
            bytes_of = {name: alone.pop(name) for name in [*alone] if name.endswith("_per_user")}
            return bytes_of | measure(there, users=users) | {"in_memory": alone}

        return repeated("state", runs, once, say, lanes=LANES, pinned=there.core is not None)


def measure(there: Bed, *, users: int) -> Report:
    """Both ways, with the same users."""
    prefix = f"b{uuid.uuid4().hex[:8]}-"
    there.say(f"writing the changelog of {users:,} users")
    keys = [state.user_key(number) for number in range(users)]
    asyncio.run(fill_changelog(there.bootstrap, prefix, keys, LANES))
    found = {}
    for source in ("changelog", "snapshot"):
        there.say(f"recovering {users:,} users from the {source}")
        began_s = time.perf_counter()
        with there.working(prefix, scoring=False) as (worker,):
            lanes = taken_over(worker, LANES)
            ready_s = time.perf_counter() - began_s
            found[source] = rounded(max(lane["ms"] for lane in lanes) / 1000), rounded(ready_s)
        if (recovered := sum(lane["users"] for lane in lanes)) != users:
            raise BenchError(f"{recovered:,} users came back of {users:,} from the {source}")
        kept = sum(lane["from_snapshot"] for lane in lanes)
        if kept != (users if source == "snapshot" else 0):
            raise BenchError(f"{kept:,} of {users:,} users came from a snapshot, though it was to be the {source}")
    return {
        "recover_s": found["changelog"][0],
        "recover_snapshot_s": found["snapshot"][0],
        "from_process_start_s": {source: ready_s for source, (_, ready_s) in found.items()},
    }


def taken_over(worker: Child, lanes: int) -> list[dict[str, int]]:
    """What the worker says of each lane once it has taken over all; raises `BenchError`."""
    deadline_s = time.perf_counter() + WITHIN_S
    while time.perf_counter() < deadline_s:
        worker.check()
        if len(said := worker.lanes) >= lanes:
            return said
        time.sleep(LOOK_EVERY_S)
    raise BenchError(f"the worker has not taken over {lanes} lanes within {WITHIN_S:.0f} s: see {worker.log}")


async def fill_changelog(bootstrap: str, prefix: str, keys: Sequence[bytes], lanes: int) -> None:
    """Make the topics, and write the rows of users who did nothing since `START_MS`, and the lanes'."""
    configs = {topics.CLICKS: KEPT_FOR_EVER, topics.AD_IMPRESSIONS: KEPT_FOR_EVER}
    await asyncio.to_thread(topic_admin.create, bootstrap, lanes, prefix, configs=configs)
    row = np.zeros(1, dtype=ROW)
    row["version"], row["time_ms"], row["offset"] = LAYOUT_VERSION, START_MS, -1
    value = row.tobytes()
    assert len(value) == ROW_BYTES
    of_lane: list[list[bytes]] = [[] for _ in range(lanes)]
    partition_of = partitioner(lanes)
    for key in keys:
        of_lane[partition_of(key)].append(key)
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES, max_request_size=2 * BATCH_BYTES
    ) as producer:
        await asyncio.gather(
            *(_fill_lane(producer, prefix + topics.CHANGELOG, lane, own, value) for lane, own in enumerate(of_lane))
        )
        lane_row = LaneRow(
            version=LANE_ROW_VERSION, from_offsets=(0, 0), next_offsets=(0, 0), records=0, order=b"",
            watermarks_ms=(0, 0), stream_ms=0,
            topic_ids=identify(Settings(bootstrap=bootstrap, topic_prefix=prefix)).inputs, lanes=lanes, totals={},
        )  # fmt: skip
        for lane in range(lanes):
            await producer.send_and_wait(prefix + topics.CHANGELOG, msgspec.msgpack.encode(lane_row), LANE_KEY, lane)


async def _fill_lane(producer: AIOKafkaProducer, topic: str, lane: int, keys: Sequence[bytes], value: bytes) -> None:
    batch = producer.create_batch()
    for key in keys:
        if batch.append(timestamp=None, key=key, value=value) is None:
            batch.close()
            await (await producer.send_batch(batch, topic, partition=lane))
            batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value)
    if batch.record_count():
        batch.close()
        await (await producer.send_batch(batch, topic, partition=lane))
