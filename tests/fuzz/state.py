"""What state is recovered from, the changelog's rows and lane rows, and snapshots; and what lanes tell one another."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from scoring.calibration import Calibrator
from scoring.feedback import ClickLayer
from scoring.inputs import CONTEXT_DIM, history_of, interest_of
from scoring.interest import decayed
from scoring.pool import Pool
from scoring.rows import ROW_BYTES, RowStore
from scoring.update import apply
from streams.clock import wall_ms
from streams.feeds.layers import hear, shares
from streams.lanes.recovery import Recovered, RecoveryError, _load
from streams.lanes.snapshots import Snapshots
from streams.settings import Settings
from streams.step import LaneState
from streams.wire import LANE_KEY, LaneRow
from tests.builders import START_MS, Record, catalogue, click, columns_of, impression
from tests.fuzz.target import Check, Target


def _changelog(key: bytes) -> Callable[[], Check]:
    def start() -> Check:
        shop = catalogue(20)

        def check(data: bytes) -> None:
            """A changelog value; a row that is believed must bear an event, and being scored."""
            base = Recovered(RowStore(4))
            try:
                _load(base, [Record("state-changelog", 0, 0, START_MS, key, data)])
            except RecoveryError:
                return
            if len(base.store):
                events = columns_of(base.store, [impression(key.decode()), click(key.decode())])
                events["offset"] = 2**62
                applied = apply(base.store, events, shop)
                assert len(applied.outcome) == 2
                rows = base.store.rows[:1]
                now_ms = rows["time_ms"].copy()
                history_of(rows, now_ms)
                interest_of(decayed(rows["interest"], rows["interest_ms"], now_ms))

        return check

    return start


def folder() -> Path:
    """For the files of a target; it goes with the run."""
    return Path(tempfile.mkdtemp())


def _snapshot() -> Check:
    kept = Snapshots(Settings(home=folder(), rows_per_lane_max=64), "changelog-id")
    path = kept.path(0)
    path.parent.mkdir(parents=True)

    def check(data: bytes) -> None:
        path.write_bytes(data)
        found = kept.load(0, 0, 2**62)
        assert len(found.store) <= 64
        assert found.offset >= 0

    return check


def _snapshot_seeds() -> list[bytes]:
    kept = Snapshots(Settings(home=folder()), "changelog-id")
    state = LaneState(0, ("a", "b"), 1)
    out = []
    for user in (b"user-1", b"user-2"):
        kept.save(state, 7, wall_ms())
        out.append(kept.path(0).read_bytes())
        state.store.row_of(user)
    return out


def _lane_row_seed() -> bytes:
    row = LaneRow(
        version=1,
        from_offsets=(0, 0),
        next_offsets=(3, 4),
        records=7,
        order=b"\x55",
        watermarks_ms=(START_MS, START_MS),
        stream_ms=START_MS,
        topic_ids=("a", "b"),
        lanes=1,
        totals={"events_in": 7, "applied": 7},
    )
    return msgspec.msgpack.encode(row)


def _row_seed() -> bytes:
    store = RowStore()
    apply(store, columns_of(store, [impression(), click(impression_time_ms=START_MS)]), catalogue(20))
    value = store.rows[0].tobytes()
    assert len(value) == ROW_BYTES
    return value


def _share() -> Check:
    """A key, a line's end, a value of the click-layers topic; a word that is heard can be served by."""
    shop, layer = catalogue(20), ClickLayer()
    layer.learner(0)

    def check(data: bytes) -> None:
        key, _, value = data.partition(b"\n")
        pool = Pool()
        if hear(pool, [Record("click-layers", 0, 0, START_MS, key, value)]):
            assert not pool.learned
            assert not pool.records
        calibrator = Calibrator()
        calibrator.update(layer, shop, pool.others(0))
        context, everything = np.zeros((1, CONTEXT_DIM), np.float32), np.arange(20)[None]
        served = calibrator.calibration(np.zeros(1, np.uint64), context, everything)
        examined = served.examined
        assert np.isfinite(served.weights).all()
        assert np.isfinite(served.lift).all()
        assert examined is not None
        assert ((examined > 0) & (examined <= 1)).all()

    return check


def _share_seeds() -> list[bytes]:
    layer = ClickLayer()
    layer.learner(0)
    for slot, ad in enumerate(catalogue(3).ad.tolist()):
        layer.lifts.learn(ad, 1, 0.5)
        layer.examination.learn(slot, 1, 0.5)
    words = shares(1, layer, set(layer.lifts.arrays()[0].tolist()))
    return [(word.key or b"") + b"\n" + (word.value or b"") for word in words]


STATE = (
    Target("row", _changelog(b"user-1"), lambda: [_row_seed()], size_max=ROW_BYTES, inputs_per_process=200_000),
    Target("lane_row", _changelog(LANE_KEY), lambda: [_lane_row_seed()]),
    Target("snapshot", _snapshot, _snapshot_seeds, [b"salience"], size_max=4_096),
    Target("share", _share, _share_seeds, [b"1-0\n", b"1\n", b"\x00\x00\x00\x00\x00\x00\xf0\x7f"], size_max=4_096),
)
