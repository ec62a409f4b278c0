"""Whether the topics are those that the state was made from: a topic recreated under its name is refused."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiokafka.partitioner import murmur2

from streams import topics
from streams.recovery import RecoveryError
from streams.settings import Settings
from streams.wire import LaneRow


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """Topic ids of impressions and clicks, of the changelog, and the number of lanes."""

    inputs: tuple[str, str]
    changelog: str
    lanes: int


def partitioner(lanes: int) -> Callable[[bytes], int]:
    """Kafka's default: murmur2 of the key. librdkafka's CRC32 would put users elsewhere."""

    def partition_of(key: bytes) -> int:
        lane: int = (murmur2(key) & 0x7FFFFFFF) % lanes
        return lane

    return partition_of


async def identify(settings: Settings) -> TopicIdentity:
    """Ask the broker. Raises `RecoveryError` naming the command where topics are missing or differ in partitions."""
    lane_topics = [settings.topic_prefix + topic.name for topic in topics.TABLE if topic.lanes]
    counts = await asyncio.to_thread(topics.partition_counts, settings.bootstrap, lane_topics)
    if len(counts) < len(lane_topics) or len(set(counts.values())) != 1:
        raise RecoveryError(
            f"topics with one partition per lane have {counts}, expected all of {lane_topics} with the same number; "
            f"see: salience topics check --bootstrap {settings.bootstrap} --prefix '{settings.topic_prefix}'"
        )
    ids = await asyncio.to_thread(topics.topic_ids, settings.bootstrap, lane_topics)
    inputs = ids[settings.topic_prefix + topics.AD_IMPRESSIONS], ids[settings.topic_prefix + topics.CLICKS]
    return TopicIdentity(inputs, ids[settings.topic_prefix + topics.CHANGELOG], counts[lane_topics[0]])


def check_resume(
    lane: int, row: LaneRow, identity: TopicIdentity, begins: tuple[int, int], ends: tuple[int, int]
) -> None:
    """Raises `RecoveryError` where the lane row speaks of other records than those that are there.

    ``begins``, ``ends``: first offsets and log ends of impressions and clicks.
    """
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
