"""The topics as an AsyncAPI 3.0 document with Kafka bindings: https://www.asyncapi.com/docs/reference/specification/v3.0.0.

Made from what runs, the wire types and the table of topics, so that it cannot say anything else. Schemas are
JSON Schema draft 7, AsyncAPI's own dialect.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import Struct

from scoring.billing import VIEW_MS_MAX
from scoring.rows import SEEN_SIZE
from streams import asyncapi_examples as examples
from streams import topics
from streams.control_wire import END
from streams.letters import DeadLetter
from streams.placement_ids import SLICE_END
from streams.settings import Settings
from streams.topics import Topic
from streams.wire import Decision

Json = dict[str, Any]

BINDING = "0.5.0"
HEADERS = "salience."
"""What the names of the headers that we add begin with."""

_TOLERANCE_MIN = Settings.model_fields["time_tolerance_ms"].default // 60_000
_LATE_DAYS = Settings.model_fields["late_ms"].default // topics.DAY_MS
DESCRIPTION = f"""\
Clicks and ad impressions go in; what comes out is, for every person who just did something, the ranked ads most \
worth their attention next.

**Partitioner.** Topics keyed by user have the same number of partitions, and partition p of each belongs to lane p: \
a record must be in partition `(murmur2(key) & 0x7fffffff) % partitions`. That is the default of Java's producer, \
kafka-python and aiokafka. librdkafka and all that is built on it (confluent-kafka, rdkafka, node-rdkafka) use CRC32 \
unless told `partitioner=murmur2_random`. A record in another partition is counted and sent on to its own, late and \
out of order.

**Evolution.** Unknown fields pass. A wrong type, an impossible number or an oversized string makes the record a dead \
letter. Times are UTC epoch milliseconds, money is integer millionths of the shop's currency, keys are UTF-8.

**Integers** are written without a point and without an exponent: `1.0` and `1e3`, which JSON Schema takes for \
integers, make a record a dead letter.

**Clocks.** So does an event's time, its own or its impression's, that is ahead of the worker's clock by more than \
`SALIENCE_TIME_TOLERANCE_MS` ({_TOLERANCE_MIN} minutes where it is not set). Who says no, with `consent` \
false, is heeded whatever the clock.

**Repeats.** Of each person the latest {SEEN_SIZE} `event_id` of a topic are remembered, and an event of one of them \
counts once. After so many newer ones it counts again, and a view is charged again: a producer that had no answer \
sends the event again at once, with the same id, and not a day later.

**Answers.** A click, view, cart or purchase answers the impression of the same user and ad in the second of its \
`impression_time_ms`. Their `placement_id` does not join them: it tells whose price and seal they bring, and in what \
experiments they count.

