"""How a lane is taken over, without a broker: in which order, and where it goes on."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError
from msgspec.structs import replace
from structlog.testing import capture_logs

from scoring.events import Source
from streams import topic_admin
from streams.clock import wall_ms
from streams.lanes.clicks import KEY as CLICKS
from streams.lanes.clicks import ChunkRow, LaneClicks, person_key
from streams.lanes.lane import Lane, LaneLostError
from streams.lanes.ledger import KEY, LaneLedger
from streams.lanes.recovery import Recovered, RecoveryError
from streams.privacy.consent import ERASED_KEY, Watermarks
from streams.privacy.guests import Guests, guest_key
from streams.wire import LaneRow
from tests.builders import START_MS, impression, known_topics, record
from tests.unit.lanes import CHANGELOG_OFFSET, DEADLINE_MS, IDENTITY, Group, Outbox, shared_of
from tests.unit.slices import new_state
from tests.unit.test_identity import ROW as STANDING

ENDS = {"ad-impressions": 110, "clicks": 120}
HERE = {"topic_ids": IDENTITY.inputs, "ads_next": 100, "ads_id": "ads-1"}
ROW = replace(STANDING, from_offsets=(10, 20), next_offsets=(50, 60), **HERE)
LAYER = LaneClicks().parts()
LATER_CHUNK = msgspec.msgpack.encode(ChunkRow(first=0, settled=0, rows=b"", answered=b"", layout=6))


def _later_layer() -> bytes:
    """A layer whose models have more weights, though it names the layout of today."""
    clicks = LaneClicks()
    clicks.layer.learner(1)
    row = msgspec.msgpack.decode(clicks.parts()[CLICKS])
    row["learners"][1]["weights"] = bytes(8 * 99)
    return msgspec.msgpack.encode(row)


LATER_LAYER = _later_layer()
TAKING = ["member", "start", "begin", "abort", "member", "recover"]


class Member(Group):
    """A member whose first ``commits`` are accepted, by which a lane knows that it is one."""

    def __init__(self, did: list[str], commits: int = 10) -> None:
        super().__init__(did)
        self._commits = commits
        self.written: list[dict[TopicPartition, int]] = []

    async def committed(self, *_: object) -> int:
        return 0

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.did.append("member")
        self.written.append(offsets)
        self._commits -= 1
        if self._commits < 0:
            raise CommitFailedError("generation")


@pytest.fixture
def did(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done, in order; the changelog is empty and the topics are as they were."""
    out: list[str] = []

    async def log_ends(_bootstrap: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: ENDS.get(tp.topic, 0) for tp in partitions}

    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        out.append("recover")
        return base

    found = known_topics(lanes=4)
    monkeypatch.setattr(topic_admin, "found", lambda _, names: {name: found[name] for name in names})
    monkeypatch.setattr("streams.lanes.lane.log_ends", log_ends)
    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    return out


def lane_of(home: Path, group: Group, **settings: Any) -> Lane:
    return Lane(0, shared_of(home, group, lambda *_: Outbox(group.did), **settings))


