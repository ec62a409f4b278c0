"""What a user's state costs: bytes in memory and in the changelog, and the time to have it back after a restart.

Users with keys as shops have them, put back from changelog values in reads of `RECORDS_PER_READ`, then saved to and
loaded from a snapshot file. No broker: what one adds, `tests.bench.recovery` measures.
"""

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from scoring.rows import LAYOUT_VERSION, ROW, ROW_BYTES, RowStore, decode_rows
from streams.clock import wall_ms
from streams.lanes.recovery import RECORDS_PER_READ
from streams.lanes.snapshots import Snapshots
from streams.settings import Settings
from streams.step import LaneState
from tests.bench.fresh import in_fresh_process, main
from tests.bench.load import START_MS

BATCH_HEADER_BYTES = 12
"""Kafka's own bytes per record beside key and value: lengths, offset and time deltas, attributes."""
T = TypeVar("T")


def run(users: int) -> dict[str, Any]:
    """Measure in a process of its own, so that resident memory is that of the state."""
    return in_fresh_process(__name__, users=users)


def user_key(number: int) -> bytes:
    """A key of 36 characters, as long as a UUID."""
    return b"%08x-0000-4000-8000-%012x" % (number * 2_654_435_761 % 2**32, number)


def reads(users: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Keys and changelog values of ``users``, as many at a time as recovery takes."""
    rng = np.random.default_rng(1)
    rows = np.frombuffer(rng.bytes(min(users, RECORDS_PER_READ) * ROW_BYTES), dtype=ROW).copy()
    rows["version"] = LAYOUT_VERSION
    rows["time_ms"] = rows["interest_ms"] = START_MS  # what the reader checks
    rows["seen_next"], rows["ring_kind"] = 0, 1
    rows["interest"] = rng.standard_normal(rows["interest"].shape)
    values = [row.tobytes() for row in rows]
    for start in range(0, users, RECORDS_PER_READ):
        keys = [user_key(number) for number in range(start, min(start + RECORDS_PER_READ, users))]
        yield keys, values[: len(keys)]


def resident_bytes() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What ``work`` gives, and the seconds that it took."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def recovered(users: int) -> tuple[RowStore, float]:
    """A store put back from changelog values, and the seconds of it that are not making up the values."""
    store, seconds = RowStore(), 0.0
    for keys, values in reads(users):
        began = time.perf_counter()
        store.put(keys, decode_rows(values))
        seconds += time.perf_counter() - began
    return store, seconds


def snapshot_costs(store: RowStore, users: int) -> tuple[float, float, int]:
    """Seconds to save and to load a snapshot of ``store``, and its bytes."""
    with tempfile.TemporaryDirectory(prefix="salience-bench-") as home:
        snapshots = Snapshots(Settings(home=Path(home)), "bench")
        state = LaneState(0, ("a", "b"), 1, store=store)
        _, save_s = timed(lambda: snapshots.save(state, 1, wall_ms()))
        loaded, load_s = timed(lambda: snapshots.load(0, 0, 1))
        if len(loaded.store) != users:
            raise RuntimeError(f"{len(loaded.store):,} users came back of {users:,}; see the log for the refusal")
        return save_s, load_s, snapshots.path(0).stat().st_size


def measure(users: int) -> dict[str, Any]:
    """All of it, in this process."""
    recovered(min(users, RECORDS_PER_READ))  # loads code and fills allocators, then is thrown away
    resident = resident_bytes()
    store, recover_s = recovered(users)
    grown = resident_bytes() - resident
    bytes_per_user = store.nbytes / users
    save_s, load_s, snapshot_bytes = snapshot_costs(store, users)
    return {
        "users": users,
        "bytes_per_user": round(bytes_per_user),
        "resident_bytes_per_user": round(grown / users),
        "changelog_bytes_per_user": ROW_BYTES + len(user_key(0)) + BATCH_HEADER_BYTES,
        "recover_s": round(recover_s, 2),
        "snapshot_save_s": round(save_s, 2),
        "snapshot_load_s": round(load_s, 2),
        "snapshot_bytes": snapshot_bytes,
    }


if __name__ == "__main__":
    main(measure)
