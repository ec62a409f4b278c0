"""What may travel on the topics: fields to come pass, the impossible is refused, and nothing is lost on the way."""

import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.events import Source
from scoring.rows import RowStore
from streams import wire
from streams.decode import Decoded, decode
from streams.letters import DeadLetter
from streams.receipts import encode_decision
from streams.wire import LANE_KEY, Ad, Click, Impression, encode_json
from tests.builders import START_MS, ad, click, impression, record

INPUTS: dict[str, Any] = {"impression": impression(), "click": click(), "ad": ad()}
IDS = {"impression": ("event_id", "user_id", "ad_id"), "click": ("event_id", "user_id", "ad_id"), "ad": ("ad_id",)}


def with_fields(message: Any, **fields: Any) -> bytes:
    """The message's JSON with other fields; a field given as ``...`` is left out."""
    told = msgspec.to_builtins(message) | fields
    return msgspec.json.encode({name: value for name, value in told.items() if value is not ...})


def decode_as(message: Any, value: bytes) -> Any:
    return msgspec.json.decode(value, type=type(message))


def taken(user: str, key: bytes | None = None) -> Decoded:
    """A click of ``user`` as the engine takes it."""
    given_record = record(click(user), key=user.encode() if key is None else key)
    sources = np.array([Source.CLICK], dtype=np.uint8)
    return decode([given_record], sources, RowStore(), latest_ms=START_MS, belongs_here=lambda _: True)


@pytest.mark.parametrize("message", INPUTS.values(), ids=INPUTS)
def test_fields_that_are_to_come_pass(message: Any) -> None:
    assert decode_as(message, with_fields(message, campaign_tier="gold", nested={"a": [1, None]}, schema=7)) == message


@pytest.mark.parametrize(
    "message",
    [
        impression(placement_id="p1", slot=3, price_micros=5, surface="feed"),
        click(kind="purchase", viewed_s=1.5, value_micros=7, impression_time_ms=0, placement_id="p", surface="feed"),
        ad(budget_micros=9, category="a/b", brand="b", price_micros=1, tags=("x", "y"), title="Ü", end_ms=START_MS),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_comes_back_as_it_was_sent(message: Any) -> None:
    assert decode_as(message, encode_json(message)) == message


REQUIRED = {
    "impression": ("event_id", "user_id", "ad_id", "time_ms"),
    "click": ("event_id", "user_id", "ad_id", "time_ms"),
    "ad": ("ad_id", "campaign_id", "advertiser_id", "bid_micros"),
}


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in REQUIRED.items() for field in fields])
def test_a_required_field_that_is_missing_is_named(name: str, field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"`{field}`"):
        decode_as(INPUTS[name], with_fields(INPUTS[name], **{field: ...}))


def test_what_need_not_be_said_is_not_sent() -> None:
    assert set(msgspec.json.decode(encode_json(impression()))) == {"event_id", "user_id", "ad_id", "time_ms"}


WRONG: list[tuple[str, str, Any]] = [
    # wrong types
    ("click", "user_id", 7),
    ("click", "user_id", None),
    ("click", "time_ms", "1700000000000"),
    ("click", "time_ms", 1.5),
    ("click", "time_ms", True),
    ("click", "kind", "hover"),
    ("click", "kind", None),
    ("click", "viewed_s", "3"),
    ("click", "surface", None),
    ("click", "placement_id", 5),
    ("impression", "slot", "1"),
    ("impression", "slot", 1.5),
    ("ad", "tags", "sale"),
    ("ad", "tags", [1]),
    ("ad", "status", "deleted"),
    ("ad", "bid_micros", None),
    # impossible numbers
    ("click", "time_ms", -1),
    ("click", "time_ms", 4_102_444_800_001),
    ("click", "time_ms", 2**70),
    ("click", "impression_time_ms", -1),
    ("click", "impression_time_ms", 4_102_444_800_001),
    ("click", "viewed_s", -0.001),
    ("click", "viewed_s", 86_400.001),
    ("click", "value_micros", -1),
    ("click", "value_micros", 1_000_000_000_000_001),
    ("impression", "slot", -1),
    ("impression", "slot", 1_000),
    ("impression", "price_micros", -1),
    ("ad", "bid_micros", -1),
    ("ad", "bid_micros", 1_000_000_001),
    ("ad", "budget_micros", -1),
    ("ad", "price_micros", 10**16),
    ("ad", "end_ms", -1),
    # oversized or empty strings, too many of them
    *((name, field, "") for name, fields in IDS.items() for field in fields),
    *((name, field, "x" * 65) for name, fields in IDS.items() for field in fields),
    ("click", "placement_id", "x" * 129),
    ("click", "surface", "x" * 129),
    ("impression", "surface", "x" * 129),
    ("ad", "campaign_id", "x" * 65),
    ("ad", "advertiser_id", ""),
    ("ad", "category", "x" * 257),
    ("ad", "brand", "x" * 129),
    ("ad", "title", "x" * 513),
    ("ad", "tags", ["x" * 129]),
    ("ad", "tags", ["x"] * 33),
]


