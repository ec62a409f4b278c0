"""Topics at the broker: create, configure, check against the table, and tell from recreated ones of the same name.

Everything here blocks; asynchronous callers go through `streams.aside.aside`.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, Literal

from aiokafka.errors import KafkaError as NodeError
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from streams import nodes
from streams.aside import begun
from streams.connection import librdkafka_options
from streams.mendable import MendableError
from streams.topics import CLEANUP, COPIES, RETENTION, TABLE, Topic, names

ANSWER_S = 10.0
"""Long enough for a cluster to elect a leader; a cluster that is silent for longer is reported as unreachable."""
_WRONG_PASSWORD, _ALL_AWAY = KafkaError._AUTHENTICATION, KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - so they are named
_CUT = KafkaError._TRANSPORT  # noqa: SLF001 - as above
LISTEN_S = 0.05
"""How often it is heard, while an answer is waited for, whether the brokers refuse who asks, and whether to end."""
DONE_WITHIN_S = 60.0
"""For a change by a cluster that has just answered, until every node knows it; on a busy machine it takes seconds."""


class TopicsError(MendableError):
    """The broker does not answer or refuses; the message says what to do."""


class ShutOutError(TopicsError):
    """The brokers are there, and do not let this process in: by its password, most likely."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What ``check`` found of one topic."""

    topic: str
    what: Literal["missing", "partitions", "copies", "cleanup", "configs", "unreported"]
    seen: str
    fix: str
    """The command that resolves it; empty where none can, or none is needed."""
    why: str = ""
    """Further explanation, the same for all topics with this problem."""

    @property
    def message(self) -> str:
        """The whole message, for this topic alone."""
        return f"{self.seen} {self.why}".rstrip()

    @property
    def fails(self) -> bool:
        """Whether workers must not run on it. Configs that are unreported, or may be on purpose, are only mentioned."""
        return self.what not in ("copies", "configs", "unreported")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a broker tells of one topic. ``cleanup`` None: it reports no such config. ``configs``: all it reports."""

    partitions: int
    cleanup: str | None
    copies: int = 1
    configs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """A topic that exists. ``id``: Kafka's, which a recreated topic does not share. ``copies``: of each partition."""

    id: str
    partitions: int
    copies: int = 1


def create(
    bootstrap: str,
    partitions: int,
    prefix: str = "",
    replication: int = 1,
    configs: Mapping[str, Mapping[str, str]] = {},
) -> list[str]:
    """Create the missing topics; return their names when every node knows them.

    Existing topics are left alone: ``check`` tells what differs, ``configure`` sets their configs. ``configs``: what is
    to differ from the table, by the topic's name without prefix. Raises ``TopicsError``.
    """
    admin = _admin(bootstrap)
    there = _describe(admin, bootstrap, names(prefix))
    new = [
        NewTopic(
            prefix + topic.name,
            num_partitions=topic.partitions(partitions),
            replication_factor=replication,
            config={**topic.settings(replication), **configs.get(topic.name, {})},
        )
        for topic in TABLE
        if prefix + topic.name not in there
    ]
    if not new:
        return []
    created = []
    for name, future in admin.create_topics(new, request_timeout=DONE_WITHIN_S).items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
                raise TopicsError(f"{bootstrap} does not create {name}: {error.args[0].str()}") from error
    wait_for_nodes(bootstrap, nodes.knowing([topic.topic for topic in new]), "know the topics made")
    return created


def configure(bootstrap: str, prefix: str = "") -> list[str]:
    """Set the table's configs on the existing topics; return their names when every node reports them.

    Each topic gets the configs for its own number of copies, which may differ between topics.

    Raises ``TopicsError``.
    """
    admin = _admin(bootstrap)
    there = _describe(admin, bootstrap, names(prefix))
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            prefix + topic.name,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in topic.settings(_copies(there[prefix + topic.name])).items()
            ],
        )
        for topic in TABLE
        if prefix + topic.name in there
    ]
    if not resources:
        return []
    answers = admin.incremental_alter_configs(resources, request_timeout=DONE_WITHIN_S)
    configured = _answers(answers, f"{bootstrap} does not configure")
    wanted = {prefix + topic.name: topic.cleanup for topic in TABLE if prefix + topic.name in configured}
    wait_for_nodes(bootstrap, nodes.holding(CLEANUP, wanted), "report the configs set")
    return [*configured]


def check(bootstrap: str, partitions: int, prefix: str = "") -> list[Problem]:
    """What keeps workers from running on these topics, what the broker does not tell, and what differs from the table.

    Raises ``TopicsError`` where the broker does not answer.
    """
    admin = _admin(bootstrap)
    there = _describe(admin, bootstrap, names(prefix))
    told = _configs(admin, bootstrap, there)
    seen = {
        name: Seen(len(there[name].partitions), configs.get(CLEANUP), _copies(there[name]), configs)
        for name, configs in told.items()
    }
    return compare(seen, partitions, prefix, f"--bootstrap {bootstrap}", enough_copies(bootstrap))


