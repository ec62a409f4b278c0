"""A click layer with numbers that none comes to begins anew: its worker neither fails in mid-work nor serves NaN."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from scoring.clicks import FEATURES
from scoring.pending import PENDING
from streams.lanes.clicks import KEY, LaneClicks, spread
from tests.unit.keeping import LEARNING, SHOP, keep, observe, state, stream

Kept = dict[bytes, bytes]
EVENTS, USERS = stream(3, 100)


def kept_layer() -> Kept:
    clicks, kept = LaneClicks(LEARNING), Kept()
    keep(kept, observe(clicks, EVENTS, USERS))
    return kept


def learner(**damage: Any) -> Callable[[Kept], None]:
    def change(kept: Kept) -> None:
        row = msgspec.msgpack.decode(kept[KEY])
        for one in row["learners"].values():
            one.update(damage)
        kept[KEY] = msgspec.msgpack.encode(row)

    return change


def row(**damage: Any) -> Callable[[Kept], None]:
    def change(kept: Kept) -> None:
        kept[KEY] = msgspec.msgpack.encode(msgspec.msgpack.decode(kept[KEY]) | damage)

    return change


def record(of: bytes, *numbers: float) -> Callable[[Kept], None]:
    def change(kept: Kept) -> None:
        kept[next(key for key in kept if key.startswith(KEY + of))] = np.array(numbers).tobytes()

    return change


def opened(name: str, value: float) -> Callable[[Kept], None]:
    def change(kept: Kept) -> None:
        for key in [key for key in kept if key.startswith(KEY + b"/open/")]:
            chunk = msgspec.msgpack.decode(kept[key])
            rows = np.frombuffer(chunk["rows"], dtype=PENDING).copy()
            rows[name] = value
            kept[key] = msgspec.msgpack.encode(chunk | {"rows": rows.tobytes()})

    return change


DAMAGES: dict[str, Callable[[Kept], None]] = {
    "the weights of model 0: nan": learner(weights=np.full(len(FEATURES), np.nan).tobytes()),
    "the caution of model 0: -5": learner(caution=np.full(len(FEATURES), -5.0).tobytes()),
    "the records of ads: -10": record(b"/ad/", -10.0, 1.0, 1.0, 1.0),
    "the records of people: inf": record(b"/person/", 1.0, np.inf, 0.0),
    "the records of slots: -1": row(examined=np.full((2, 3), -1.0).tobytes()),
    "open impressions: 1125": row(tail=2**50),
    "clock_ms: 1125": row(clock_ms=2**50),
    "logit of open impressions: nan": opened("logit", np.nan),
    "examined of open impressions: 0": opened("examined", 0.0),
    "predicted of open impressions: 1": opened("predicted", 1.0),
    "surface of open impressions: 250": opened("surface", 250),
    "slot of open impressions: 250": opened("slot", 250),
    "closeness of open impressions: inf": opened("closeness", np.inf),
    "open impressions of one key": opened("key", 7),
}


@pytest.mark.parametrize(("told", "damage"), DAMAGES.items(), ids=DAMAGES)
def test_a_layer_with_a_number_that_none_comes_to_begins_anew_and_says_which(
    told: str, damage: Callable[[Kept], None]
) -> None:
    kept = kept_layer()
    damage(kept)
    begun, new = LaneClicks.restore(LEARNING, kept), LaneClicks(LEARNING)
    assert told in begun.anew
    assert "expected" in begun.anew
    assert state(begun) == state(new)
    for each in (begun, new):
        keep(kept, each.commit(SHOP))
    again = LaneClicks.restore(LEARNING, kept)
    assert not again.anew
    assert kept.keys() == spread(new.parts()).keys()
