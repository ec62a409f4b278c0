"""A slice as a pure function: what it publishes, sets aside, sends on and counts, and that it can be done again."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import generate_latest

from scoring.attention import AttentionModel, load
from scoring.candidates import Shares
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.events import Source
from scoring.policies import Policy
from scoring.rows import ROW, RowStore, decode_rows
from streams.identity import partitioner
from streams.lane_clicks import LaneClicks
from streams.laps import Laps
from streams.message import Message
from streams.metrics import Metrics
from streams.refused_ads import RefusedAds
from streams.step import EXPIRY_CHECK_MS, Effects, LaneState, Slice, Step
from streams.wire import RESERVED, Decision, LaneRow, Placement
from tests.builders import START_MS, Record, click, entry, impression, made_up_log, record, records

IDLE_TTL_MS = 30 * 86_400_000
TOLERANCE_MS = 300_000
NOW_MS = START_MS + 3_600_000
ADS = 40


@pytest.fixture(scope="module")
def model() -> AttentionModel:
    return load()


@pytest.fixture
def engine(model: AttentionModel) -> Engine:
    shop = Catalogue(model.encode, model.dim)
    shop.upsert(
        [entry(f"ad-{n}", campaign_id=f"c{n % 3}", category=f"c{n % 7}", bid_micros=100 + n) for n in range(ADS)]
    )
    return Engine(shop, model, Policy(slots=5, shares=Shares(count=20)))


@pytest.fixture
def step(engine: Engine) -> Step:
    return Step(engine, lambda _: 0, TOLERANCE_MS, IDLE_TTL_MS)


def new_state(lane: int = 0) -> LaneState:
    return LaneState(lane, ("topic-id-1", "topic-id-2"), 4)


def slice_of(taken: Sequence[Record]) -> Slice:
    order = np.array([Source.CLICK if each.topic == "clicks" else Source.IMPRESSION for each in taken], dtype=np.uint8)
    marks = [
        max([each.timestamp for each, of in zip(taken, order, strict=True) if of == source], default=0)
        for source in Source
    ]
    return Slice(taken, order, (marks[0], marks[1]))


def run(step: Step, state: LaneState, taken: Sequence[Record], now_ms: int = NOW_MS) -> Effects:
    return step.run(state, slice_of(taken), now_ms)


def log_records(events: int = 300, seed: int = 1) -> list[Record]:
    return records(made_up_log(seed, events=events, users=12, ads=ADS + 5).events)


def placements(effects: Effects) -> dict[str, Placement]:
    values = [message.value for message in effects.messages["placements"] if message.value is not None]
    decoded = [msgspec.json.decode(value, type=Placement) for value in values]
    return {placement.user_id: placement for placement in decoded}


def rows_changed(effects: Effects) -> list[Message]:
    """The changelog without the lane's own records."""
    return [message for message in effects.messages["state-changelog"] if not (message.key or b"").startswith(RESERVED)]


def keys(messages: Sequence[Message]) -> list[bytes | None]:
    return [message.key for message in messages]


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

    for start in range(0, len(given), 50):
        changed = rows_changed(run(step, state, given[start : start + 50]))
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
    assert (lane_row.records, lane_row.topic_ids) == (2, ("topic-id-1", "topic-id-2"))
    assert lane_row.watermarks_ms == state.watermarks_ms == (START_MS, START_MS)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(lane_row), type=LaneRow) == lane_row


# --- what does not fit ---------------------------------------------------------------------------------------


def test_a_dead_letter_keeps_the_record_and_says_where_from_and_why(step: Step) -> None:
    bad = Record("clicks", 3, 17, START_MS - 5, b"some key", b'{"half', [("ce_id", b"7")])

    (letter,) = run(step, new_state(), [bad]).messages["dead-letters"]

    assert (letter.key, letter.value, letter.timestamp_ms) == (b"some key", b'{"half', None)
    headers = dict(letter.headers)
    assert headers["ce_id"] == b"7"
    assert headers["salience.topic"] == b"clicks"
    assert headers["salience.partition"] == b"3"
    assert headers["salience.offset"] == b"17"
    assert headers["salience.timestamp_ms"] == str(START_MS - 5).encode()
    assert headers["salience.stage"] == b"decode"
    assert headers["salience.error"] == b"DecodeError"
    assert b"truncated" in headers["salience.message"]