def compare(seen: Mapping[str, Seen], partitions: int, prefix: str, reach: str, copies: int = 1) -> list[Problem]:
    """Compare the table with what was seen, by full name. ``reach``: the command options that lead to the broker.

    ``copies``: the fewest of each partition that are enough.
    """
    at = f"{reach} --prefix {prefix}" if prefix else reach
    problems = []
    for topic in TABLE:
        name, wanted = prefix + topic.name, topic.partitions(partitions)
        found = seen.get(name)
        if found is None:
            fix = f"salience topics create {at} --partitions {partitions}"
            problems.append(Problem(name, "missing", f"{name} does not exist.", fix))
            continue
        if found.partitions != wanted:
            has = f"{name} has {found.partitions} partitions, expected {wanted}."
            why = "Another number would move users to other lanes: begin a new set of topics under another prefix" + (
                f", or say --partitions {found.partitions}." if topic.lanes else "."
            )
            fix = f"salience topics create {reach} --prefix {prefix}new- --partitions {partitions}"
            problems.append(Problem(name, "partitions", has, fix, why))
        if found.copies < copies:
            has = f"{name} has replication factor {found.copies}, expected {copies}."
            fix = f"{_MORE_COPIES}; then salience topics create {at} --configure"
            problems.append(Problem(name, "copies", has, fix, _FEW_COPIES))
        if found.cleanup is None:
            message = f"The broker does not report {name}'s cleanup.policy; it should be {topic.cleanup}."
            problems.append(Problem(name, "unreported", message, ""))
        elif found.cleanup != topic.cleanup:
            message = f"{name} has cleanup.policy={found.cleanup}, expected {topic.cleanup}."
            problems.append(Problem(name, "cleanup", message, f"salience topics create {at} --configure"))
        if others := _other_configs(topic, found):
            message = f"{name} has {'; '.join(others)}."
            problems.append(Problem(name, "configs", message, f"salience topics create {at} --configure", _PURPOSE))
    return problems


_FEW_COPIES = "Workers end while the broker of an only copy is away, and with its disk what it held is gone."
_MORE_COPIES = 'kafka-reassign-partitions.sh (deploy/OPERATIONS.md, "More copies")'
_PURPOSE = "Unless it is on purpose, set it: it decides how long what is erased can still be read, or what fits."


def _other_configs(topic: Topic, seen: Seen) -> list[str]:
    """Configs other than the cleanup policy that the broker reports with another value than the table's."""
    wanted = {name: value for name, value in topic.settings(seen.copies).items() if name != CLEANUP}
    return [
        f"{name}={seen.configs[name]}, expected {value}"
        for name, value in wanted.items()
        if seen.configs.get(name, value) != value
    ]


def found(bootstrap: str, names: Collection[str]) -> dict[str, Found]:
    """Each topic that exists, by full name."""
    there = _describe(_admin(bootstrap), bootstrap, names)
    return {name: Found(str(topic.topic_id), len(topic.partitions), _copies(topic)) for name, topic in there.items()}


def beside(there: Mapping[str, Found], prefix: str) -> Found | None:
    """One of the existing topics with lanes, by full name; missing topics are to be made like it."""
    with_lanes = (prefix + topic.name for topic in TABLE if topic.lanes)
    return next((there[name] for name in with_lanes if name in there), None)


def brokers(bootstrap: str) -> int:
    """How many there are. Raises ``TopicsError`` where none answers."""
    admin = _admin(bootstrap)  # keep a reference: without it the client, and its request, would end
    try:
        return len(_answer(admin, bootstrap, admin.describe_cluster(request_timeout=ANSWER_S)).nodes)
    except KafkaException as error:
        raise TopicsError(_silent(bootstrap, error)) from error


def enough_copies(bootstrap: str) -> int:
    """Copies a partition should have: as many as there are brokers, but no more than `COPIES`, which outlive one.

    Raises ``TopicsError``.
    """
    return min(brokers(bootstrap), COPIES)


def partition_counts(bootstrap: str, names: Collection[str]) -> dict[str, int]:
    """Partitions of each topic that exists, by full name."""
    return {name: topic.partitions for name, topic in found(bootstrap, names).items()}


def retentions_ms(bootstrap: str, names: Collection[str]) -> dict[str, int | None]:
    """How long each topic that exists keeps a record, by full name; None for ever, or where the broker does not say."""
    admin = _admin(bootstrap)
    told = _configs(admin, bootstrap, _describe(admin, bootstrap, names))
    found = {name: configs.get(RETENTION) for name, configs in told.items()}
    return {name: int(value) if value not in (None, "-1") else None for name, value in found.items()}


