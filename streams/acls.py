"""The least rights that each role needs on the brokers, one per line; `deploy/ACLS.md` is made from them.

Operations imply others on the broker's side: READ and WRITE imply DESCRIBE, ALTER_CONFIGS implies DESCRIBE_CONFIGS.
No role may change ACLs, users or the cluster, or delete a topic: only the cluster's owner may.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from streams import nodes, topics
from streams.connection import librdkafka_options
from streams.dead_letters import REQUEUE_ID
from streams.lanes.outbox import LANE_ID
from streams.privacy.pruning import PRUNE_ID
from streams.reviews import REVIEWS_ID
from streams.settings import Settings
from streams.topic_admin import DONE_WITHIN_S, TopicsError, brokers, wait_for_nodes

Kind = Literal["topic", "group", "transactional_id"]

ROLES = {
    "worker": "runs lanes: reads events, ads, control and models, writes state, placements and receipts",
    "adserver": "reads placements, sends back what was shown and what people did",
    "monitor": "measures lag from outside; reads no record",
    "analyst": "reports on what people did and what decisions earned; changes nothing",
    "reviewer": "reads reviews, and publishes how positive they are per ad and brand",
    "referee": "judges experiments, and ends those that break a guardrail",
    "console": "runs the live console, which shows operators what the topics hold",
    "admin": "makes topics, publishes ads and switches, answers people's requests for their data",
}

_INPUTS = (topics.CLICKS, topics.AD_IMPRESSIONS)
_READ_BY_WORKERS = (
    topics.ADS, topics.TONES, topics.CONTROL, topics.MODELS, topics.CAMPAIGN_METRICS, topics.CLICK_LAYERS,
)  # fmt: skip
_JUDGED = (topics.CONTROL, topics.ADS, topics.AD_IMPRESSIONS, topics.OUTCOMES, topics.CHANGELOG)
_SHOWN = (
    topics.ADS, topics.CONTROL, topics.CAMPAIGN_METRICS, topics.PLACEMENTS, topics.DECISIONS, topics.OUTCOMES,
    topics.DEAD_LETTERS, topics.EXPERIMENT_REPORTS, topics.TONES,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One right. ``name``: without the topics' prefix; "" means the workers' own group or transactional id."""

    role: str
    kind: Kind
    name: str
    operation: str
    why: str


def _lines() -> Iterator[Line]:
    for name in _INPUTS:
        yield Line("worker", "topic", name, "READ", "the lanes' events")
        yield Line("worker", "topic", name, "WRITE", "resend records that arrived in the wrong partition")
    for name in _READ_BY_WORKERS:
        yield Line("worker", "topic", name, "READ", "read whole by every worker")
    yield Line("worker", "topic", topics.CHANGELOG, "READ", "recovery")
    beside = (topics.EXPERIMENT_REPORTS, topics.REVIEWS, topics.REVIEW_STATE)
    others = (*_INPUTS, topics.ADS, topics.TONES, topics.CONTROL, topics.MODELS, *beside)
    outputs = [each.name for each in topics.TABLE if each.name not in others]
    for name in outputs:
        yield Line("worker", "topic", name, "WRITE", "a slice's effects")
    yield Line("worker", "topic", topics.CONTROL, "WRITE", "reports: click layer drift, model status")
    for name in beside:
        yield Line("worker", "topic", name, "DESCRIBE", "check every topic before the start")
    yield Line("worker", "group", "", "READ", "membership, and offsets for lag tools")
    yield Line("worker", "transactional_id", "", "WRITE", "a lane's producer fences its former owner")

    yield Line("adserver", "topic", topics.PLACEMENTS, "READ", "what it serves")
    for name in _INPUTS:
        yield Line("adserver", "topic", name, "WRITE", "what people were shown and did")
    yield Line("adserver", "topic", topics.REVIEWS, "WRITE", "what people say of items")

    yield from _of_those_who_look()

    for topic in topics.TABLE:
        yield Line("admin", "topic", topic.name, "CREATE", "salience topics create")
        yield Line("admin", "topic", topic.name, "READ", "salience privacy, tail, explain, lanes show, shoppers")
        yield Line("admin", "topic", topic.name, "ALTER_CONFIGS", "salience topics create --configure, topics check")
    for name in (topics.ADS, topics.CONTROL, topics.MODELS):
        yield Line("admin", "topic", name, "WRITE", "ads, switches and models")
    for name in _INPUTS:
        yield Line("admin", "topic", name, "WRITE", "salience dead-letters requeue, salience shoppers")
    for name in (topics.REVIEWS, topics.DEAD_LETTERS):
        yield Line("admin", "topic", name, "WRITE", "salience dead-letters requeue, and its notes")
    yield Line("admin", "transactional_id", REQUEUE_ID, "WRITE", "salience dead-letters requeue")
    yield Line("admin", "transactional_id", PRUNE_ID, "WRITE", "salience privacy prune")
    yield Line("admin", "topic", topics.CHANGELOG, "WRITE", "salience lanes adopt, while no worker runs")
    yield Line("admin", "group", "", "READ", "salience lanes adopt")
    yield Line("admin", "transactional_id", "", "WRITE", "salience lanes adopt fences the workers")


