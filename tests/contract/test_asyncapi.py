"""The committed AsyncAPI document says what the wire types, the topics and the step do."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka.partitioner import murmur2
from msgspec import Struct

from scoring.billing import VIEW_MS_MAX
from scoring.rows import SEEN_SIZE
from streams import asyncapi, topics, wire
from streams import asyncapi_examples as examples
from streams.client import PlacementView, priced
from streams.control_wire import KIND_NAMES, ControlMessage
from streams.decode import is_plain
from streams.identity import partitioner
from streams.letters import letter
from streams.placing import placement_id
from streams.settings import Settings
from tests.builders import record

COMMITTED = Path(__file__).parents[2] / "deploy" / "asyncapi.json"
DOCUMENT: dict[str, Any] = asyncapi.document()
MESSAGES = DOCUMENT["components"]["messages"]
EXAMPLES = {
    message.name: message.example
    for carried in asyncapi.CARRIED.values()
    for message in carried
    if message.example is not None
}


def test_the_committed_document_is_in_step() -> None:
    fix = "deploy/asyncapi.json is out of step; make it anew: salience asyncapi > deploy/asyncapi.json"
    assert COMMITTED.read_text() == asyncapi.render(), fix


def test_every_topic_and_no_other_is_a_channel() -> None:
    assert list(DOCUMENT["channels"]) == [topic.name for topic in topics.TABLE] == topics.names()
    assert asyncapi.CARRIED.keys() == DOCUMENT["channels"].keys()


def test_every_message_of_the_wire_is_described() -> None:
    """All structs of `streams.wire` but those inside others; a dead letter's is its headers."""
    structs = {name for name, value in vars(wire).items() if isinstance(value, type) and issubclass(value, Struct)}
    parts = {"Struct", "Slot", "Attended", "Figures", "ShadowSlot", "Interleaved"}
    assert structs - parts <= MESSAGES.keys()
    assert {"Slot", "Attended", "ShadowSlot"} <= DOCUMENT["components"]["schemas"].keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_message_and_comes_back_as_it_was(name: str) -> None:
    (example,) = MESSAGES[name]["examples"]
    decoded = msgspec.json.decode(msgspec.json.encode(example["payload"]), type=type(EXAMPLES[name]))
    assert decoded == EXAMPLES[name]
    assert msgspec.to_builtins(decoded) == example["payload"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_schema_lists_the_fields_and_those_that_must_be_there(name: str) -> None:
    schema = DOCUMENT["components"]["schemas"][name]
    fields = msgspec.structs.fields(EXAMPLES[name])
    tag = [tag] if (tag := EXAMPLES[name].__struct_config__.tag_field) else []
    assert list(schema["properties"]) == tag + [field.encode_name for field in fields]
    assert schema["required"] == tag + [field.encode_name for field in fields if field.required]


def test_every_kind_of_control_message_is_described() -> None:
    messages = [message.example for message in asyncapi.CARRIED[topics.CONTROL]]
    described = {message.key.partition(b"/")[0].decode() for message in messages if isinstance(message, ControlMessage)}
    assert described == KIND_NAMES


@pytest.mark.parametrize("topic", [topic for topic in topics.TABLE if topic.lanes], ids=lambda topic: topic.name)
def test_topics_of_lanes_name_the_partitioner(topic: topics.Topic) -> None:
    assert DOCUMENT["channels"][topic.name]["bindings"]["kafka"]["x-partitioner"] == "murmur2"


@pytest.mark.parametrize("lanes", [1, 3, 8, 64])
def test_the_partitioner_is_the_formula_that_producers_are_told(lanes: int) -> None:
    told = "(murmur2(key) & 0x7fffffff) % partitions"
    assert f"`{told}`" in DOCUMENT["info"]["description"]
    ours = partitioner(lanes)
    for number in range(200):
        key = f"user-{number}".encode()
        expected = (murmur2(key) & 0x7FFFFFFF) % lanes
        assert ours(key) == expected


PLAIN = {
    "Impression": {"user_id"},
    "Click": {"user_id"},
    "Ad": {"ad_id", "campaign_id", "advertiser_id"},
    "Consent": {"user_id"},
    "Erasure": {"user_id"},
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_schema_refuses_in_ids_the_characters_that_a_worker_refuses(name: str) -> None:
    fields = DOCUMENT["components"]["schemas"][name]["properties"]
    patterns = {field: schema["not"]["pattern"] for field, schema in fields.items() if "not" in schema}
    assert patterns.keys() == PLAIN[name]
    ids = [f"a{chr(code)}" for code in range(0x300)]
    for pattern in patterns.values():
        assert [re.search(pattern, each) is None for each in ids] == [is_plain(each) for each in ids]


def test_producers_are_told_how_long_an_id_is_remembered_and_what_is_charged_of_a_view() -> None:
    told = DOCUMENT["info"]["description"]
    assert f"the latest {SEEN_SIZE} `event_id`" in told
    assert f"{VIEW_MS_MAX // 1_000} seconds at most" in told
    assert "A view is dated when it ends" in told
    runbook = " ".join((COMMITTED.parent / "OPERATIONS.md").read_text().split())
    assert f"while it is among the latest {SEEN_SIZE} of its person and topic" in runbook


def test_who_reads_placements_is_told_to_read_committed_ones_as_a_view_does() -> None:
    isolation = inspect.signature(PlacementView).parameters["isolation"].default
    assert f"`isolation.level={isolation}`" in DOCUMENT["info"]["description"]


def test_producers_are_told_what_the_timestamps_of_their_records_decide() -> None:
    told, late_ms = DOCUMENT["info"]["description"], Settings.model_fields["late_ms"].default
    assert f"`SALIENCE_LATE_MS` ({late_ms // topics.DAY_MS} days where it is not set)" in told
    for name in topics.LANE_INPUTS:
        configs = DOCUMENT["channels"][name]["bindings"]["kafka"]["topicConfiguration"]
        assert configs["message.timestamp.type"] == "CreateTime"
        assert configs["retention.ms"] > 0


@pytest.mark.parametrize("number", ["1.0", "1e3"])
def test_producers_are_told_which_integers_are_refused(number: str) -> None:
    assert f"`{number}`" in DOCUMENT["info"]["description"]
    value = b'{"event_id":"e","user_id":"u","ad_id":"a","time_ms":%s}' % number.encode()
    with pytest.raises(msgspec.ValidationError, match=r"\$\.time_ms"):
        msgspec.json.decode(value, type=wire.Click)


@pytest.mark.parametrize("topic", topics.TABLE, ids=lambda topic: topic.name)
def test_a_channel_has_the_topics_configs(topic: topics.Topic) -> None:
    binding = DOCUMENT["channels"][topic.name]["bindings"]["kafka"]
    told = {name: str(value) for name, value in binding["topicConfiguration"].items()}
    assert told == topic.settings(3) | {"cleanup.policy": str([topic.cleanup])}
    assert binding.get("partitions") == (None if topic.lanes else 1)


def test_every_message_names_its_key() -> None:
    for name, message in MESSAGES.items():
        assert message["bindings"]["kafka"]["key"]["description"], name


def test_a_dead_letter_has_the_headers_that_are_described() -> None:
    refused = record(wire.Impression(event_id="e", user_id="u", ad_id="a", time_ms=1))
    headers = dict(letter(refused, "decode", "ValidationError", "no").headers)
    described = MESSAGES["DeadLetter"]["headers"]
    added = {name for name in headers if name.startswith(asyncapi.HEADERS)}
    assert added == set(described["required"]) == set(described["properties"])


def test_compacted_topics_say_whose_tombstones_they_hold() -> None:
    for topic in topics.TABLE:
        carried = [message.name for message in asyncapi.CARRIED[topic.name] if message.payload == {"type": "null"}]
        assert bool(carried) == (topic.cleanup == "compact" and bool(asyncapi.CARRIED[topic.name])), topic.name


def test_every_reference_leads_somewhere() -> None:
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', asyncapi.render()))
    assert {f"channels/{topic.name}" for topic in topics.TABLE} <= references
    for reference in references:
        found: Any = DOCUMENT
        for step in reference.split("/"):
            assert step in found, reference
            found = found[step]


def test_no_schema_speaks_a_newer_dialect_than_asyncapi() -> None:
    assert "prefixItems" not in asyncapi.render()
    pair = DOCUMENT["components"]["schemas"]["LaneRow"]["properties"]["next_offsets"]
    assert [each["type"] for each in pair["items"]] == ["integer", "integer"]
    assert pair["additionalItems"] is False


def schemas_in(told: Any) -> Iterator[dict[str, Any]]:
    """Every schema within ``told``, itself included."""
    if isinstance(told, dict):
        yield told
    for part in told.values() if isinstance(told, dict) else told if isinstance(told, list) else ():
        yield from schemas_in(part)


def test_every_integer_tells_that_it_is_wider_than_generators_of_code_take_it_to_be() -> None:
    schemas = [each for each in schemas_in(DOCUMENT["components"]["schemas"]) if each.get("type") == "integer"]
    assert len(schemas) > 50
    assert {schema.get("format") for schema in schemas} == {"int64", "uint64"}
    assert DOCUMENT["components"]["schemas"]["Decision"]["properties"]["seed"]["format"] == "uint64"


def test_patterns_are_in_the_syntax_of_every_language_and_let_no_line_end_follow() -> None:
    found = [each for each in schemas_in(DOCUMENT) if isinstance(each.get("pattern"), str)]
    assert not [each["pattern"] for each in found if "(?" in each["pattern"]]
    versions = DOCUMENT["components"]["schemas"]["PushedModel"]["properties"]["model"]
    for version, fits in (("demo-1a2b3c4d", True), ("demo-1a2b3c4d\n", False), ("demo", False)):
        shaped, barred = (re.search(each["pattern"], version) for each in (versions, versions["not"]))
        assert (shaped is not None and barred is None) is fits


def test_the_examples_tell_of_one_ad_and_of_the_same_numbers() -> None:
    ad, placement, impression = examples.AD, examples.PLACEMENT, examples.IMPRESSION
    (slot,) = placement.slots
    assert (slot.ad_id, slot.campaign_id) == (ad.ad_id, ad.campaign_id)
    assert slot.ecpm_micros == round(1_000 * ad.bid_micros * slot.pctr)
    assert slot.price_micros <= ad.bid_micros
    for event in (impression, examples.CLICK):
        assert priced(msgspec.structs.replace(event, price_micros=0, seal=""), placement) == event
    assert examples.CLICK.impression_time_ms == impression.time_ms
    decision = examples.DECISION
    assert placement.placement_id == placement_id(decision.lane, placement.user_id.encode(), decision.offsets)
    assert msgspec.json.decode(decision.placement, type=wire.Placement) == placement
    assert np.frombuffer(decision.pctr, dtype=np.float32) == np.float32(slot.pctr)
    assert np.frombuffer(decision.bids_micros, dtype=np.int64) == ad.bid_micros
    assert (examples.OUTCOME.ad_id, examples.OUTCOME.shown_ms) == (ad.ad_id, impression.time_ms)
    assert examples.SHADOW_SCORE.slots[0].pctr == slot.pctr
    for figures in (examples.CAMPAIGN_METRICS.today, examples.CAMPAIGN_METRICS.total):
        assert figures.spent_micros == figures.clicks * slot.price_micros
        assert figures.value_micros == figures.purchases * ad.price_micros