def wait_for_nodes(bootstrap: str, says: nodes.Says, what: str) -> None:
    """Wait until ``says`` holds for every node; ``what`` names the condition in the error. Raises `TopicsError`."""
    try:
        # Aside, since this thread may already run a loop, as in a notebook; and Ctrl-C waits for no answer.
        told = begun(asyncio.run, nodes.until_all(bootstrap, says, ANSWER_S, DONE_WITHIN_S))
        while wait([told], LISTEN_S).not_done:
            pass  # awake again and again: a signal that comes just before a thread falls asleep does not wake it
        told.result()
    except (NodeError, TimeoutError) as error:
        raise TopicsError(
            f"Not every node of {bootstrap} was seen to {what} within {DONE_WITHIN_S:.0f} s: {error!r}. "
            "Are all nodes up? Saying it again does no harm."
        ) from error


class _Admin(AdminClient):
    """A client that notes what it is refused for: its answers would say after ten seconds that nobody answers."""

    def __init__(self, bootstrap: str) -> None:
        self.heard: list[KafkaError] = []
        # A list's method, since with one of its own the client, and its threads, would stay until garbage is collected.
        # log_level 2: librdkafka would print every refused connection; the answer that fails says it once.
        super().__init__({**librdkafka_options(bootstrap), "log_level": 2, "error_cb": self.heard.append})


def _admin(bootstrap: str) -> Any:
    return _Admin(bootstrap)


def _answer(admin: Any, bootstrap: str, asked: Future[Any]) -> Any:
    """What the broker answers. Raises `ShutOutError`, as soon as no broker is left that might let us in."""
    while wait([asked], LISTEN_S).not_done:
        admin.poll(0)
        if _ALL_AWAY in {error.code() for error in admin.heard}:
            _check_let_in(admin, bootstrap)
    if asked.exception() is not None:
        _check_let_in(admin, bootstrap)
    return asked.result()


def _check_let_in(admin: Any, bootstrap: str) -> None:
    why = next((error.str() for error in admin.heard if error.code() == _WRONG_PASSWORD), "")
    if why:
        raise ShutOutError(
            f"{bootstrap} does not let this process in ({why}); is its password another one now? "
            "SALIENCE_SASL_USERNAME, SALIENCE_SASL_PASSWORD_FILE"
        )


def _describe(admin: Any, bootstrap: str, wanted: Collection[str]) -> dict[str, Any]:
    """Descriptions of the topics that exist. Unlike a plain metadata request, it never creates one."""
    found, left, until_s = {}, list(wanted), time.monotonic() + ANSWER_S
    while left:
        within_s = max(until_s - time.monotonic(), LISTEN_S)
        asked, left = admin.describe_topics(TopicCollection(left), request_timeout=within_s), []
        for name, future in asked.items():
            try:
                found[name] = _answer(admin, bootstrap, future)
            except KafkaException as error:
                code = error.args[0].code()
                if code == _CUT and time.monotonic() < until_s:  # its connection: librdkafka asks nothing again
                    left.append(name)
                elif code < 0:  # an error of the client, not of a broker
                    raise TopicsError(_silent(bootstrap, error)) from error
                elif code != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise TopicsError(f"{bootstrap} does not describe {name}: {error.args[0].str()}") from error
        time.sleep(LISTEN_S if left else 0)
    return found


def _answers(futures: Mapping[Any, Any], failure: str) -> dict[str, Any]:
    """The answers by full name of the topic, without topics that were deleted meanwhile."""
    found = {}
    for resource, future in futures.items():
        try:
            found[resource.name] = future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise TopicsError(f"{failure} {resource.name}: {error.args[0].str()}") from error
    return found


def _silent(bootstrap: str, error: KafkaException) -> str:
    return (
        f"No Kafka broker answers at {bootstrap} within {ANSWER_S:.0f} s ({error.args[0].str()})."
        " Start one: salience broker apache up (or embedded, with SALIENCE_GUARANTEE=at_least_once);"
        " or name yours: --bootstrap HOST:PORT (SALIENCE_BOOTSTRAP)."
    )


def _copies(described: Any) -> int:
    """The fewest copies of any partition: that partition is the first to be lost, or to refuse writes."""
    return min(len(each.replicas) for each in described.partitions)


def _configs(admin: Any, bootstrap: str, there: Collection[str]) -> dict[str, dict[str, str]]:
    """The configs that the broker reports of each topic that is still there."""
    if not there:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in there]
    answers = admin.describe_configs(resources, request_timeout=ANSWER_S)
    found = _answers(answers, f"{bootstrap} does not describe the configs of")
    return {
        topic: {name: entry.value for name, entry in configs.items() if entry.value is not None}
        for topic, configs in found.items()
    }
