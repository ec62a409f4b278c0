"""Which topics a lane may go on in."""

from dataclasses import replace

import msgspec
import pytest

from streams.identity import TopicIdentity, check_identity, check_lanes, check_resume, partitioner
from streams.lanes.recovery import RecoveryError
from streams.wire import LaneRow
from tests.builders import known_topics

IDENTITY = TopicIdentity(known_topics(lanes=4))
ROW = LaneRow(
    version=1,
    from_offsets=(0, 0),
    next_offsets=(50, 20),
    records=0,
    order=b"",
    watermarks_ms=(0, 0),
    stream_ms=0,
    topic_ids=IDENTITY.inputs,
    lanes=4,
    totals={},
)


def test_a_lane_goes_on_where_its_records_are() -> None:
    check_resume(0, ROW, IDENTITY, begins=(50, 20), ends=(50, 20))  # all read, all before deleted


@pytest.mark.parametrize(
    ("begins", "ends", "found"),
    [
        ((0, 0), (49, 20), "ad-impressions ends at 49, it stands at 50"),
        ((0, 0), (50, 19), "clicks ends at 19, it stands at 20"),
        ((51, 0), (90, 20), "ad-impressions begins at 51, it stands at 50: retention"),
    ],
)
def test_records_that_are_not_there_are_named_with_the_command(
    begins: tuple[int, int], ends: tuple[int, int], found: str
) -> None:
    with pytest.raises(RecoveryError, match="salience lanes adopt") as told:
        check_resume(0, ROW, IDENTITY, begins, ends)
    assert found in str(told.value)


def test_whoever_makes_a_topic_anew_under_workers_is_told_what_helps_of_it() -> None:
    def told(*names: str) -> str:
        now = {name: replace(found, id="anew") if name in names else found for name, found in IDENTITY.found.items()}
        with pytest.raises(RecoveryError) as refused:
            check_identity(IDENTITY, now)
        return str(refused.value)

    assert "start the workers again" in told("ads")
    assert "keep the state and go on from the beginning of what is there: salience lanes adopt" in told("clicks", "ads")
    for names in (["state-changelog"], ["state-changelog", "clicks"]):  # to adopt keeps no state that is not there
        assert "keep the state" not in told(*names)
        assert "restore that from a mirror" in told(*names)


def test_a_topic_of_the_same_name_and_length_is_told_by_its_id() -> None:
    row = msgspec.structs.replace(ROW, topic_ids=("ad-impressions-0", "clicks-1"))
    with pytest.raises(RecoveryError, match="ad-impressions-0"):
        check_resume(0, row, IDENTITY, (0, 0), (90, 90))


def test_more_partitions_than_before_are_refused_at_the_start_and_while_running() -> None:
    with pytest.raises(RecoveryError, match="was one of 2, now there are 4"):
        check_resume(0, msgspec.structs.replace(ROW, lanes=2), IDENTITY, (0, 0), (90, 90))
    check_lanes({0, 3}, 4)
    with pytest.raises(RecoveryError, match=r"lanes \[4\] are assigned, there were 4"):
        check_lanes({0, 4}, 4)


@pytest.mark.parametrize(("key", "lane"), [("user-1", 3), ("用户", 1), ("", 1), ("0123456789", 3)])
def test_users_are_partitioned_as_javas_producers_do(key: str, lane: int) -> None:
    """The lanes are what ``Utils.toPositive(Utils.murmur2(key)) % 5`` of Kafka's Java client gives."""
    assert partitioner(5)(key.encode()) == lane
