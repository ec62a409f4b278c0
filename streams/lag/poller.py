"""One look at consumer groups from outside: committed offsets, owners, log ends. Needs Describe rights alone.

It joins no group and reads no record: list and describe groups, their offsets, the topics' log ends. Blocks.
"""

from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.clock import tick_ms
from streams.connection import librdkafka_options
from streams.lag.board import GroupSeen, Observation, Partition

ANSWER_S = 5.0
"""A healthy broker answers within milliseconds, one in an election within seconds; then the poll has failed."""
PARTITIONS_MAX = 20_000
"""Over all groups: some 200 MB of history here, and as many label sets in Prometheus."""
_NO_MEMBERS = (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)


class LagError(RuntimeError):
    """The lag cannot be told; the message says why and what to do."""


class Poller:
    """``groups``: those to look at, None for all that the broker lists. ``prefix``: only topics that begin so."""

    def __init__(
        self,
        bootstrap: str,
        groups: Collection[str] | None = None,
        prefix: str = "",
        clock: Callable[[], int] = tick_ms,
    ) -> None:
        self._bootstrap = bootstrap
        self._groups = groups
        self._prefix = prefix
        self._clock = clock
        # log_level 2: librdkafka would print every refused connection; the poll that fails says it.
        self._admin = AdminClient({**librdkafka_options(bootstrap), "log_level": 2})

    def poll(self) -> Observation:
        """One look. Offsets are read before log ends, so that no lag is below 0. Raises `LagError`."""
        try:
            groups = self._seen(self._names())
            wanted = set[Partition]().union(*(group.partitions for group in groups.values()))
            if len(wanted) > PARTITIONS_MAX:
                raise LagError(
                    f"{len(wanted):,} partitions of {len(groups):,} groups, at most {PARTITIONS_MAX:,}; "
                    "watch fewer: --group NAME, --prefix TOPICS"
                )
            before_ms = self._clock()
            ends = self.log_ends(wanted)
            return Observation((before_ms + self._clock()) // 2, groups, ends)
        except KafkaException as error:
            raise LagError(
                f"{self._bootstrap} does not tell the groups' lag: {error.args[0].str()}. It needs a broker that "
                "answers (one to begin with: salience broker apache up), and Describe on the groups, on their topics "
                "and, to list all groups, on the cluster"
            ) from error

    def committed(self, group: str) -> dict[Partition, int]:
        """A group's committed offsets; nothing where its coordinator does not answer: it moves, or is yet to be."""
        with suppress(KafkaException):
            self._describe([group])
            return self._offsets(_within(self._ask(group)))
        return {}

    def log_ends(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Where logs end, open transactions included; without those that have no leader or are gone.

        Raises `KafkaException` where no broker answers.
        """
        if not partitions:
            return {}
        wanted = {TopicPartition(*partition): OffsetSpec.latest() for partition in partitions}
        found, failure = dict[Partition, int](), None
        for tp, future in self._admin.list_offsets(wanted, request_timeout=ANSWER_S).items():
            try:
                found[Partition(tp.topic, tp.partition)] = _within(future).offset
            except KafkaException as error:
                failure = error
        if failure is not None and not found and self._unreachable():
            raise failure
        return found

    def _names(self) -> list[str]:
        """Without a group that has no name, which a broker may list and the client takes for a mistake."""
        if self._groups is not None:
            return sorted({*self._groups} - {""})  # the client takes none twice
        listed = _within(self._admin.list_consumer_groups(request_timeout=ANSWER_S))
        for failure in listed.errors:  # a broker that does not answer may coordinate any group
            raise KafkaException(failure)
        return sorted(group.group_id for group in listed.valid if group.group_id)

    def _seen(self, names: list[str]) -> dict[str, GroupSeen]:
        if not names:
            return {}
        described = self._describe(names)
        # One group a request is what the client takes; all are asked before any is awaited.
        asked = {name: self._ask(name) for name in names}
        found = {name: self._group(described[name], _within(asked[name])) for name in names}
        # A name that the broker does not know is described as dead, and has committed nothing.
        return {name: group for name, group in found.items() if group.committed or group.members}

    def _describe(self, names: list[str]) -> dict[str, Any]:
        """What coordinators say of groups, once they answer. Raises `KafkaException` where one does not.

        To be asked before `_ask`: librdkafka 2.16 ends the process (a null pointer in its handler of OffsetFetch) where
        the broker that an admin client asks for offsets is not, or not yet, the group's coordinator.
        """
        described = self._admin.describe_consumer_groups(names, request_timeout=ANSWER_S)
        return {name: _within(described[name]) for name in names}

    def _ask(self, name: str) -> Future[Any]:
        asked: dict[str, Future[Any]] = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(name)], request_timeout=ANSWER_S
        )
        return asked[name]

    def _group(self, described: Any, offsets: Any) -> GroupSeen:
        owners = {
            Partition(tp.topic, tp.partition): f"{member.client_id}@{member.host.lstrip('/')}"
            for member in described.members
            for tp in (member.assignment.topic_partitions if member.assignment else ())
            if tp.topic.startswith(self._prefix)
        }
        # The embedded broker calls a group stable and names no member.
        told = described.members or described.state in _NO_MEMBERS
        members, known = (len(described.members), owners) if told else (None, None)
        return GroupSeen(described.state.name.lower(), members, self._offsets(offsets), known)

    def _offsets(self, answer: Any) -> dict[Partition, int]:
        return {
            Partition(tp.topic, tp.partition): tp.offset
            for tp in answer.topic_partitions
            if tp.offset >= 0 and tp.topic.startswith(self._prefix)
        }

    def _unreachable(self) -> bool:
        """Whether no broker answers at all; else the topics are gone, or without a leader for now."""
        try:
            self._admin.list_topics(timeout=ANSWER_S)
        except KafkaException:
            return True
        return False


def _within(future: "Future[Any]") -> Any:
    """The answer. librdkafka ends every request at its timeout; the second one is for its own threads.

    Raises `KafkaException` where there is none, whichever of the two it was.
    """
    try:
        return future.result(timeout=2 * ANSWER_S)
    except TimeoutError as error:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error  # noqa: SLF001 - public, by its docs
