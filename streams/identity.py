"""Whether the topics are those that the state was made from: a topic recreated under its name is refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiokafka.partitioner import murmur2

from streams import topic_admin, topics
from streams.lanes.recovery import RecoveryError
from streams.settings import Settings
from streams.topic_admin import Found
from streams.wire import LaneRow

_REPARTITIONED = (
    "users have moved to other partitions and their state has not. Begin a new set of topics: "
    "salience topics create --prefix NEW- --partitions N"
)


_STATE_GONE = (
    f"the state is gone with {topics.CHANGELOG}: restore that from a mirror; workers that are started without it know "
    "nobody, and begin anew with the events that are there"
)

_OF_LANES = (*topics.LANE_INPUTS, topics.CHANGELOG)
"""Topics in which a lane reads or writes at an offset, which its lane row holds."""
_READ_WHOLE = (topics.CONTROL, topics.ADS, topics.TONES, topics.CAMPAIGN_METRICS, topics.CLICK_LAYERS)
"""Topics that a worker reads from their beginning and then follows. If one were recreated, the worker would keep what
the new topic does not hold; new partitions would go unread. While one is missing, what was read of it counts."""


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """The topics that a worker's state was built from, by name without prefix."""

    found: Mapping[str, Found]

    @property
    def inputs(self) -> tuple[str, str]:
        """Ids of impressions and clicks."""
        return self.found[topics.AD_IMPRESSIONS].id, self.found[topics.CLICKS].id

    def id_of(self, topic: str) -> str:
        """A topic's id, by its name without prefix."""
        return self.found[topic].id

    @property
    def lanes(self) -> int:
        """How many there are."""
        return self.found[topics.CLICKS].partitions


def partitioner(lanes: int) -> Callable[[bytes], int]:
    """Kafka's default partitioner: murmur2 of the key. librdkafka's default, CRC32, would put users elsewhere."""

    def partition_of(key: bytes) -> int:
        lane: int = (murmur2(key) & 0x7FFFFFFF) % lanes
        return lane

    return partition_of


def identify(settings: Settings) -> TopicIdentity:
    """Ask the broker for the topics; blocks.

    Raises `RecoveryError`, naming the command, where topics are missing or differ in partitions, and `TopicsError`
    where no broker answers.
    """
    prefix = settings.topic_prefix
    found = _found(settings, topics.names())
    missing = [prefix + name for name in topics.names() if name not in found]
    counts = {prefix + name: one.partitions for name, one in found.items()}
    if missing or len({counts[prefix + topic.name] for topic in topics.TABLE if topic.lanes}) != 1:
        problem = f"topics {missing} are missing" if missing else f"topics differ in their partitions: {counts}"
        at = f"--bootstrap {settings.bootstrap}" + (f" --prefix {prefix}" if prefix else "")
        raise RecoveryError(
            f"{problem}; expected all, those with lanes with one number of partitions. "
            f"Make them with: salience topics create {at}; look with: salience topics check {at}"
        )
    return TopicIdentity(found)


def check_lanes(numbers: set[int], lanes: int) -> None:
    """Raises `RecoveryError` where lanes are assigned that were not there when the worker started."""
    if beyond := {number for number in numbers if number >= lanes}:
        raise RecoveryError(
            f"lanes {sorted(beyond)} are assigned, there were {lanes} when this worker started: {_REPARTITIONED}"
        )


def check_identity(identity: TopicIdentity, now: Mapping[str, Found]) -> None:
    """Raises `RecoveryError` where topics were recreated, or have other partitions, since ``identity``.

    ``now``: the topics that exist, by name without prefix.

    This includes the control topic: in a recreated one, a lane would skip all requests before its own offset.
    """
    was, changes = identity.found, {}
    for name in now:
        if now[name].id != was[name].id:
            changes[name] = f"{name} is another topic of that name"
        elif now[name].partitions != was[name].partitions:
            changes[name] = f"{name} has {now[name].partitions} partitions and had {was[name].partitions}"
    if not changes:
        return
    of_lanes = [name for name in changes if name in _OF_LANES]
    if not of_lanes:
        fix = "start the workers again, they read it from its beginning"
    elif topics.CHANGELOG in now and now[topics.CHANGELOG].id != was[topics.CHANGELOG].id:
        fix = _STATE_GONE
    elif any(now[name].id != was[name].id for name in of_lanes):
        fix = (
            "restore the topics, or keep the state and go on from the beginning of what is there: salience lanes adopt"
        )
    else:
        fix = _REPARTITIONED
    raise RecoveryError(f"{'; '.join(changes.values())}, under a running worker: {fix}")


def check_topics(settings: Settings, identity: TopicIdentity) -> bool:
    """Check that the topics are still those of ``identity``; False where a lane's topic is missing. Blocks.

    Raises `RecoveryError` where one was recreated, `TopicsError` where no broker answers.
    """
    found = _found(settings, (*_OF_LANES, *_READ_WHOLE))
    check_identity(identity, found)
    return found.keys() >= set(_OF_LANES)


def _found(settings: Settings, names: Sequence[str]) -> dict[str, Found]:
    """Those of ``names`` that exist, by name without prefix."""
    prefix = settings.topic_prefix
    found = topic_admin.found(settings.bootstrap, [prefix + name for name in names])
    return {name: found[prefix + name] for name in names if prefix + name in found}


def check_partitions(lane: int, row: LaneRow, identity: TopicIdentity) -> None:
    """Raises `RecoveryError` where the lane row was written when topics had other partitions."""
    if row.lanes != identity.lanes:
        raise RecoveryError(
            f"lane {lane} was one of {row.lanes}, now there are {identity.lanes} partitions: {_REPARTITIONED}"
        )


def check_resume(
    lane: int, row: LaneRow, identity: TopicIdentity, begins: tuple[int, int], ends: tuple[int, int]
) -> None:
    """Raises `RecoveryError` where the lane row refers to records that the topics do not hold.

    ``begins``, ``ends``: first offsets and log ends of impressions and clicks.
    """
    check_partitions(lane, row, identity)
    found = []
    if row.topic_ids != identity.inputs:
        found.append(f"the topics' ids are {identity.inputs}, it was recorded from {row.topic_ids}")
    for name, begin, end, at in zip(topics.LANE_INPUTS, begins, ends, row.next_offsets, strict=True):
        if end < at:
            found.append(f"{name} ends at {end}, it stands at {at}: another topic of that name")
        elif at < begin:
            found.append(f"{name} begins at {begin}, it stands at {at}: retention deleted what lay between, unread")
    if found:
        raise RecoveryError(
            f"lane {lane} cannot go on where it stands: {'; '.join(found)}. Restore the topics, or keep the state and "
            "go on from the beginning of what is there: salience lanes adopt"
        )