def test_a_tombstone_on_an_input_is_a_dead_letter_and_stays_one(step: Step) -> None:
    (letter,) = run(step, new_state(), [Record("clicks", 0, 0, START_MS, b"a", None)]).messages["dead-letters"]

    assert letter.value is None


def test_an_event_beyond_the_clock_and_the_tolerance_is_a_dead_letter(step: Step) -> None:
    given = [
        record(click("a", time_ms=NOW_MS + TOLERANCE_MS), 0),
        record(click("b", time_ms=NOW_MS + TOLERANCE_MS + 1), 1),
    ]

    effects = run(step, new_state(), given)

    assert keys(effects.messages["dead-letters"]) == [b"b"]
    assert set(placements(effects)) == {"a"}


def test_misplaced_records_are_sent_to_their_own_partition_as_they_came(engine: Engine) -> None:
    partition_of = partitioner(4)
    users = [f"user-{n}" for n in range(40)]
    here = [user for user in users if partition_of(user.encode()) == 1]
    elsewhere = [user for user in users if user not in here]
    assert here
    assert elsewhere
    given = records([event(user) for user in users for event in (impression, click)], partition=1)
    state = new_state(lane=1)

    effects = run(Step(engine, partition_of, TOLERANCE_MS, IDLE_TTL_MS), state, given)

    assert {user for user in state.store.users if user} == {user.encode() for user in here}
    assert effects.counts["rerouted"] == 2 * len(elsewhere)
    sent = {(message.key, topic): message for (topic, _), messages in effects.rerouted.items() for message in messages}
    for original in given:
        if (original.key or b"").decode() in here:
            continue
        message = sent.pop((original.key, original.topic))
        assert (message.value, message.timestamp_ms) == (original.value, original.timestamp)
        assert message.headers == (("salience.rerouted", b"1"),)
    assert not sent
    assert all(partition_of(m.key or b"") == lane != 1 for (_, lane), ms in effects.rerouted.items() for m in ms)


def test_nothing_comes_in_that_is_not_accounted_for(engine: Engine) -> None:
    step = Step(engine, lambda key: 0 if key != b"user-3" else 2, TOLERANCE_MS, IDLE_TTL_MS)
    state = new_state()
    given = log_records(400)
    retried = [
        Record(each.topic, 0, 10_000 + n, each.timestamp, each.key, each.value) for n, each in enumerate(given[-3:])
    ]
    broken = [Record("clicks", 0, 20_000 + n, START_MS, b"x", b"?") for n in range(5)]
    total: Counter[str] = Counter()

    for taken in (given[:150], given[100:250], given[250:], [*retried, *broken]):
        effects = run(step, state, taken)
        total += effects.counts
        counts = effects.counts
        became = [counts[name] for name in ("applied", "duplicate", "replayed", "dead", "rerouted")]
        assert counts["events_in"] == sum(became) == len(taken)
        assert effects.lane_row.totals == dict(state.totals)

    assert all(total[name] > 0 for name in ("applied", "duplicate", "replayed", "dead", "rerouted", "unknown_ads"))
    assert {name: state.totals[name] for name in total} == dict(total)


def test_an_empty_slice_moves_nothing(step: Step) -> None:
    state = new_state()
    state.next_offsets = (3, 4)

    effects = run(step, state, [])

    assert state.next_offsets == (3, 4)
    assert not any(effects.messages.values())
    assert effects.counts["events_in"] == 0


# --- users who left ------------------------------------------------------------------------------------------


def test_idle_users_get_tombstones_and_are_forgotten(step: Step) -> None:
    state = new_state()
    run(step, state, records([click("idle"), click("busy")]))
    later_ms = START_MS + IDLE_TTL_MS + EXPIRY_CHECK_MS

    effects = run(step, state, [record(click("busy", time_ms=later_ms), 2)], now_ms=later_ms)

    gone = Message(b"idle", None)
    assert effects.messages["placements"][-1] == effects.messages["state-changelog"][-1] == gone
    assert [keys(effects.messages[name]).count(b"idle") for name in ("placements", "state-changelog", "decisions")] == [
        1,
        1,
        0,
    ]
    assert effects.counts["expired"] == 1
    assert state.store.find(b"idle") == -1
    assert state.store.find(b"busy") >= 0