def test_the_state_of_a_lane_is_as_old_as_its_taking_over_and_no_younger_however_long_that_takes(
    did: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_ms = itertools.count(START_MS)
    monkeypatch.setattr("streams.lanes.lane.wall_ms", lambda: next(clock_ms))
    lane = lane_of(tmp_path, Member(did))
    asyncio.run(lane.take_over())
    assert lane._saving._as_of_ms == START_MS


def test_a_lane_is_recovered_once_its_former_owner_is_fenced_by_one_who_is_a_member_before_and_after(
    did: list[str], tmp_path: Path
) -> None:
    lane = lane_of(tmp_path, Member(did))
    asyncio.run(lane.take_over())
    assert did[: len(TAKING)] == TAKING
    assert lane.running


@pytest.mark.parametrize(("commits", "done"), [(0, TAKING[:1]), (1, TAKING[:5])])
def test_who_is_no_member_before_fencing_or_after_it_does_not_take_the_lane(
    commits: int, done: list[str], did: list[str], tmp_path: Path
) -> None:
    lane = lane_of(tmp_path, Member(did, commits))
    with pytest.raises(LaneLostError, match="lane 0 was given to another worker"):
        asyncio.run(lane.take_over())
    assert did == done
    assert not lane.running


@pytest.mark.parametrize(("first_start", "offsets"), [("earliest", [10, 20]), ("latest", [110, 120])])
def test_a_lane_that_never_ran_begins_where_the_setting_says(
    first_start: str, offsets: list[int], did: list[str], tmp_path: Path
) -> None:
    group = Member(did)
    lane = lane_of(tmp_path, group, first_start=first_start)
    asyncio.run(lane.take_over())
    assert [group.sought[tp] for tp in lane.inputs] == offsets
    assert [queue.position for queue in lane.queues.sources] == offsets


def test_what_was_queued_before_a_lane_goes_to_its_offsets_is_dropped(did: list[str], tmp_path: Path) -> None:
    lane = lane_of(tmp_path, Member(did))
    lane.queues.put(Source.IMPRESSION, [record(impression())])
    asyncio.run(lane.take_over())
    assert len(lane.queues) == 0


def test_a_lane_that_left_a_snapshot_goes_on_from_there_and_reads_the_changelog_only_behind_it(
    did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without it a million users take seconds more, and nothing else would tell: the rows are the same."""
    lane, given = lane_of(tmp_path, Member(did)), list[tuple[int, list[bytes | None]]]()
    state = new_state(lane.number)
    state.store.row_of(b"ann")
    lane._shared.snapshots.save(state, CHANGELOG_OFFSET, wall_ms())

    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        given.append((base.offset, [*base.store.users]))
        base.lane_row = ROW
        return base

    monkeypatch.setitem(ENDS, "state-changelog", CHANGELOG_OFFSET)
    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    asyncio.run(lane.take_over())
    assert given == [(CHANGELOG_OFFSET, [b"ann"])]
    assert lane.state.store.find(b"ann") >= 0


def test_a_snapshot_beyond_the_lane_row_of_its_changelog_is_put_aside_and_all_of_that_read(
    did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would leave the lane without the place where it stands, and the lane would take all its events again."""
    lane, given = lane_of(tmp_path, Member(did)), list[int]()
    state = new_state(lane.number)
    state.store.row_of(b"ann")
    lane._shared.snapshots.save(state, CHANGELOG_OFFSET, wall_ms())

    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        given.append(base.offset)
        base.lane_row = None if base.offset else ROW
        return base

    monkeypatch.setitem(ENDS, "state-changelog", CHANGELOG_OFFSET)
    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    asyncio.run(lane.take_over())
    assert given == [CHANGELOG_OFFSET, 0]
    assert lane.state.next_offsets == ROW.next_offsets
    assert lane.state.store.find(b"ann") < 0


@pytest.mark.parametrize(
    ("stands", "said"),
    [
        (replace(ROW, next_offsets=(111, 60)), "ad-impressions ends at 110, it stands at 111: another topic"),
        (replace(ROW, next_offsets=(50, 19)), "clicks begins at 20, it stands at 19: retention deleted"),
        (replace(ROW, topic_ids=("impressions-0", IDENTITY.inputs[1])), "it was recorded from"),
        (replace(ROW, lanes=3), "lane 0 was one of 3, now there are 4 partitions"),
    ],
    ids=["a shorter topic", "unread records gone", "a topic of the same name", "other partitions"],
)
def test_a_lane_does_not_go_on_where_its_topics_are_not_those_in_which_it_stood(
    stands: LaneRow, said: str, did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        base.lane_row = stands
        return base

    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    lane = lane_of(tmp_path, Member(did))
    with pytest.raises(RecoveryError, match=said):
        asyncio.run(lane.take_over())
    assert not lane.running


def test_a_topic_made_anew_since_the_worker_started_is_found_though_the_lane_never_ran(
    did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now = known_topics(lanes=4) | {"clicks": known_topics(lanes=4)["ad-impressions"]}
    monkeypatch.setattr(topic_admin, "found", lambda _, names: {name: now[name] for name in names})
    lane = lane_of(tmp_path, Member(did))
    with pytest.raises(RecoveryError, match="clicks is another topic of that name"):
        asyncio.run(lane.take_over())
    assert not lane.running


async def test_a_lane_that_is_taken_over_tells_its_group_where_it_stands_for_whom_its_former_owner_did_not(
    did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        base.lane_row = ROW
        return base

    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    group = Member(did)
    lane = lane_of(tmp_path, group)
    group.assigned = set(lane.inputs)
    await lane.take_over()
    await lane.close(DEADLINE_MS)
    assert group.written[-1] == dict(zip(lane.inputs, ROW.next_offsets, strict=True))


@pytest.mark.parametrize(
    ("ads_id", "begin"), [("ads-1", 100), ("ads-0", 0), ("", 100)], ids=["same", "made anew", "of a former version"]
)
def test_letters_of_refused_ads_go_on_where_they_ended_and_begin_anew_with_the_topic(
    ads_id: str, begin: int, did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        base.lane_row = replace(ROW, ads_id=ads_id)
        return base

    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    lane = lane_of(tmp_path, Member(did))
    asyncio.run(lane.take_over())
    assert (lane.state.ads_next, lane.state.ads_id) == (begin, "ads-1")


@pytest.mark.parametrize(("control_id", "begin"), [("control-1", 40), ("control-0", 0), ("", 0)])
def test_peoples_requests_go_on_where_they_were_met_and_are_all_met_again_where_their_topic_was_made_anew(
    control_id: str, begin: int, did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        base.lane_row = replace(ROW, control_id=control_id, control_next=40)
        return base

    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    lane = lane_of(tmp_path, Member(did))
    asyncio.run(lane.take_over())
    assert (lane.state.control_next, lane.state.control_id) == (begin, "control-1")


def test_a_lane_goes_on_at_the_times_and_with_the_totals_that_its_last_slice_left(
    did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is late, and what time it is on the lane, is told by those times: not by what comes after a restart."""
    times: dict[str, Any] = {"watermarks_ms": (START_MS + 1, START_MS + 2), "stream_ms": START_MS + 3}
    totals = {"applied": 7, "late": 2}

    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        base.lane_row = replace(ROW, totals=totals, **times)
        return base

    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    lane = lane_of(tmp_path, Member(did))
    asyncio.run(lane.take_over())
    assert {name: getattr(lane.state, name) for name in times} == times
    assert lane.state.totals == totals
    assert lane.state.next_offsets == ROW.next_offsets


@pytest.mark.parametrize("size", [0, 7, 216, 8 * (2 + 3 * 11)], ids=["none", "torn", "short", "of a later version"])
def test_a_ledger_that_another_version_wrote_is_refused_with_the_way_out(
    size: int, did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a rollback, an operator must see by the last line of the log that the state is too new for the version."""

    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        base.lane_row, base.parts = ROW, {KEY + b"may\x00": bytes(size)}
        return base

    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    refused = f"a ledger's cell has {size} bytes; the layouts .* have 232 and 256. Run the version that wrote it"
    with pytest.raises(RecoveryError, match=refused):
        asyncio.run(lane_of(tmp_path, Member(did)).take_over())


@pytest.mark.parametrize(
    ("part", "refused"),
    [
        ({ERASED_KEY + bytes(16): bytes(24)}, "a watermark has 24 bytes; the layouts .* have 8 and 16"),
        ({ERASED_KEY + bytes(16): b""}, "a watermark has 0 bytes; the layouts .* have 8 and 16"),
        ({guest_key(b"u"): bytes(16)}, "a guest's note has 16 bytes; the layouts .* have 8"),
        (LAYER | {person_key(b"u"): bytes(32)}, "a click layer's record has 32 bytes; .* 24 at most"),
        (LAYER | {CLICKS + b"/open/" + bytes(8): LATER_CHUNK}, "open impressions are of layout 6; .* 4 and 5"),
        ({CLICKS: LATER_LAYER}, "a click model has 99 weights; this version's has 72"),
        ({CLICKS: b"?"}, "MessagePack|Expected"),
    ],
)
def test_what_another_version_keeps_beside_rows_is_refused_with_the_way_out_and_never_misread(
    part: dict[bytes, bytes], refused: str, did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A watermark that is misread would hold its user back for ever; a guest's note, leave a placement for ever."""

    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        base.lane_row, base.parts = ROW, part
        return base

    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    with pytest.raises(RecoveryError, match=f"{refused}.*. Run the version that wrote it"):
        asyncio.run(lane_of(tmp_path, Member(did)).take_over())


def test_a_lane_whose_click_layer_is_damaged_is_taken_over_and_an_operator_sees_that_it_began_anew(
    did: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def recover(_settings: object, _changelog: object, base: Recovered) -> Recovered:
        base.lane_row, base.parts = ROW, LAYER | {person_key(b"u"): np.full(3, np.nan).tobytes()}
        return base

    monkeypatch.setattr("streams.lanes.lane.recover", recover)
    lane = lane_of(tmp_path, Member(did))
    with capture_logs() as said:
        asyncio.run(lane.take_over())
    (line,) = [each for each in said if each["log_level"] == "warning"]
    assert (line["event"], line["lane"]) == ("the click layer begins anew", 0)
    assert "the records of people: nan, expected 0 to" in line["reason"]
    assert not len(lane.state.clicks.layer.people)
    counted = lane._shared.metrics.registry.get_sample_value("salience_click_layers_begun_anew_total")
    assert counted == 1


def test_what_a_lane_keeps_beside_its_rows_is_restored_while_the_loop_goes_on(
    did: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many people it takes seconds, and a member that sends no heartbeat meanwhile is put out of its group."""
    threads = set[int]()
    for kept in (LaneClicks, LaneLedger, Watermarks, Guests):

        def restore(*given: Any, restored: Callable[..., Any] = kept.restore) -> Any:
            threads.add(threading.get_ident())
            return restored(*given)

        monkeypatch.setattr(kept, "restore", restore)
    lane = lane_of(tmp_path, Member(did))
    asyncio.run(lane.take_over())
    assert lane.running
    assert threads
    assert threading.get_ident() not in threads
