"""A slice as a pure function: what it publishes, what it leaves in state, and that it can be done again."""

import msgspec
import numpy as np
import pytest

from scoring.anomaly import GRACE
from scoring.engine import PEOPLE_PER_CALL
from scoring.events import Source
from scoring.rows import RowStore, decode_rows
from streams.lanes.clicks import LaneClicks
from streams.step import Effects, LaneState, Slice, Step
from streams.wire import Decision, LaneRow
from tests.builders import START_MS, Record, click, entry, impression, record, records
from tests.unit.garbage import cycles
from tests.unit.slices import (
    ADS,
    keys,
    log_records,
    new_state,
    placements,
    rows_changed,
    run,
    step_of,
)


@pytest.fixture
def step() -> Step:
    return step_of()


# --- placements ----------------------------------------------------------------------------------------------


def test_everyone_who_did_something_gets_one_placement_and_nobody_else(step: Step) -> None:
    state = new_state()
    run(step, state, records([impression("a"), impression("b"), click("c")]))

    effects = run(
        step, state, [record(click("b", "ad-2"), 1), record(click("d", "ad-3"), 2), record(click("b", "ad-3"), 3)]
    )

    assert sorted(keys(effects.messages["placements"])) == [b"b", b"d"]  # type: ignore[type-var]  # all have a key
    assert set(placements(effects)) == {"b", "d"}
    assert effects.counts["placements"] == 2


def offered_ads(effects: Effects) -> dict[str, set[str]]:
    """Ads of everybody's placement."""
    return {user: {slot.ad_id for slot in placement.slots} for user, placement in placements(effects).items()}


@pytest.mark.parametrize("agreed", [True, False], ids=["remembered", "not remembered"])
def test_a_clock_that_is_fast_shows_nobody_an_ad_too_early_and_takes_none_away_that_has_time_left(agreed: bool) -> None:
    soon_ms, offsets = START_MS + 240_000, range(4)
    timed = [entry("coming", start_ms=soon_ms, bid_micros=10**6), entry("going", end_ms=soon_ms, bid_micros=10**6)]
    acts = [click(user, time_ms=START_MS + at) for at, user in enumerate("abc")]
    fast = record(click("fast", time_ms=soon_ms + 50_000), 3, timestamp=START_MS + 3)
    found = []
    for taken in (map(record, acts, offsets), [*map(record, acts, offsets), fast], [fast]):
        step = step_of(ads=range(4), consent_presumed=agreed)
        step.engine.catalogue.upsert(timed)
        found.append(offered_ads(run(step, new_state(), [*taken])))
    right, together, alone = found
    assert all("going" in ads and "coming" not in ads for ads in [*together.values(), *alone.values()])
    assert together == right | alone


def test_an_ad_that_has_begun_by_the_lanes_time_is_shown_and_one_that_has_ended_is_not() -> None:
    step = step_of(ads=range(4))
    edge_ms = START_MS + 500
    step.engine.catalogue.upsert([entry("new", start_ms=edge_ms, bid_micros=10**6), entry("over", end_ms=edge_ms)])
    effects = run(step, new_state(), [record(click("a", time_ms=edge_ms)), record(click("b", time_ms=edge_ms + 9), 1)])
    assert all("new" in ads and "over" not in ads for ads in offered_ads(effects).values())


def test_a_placement_holds_different_ads_of_the_catalogue_for_as_long_as_the_policy_says(step: Step) -> None:
    effects = run(step, new_state(), log_records())

    shop, policy = step.engine.catalogue, step.engine.policy
    campaigns = {held.content.item_id: held.campaign_id for held in shop.entries}
    assert len(placements(effects)) == 12
    for placement in placements(effects).values():
        assert [slot.slot for slot in placement.slots] == list(range(policy.slots))
        assert len({slot.ad_id for slot in placement.slots}) == policy.slots
        assert all(campaigns[slot.ad_id] == slot.campaign_id for slot in placement.slots)
        assert all(0 < slot.propensity <= 1 and 0 < slot.pctr < 1 for slot in placement.slots)
        assert placement.valid_until_ms == placement.time_ms + policy.placement_ttl_ms
        assert placement.model == step.engine.model.version


def test_a_placement_is_as_of_the_newest_event_and_names_the_past_that_earned_it(step: Step) -> None:
    state = new_state()

    effects = run(
        step, state, records([impression("a", "ad-1"), click("a", "ad-2", START_MS + 5_000), impression("a", "ad-3")])
    )

    placement = placements(effects)["a"]
    named = {attended.ad_id for slot in placement.slots for attended in slot.attention}
    assert placement.time_ms == START_MS + 5_000
    assert named
    assert named <= {"ad-1", "ad-2", "ad-3"}