@pytest.mark.parametrize(("name", "field", "value"), WRONG, ids=[f"{n}-{f}-{v!r:.20}" for n, f, v in WRONG])
def test_what_cannot_be_is_refused_with_the_field(name: str, field: str, value: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(f"$.{field}")):
        decode_as(INPUTS[name], with_fields(INPUTS[name], **{field: value}))


AT_THE_EDGE: list[tuple[str, str, Any]] = [
    ("click", "user_id", "x" * 64),
    ("click", "user_id", "ü" * 64),
    ("click", "time_ms", 0),
    ("click", "time_ms", 4_102_444_800_000),
    ("click", "viewed_s", 0),
    ("click", "viewed_s", 86_400),
    ("click", "value_micros", 1_000_000_000_000),
    ("ad", "budget_micros", 1_000_000_000_000_000),
    ("impression", "slot", 999),
    ("ad", "bid_micros", 1_000_000_000),
    ("ad", "tags", ("x" * 128,) * 32),
    ("ad", "category", "x" * 256),
    ("ad", "title", "x" * 512),
]


@pytest.mark.parametrize(("name", "field", "value"), AT_THE_EDGE, ids=[f"{n}-{f}-{v!r:.20}" for n, f, v in AT_THE_EDGE])
def test_what_is_just_possible_passes(name: str, field: str, value: Any) -> None:
    decoded = decode_as(INPUTS[name], with_fields(INPUTS[name], **{field: value}))

    assert msgspec.to_builtins(getattr(decoded, field)) == value


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"0x10", b"01"])
def test_numbers_that_json_does_not_have_are_refused(number: bytes) -> None:
    value = with_fields(click(), viewed_s=12345).replace(b"12345", number)
    assert number in value

    with pytest.raises(msgspec.DecodeError):
        decode_as(click(), value)


@pytest.mark.parametrize("user", [LANE_KEY.decode(), "\x00", "a\x00b", "tab\t", "line\n", "\x1b[31m", "del\x7f"])
def test_a_user_with_a_control_character_is_refused_so_that_none_is_the_lane(user: str) -> None:
    out = taken(user)

    assert len(out.events) == 0
    ((_, stage, error, message),) = out.dead
    assert (stage, error) == ("decode", "ValueError")
    assert repr(user) not in message
    assert "give every user a plain id" in message


@pytest.mark.parametrize("user", ["user-1", "a b", "Zoë", "用户", "👩‍💻", "a\u00a0b", "a\u200bb", "\ue000"])
def test_a_user_in_any_language_is_taken(user: str) -> None:
    assert len(taken(user).events) == 1


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64))
def test_no_text_whatever_makes_a_row_that_a_recovery_takes_for_the_lanes(user: str) -> None:
    out = taken(user)

    assert len(out.events) + len(out.dead) == 1
    if len(out.events):
        assert not any(ord(character) < 0x20 or ord(character) == 0x7F for character in user)
        assert user.encode() != LANE_KEY


def test_money_and_time_of_the_wire_fit_the_rows_integers() -> None:
    bounds = msgspec.json.schema_components([Impression, Click, Ad])[1]
    largest = [
        field.get("maximum", 0)
        for schema in bounds.values()
        for field in schema["properties"].values()
        if "maximum" in field
    ]

    assert max(largest) < 2**63
    assert len(largest) > 5


def test_every_message_says_what_it_is_and_which_topic_carries_it() -> None:
    messages = [Impression, Click, Ad, wire.Placement, wire.Decision, DeadLetter, wire.LaneRow]

    for message in messages:
        said = message.__doc__ or ""
        assert re.search(r"Topic ``|dead-letters``|state-changelog``", said), message.__name__


@given(st.lists(st.binary(max_size=50), min_size=11, max_size=11), st.text(max_size=10))
def test_a_receipts_json_is_the_one_that_any_reader_expects(arrays: list[bytes], name: str) -> None:
    names = ["row", "candidates", "revisions", "pctr", "bids_micros", "placement", "weights", "lifts"]
    names += ["offers", "worth", "fates"]
    decision = wire.Decision(
        placement_id=name, user_id=name, time_ms=1, lane=2, offsets=(3, 4), versions={"model": name}, arm="engine",
        seed=2**64 - 1, policy={"slots": 1.0}, chosen=(0, 1), propensities=(0.1, 1.0),
        **dict(zip(names, arrays, strict=True)),
    )  # fmt: skip

    assert encode_decision(decision) == wire.encode_json(decision)
    assert msgspec.json.decode(encode_decision(decision), type=wire.Decision) == decision