def test_a_user_is_kept_to_the_end_of_the_time_and_looked_for_once_an_hour(step: Step) -> None:
    state = new_state()
    run(step, state, records([click("idle")]))
    last_ms = START_MS + IDLE_TTL_MS
    next_look_ms = (last_ms // EXPIRY_CHECK_MS + 1) * EXPIRY_CHECK_MS
    moments = [last_ms, last_ms + 1, next_look_ms - 1, next_look_ms, next_look_ms + 1]

    expired = []
    for offset, moment in enumerate(moments, 1):
        effects = run(step, state, [record(click("busy", time_ms=moment), offset)], now_ms=moment)
        expired.append(effects.counts["expired"])

    assert expired == [0, 0, 0, 1, 0]


def test_one_who_comes_back_after_being_forgotten_begins_anew(step: Step) -> None:
    state = new_state()
    run(step, state, records([click("a", "ad-1"), click("a", "ad-2", START_MS + 1)]))
    later_ms = START_MS + IDLE_TTL_MS + 2 * EXPIRY_CHECK_MS
    run(step, state, [record(click("b", time_ms=later_ms), 2)], now_ms=later_ms)

    run(step, state, [record(click("a", "ad-3", later_ms + 1), 3)], now_ms=later_ms)

    row: Any = state.store.rows[state.store.find(b"a")]
    assert row["clicks"] == 1
    assert np.count_nonzero(row["ring_ad"]) == 1
    assert ROW.itemsize == len(row.tobytes())


def test_what_a_slice_tells_prometheus_is_what_it_did(step: Step) -> None:
    taken = [*log_records(), record(click(), 10_000, value=b"{poison", timestamp=NOW_MS)]
    metrics, laps = Metrics(), Laps()
    effects = step.run(new_state(), slice_of(taken), NOW_MS, laps)

    metrics.committed(slice_of(taken), effects, laps.times, NOW_MS + 1_000)

    lines = generate_latest(metrics.registry).decode().splitlines()
    told = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
    for topic in ("ad-impressions", "clicks"):
        taken_of_it = sum(each.topic == topic for each in taken)
        assert sum(n for name, n in told.items() if f'topic="{topic}"' in name and "events" in name) == taken_of_it
    assert told['salience_events_total{outcome="dead",topic="clicks"}'] == 1
    assert told['salience_events_total{outcome="applied",topic="clicks"}'] > 0
    assert told["salience_slice_records_sum"] == told["salience_event_to_placement_seconds_count"] == len(taken)
    oldest_s = max(NOW_MS + 1_000 - each.timestamp for each in taken) / 1000
    assert told["salience_event_to_placement_seconds_sum"] <= oldest_s * len(taken)
    assert [stage for stage, _ in laps.times] == ["wait", "decode", "apply", "place", "encode"]
    assert told['salience_stage_seconds_count{stage="place"}'] == 1
    published = len(placements(effects))
    assert told['salience_produced_records_total{topic="placements"}'] == published
    assert sum(n for name, n in told.items() if name.startswith("salience_placements_total")) == published
    known = [told[f'salience_impression_outcomes_total{{clicked="{clicked}"}}'] for clicked in ("false", "true")]
    assert known == [np.sum(effects.outcomes["clicked"] == 0), np.sum(effects.outcomes["clicked"])]
    assert len(effects.outcomes) == len(effects.messages["outcomes"]) > 0


def test_refused_ads_are_letters_of_lane_0_once_and_no_records_of_its_own(engine: Engine) -> None:
    refused = RefusedAds()
    refused.refuse(Record("ads", 0, 6, START_MS, b"ad-1", b"{"), ValueError("no"))
    refused.next_offset = 7
    step = Step(engine, lambda _: 0, TOLERANCE_MS, IDLE_TTL_MS, refused=refused)
    state = new_state(lane=0)

    first, second = run(step, state, []), run(step, state, records([click("a")]))

    (told,) = first.messages["dead-letters"]
    assert (told.key, told.value, dict(told.headers)["salience.stage"]) == (b"ad-1", b"{", b"catalogue")
    assert (first.counts["refused_ads"], first.counts["events_in"], first.counts["dead"]) == (1, 0, 0)
    assert (first.lane_row.ads_next, second.lane_row.ads_next) == (7, 7)
    assert second.messages["dead-letters"] == []
    assert run(step, new_state(lane=1), []).messages["dead-letters"] == []