def test_a_receipt_carries_its_placement_byte_for_byte_and_the_row_it_was_made_from(step: Step) -> None:
    state = new_state(lane=0)

    effects = run(step, state, log_records())

    sent = {message.key: message.value for message in effects.messages["placements"]}
    assert keys(effects.messages["decisions"]) == keys(effects.messages["placements"])
    for message in effects.messages["decisions"]:
        decision = msgspec.json.decode(message.value or b"", type=Decision)
        (row,) = decode_rows([decision.row])
        assert decision.placement == sent[message.key]
        assert decision.row == state.store.rows[state.store.find(message.key or b"")].tobytes()
        assert decision.offsets == tuple(row["offset"].tolist())
        assert decision.time_ms == row["time_ms"]


def test_a_placement_is_made_from_the_row_of_its_own_person_whoever_else_in_the_slice_gets_none(step: Step) -> None:
    """An event that is late, or filtered, changes its person's row, and asks for no placement."""
    state, long_ago_ms = new_state(), START_MS - 2 * step.rules.late_ms
    people = [f"person-{number}" for number in range(6)]
    run(step, state, records([click(user, f"ad-{at}") for at, user in enumerate(people)]))
    taken = [click(user, f"ad-{at}", long_ago_ms if at % 2 == 0 else START_MS + at) for at, user in enumerate(people)]

    effects = run(step, state, [record(each, len(people) + at) for at, each in enumerate(taken)])

    receipts = {message.key: message.value or b"" for message in effects.messages["decisions"]}
    decisions = {user: msgspec.json.decode(receipt, type=Decision) for user, receipt in receipts.items()}
    assert decisions.keys() == {user.encode() for user in people[1::2]}
    for user, decision in decisions.items():
        assert decision.row == state.store.rows[state.store.find(user)].tobytes()


def test_without_an_ad_to_show_state_goes_on_and_nothing_is_placed(step: Step) -> None:
    step.engine.catalogue.withdraw([f"ad-{n}" for n in range(ADS)])

    effects = run(step, new_state(), records([click("a")]))

    assert (effects.messages["placements"], effects.messages["decisions"]) == ([], [])
    assert keys(rows_changed(effects)) == [b"a"]
    assert effects.counts["applied"] == 1


# --- state ---------------------------------------------------------------------------------------------------


def test_the_changelog_is_the_state(step: Step) -> None:
    state, recovered = new_state(), RowStore()
    given = log_records()

    for start in range(0, len(given), 8):  # so few that most of the people have no part in a slice
        changed = rows_changed(run(step, state, given[start : start + 8]))
        recovered.put(
            [message.key or b"" for message in changed], decode_rows(message.value or b"" for message in changed)
        )

    assert len(recovered) == len(state.store) == 12
    for user in state.store.users:
        assert user is not None
        assert recovered.rows[recovered.find(user)].tobytes() == state.store.rows[state.store.find(user)].tobytes()


def test_rows_are_written_once_per_slice_however_much_a_user_did(step: Step) -> None:
    given = records([impression("a", f"ad-{n}", START_MS + n) for n in range(50)])

    assert keys(rows_changed(run(step, new_state(), given))) == [b"a"]


def test_what_was_handed_out_does_not_change_with_the_state(step: Step) -> None:
    state = new_state()
    effects = run(step, state, records([click("a")]))
    before = [message.value for messages in effects.messages.values() for message in messages]

    run(step, state, [record(click("a", "ad-9"), 1)])

    assert [message.value for messages in effects.messages.values() for message in messages] == before


def test_who_looks_at_the_totals_sees_those_after_one_slice_or_the_next(step: Step) -> None:
    state = new_state()
    run(step, state, records([click("a")]))
    seen = state.totals
    before = dict(seen)

    run(step, state, [record(click("a", "ad-9"), 1)])

    assert dict(seen) == before  # of a slice that came between, nothing is half there
    assert (before["events_in"], state.totals["events_in"]) == (1, 2)


def test_who_did_something_before_the_shops_first_ad_begins_gets_no_placement_and_who_came_after_does() -> None:
    step = step_of(ads=())
    step.engine.catalogue.upsert([entry("ad-0", start_ms=START_MS + 1_000)])
    early = [impression(f"early-{n}", "ad-0", START_MS) for n in range(PEOPLE_PER_CALL)]
    late = [impression(f"late-{n}", "ad-0", START_MS + 1_000) for n in range(3)]
    assert set(placements(run(step, new_state(), records([*early, *late])))) == {"late-0", "late-1", "late-2"}


