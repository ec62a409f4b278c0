"""States that no reader of reviews goes on from: damaged, of another version, of another topic, or too large."""

import hashlib
import math
from collections.abc import Callable

import msgspec
import pytest

from streams.reviews.state import AT, Heard, StateError
from tests.builders import START_MS
from tests.unit.test_review_state import follow


def _changed(key: bytes, **fields: object) -> Callable[[dict[bytes, bytes]], None]:
    """Damage that sets fields of a record."""

    def damage(state: dict[bytes, bytes]) -> None:
        state[key] = msgspec.msgpack.encode(msgspec.msgpack.decode(state[key]) | fields)

    return damage


def _lesson(**fields: object) -> Callable[[dict[bytes, bytes]], None]:
    return _changed(AT, lesson={"next_offset": 300, "time_ms": 0, "parts": 1, "digest": ""} | fields)


def _short(state: dict[bytes, bytes]) -> None:
    """A lesson that ends before its number of ids, as it was written."""
    state[b"lesson/300/0"] = b"x"
    _lesson(digest=hashlib.sha256(b"x").hexdigest())(state)


def _cut(key: bytes) -> Callable[[dict[bytes, bytes]], None]:
    return lambda state: state.update({key: state[key][:-1]})


def _of_shoe(**fields: object) -> Callable[[dict[bytes, bytes]], None]:
    """Likewise, of the record of an ad."""

    def damage(state: dict[bytes, bytes]) -> None:
        heard = msgspec.msgpack.decode(state[b"ad/shoe"], type=Heard)
        state[b"ad/shoe"] = msgspec.msgpack.encode(msgspec.structs.replace(heard, **fields))

    return damage


def _watched(**fields: float) -> Callable[[dict[bytes, bytes]], None]:
    """Likewise, of what is watched of it."""

    def damage(state: dict[bytes, bytes]) -> None:
        watched = msgspec.msgpack.decode(state[b"ad/shoe"], type=Heard).watched._replace(**fields)  # type: ignore[arg-type] # all are numbers
        _of_shoe(watched=watched)(state)

    return damage


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda state: state.pop(AT), "not written to its end"),
        (_changed(AT, version=2, reviews_id=None), "of version 2, this one has 1"),
        (_changed(AT, reviews_id="reviews-2"), "of another topic of reviews"),
        (_changed(AT, next_offset=301), "read up to 301, and reviews end at 300"),
        (_changed(AT, next_offset=12), "learnt up to 300, read up to 12"),
        (_lesson(parts=33), "a lesson of 33 parts"),
        (_lesson(parts=32), "damaged: what was learnt is not what was written"),
        (_lesson(parts=0), "a lesson of 0 parts"),
        (_lesson(next_offset=-1), "learnt up to -1, read up to 300"),
        (_short, "damaged: unpack_from requires"),
        (_changed(AT, lesson=None), "damaged"),
        (_cut(AT), "damaged"),
        (_cut(b"lesson/300/0"), "damaged: what was learnt is not what was written"),
        (lambda state: state.pop(b"lesson/300/0"), "damaged: what was learnt is not what was written"),
        (_cut(b"brand/acme"), "damaged"),
        (_watched(sum=math.nan), "damaged: b'ad/shoe' has numbers that are not finite"),
        (_watched(mean=2.0), "damaged"),
        (_of_shoe(said=(1, 2.0, None, START_MS)), "damaged"),
        (_of_shoe(next_offset=301), "b'ad/shoe' was read up to 301, and reviews end at 300"),
        (lambda state: state.update({b"brand/" + b"x" * 129: state[b"brand/acme"]}), "damaged"),
        (lambda state: state.update({b"ad/\xff": state[b"ad/shoe"]}), "damaged"),
    ],
)
def test_what_is_damaged_or_of_another_version_or_topic_is_refused_with_the_reason(
    damage: Callable[[dict[bytes, bytes]], None], why: str
) -> None:
    broker, _ = follow()
    damage(broker.state)
    with pytest.raises(StateError) as refused:
        broker.reader(end=300)
    assert why in str(refused.value)
