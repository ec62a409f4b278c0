"""A lane's click layer kept by hand, as a changelog does: a stream for it, and what compaction leaves."""

from collections.abc import Sequence

import numpy as np

from scoring.events import EVENT, Events, Kind, Source
from scoring.feedback import Learning
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM
from scoring.units import MINUTE_MS
from streams.lanes.clicks import LaneClicks
from streams.lanes.learner_rows import WatchRow
from tests.builders import catalogue

LEARNING = Learning(window_ms=20 * MINUTE_MS, wait_ms=5 * MINUTE_MS, pending_max=60)
"""Of what is clicked a third is while it waits."""
SHOP = catalogue(20)


def stream(seed: int, count: int) -> tuple[Events, np.ndarray]:
    """Impressions of known ads, a minute apart, and clicks on earlier ones; the users' ids."""
    rng = np.random.default_rng(seed)
    events = np.zeros(count, dtype=EVENT)
    users = rng.integers(1, 6, size=count).astype(np.uint64)
    for place in range(count):
        each = events[place]
        each["time_ms"] = each["shown_ms"] = MINUTE_MS * (1 + place)
        each["event"], each["slot"] = place + 1, rng.integers(-1, 5)
        each["ad"] = SHOP.ad[rng.integers(len(SHOP))]
        each["kind"], each["source"] = Kind.SHOWN, Source.IMPRESSION
        if place and rng.random() < 0.3:
            shown = rng.integers(place)
            users[place], each["ad"], each["shown_ms"] = users[shown], events[shown]["ad"], events[shown]["shown_ms"]
            each["kind"], each["source"], each["answers"] = Kind.CLICKED, Source.CLICK, True
    events["stream_ms"] = np.maximum.accumulate(events["time_ms"])
    return events, users


def observe(clicks: LaneClicks, events: Events, users: np.ndarray) -> list[tuple[bytes, bytes | None]]:
    place = np.flatnonzero(events["source"] == Source.IMPRESSION)
    logit = (users[place] - 3.0).astype(np.float32)
    seen = Impressions(place, logit, np.zeros((len(place), CONTEXT_DIM), dtype=np.float32))
    clicks.layer.observe(events, users, users == 2, seen)
    return clicks.commit(SHOP)


def keep(kept: dict[bytes, bytes], changes: Sequence[tuple[bytes, bytes | None]]) -> None:
    """What compaction leaves."""
    for key, value in changes:
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value


def state(clicks: LaneClicks) -> list[object]:
    layer, pending = clicks.layer, clicks.layer.pending
    return [
        layer.model.array.tobytes(), layer.model.caution.tobytes(), layer.clock_ms, layer.learned,
        *(sorted(zip(*map(np.ndarray.tolist, of.arrays()), strict=True)) for of in (layer.lifts, layer.people)),
        layer.examination.record.tobytes(),
        WatchRow.of(layer.watch),
        pending.head, pending.asked, pending.tail, pending.between(pending.head, pending.tail).tobytes(), clicks.models,
    ]  # fmt: skip
