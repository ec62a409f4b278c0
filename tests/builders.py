"""Builds events, ads, logs and records for tests, with sensible defaults; say only what the test is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scoring.catalogue import Catalogue, Entry
from scoring.events import Events
from scoring.features import Content
from scoring.rows import RowStore
from streams.columns import columns, source_of
from streams.logs import Event, Log, in_order
from streams.topic_admin import Found
from streams.topics import LANE_INPUTS, TABLE
from streams.wire import Ad, Click, Impression, Tone, encode_json

START_MS = 1_700_000_000_000
"""A moment in November 2023: all tests happen around it."""


@dataclass(slots=True)
class Record:
    """A record as a consumer returns it, without a consumer."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


def ad(ad_id: str = "ad-1", **fields: Any) -> Ad:
    """An ad that belongs to a campaign."""
    offer: dict[str, Any] = {"campaign_id": "campaign-1", "advertiser_id": "advertiser-1", "bid_micros": 1_000}
    return Ad(ad_id=ad_id, **(offer | fields))


def tone(
    of: Literal["ad", "brand"], name: str, reviews: int, time_ms: int = START_MS, sound: float = 0.75, **fields: Any
) -> Tone:
    """How ``reviews`` of an ad or a brand ``sound``, as of ``time_ms``."""
    told: dict[str, Any] = {"of": of, "name": name, "reviews": reviews, "tone": sound, "turned_ms": None}
    return Tone(time_ms=time_ms, **(told | fields))


def impression(user: str = "user-1", ad_id: str = "ad-1", time_ms: int = START_MS, **fields: Any) -> Impression:
    """``user`` is shown an ad. Unless ``fields`` hold it, the event's id follows from user, ad and time."""
    told: dict[str, Any] = {
        "event_id": f"i-{user}-{ad_id}-{time_ms}",
        "user_id": user,
        "ad_id": ad_id,
        "time_ms": time_ms,
    }
    return Impression(**(told | fields))


def click(user: str = "user-1", ad_id: str = "ad-1", time_ms: int = START_MS, **fields: Any) -> Click:
    """``user`` clicks on an ad, or does another ``kind`` of thing with it."""
    told: dict[str, Any] = {
        "event_id": f"c-{user}-{ad_id}-{time_ms}",
        "user_id": user,
        "ad_id": ad_id,
        "time_ms": time_ms,
    }
    return Click(**(told | fields))


def made_up_log(
    seed: int = 1, *, events: int = 200, users: int = 10, ads: int = 20, surface: str = "", brands: int = 0
) -> Log:
    """A log of at least ``events`` events: every impression of a random ad may be answered, seconds later."""
    rng = np.random.default_rng(seed)
    offered = [
        ad(f"ad-{n}", category=f"c{n % 7}/s{n % 21}", brand=f"b{n % brands}" if brands else "") for n in range(ads)
    ]
    out: list[Event] = []
    while len(out) < events:
        user, shown_ms = f"user-{rng.integers(users)}", START_MS + 1_000 * len(out)
        shown = impression(user, f"ad-{rng.integers(ads)}", shown_ms, surface=surface)
        out.append(shown)
        if rng.random() < 0.4:
            out.append(_answer(rng, user, shown))
    return Log(offered, in_order(out))


def _answer(rng: np.random.Generator, user: str, shown: Impression) -> Click:
    kind = str(rng.choice(["click", "view", "cart", "purchase"]))
    time_ms = shown.time_ms + int(rng.integers(0, 30_000))
    viewed_s = round(float(rng.uniform(0, 20)), 1)
    told = {"kind": kind, "viewed_s": viewed_s, "impression_time_ms": shown.time_ms, "surface": shown.surface}
    return click(user, shown.ad_id, time_ms, **told)


def record(event: Event, offset: int = 0, partition: int = 0, **fields: Any) -> Record:
    """The record that a producer makes of ``event``."""
    told: dict[str, Any] = {"timestamp": event.time_ms, "key": event.user_id.encode(), "value": encode_json(event)}
    return Record(LANE_INPUTS[source_of(event)], partition, offset, **(told | fields))


def records(events: Sequence[Event], partition: int = 0) -> list[Record]:
    """Records of ``events`` in order, with consecutive offsets per topic from 0."""
    offsets = _offsets([source_of(event) for event in events])
    return [record(event, offset, partition) for event, offset in zip(events, offsets, strict=True)]


def columns_of(store: RowStore, events: Sequence[Event]) -> Events:
    """Events as columns, rows looked up or made, offsets consecutive per source from 0."""
    out = columns(events, [store.row_of(event.user_id.encode()) for event in events])
    out["offset"] = _offsets(out["source"].tolist())
    return out


def _offsets(sources: Sequence[int]) -> list[int]:
    """Each event's place among those of its source."""
    counts = [0, 0]
    out = []
    for source in sources:
        out.append(counts[source])
        counts[source] += 1
    return out


def entry(ad_id: str = "ad-1", **fields: Any) -> Entry:
    """An ad as the catalogue takes it; those of ``fields`` that belong to its content go there."""
    of_content = ("category", "brand", "price_micros", "tags", "title")
    content: dict[str, Any] = {name: fields.pop(name) for name in of_content if name in fields}
    return Entry(Content(ad_id, **content), **({"bid_micros": 1_000} | fields))


def catalogue(ads: int = 20) -> Catalogue:
    """Ads ``ad-0``, ``ad-1``, … in a few categories and brands, without a model."""
    out = Catalogue()
    out.upsert(
        [entry(f"ad-{n}", category=f"c{n % 7}/s{n % 21}", brand=f"b{n % 5}", bid_micros=100 + n) for n in range(ads)]
    )
    return out


def known_topics(lanes: int) -> dict[str, Found]:
    """Every topic as a broker knows it, by name without prefix."""
    return {topic.name: Found(f"{topic.name}-1", topic.partitions(lanes)) for topic in TABLE}