**Views.** A view is dated when it ends. Of each that comes after the impression it answers {VIEW_MS_MAX // 1_000} \
seconds at most are charged, and no more than have passed since that impression, by their own times: by the sealed \
price where the ad bids for `attention`, and by the `attention_micros` that it has when the view is read.

**Timestamps.** The timestamp of an event's record is when it was sent, in milliseconds, as clients give it by \
themselves. Lanes take impressions and clicks in its order. An event is late, and put aside, if its `time_ms` is \
before the newest timestamp by more than `SALIENCE_LATE_MS` ({_LATE_DAYS} days where it is not set). And the broker \
deletes records by it, after `retention.ms`: a timestamp in seconds is of 1970, and its record is gone at the next \
check, read or not.

**Placements.** Read them with `isolation.level=read_committed`, the default of librdkafka, but not of Java's \
consumer: without it come placements of slices that were taken back, which no receipt explains. Read from the earliest \
offset, and keep the latest of each person until it ends or a tombstone comes. Leave out one whose `time_ms` is before \
that of the one kept, unless it is `context_only` and the one kept is not, or it is before by an hour or more: the one \
kept is then of a time when clocks were ahead."""

_USER = "The user_id, UTF-8, without control characters."


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of record. ``example`` is its value, for those that have a wire type; else ``payload`` describes it."""

    name: str
    key: str
    example: Struct | None = None
    summary: str = ""
    content: str = "application/json"
    payload: Mapping[str, Any] = field(default_factory=dict)


_BYTES = {"type": "string", "format": "binary"}


def _raw(name: str, key: str, summary: str, content: str = "application/octet-stream") -> Message:
    return Message(name, key, None, summary, content, _BYTES)


def _tombstone(name: str, key: str, summary: str) -> Message:
    return Message(name, key, summary=summary, payload={"type": "null"})


_FORGOTTEN = _tombstone("Forgotten", _USER, "A tombstone: nothing is kept of this user.")

CARRIED: Mapping[str, tuple[Message, ...]] = {
    topics.CLICKS: (Message("Click", _USER, examples.CLICK),),
    topics.AD_IMPRESSIONS: (Message("Impression", _USER, examples.IMPRESSION),),
    topics.ADS: (
        Message("Ad", "The ad_id, UTF-8, without control characters.", examples.AD),
        _tombstone("Withdrawn", "The ad_id, UTF-8.", "A tombstone withdraws the ad."),
    ),
    topics.CONTROL: (
        Message("Consent", "`consent/` and the user_id.", examples.CONSENT),
        Message("Erasure", "`erasure/` and the user_id.", examples.ERASURE),
        Message("ExperimentSetting", "`experiment/` and its name.", examples.EXPERIMENT),
        Message("Drift", "`drift/`, the lane, a slash, the detector, a slash and the model's version.", examples.DRIFT),
        Message("HourlyTraffic", "`traffic/` and the lane.", examples.TRAFFIC),
        Message("PushedModel", "`model/` and the version.", examples.PUSHED_MODEL),
        Message("Allocation", "`allocation/` and the experiment's name.", examples.ALLOCATION),
        Message("ModelRoles", "`model-roles/all`.", examples.MODEL_ROLES),
        Message("ModelStatus", "`model-status/`, the version, a slash and the lane.", examples.MODEL_STATUS),
        _tombstone(
            "Unset",
            "The key of what is taken back.",
            "A tombstone. With the header `salience.upto` it takes nothing back that goes further: an erasure "
            "whose `time_ms` is later, another message whose `revision` is.",
        ),
    ),
    topics.PLACEMENTS: (Message("Placement", _USER, examples.PLACEMENT), _FORGOTTEN),
    topics.DECISIONS: (Message("Decision", _USER, examples.DECISION, "The example's arrays are shortened."),),
    topics.OUTCOMES: (Message("Outcome", "None: it is nobody's.", examples.OUTCOME),),
    topics.CHANGELOG: (
        _raw("Row", _USER, "A user's state, `scoring.rows.ROW`."),
        Message(
            "LaneRow",
            "A NUL and `lane`, which is no user_id.",
            examples.LANE_ROW,
            "MessagePack, whose bytes the example shows in base64.",
            "application/msgpack",
        ),
        _raw(
            "Layer",
            "A NUL and `clicks`, alone or with an ad or a number after it.",
            "The online click layer, `streams.lanes.clicks`.",
            "application/msgpack",
        ),
        _raw(
            "LedgerCell",
            "A NUL, `ledger/`, the campaign_id, a NUL and the arm.",
            "What the lane knows of a campaign's figures, `scoring.ledger`.",
        ),
        _raw(
            "Watermark",
            "A NUL, `erased/` and 16 bytes of a hash of the user_id.",
            "Nothing of this user until this time is applied again: UTC epoch milliseconds, 8 bytes, big-endian. "
            "After it, of who has said no on an event, when the newest of these was sent, likewise.",
        ),
        _raw(
            "Guest",
            "A NUL, `guest/` and the user_id.",
            "When the placement of somebody who is not remembered ends: UTC epoch milliseconds, 8 bytes, big-endian. "
            "It goes with the placement.",
        ),
        _FORGOTTEN,
    ),
    topics.LATE_EVENTS: (
        Message(
            "LateEvent",
            _USER,
            None,
            "An event older than the lane's time by more than `SALIENCE_LATE_MS`, as it came, with its own headers and "
            "those of a dead letter.",
            payload=_BYTES,
        ),
    ),
    topics.CAMPAIGN_METRICS: (
        Message("CampaignMetrics", "Lane, a slash, the campaign_id, a slash and the arm.", examples.CAMPAIGN_METRICS),
        _tombstone("Uncounted", "As before.", "A tombstone drops it: the lane has forgotten the campaign."),
    ),
    topics.CLICK_LAYERS: (
        _raw(
            "LayerShare",
            "The lane.",
            "What the lane's click layer has learned beside ads, `streams.feeds.layers`.",
            "application/msgpack",
        ),
        _raw(
            "AdShares",
            "The lane, a dash and a bucket of ads. What has a slash is of a former version, and skipped.",
            "Clicks, clicks expected, and how often shown and clicked, of the bucket's ads in this lane, "
            "`streams.feeds.layers.AD`.",
        ),
        _tombstone("Unlearned", "As before.", "A tombstone: it counts no more."),
    ),
    topics.MODELS: (
        _raw(
            "ModelPart",
            "The sha256 of a file, in hex, a slash and the part's number from 0.",
            "512 KiB of the file; the last part what is left.",
        ),
        _tombstone("Unneeded", "That of a part.", "A tombstone: no model needs it."),
    ),
    topics.SHADOW_SCORES: (Message("ShadowScore", "None: it is nobody's.", examples.SHADOW_SCORE),),
    topics.EXPERIMENT_REPORTS: (
        Message("ExperimentReport", "The experiment's name.", examples.EXPERIMENT_REPORT),
        _tombstone("Unreported", "The experiment's name.", "A tombstone drops it."),
    ),
    topics.REVIEWS: (Message("Review", "The ad_id, UTF-8.", examples.REVIEW),),
    topics.TONES: (
        Message("Tone", "`ad/` and the ad_id, or `brand/` and the brand.", examples.TONE),
        _tombstone("Unheard", "As before.", "A tombstone drops it."),
    ),
    topics.REVIEW_STATE: (
        _raw(
            "ReviewState",
            "`at`, a tone's, or `lesson/`, an offset, a slash and a part's number.",
            "Up to which review it is, what is known of an ad or a brand, or a part of what reviews teach: "
            "the reader's own, `streams.reviews.state`.",
        ),
        _tombstone("Replaced", "As before.", "A tombstone: it counts no more."),
    ),
    topics.DEAD_LETTERS: (
        _raw(
            "DeadLetter",
            "The refused record's own.",
            "A refused record as it came, with its own headers and those that say where from and why.",
        ),
    ),
}
"""What each topic carries."""

RECEIVED = (
    topics.CLICKS,
    topics.AD_IMPRESSIONS,
    topics.ADS,
    topics.CONTROL,
    topics.MODELS,
    topics.CHANGELOG,
    topics.CAMPAIGN_METRICS,
    topics.CLICK_LAYERS,
    topics.REVIEWS,
    topics.TONES,
    topics.REVIEW_STATE,
)
SENT = (
    topics.CONTROL,
    topics.PLACEMENTS,
    topics.DECISIONS,
    topics.OUTCOMES,
    topics.SHADOW_SCORES,
    topics.CHANGELOG,
    topics.LATE_EVENTS,
    topics.DEAD_LETTERS,
    topics.EXPERIMENT_REPORTS,
    topics.CAMPAIGN_METRICS,
    topics.CLICK_LAYERS,
    topics.TONES,
    topics.REVIEW_STATE,
)
_IN_GROUP = (topics.CLICKS, topics.AD_IMPRESSIONS)


def document() -> Json:
    """The AsyncAPI document."""
    messages = {message.name: message for carried in CARRIED.values() for message in carried}
    types = [type(message.example) for message in messages.values() if message.example is not None]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "salience",
            "version": version("salience"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"cluster": {"host": Settings.model_fields["bootstrap"].default, "protocol": "kafka"}},
        "channels": {topic.name: _channel(topic) for topic in topics.TABLE},
        "operations": _operations(),
        "components": {
            "messages": {name: _message(message) for name, message in messages.items()},
            "schemas": {name: _draft_7(schema) for name, schema in schemas.items()},
        },
    }


def render() -> str:
    """The document as it is committed: JSON, indented, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"


def _channel(topic: Topic) -> Json:
    configs = {name: int(value) if value.isdecimal() else value for name, value in topic.settings(3).items()}
    binding: Json = {"topicConfiguration": configs | {topics.CLEANUP: [topic.cleanup]}, "bindingVersion": BINDING}
    if topic.lanes:
        binding["x-partitioner"] = "murmur2"
    else:
        binding["partitions"] = topic.partitions(1)
    return {
        "address": topic.name,
        "description": f"{topic.purpose[0].upper()}{topic.purpose[1:]}. A deployment may put a prefix before the name.",
        "messages": {m.name: {"$ref": f"#/components/messages/{m.name}"} for m in CARRIED[topic.name]},
        "bindings": {"kafka": binding},
    }


def _operations() -> Json:
    out: Json = {}
    for action, names in (("receive", RECEIVED), ("send", SENT)):
        for name in names:
            out[f"{action}-{name}"] = operation = {"action": action, "channel": {"$ref": f"#/channels/{name}"}}
            if action == "receive" and name in _IN_GROUP:
                group = {"type": "string", "default": Settings.model_fields["group"].default}
                operation["bindings"] = {"kafka": {"groupId": group, "bindingVersion": BINDING}}
    return out


def _message(message: Message) -> Json:
    out: Json = {
        "name": message.name,
        "contentType": message.content,
        "payload": dict(message.payload),
        "bindings": {"kafka": {"key": {"type": "string", "description": message.key}, "bindingVersion": BINDING}},
    }
    if message.summary:
        out["summary"] = message.summary
    if message.example is not None:
        out["payload"] = {"$ref": f"#/components/schemas/{message.name}"}
        out["examples"] = [{"payload": msgspec.to_builtins(message.example)}]
    if message.name in (DeadLetter.__name__, "LateEvent"):
        out["headers"] = _headers(DeadLetter)
    if message.name == Decision.__name__:
        out["headers"] = _SLICE_END
    return out


_SLICE_END: Json = {
    "type": "object",
    "properties": {
        SLICE_END: {
            "type": "string",
            "pattern": "^[0-9a-f]+-[0-9a-f]+$",
            "description": "How far the slice that placed had read the lane's impressions and clicks: the offsets "
            "that come next, in hex. They grow along a partition, so that a binary search finds a receipt by the two "
            "numbers in its `placement_id`. Former versions wrote none.",
        }
    },
}


def _headers(origin: type[Struct]) -> Json:
    """The struct's fields as headers, each as text."""
    names = [HEADERS + field.name for field in msgspec.structs.fields(origin)]
    return {
        "type": "object",
        "description": inspect.getdoc(origin),
        "properties": {name: {"type": "string"} for name in names},
        "required": names,
    }


def _draft_7(schema: Any) -> Any:
    """A draft 2020-12 schema as draft 7: tuples are spelt otherwise. Docstrings lose their indentation.

    Integers say their width, since generators of code take 32 bits else. A pattern's end is told in the syntax that all
    languages share: Go has no `(?!`.
    """
    if isinstance(schema, list):
        return [_draft_7(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: _draft_7(value) for name, value in schema.items()}
    if "prefixItems" in out:
        out["items"], out["additionalItems"] = out.pop("prefixItems"), False
    if out.get("type") == "integer":
        out.setdefault("format", "int64")
    if isinstance(out.get("pattern"), str) and out["pattern"].endswith(END):
        out["pattern"], out["not"] = out["pattern"].removesuffix(END) + "$", {"pattern": r"\n"}
    if isinstance(out.get("description"), str):
        out["description"] = inspect.cleandoc(out["description"])
    return out