def test_a_slice_done_again_after_a_crash_changes_no_row_and_publishes_the_same_placements(step: Step) -> None:
    given = log_records()
    state = new_state()
    first = run(step, state, given)
    before = state.store.rows.tobytes()

    # The rows were delivered, and the click layer; the lane row was not.
    layer = LaneClicks.restore(step.learning, state.clicks.parts())
    again = LaneState(0, state.topic_ids, state.lanes, store=state.store, clicks=layer)
    second = run(step, again, given)

    assert state.store.rows.tobytes() == before
    assert second.counts["replayed"] == len(given) - second.counts["dead"]
    assert second.messages["placements"] == first.messages["placements"]
    assert second.messages["decisions"] == first.messages["decisions"]


def test_the_lane_rows_order_bits_replay_to_the_same_state(step: Step) -> None:
    given = log_records()
    state = new_state()
    lane_rows, at = [], 0
    for size in (1, 7, 64, 100, 500):
        lane_rows.append(run(step, state, given[at : at + size]).lane_row)
        at += size
    by_topic: dict[int, list[Record]] = {Source.IMPRESSION: [], Source.CLICK: []}
    for each in given:
        by_topic[Source.CLICK if each.topic == "clicks" else Source.IMPRESSION].append(each)

    replayed = new_state()
    for lane_row in lane_rows:
        assert lane_row.from_offsets == replayed.next_offsets
        run(step, replayed, in_recorded_order(lane_row, by_topic))

    assert replayed.store.users == state.store.users
    assert replayed.store.rows.tobytes() == state.store.rows.tobytes()
    assert (replayed.next_offsets, replayed.watermarks_ms) == (state.next_offsets, state.watermarks_ms)
    assert replayed.totals == state.totals


def in_recorded_order(lane_row: LaneRow, by_topic: dict[int, list[Record]]) -> list[Record]:
    """The slice that a lane row speaks of, from the topics alone."""
    bits = np.unpackbits(np.frombuffer(lane_row.order, dtype=np.uint8), count=lane_row.records)
    at = list(lane_row.from_offsets)
    out = []
    for source in bits.tolist():
        out.append(by_topic[source][at[source]])
        at[source] += 1
    assert tuple(at) == lane_row.next_offsets
    return out


def test_offsets_move_past_everything_taken_whatever_became_of_it(step: Step) -> None:
    state = new_state()
    bad = Record("clicks", 0, 17, START_MS, b"a", b"{")

    lane_row = run(step, state, [record(impression("a"), 4), bad]).lane_row

    assert (lane_row.from_offsets, lane_row.next_offsets) == ((0, 0), (5, 18))
    assert state.next_offsets == (5, 18)
    assert (lane_row.records, lane_row.topic_ids, lane_row.lanes) == (2, ("topic-id-1", "topic-id-2"), 4)
    assert lane_row.watermarks_ms == state.watermarks_ms == (START_MS, START_MS)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(lane_row), type=LaneRow) == lane_row


def test_an_empty_slice_moves_nothing(step: Step) -> None:
    state = new_state()
    state.next_offsets = (3, 4)

    effects = run(step, state, [])

    assert state.next_offsets == (3, 4)
    assert not any(effects.messages.values())
    assert effects.counts["events_in"] == 0


BROKEN = Record("ad-impressions", 0, 0, START_MS, b"a", b'{"event_id": "i')
MISKEYED = record(impression("a"), key=b"b")
OF_TOMORROW = record(impression("a", time_ms=START_MS + 86_400_000))


@pytest.mark.parametrize("refused", [BROKEN, MISKEYED, OF_TOMORROW], ids=["broken", "miskeyed", "of tomorrow"])
def test_a_refused_record_keeps_nothing_of_its_slice_in_memory(step: Step, refused: Record) -> None:
    """A slice's output is megabytes: it must go when it was sent, not when the garbage collector comes by."""
    state = new_state()
    with cycles() as left:
        effects = run(step, state, [refused, record(impression("b"), 1), record(click("c"), 0)])
        assert effects.counts["dead"] == 1
        del effects
        assert not [each for each in left() if isinstance(each, Slice)]


# --- the flood score -----------------------------------------------------------------------------------------


def test_a_late_event_of_somebody_who_was_fast_weeks_ago_is_no_flood_and_what_they_do_now_may_be_one() -> None:
    step, state, week_ms = step_of(scoring=False), new_state(), 7 * 86_400_000
    run(step, state, records([click("fast", f"ad-{n}", START_MS + n) for n in range(40)]))
    for _ in range(GRACE):
        state.flood.observe(1)
    now_ms = START_MS + 2 * week_ms
    assert run(step, state, [record(click("other", time_ms=now_ms), 40)], now_ms).lane_row.flood_score == 0

    late = run(step, state, [record(click("fast", "ad-1", START_MS + 50), 41, timestamp=now_ms)], now_ms)
    assert (late.counts["late"], late.lane_row.flood_score) == (1, 0)

    again = [record(click("fast", f"ad-{n}", now_ms + n), 42 + n) for n in range(40)]
    assert run(step, state, again, now_ms).lane_row.flood_score > 0.99
