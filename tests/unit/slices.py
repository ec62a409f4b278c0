"""Slices as tests make and run them: a lane over a shop of forty ads, and what it hands out."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np

from scoring.attention import AttentionModel, load
from scoring.candidates import Shares
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.events import Source
from scoring.policies import Policy
from streams.message import Message
from streams.step import Effects, LaneState, Slice, Step
from streams.wire import RESERVED, Placement
from tests.builders import START_MS, Record, entry, made_up_log, records

IDLE_TTL_MS = 30 * 86_400_000
TOLERANCE_MS = 300_000
NOW_MS = START_MS + 3_600_000
ADS = 40


@cache
def model() -> AttentionModel:
    """The demo shop's, read once."""
    return load()


def step_of(partition_of: Callable[[bytes], int] = lambda _: 0, ads: Sequence[int] = range(ADS), **fields: Any) -> Step:
    """The step of a lane over a shop of forty ads; ``partition_of`` says whose keys they are, all lane 0's here."""
    shop = Catalogue(model().encode, model().dim)
    shop.upsert([entry(f"ad-{n}", campaign_id=f"c{n % 3}", category=f"c{n % 7}", bid_micros=100 + n) for n in ads])
    engine = Engine(shop, model(), Policy(slots=5, shares=Shares(count=20)))
    return Step(engine, partition_of, TOLERANCE_MS, IDLE_TTL_MS, **fields)


def new_state(lane: int = 0) -> LaneState:
    """A lane that has done nothing yet."""
    return LaneState(lane, ("topic-id-1", "topic-id-2"), 4)


def slice_of(taken: Sequence[Record]) -> Slice:
    """The records in this order, watermarks at the newest of each topic."""
    order = np.array([Source.CLICK if each.topic == "clicks" else Source.IMPRESSION for each in taken], dtype=np.uint8)
    marks = [
        max([each.timestamp for each, of in zip(taken, order, strict=True) if of == source], default=0)
        for source in Source
    ]
    return Slice(taken, order, (marks[0], marks[1]))


def run(step: Step, state: LaneState, taken: Sequence[Record], now_ms: int = NOW_MS) -> Effects:
    """What the step makes of the records."""
    return step.run(state, slice_of(taken), now_ms)


def log_records(events: int = 300, seed: int = 1) -> list[Record]:
    """Records of a made-up log; of five of its ads the catalogue knows nothing."""
    return records(made_up_log(seed, events=events, users=12, ads=ADS + 5).events)


def placements(effects: Effects) -> dict[str, Placement]:
    """The placements by user."""
    values = [message.value for message in effects.messages["placements"] if message.value is not None]
    decoded = [msgspec.json.decode(value, type=Placement) for value in values]
    return {placement.user_id: placement for placement in decoded}


def rows_changed(effects: Effects) -> list[Message]:
    """The changelog without the lane's own records."""
    return [message for message in effects.messages["state-changelog"] if not (message.key or b"").startswith(RESERVED)]


def keys(messages: Sequence[Message]) -> list[bytes | None]:
    """The messages' keys, in order."""
    return [message.key for message in messages]