def _of_those_who_look() -> Iterator[Line]:
    for name in _INPUTS:
        yield Line("monitor", "topic", name, "DESCRIBE", "log ends")
    yield Line("monitor", "group", "", "DESCRIBE", "committed offsets and members")

    for name in (topics.ADS, *_INPUTS):
        yield Line("analyst", "topic", name, "READ", "salience report, export-log")
    yield Line("analyst", "topic", topics.REVIEWS, "READ", "salience export-log: how positive they were")
    yield Line("analyst", "topic", topics.CONTROL, "READ", "salience export-log: whose events must be left out")
    yield Line("analyst", "topic", topics.DECISIONS, "READ", "salience report, ope: which placements, by which arm")
    yield Line("analyst", "topic", topics.OUTCOMES, "READ", "salience outcomes")
    for name in (topics.REVIEWS, topics.ADS, topics.TONES, topics.DEAD_LETTERS, topics.REVIEW_STATE):
        yield Line("reviewer", "topic", name, "READ", "salience reviews follow")
    for name in (topics.TONES, topics.DEAD_LETTERS):
        yield Line("reviewer", "topic", name, "WRITE", "how positive reviews are; unreadable reviews")
    yield Line("reviewer", "topic", topics.REVIEW_STATE, "WRITE", "its position, and what it has learned")
    yield Line("reviewer", "transactional_id", REVIEWS_ID, "WRITE", "a new reader fences the one before")
    for name in _JUDGED:
        yield Line("referee", "topic", name, "READ", "salience experiment referee")
    yield Line("referee", "topic", topics.CONTROL, "WRITE", "the end of an experiment, and a bandit's cohorts")
    yield Line("referee", "topic", topics.EXPERIMENT_REPORTS, "WRITE", "the results of experiments")
    for name in _SHOWN:
        yield Line("console", "topic", name, "READ", "salience console")
    for name in _INPUTS:
        yield Line("console", "topic", name, "DESCRIBE", "log ends")
    yield Line("console", "group", "", "DESCRIBE", "committed offsets and members")


LINES: Sequence[Line] = tuple(_lines())


def of_role(role: str) -> list[Line]:
    """The role's lines."""
    return [line for line in LINES if line.role == role]


def resource(line: Line, settings: Settings) -> tuple[str, bool]:
    """Name of the line's resource with these settings, and whether it is a prefix."""
    if line.kind == "topic":
        return settings.topic_prefix + line.name, False
    if line.kind == "group":
        return settings.group, False
    if line.name:
        return settings.topic_prefix + line.name, False
    return f"{settings.topic_prefix}{settings.group}{LANE_ID}", True


def command(line: Line, principal: str, settings: Settings) -> str:
    """The line as options of ``kafka-acls.sh``."""
    name, prefixed = resource(line, settings)
    operation = "".join(word.capitalize() for word in line.operation.split("_"))
    words = ["kafka-acls.sh", "--bootstrap-server", settings.bootstrap, "--add"]
    words += ["--allow-principal", principal, "--operation", operation]
    words += ["--" + line.kind.replace("_", "-"), name, *(["--resource-pattern-type", "prefixed"] if prefixed else [])]
    return shlex.join(words)  # the subject of a certificate has spaces


def apply(settings: Settings, role: str, principal: str) -> int:
    """Give ``principal`` (``User:name``) the role's lines; return how many, once every node has them.

    Raises `TopicsError` if no broker answers, if they refuse, or a node does not have them within `DONE_WITHIN_S`.
    """
    brokers(settings.bootstrap)  # a request for rights would tell of a missing broker late, and as a refusal
    admin = AdminClient({**librdkafka_options(settings.bootstrap), "log_level": 2})
    bindings = [_binding(line, principal, settings) for line in of_role(role)]
    for binding, future in admin.create_acls(bindings, request_timeout=DONE_WITHIN_S).items():
        try:
            future.result()
        except KafkaException as error:
            raise TopicsError(
                f"{settings.bootstrap} refuses the right on {binding.name}: {error.args[0].str()}"
            ) from error
    given = {_right(binding) for binding in bindings}
    wait_for_nodes(settings.bootstrap, nodes.giving(principal, given), f"give {principal} its rights")
    return len(bindings)


def _right(binding: AclBinding) -> nodes.Right:
    return binding.restype.value, binding.name, binding.resource_pattern_type.value, binding.operation.value


def _binding(line: Line, principal: str, settings: Settings) -> AclBinding:
    name, prefixed = resource(line, settings)
    kind = ResourceType[line.kind.upper()]
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    allow = AclPermissionType.ALLOW
    return AclBinding(kind, name, pattern, principal, "*", AclOperation[line.operation], allow)


def table() -> str:
    """All lines as the Markdown of ``deploy/ACLS.md``."""
    out = [
        "# Rights on the brokers",
        "",
        "The least that each role needs, on brokers whose authorizer refuses what is not allowed. Topics with the same",
        "right and reason share a line. `salience topics acls --role worker --principal User:worker` prints the rights",
        "for kafka-acls.sh, and `--apply` sets them. Made by `salience topics acls --markdown`.",
    ]
    for role, job in ROLES.items():
        out += ["", f"## {role}", "", f"{job[0].upper()}{job[1:]}.", "", "| on | may | why |", "|---|---|---|"]
        joined: dict[tuple[str, str, str], list[str]] = {}
        for line in of_role(role):
            joined.setdefault((line.kind, line.operation, line.why), []).append(line.name)
        for (kind, operation, why), names in joined.items():
            on = ", ".join(f"`{name}`" for name in names) if any(names) else _WORKERS_OWN[kind]
            on = f"transactional id {on}" if any(names) and kind != "topic" else on
            out.append(f"| {on} | {operation} | {why} |")
    return "\n".join(out) + "\n"


_WORKERS_OWN = {
    "group": "group `SALIENCE_GROUP`",
    "transactional_id": f"transactional ids that begin with `SALIENCE_TOPIC_PREFIX` `SALIENCE_GROUP` `{LANE_ID}`",
}
