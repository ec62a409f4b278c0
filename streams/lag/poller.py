"""One look at consumer groups from outside: committed offsets, owners, log ends. It needs only Describe rights.

It joins no group and reads no record: it lists and describes groups, their offsets and the topics' log ends. It blocks.
"""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.clock import tick_ms
from streams.connection import librdkafka_options
from streams.lag.board import GroupSeen, Observation, Partition
from streams.lag.roll import Roll
from streams.mendable import MendableError

ANSWER_S = 5.0
"""A healthy broker answers within milliseconds, one in an election within seconds."""
PACE_S = 2.0
"""Timeout of each request after a successful poll: a broker that is away may make every poll wait, and the report goes
stale after five seconds."""
PARTITIONS_MAX = 20_000
"""Most partitions over all groups: some 200 MB of history here, and as many label sets in Prometheus."""
_NO_MEMBERS = (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)

K = TypeVar("K")


class LagError(MendableError):
    """The lag cannot be measured; the message says why and what to do."""


class Poller:
    """``groups``: those to look at; None: all that the broker lists. ``prefix``: only topics that begin with it."""

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
        self._roll = Roll()
        self._answer_s = ANSWER_S
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Make a new client, which knows no node: a running one keeps asking nodes that have gone for their groups."""
        # log_level 2: librdkafka would print every refused connection; the poll that fails says it.
        self._admin = AdminClient({**librdkafka_options(self._bootstrap), "log_level": 2})

    def poll(self) -> Observation:
        """Poll once. Offsets are read before log ends, so that no lag is below 0.

        If one broker of several does not answer, the observation says what is lacking. Raises `LagError` if none does.
        """
        within_s, self._answer_s = self._answer_s, ANSWER_S
        try:
            names, missed, silent = self._names(within_s)
            groups, unasked = self._seen(names, within_s)
            if silent or not all(map(_refused, unasked.values())):
                self._begin_anew()
            wanted = set[Partition]().union(*(group.partitions for group in groups.values()))
            if len(wanted) > PARTITIONS_MAX:
                raise LagError(
                    f"{len(wanted):,} partitions of {len(groups):,} groups, at most {PARTITIONS_MAX:,}; "
                    "watch fewer: --group NAME, --prefix TOPICS"
                )
            before_ms = self._clock()
            ends, untold = self._log_ends(wanted, within_s)
            self._answer_s = PACE_S
            lacking = _lacking(silent, missed if self._roll.short else (), unasked, untold)
            return Observation((before_ms + self._clock()) // 2, groups, ends, {*missed, *unasked}, lacking)
        except KafkaException as error:
            if not _refused(error):
                self._begin_anew()
            raise LagError(
                f"{self._bootstrap} does not tell the groups' lag: {_words(error.args[0])}. It needs a broker that "
                "answers (one to begin with: salience broker apache up), and Describe on the groups, on their topics "
                "and, to list all groups, on the cluster"
            ) from error

    def committed(self, group: str) -> dict[Partition, int]:
        """A group's committed offsets; empty if its coordinator does not answer: it is moving, or not there yet."""
        described, _ = self._told([group], ANSWER_S)
        offsets, _ = _answers({name: self._ask(name, ANSWER_S) for name in described})
        return self._offsets(offsets[group]) if offsets else {}

    def log_ends(self, partitions: Collection[Partition], within_s: float = ANSWER_S) -> dict[Partition, int]:
        """Where logs end, open transactions included; without partitions that have no leader, or are gone.

        Raises `KafkaException` where no broker answers.
        """
        return self._log_ends(partitions, within_s)[0]

    def _log_ends(
        self, partitions: Collection[Partition], within_s: float
    ) -> tuple[dict[Partition, int], dict[str, KafkaException]]:
        """Log ends, and why others are not told, by topic and partition; of a topic that is gone neither."""
        if not partitions:
            return {}, {}
        wanted = {TopicPartition(*partition): OffsetSpec.latest() for partition in partitions}
        asked = self._admin.list_offsets(wanted, request_timeout=within_s)
        found, failed = _answers({Partition(tp.topic, tp.partition): future for tp, future in asked.items()})
        if failed and not found and self._unreachable():
            raise next(iter(failed.values()))
        gone = KafkaError.UNKNOWN_TOPIC_OR_PART
        untold = {f"{at.topic}[{at.number}]": why for at, why in failed.items() if why.args[0].code() != gone}
        return {partition: told.offset for partition, told in found.items()}, untold

    def _names(self, within_s: float) -> tuple[list[str], set[str], KafkaError | None]:
        """Groups listed; groups missed; why a broker lists none. Raises `KafkaException` if no broker lists any.

        While a broker is away, its groups move to others, which list them once they have loaded them. Until then they
        must not be described: librdkafka 2.16 may end the process (refcnt in its handler of DescribeGroups) while it
        waits for a coordinator that is away. A group without a name is left out: a broker may list one, but the client
        refuses it.
        """
        if self._groups is not None:
            return sorted({*self._groups} - {""}), set(), None  # without duplicates, which the client refuses
        # Asking for the nodes in every poll also updates the client: it lists only the groups of nodes that it knows,
        # and by itself looks for returned nodes only every five minutes.
        asked = {
            "nodes": self._admin.describe_cluster(request_timeout=within_s),
            "groups": self._admin.list_consumer_groups(request_timeout=within_s),
        }
        told, failed = _answers(asked)
        if "groups" in failed:
            raise failed["groups"]
        names = {group.group_id for group in told["groups"].valid if group.group_id}
        silent = next(iter([*told["groups"].errors, *(failure.args[0] for failure in failed.values())]), None)
        if silent is not None and not names:
            raise KafkaException(silent)
        nodes = {node.id for node in told["nodes"].nodes} if "nodes" in told else set[int]()
        return sorted(names), self._roll.missed(self._clock(), nodes, names, whole=silent is None), silent

    def _seen(self, names: list[str], within_s: float) -> tuple[dict[str, GroupSeen], dict[str, KafkaException]]:
        """Groups by name, and why the others could not be asked. Raises `KafkaException` if none could."""
        if not names:
            return {}, {}
        described, unasked = self._told(names, within_s)
        # The client takes one group per request; all are sent before any is awaited.
        offsets, failed = _answers({name: self._ask(name, within_s) for name in described})
        unasked |= failed
        if not offsets:
            raise min(unasked.values(), key=_refused)  # preferably an error that a new client may mend
        found = {name: self._group(described[name], answer) for name, answer in offsets.items()}
        # A name that the broker does not know is described as dead, and has committed nothing.
        return {name: group for name, group in found.items() if group.committed or group.members}, unasked

    def _told(self, names: list[str], within_s: float) -> tuple[dict[str, Any], dict[str, KafkaException]]:
        """Descriptions of groups from coordinators that answer, and why others gave none.

        Call it before `_ask`: librdkafka 2.16 ends the process (a null pointer in its handler of OffsetFetch) if the
        broker that an admin client asks for offsets is not, or not yet, the group's coordinator.
        """
        return _answers(self._admin.describe_consumer_groups(names, request_timeout=within_s))

    def _ask(self, name: str, within_s: float) -> Future[Any]:
        asked: dict[str, Future[Any]] = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(name)], request_timeout=within_s
        )
        return asked[name]

    def _group(self, described: Any, offsets: Any) -> GroupSeen:
        owners = {
            Partition(tp.topic, tp.partition): f"{member.client_id}@{member.host.lstrip('/')}"
            for member in described.members
            for tp in (member.assignment.topic_partitions if member.assignment else ())
            if tp.topic.startswith(self._prefix)
        }
        # The embedded broker calls a group stable, but names no member.
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
        """Whether no broker answers at all. If one does, the topics are gone, or have no leader for now."""
        try:
            self._admin.list_topics(timeout=ANSWER_S)
        except KafkaException:
            return True
        return False


