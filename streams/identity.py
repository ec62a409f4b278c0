"""Whether the topics are those that the state was made from: a topic recreated under its name is refused."""

from collections.abc import Callable
from dataclasses import dataclass

from aiokafka.partitioner import murmur2

from streams import topics
from streams.recovery import RecoveryError
from streams.settings import Settings
from streams.wire import LaneRow

_REPARTITIONED = (
    "users have moved to other partitions and their state has not. Begin a new set of topics: "
    "salience topics create --prefix NEW- --partitions N"
)


_CHECKED = (topics.AD_IMPRESSIONS, topics.CLICKS, topics.CHANGELOG, topics.CONTROL)
"""Topics whose offsets a lane remembers."""


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """Topic ids of impressions and clicks, of the changelog and the control topic, and the number of lanes."""

    inputs: tuple[str, str]
    changelog: str
    lanes: int
    control: str = ""


def partitioner(lanes: int) -> Callable[[bytes], int]:
    """Kafka's default: murmur2 of the key. librdkafka's CRC32 would put users elsewhere."""

    def partition_of(key: bytes) -> int:
        lane: int = (murmur2(key) & 0x7FFFFFFF) % lanes
        return lane

    return partition_of


def identify(settings: Settings) -> TopicIdentity:
    """Ask the broker; blocks.

    Raises `RecoveryError`, naming the command, where topics are missing or differ in partitions, and `TopicsError`
    where no broker answers.
    """
    prefix = settings.topic_prefix
    counts = topics.partition_counts(settings.bootstrap, topics.names(prefix))
    missing = [name for name in topics.names(prefix) if name not in counts]
    lanes = {counts.get(prefix + topic.name) for topic in topics.TABLE if topic.lanes}
    if missing or len(lanes) != 1:
        found = f"topics {missing} are missing" if missing else f"topics differ in their partitions: {counts}"
        at = f"--bootstrap {settings.bootstrap}" + (f" --prefix {prefix}" if prefix else "")
        raise RecoveryError(
            f"{found}; expected all, those with lanes with one number of partitions. "
            f"Make them with: salience topics create {at}; look with: salience topics check {at}"
        )
    ids = topics.topic_ids(settings.bootstrap, topics.names(prefix))
    inputs = ids[prefix + topics.AD_IMPRESSIONS], ids[prefix + topics.CLICKS]
    changelog, control = ids[prefix + topics.CHANGELOG], ids[prefix + topics.CONTROL]
    return TopicIdentity(inputs, changelog, counts[prefix + topics.CLICKS], control)


def check_lanes(numbers: set[int], lanes: int) -> None:
    """Raises `RecoveryError` where lanes are assigned that were not there when the worker started."""
    if beyond := {number for number in numbers if number >= lanes}:
        raise RecoveryError(
            f"lanes {sorted(beyond)} are assigned, there were {lanes} when this worker started: {_REPARTITIONED}"
        )


def check_identity(identity: TopicIdentity, inputs: tuple[str, str], changelog: str, control: str) -> None:
    """Raises `RecoveryError` where topics were recreated since ``identity``.

    Requests on another control topic would be passed over: a lane has settled those before its own offset.
    """
    before = (*identity.inputs, identity.changelog, identity.control)
    other = [name for name, was, now in zip(_CHECKED, before, (*inputs, changelog, control), strict=True) if now != was]
    if not other:
        return
    found = "; ".join(f"{name} is another topic of that name" for name in other)
    if other == [topics.CONTROL]:
        raise RecoveryError(
            f"{found}, under a running worker. Start the workers again: they read it from its beginning"
        )
    raise RecoveryError(
        f"{found}, under a running worker. Restore the topics, or keep the state and go on from the "
        "beginning of what is there: salience lanes adopt"
    )


def check_topics(settings: Settings, identity: TopicIdentity) -> bool:
    """Ask the broker whether the topics are still those of ``identity``; False where one is missing. Blocks.

    Raises `RecoveryError` where one was recreated, `TopicsError` where no broker answers.
    """
    names = [settings.topic_prefix + name for name in _CHECKED]
    ids = topics.topic_ids(settings.bootstrap, names)
    if len(ids) < len(names):
        return False
    impressions, clicks, changelog, control = (ids[name] for name in names)
    check_identity(identity, (impressions, clicks), changelog, control)
    return True


def check_resume(
    lane: int, row: LaneRow, identity: TopicIdentity, begins: tuple[int, int], ends: tuple[int, int]
) -> None:
    """Raises `RecoveryError` where the lane row speaks of other records than those that are there.

    ``begins``, ``ends``: first offsets and log ends of impressions and clicks.
    """
    if row.lanes != identity.lanes:
        raise RecoveryError(
            f"lane {lane} was one of {row.lanes}, now there are {identity.lanes} partitions: {_REPARTITIONED}"
        )
    found = []
    if row.topic_ids != identity.inputs:
        found.append(f"the topics' ids are {identity.inputs}, it was recorded from {row.topic_ids}")
    for name, begin, end, at in zip(
        (topics.AD_IMPRESSIONS, topics.CLICKS), begins, ends, row.next_offsets, strict=True
    ):
        if end < at:
            found.append(f"{name} ends at {end}, it stands at {at}: another topic of that name")
        elif at < begin:
            found.append(f"{name} begins at {begin}, it stands at {at}: retention deleted what lay between, unread")
    if found:
        raise RecoveryError(
            f"lane {lane} cannot go on where it stands: {'; '.join(found)}. Restore the topics, or keep the state and "
            "go on from the beginning of what is there: salience lanes adopt"
        )
