"""The fault harness's own judgement: what it must find when it is there, and nothing when it is not."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from scoring.engine import Engine, Policy
from scoring.events import Source
from streams.columns import source_of
from streams.placement_ids import placement_id
from streams.step import LaneState, Slice, Step
from tests.builders import Record, catalogue, click, impression, record
from tests.integration.chaos.recorder import READ_WITHIN_S, Recorded
from tests.integration.chaos.verdict import FAR_MS, Evidence, Verdict, judge

USERS = ("user-0", "user-1", "user-2")
SLICE = 4
STEP = Step(Engine(catalogue(), None, Policy()), lambda _: 0, 0, 10**12, scoring=False)


def events() -> list[Record]:
    """Impressions, every other one clicked, one of them sent twice, and one record that is no event."""
    out, offsets = [], [0, 0]
    for number in range(20):
        shown = impression(USERS[number % 3], f"ad-{number % 9}", 1_700_000_000_000 + 1_000 * number)
        answer = click(USERS[number % 3], f"ad-{number % 9}", shown.time_ms + 5, impression_time_ms=shown.time_ms)
        for event in [shown] * (2 if number == 7 else 1) + [answer] * (number % 2):
            out.append(record(event, offsets[source_of(event)]))
            offsets[source_of(event)] += 1
    out.append(Record("clicks", 0, offsets[1], 1_700_000_000_000, b"user-1", b"{poison"))
    return out


def of_source(one: Record) -> Source:
    return Source.CLICK if one.topic == "clicks" else Source.IMPRESSION


def world() -> Evidence:
    """What a worker leaves behind that has done everything right, slice by slice."""
    given, recorded, state = events(), Recorded(), LaneState(0, ("a", "b"), 1)
    for start in range(0, len(given), SLICE):
        taken = given[start : start + SLICE]
        order = np.array([of_source(one) for one in taken], dtype=np.uint8)
        effects = STEP.run(state, Slice(taken, order, (0, 0)), FAR_MS)
        end = 10 * len(recorded.lane_rows[0])
        recorded.lane_rows[0].append((end + 9, effects.lane_row))
        recorded.samples.append((0, effects.lane_row.next_offsets, end + 10))
        for message in effects.messages["state-changelog"]:
            assert message.key is not None
            assert message.value is not None
            row = state.store.rows[state.store.find(message.key)]
            first, second = row["offset"].tolist()
            recorded.rows[message.key], recorded.row_offsets[message.key] = message.value, (first, second)
            recorded.placed[message.key] = placement_id(0, message.key, (first, second))
            recorded.placements[recorded.placed[message.key]] += 1
        recorded.dead.update((dead.topic, 0, dead.offset) for dead in taken if dead.value == b"{poison")
    inputs = {(source, 0): [one for one in given if of_source(one) == source] for source in Source}
    known = {
        source: {msgspec.json.decode(one.value)["event_id"] for one in inputs[source, 0] if one.value != b"{poison"}
        for source in Source
    }
    return Evidence(1, inputs, known, recorded, {0: state.next_offsets}, True, STEP)


def test_a_worker_that_did_everything_right_is_acquitted() -> None:
    assert judge(world()) == Verdict()


def acknowledged_event_is_gone(evidence: Evidence) -> None:
    evidence.acknowledged[Source.CLICK].add("never-seen")


def slice_is_missing(evidence: Evidence) -> None:
    del evidence.recorded.lane_rows[0][2]


def slice_is_there_twice(evidence: Evidence) -> None:
    rows = evidence.recorded.lane_rows[0]
    rows.insert(3, rows[2])


def last_slice_is_missing(evidence: Evidence) -> None:
    evidence.recorded.lane_rows[0].pop()


def slice_ends_elsewhere_than_its_records(by: int) -> Callable[[Evidence], None]:
    def ends(evidence: Evidence) -> None:
        rows = evidence.recorded.lane_rows[0]
        offset, row = rows[2]
        first, second = row.next_offsets
        rows[2] = offset, msgspec.structs.replace(row, next_offsets=(first + by, second))

    return ends


def row_was_lost(evidence: Evidence) -> None:
    del evidence.recorded.rows[b"user-1"]


def row_is_of_an_older_slice(evidence: Evidence) -> None:
    state = LaneState(0, ("a", "b"), 1)
    taken = evidence.inputs[Source.IMPRESSION, 0][:3]
    STEP.run(state, Slice(taken, np.zeros(3, dtype=np.uint8), (0, 0)), FAR_MS)
    evidence.recorded.rows[b"user-1"] = state.store.rows[state.store.find(b"user-1")].tobytes()


def placement_is_there_twice(evidence: Evidence) -> None:
    evidence.recorded.placements[next(iter(evidence.recorded.placements))] += 1


def placement_of_nothing(evidence: Evidence) -> None:
    evidence.recorded.placements[placement_id(0, b"user-1", (900, 0))] += 1


def last_placement_is_missing(evidence: Evidence) -> None:
    evidence.recorded.placed[b"user-2"] = placement_id(0, b"user-2", (2, -1))


def dead_letter_is_missing(evidence: Evidence) -> None:
    evidence.recorded.dead.clear()


def dead_letter_is_there_twice(evidence: Evidence) -> None:
    evidence.recorded.dead = Counter(dict.fromkeys(evidence.recorded.dead, 2))


def offsets_were_ahead_of_their_output(evidence: Evidence) -> None:
    lane, committed, _end = evidence.recorded.samples[3]
    evidence.recorded.samples[3] = (lane, committed, 0)


def offsets_end_before_the_lane(evidence: Evidence) -> None:
    evidence.committed[0] = (1, 1)  # type: ignore[index]  # a dict here


def older_row_came_last(evidence: Evidence) -> None:
    evidence.recorded.rows_went_back += 1


def older_placement_came_last(evidence: Evidence) -> None:
    evidence.recorded.placements_went_back += 1


def recorder_came_late(evidence: Evidence) -> None:
    evidence.recorded.slowest_s = READ_WITHIN_S + 1


@pytest.mark.parametrize(
    ("crime", "kind"),
    [
        (acknowledged_event_is_gone, "lost"),
        (slice_is_missing, "lost"),
        (slice_is_there_twice, "doubled"),
        (last_slice_is_missing, "lost"),
        (slice_ends_elsewhere_than_its_records(-1), "reordered"),
        (slice_ends_elsewhere_than_its_records(1), "reordered"),
        (row_was_lost, "lost"),
        (row_is_of_an_older_slice, "other"),
        (placement_is_there_twice, "doubled"),
        (placement_of_nothing, "other"),
        (last_placement_is_missing, "lost"),
        (dead_letter_is_missing, "lost"),
        (dead_letter_is_there_twice, "doubled"),
        (offsets_were_ahead_of_their_output, "other"),
        (offsets_end_before_the_lane, "other"),
        (older_row_came_last, "reordered"),
        (older_placement_came_last, "reordered"),
        (recorder_came_late, "other"),
    ],
)
def test_it_finds_and_names_each_crime(crime: Callable[[Evidence], None], kind: str) -> None:
    evidence = world()
    crime(evidence)
    verdict = judge(replace(evidence))
    assert getattr(verdict, kind) > 0, verdict
    assert verdict.findings