def _answers(futures: Mapping[K, "Future[Any]"]) -> tuple[dict[K, Any], dict[K, KafkaException]]:
    """Answers by key, and the failures of the others."""
    answers, failures = dict[K, Any](), dict[K, KafkaException]()
    for name, future in futures.items():
        try:
            answers[name] = _within(future)
        except KafkaException as error:
            failures[name] = error
    return answers, failures


def _lacking(
    silent: KafkaError | None,
    missed: Collection[str],
    unasked: Mapping[str, KafkaException],
    untold: Mapping[str, KafkaException],
) -> str:
    """What the poll could not learn, in words; "" if nothing."""
    told = [f"a broker does not list its groups ({_words(silent)})"] if silent else []
    if missed:
        told.append(f"no broker lists {_some(missed)} now")
    if refused := {name for name, error in unasked.items() if _refused(error)}:
        told.append(f"{_some(refused)} may not be looked at: grant Describe on the groups, or name others: --group")
    if unanswered := unasked.keys() - refused:
        why = _words(unasked[min(unanswered)].args[0])
        told.append(f"the coordinator of {_some(unanswered)} does not answer ({why})")
    if untold:
        told.append(f"no broker tells where {_some(untold)} ends ({_words(untold[min(untold)].args[0])})")
    return "; ".join(told)


def _words(error: KafkaError) -> str:
    """What an error says of itself, and its name where that is nothing."""
    return str(error.str() or error.name())


def _refused(error: KafkaException) -> bool:
    """Whether the right to describe a group is missing, which a new client would not change."""
    return bool(error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED)


def _some(names: Collection[str]) -> str:
    """The first name, and how many more there are."""
    more = len(names) - 1
    return min(names) + (f" and {more} more" if more else "")


def _within(future: "Future[Any]") -> Any:
    """The answer. librdkafka ends every request at its timeout; the timeout here guards against its own threads.

    Raises `KafkaException` if either passes, or the request fails.
    """
    try:
        return future.result(timeout=2 * ANSWER_S)
    except TimeoutError as error:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error  # noqa: SLF001 - public, by its docs
