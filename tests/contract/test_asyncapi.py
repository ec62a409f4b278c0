"""The committed AsyncAPI document says what the wire types, the topics and the step do."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.partitioner import murmur2
from msgspec import Struct

from streams import asyncapi, topics, wire
from streams.control_wire import KIND_NAMES, ControlMessage
from streams.identity import partitioner
from streams.letters import letter
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
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', asyncapi.render())):
        found: Any = DOCUMENT
        for step in reference.split("/"):
            assert step in found, reference
            found = found[step]


def test_no_schema_speaks_a_newer_dialect_than_asyncapi() -> None:
    assert "prefixItems" not in asyncapi.render()
    pair = DOCUMENT["components"]["schemas"]["LaneRow"]["properties"]["next_offsets"]
    assert pair["items"] == [{"type": "integer"}, {"type": "integer"}]
    assert pair["additionalItems"] is False
