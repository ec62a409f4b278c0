"""Consent and erasure in a lane: no state and no personal placement without it, and nobody comes back."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.engine import Engine
from scoring.examination import assumed
from scoring.rows import RowStore
from scoring.units import DAY_MS
from streams.audit import State, compare
from streams.control_wire import Consent, Erasure
from streams.privacy.consent import ERASED_KEY, Gate, Verdict, Watermarks
from streams.privacy.guests import tombstones
from streams.step import LaneState
from tests.builders import START_MS, Record, click, entry, impression, record, records
from tests.unit.consenting import Bench, by_digest, erasure, grant, opened, placements, refusal
from tests.unit.slices import slice_of


@pytest.fixture
def bench(engine: Engine) -> Bench:
    return Bench(engine)


# --- consent on the event ------------------------------------------------------------------------------------


def test_an_event_without_consent_leaves_no_state_and_gets_a_placement_of_context_alone(bench: Bench) -> None:
    effects = bench.run(records([click("yes"), click("no", consent=False, surface="home")]))

    assert bench.users() == {b"yes"}
    assert bench.kept() == {b"yes"}
    placed = placements(effects)
    assert placed.keys() == {b"yes", b"no"}
    yes, no = placed[b"yes"], placed[b"no"]
    assert yes is not None
    assert no is not None
    assert (yes.context_only, no.context_only) == (False, True)
    assert not any(slot.attention for slot in no.slots)
    assert [message.key for message in effects.messages["decisions"]] == [b"yes"]
    assert (effects.counts["applied"], effects.counts["without_consent"]) == (1, 1)


def test_ads_that_came_since_the_lane_last_learned_are_placed_for_whoever_is_not_remembered() -> None:
    bench = Bench(opened())
    bench.run(records([click("yes")]))
    bench.step.engine.catalogue.upsert([entry(f"new-{number}", bid_micros=10**6) for number in range(3)])
    placed = placements(bench.run([record(click("no", consent=False, time_ms=START_MS + 1), 1)]))
    assert placed[b"no"] is not None


def test_people_without_consent_in_one_moment_are_told_apart_by_chance_alone(bench: Bench) -> None:
    """Their placements follow from place and time, whatever any of them did before."""
    bench.run(records([click("u-1", f"ad-{number}") for number in range(5)]))
    people = [f"u-{number}" for number in range(9)]  # with 5 slots each, of 40 ads: some ad has two of them
    bench.tell(*map(refusal, people))
    acts = [record(click(user, f"ad-{at}", START_MS + 1), 6 + at) for at, user in enumerate(people)]
    scores: dict[str, list[float]] = {}
    for placement in placements(bench.run(acts)).values():
        assert placement is not None
        curve = assumed(len(placement.slots))
        for slot in placement.slots:
            scores.setdefault(slot.ad_id, []).append(slot.pctr / curve[slot.slot])
    assert sum(map(len, scores.values())) == 45
    for same in scores.values():
        assert same == pytest.approx([same[0]] * len(same), rel=1e-5)


def test_a_withdrawal_forgets_what_was_held_and_what_comes_late_does_not_bring_it_back(bench: Bench) -> None:
    bench.run(records([impression("a"), click("a", time_ms=START_MS + 1)]))
    effects = bench.run([record(click("a", time_ms=START_MS + 10, consent=False), 3)])
    assert not bench.users()
    assert placements(effects)[b"a"] is not None  # of context alone, in place of the personal one
    assert not bench.kept()

    late = bench.run([record(click("a", "ad-5", time_ms=START_MS + 9, consent=True), 4)])
    assert (late.counts["erased"], late.counts["placements"]) == (1, 0)
    again = bench.run([record(click("a", "ad-6", time_ms=START_MS + 11, consent=True), 5)])
    assert again.counts["applied"] == 1
    assert int(bench.state.store.rows["clicks"][bench.state.store.find(b"a")]) == 1


@pytest.mark.parametrize("together", [False, True])
def test_a_refusal_dated_before_the_newest_event_holds_back_all_that_came_before_it(
    bench: Bench, together: bool
) -> None:
    shown, refused = impression("a", time_ms=START_MS + 5), click("a", time_ms=START_MS + 4, consent=False)
    taken = [record(impression("a", "ad-2", START_MS + 3), 0), record(shown, 1), record(refused, 0)]
    for part in [taken] if together else [[each] for each in taken]:
        bench.run(part)
    assert bench.state.erased.of(b"a") == START_MS + 5
    again = bench.run([record(shown, 2)])  # its producer sends it again
    assert (again.counts["erased"], again.counts["placements"]) == (1, 0)
    assert bench.kept() == bench.users() == set()


def test_a_refusal_takes_with_it_what_its_own_batch_did_before_it(bench: Bench) -> None:
    done = [click("a"), click("b"), click("a", "ad-2"), click("a", time_ms=START_MS + 1, consent=False)]
    effects = bench.run(records(done))
    assert bench.users() == bench.kept() == {b"b"}
    assert [effects.counts[fate] for fate in ("applied", "erased", "without_consent")] == [1, 2, 1]


def test_what_somebody_did_before_refusing_is_no_state_though_it_comes_later_and_nothing_was_held(
    bench: Bench,
) -> None:
    refused = bench.run([record(click("a", time_ms=START_MS + 10, consent=False), 0)])
    assert refused.counts["without_consent"] == 1
    late = bench.run([record(click("a", "ad-2", time_ms=START_MS + 9), 1)])
    assert (late.counts["erased"], late.counts["applied"]) == (1, 0)
    assert bench.kept() == bench.users() == set()
    assert Watermarks.restore(bench.changelog).of(b"a") == START_MS + 10


def test_silence_is_no_consent_where_people_opt_in(engine: Engine) -> None:
    bench = Bench(engine, presumed=False)
    bench.run(records([click("silent"), click("said", consent=True)]))
    assert bench.users() == {b"said"}
    bench.run([record(click("said", "ad-2", time_ms=START_MS + 1), 3)])  # silent now: not counted, and not forgotten
    assert int(bench.state.store.rows["clicks"][bench.state.store.find(b"said")]) == 1
    bench.tell(grant("silent", START_MS + 5))
    bench.run([record(click("silent", time_ms=START_MS + 4), 4), record(click("silent", time_ms=START_MS + 6), 5)])
    assert int(bench.state.store.rows["clicks"][bench.state.store.find(b"silent")]) == 1


@pytest.mark.parametrize(
    ("said", "answer", "presumed", "verdict"),
    [
        (None, None, True, Verdict.ADMITTED),
        (None, None, False, Verdict.WITHOUT),
        (True, None, False, Verdict.ADMITTED),
        (False, None, True, Verdict.REFUSED),
        (True, False, True, Verdict.REFUSED),
        (False, True, True, Verdict.REFUSED),
        (None, True, False, Verdict.ADMITTED),
        (None, False, True, Verdict.REFUSED),
    ],
)
def test_a_refusal_wins_wherever_it_was_said_and_consent_may_be_given_on_either_side(
    said: bool | None, answer: bool | None, presumed: bool, verdict: Verdict
) -> None:
    answers = by_digest(*(() if answer is None else (Consent(user_id="a", granted=answer, time_ms=START_MS),)))
    assert Gate(answers, presumed=presumed).judge(b"a", said, START_MS, START_MS) is verdict


# --- the control topic ---------------------------------------------------------------------------------------


def test_an_erasure_is_met_without_anyone_acting_and_leaves_a_watermark_and_no_name(bench: Bench) -> None:
    bench.run(records([click("a"), click("b")]))
    bench.tell(erasure("a", START_MS + 5))
    assert bench.requests.waits(0, bench.state.control_next)

    effects = bench.run()

    assert bench.users() == {b"b"}
    assert placements(effects) == {b"a": None}
    assert bench.kept() == {b"b"}
    (key,) = [key for key in bench.changelog if key.startswith(ERASED_KEY)]
    assert len(key) == len(ERASED_KEY) + 16
    assert int.from_bytes(bench.changelog[key], "big") == START_MS + 5
    assert effects.lane_row.control_next == 1
    assert not bench.requests.waits(0, bench.state.control_next)


def test_the_watermark_covers_all_that_the_row_held_even_what_came_after_the_request(bench: Bench) -> None:
    newest = [record(click("a", time_ms=START_MS + 100), 1)]
    bench.run(newest)
    bench.tell(erasure("a", START_MS))
    bench.run()
    assert bench.run([record(click("a", time_ms=START_MS + 100), 9)]).counts["erased"] == 1
    assert not bench.users()


def test_an_erased_person_may_come_back_as_somebody_new(bench: Bench) -> None:
    bench.run(records([click("a"), click("a", "ad-2")]))
    bench.tell(erasure("a", START_MS + 5))
    bench.run([record(click("a", "ad-3", time_ms=START_MS + 6), 4)])
    row = bench.state.store.rows[bench.state.store.find(b"a")]
    assert (int(row["clicks"]), int(row["time_ms"])) == (1, START_MS + 6)


def test_a_consent_of_somebody_who_was_never_forgotten_holds_nothing_back(bench: Bench) -> None:
    bench.tell(grant("a", START_MS + 10))
    assert bench.run([record(click("a"), 0)]).counts["applied"] == 1
    assert not bench.state.erased.until_ms


def test_a_standing_refusal_holds_until_the_person_agrees_again(bench: Bench) -> None:
    bench.run(records([click("a")]))
    bench.tell(refusal("a", START_MS + 5))
    bench.run([record(click("a", time_ms=START_MS + 6, consent=True), 2)])
    assert not bench.users()
    bench.tell(grant("a", START_MS + 10))
    counts = bench.run([record(click("a", time_ms=START_MS + at), 3 + at) for at in (7, 11)]).counts
    assert (counts["erased"], counts["applied"]) == (1, 1)  # 7 was while consent was refused
    assert bench.users() == {b"a"}


@pytest.mark.parametrize("ask", [erasure, refusal])
def test_a_second_request_is_met_though_a_clock_ahead_has_put_the_watermark_beyond_it(
    bench: Bench, ask: Callable[[str, int], Consent | Erasure]
) -> None:
    bench.run([record(impression("a", "ad-1", START_MS + 240_000), 0, timestamp=START_MS)], START_MS)
    bench.tell(ask("a", START_MS + 60_000))
    bench.run(now_ms=START_MS + 60_000)
    bench.tell(grant("a", START_MS + 70_000))
    bench.run([record(impression("a", "ad-2", START_MS + 300_000), 1, timestamp=START_MS + 70_000)], START_MS + 70_000)
    assert bench.users() == {b"a"}
    bench.tell(ask("a", START_MS + 180_000))
    effects = bench.run(now_ms=START_MS + 180_000)
    assert bench.kept() == bench.users() == set()
    assert placements(effects) == {b"a": None}
    assert bench.state.erased.of(b"a") == START_MS + 300_000  # the newest that the row held


def test_an_erasure_is_met_though_a_consent_dated_later_came_before_it(bench: Bench) -> None:
    bench.tell(refusal("a"))
    bench.run()
    bench.tell(grant("a", START_MS + 600_000))
    bench.run([record(click("a", time_ms=START_MS + 600_001), 0)])
    assert bench.users() == {b"a"}
    bench.tell(erasure("a", START_MS + 480_000))
    bench.run()
    assert bench.kept() == bench.users() == set()


def test_who_agrees_again_after_an_erasure_is_remembered_from_then_on_though_both_come_at_once(bench: Bench) -> None:
    bench.run(records([click("a")]))
    bench.tell(erasure("a", START_MS + 5), grant("a", START_MS + 10))
    bench.run([record(click("a", time_ms=START_MS + at), 1 + at) for at in (7, 11)])
    row = bench.state.store.rows[bench.state.store.find(b"a")]
    assert (int(row["clicks"]), int(row["time_ms"])) == (1, START_MS + 11)


def test_a_refusal_is_met_though_consent_is_given_again_before_the_lanes_next_slice(bench: Bench) -> None:
    bench.run(records([click("a"), click("a", "ad-2")]))
    bench.tell(refusal("a", START_MS + 5), grant("a", START_MS + 10))
    bench.run([record(click("a", time_ms=START_MS + at), 2 + at) for at in (7, 11)])
    row = bench.state.store.rows[bench.state.store.find(b"a")]
    assert (int(row["clicks"]), int(row["time_ms"])) == (1, START_MS + 11)


def test_a_request_that_is_settled_twice_forgets_twice(bench: Bench) -> None:
    bench.tell(erasure("a", START_MS + 5))
    bench.run()
    bench.run([record(click("a", time_ms=START_MS + 6), 1)])
    bench.state.control_next = 0  # as after a crash before the lane row was written, or of a control topic made anew
    bench.run()
    assert bench.kept() == bench.users() == set()
    assert bench.run([record(click("a", time_ms=START_MS + 6), 1)]).counts["erased"] == 1


def test_no_request_takes_what_the_lane_keeps_of_itself(bench: Bench) -> None:
    bench.run(records([impression("a"), click("b")]))
    held = bench.changelog.keys() - {b"a", b"b"}
    bench.tell(*(erasure(key.decode(errors="ignore")) for key in held), refused=len(held))
    bench.run()
    assert held <= bench.changelog.keys()
    assert [message.key for message in tombstones(RowStore(), [*held, b"a"])] == [b"a"]


def test_watermarks_survive_in_the_changelog_and_are_dropped_when_they_hold_nothing_back(bench: Bench) -> None:
    bench.tell(erasure("a", START_MS + 5), erasure("b", START_MS + 7))
    bench.run()
    recovered = Watermarks.restore(bench.changelog)
    assert recovered.until_ms == bench.state.erased.until_ms
    assert (recovered.of(b"a"), recovered.of(b"b"), recovered.of(b"c")) == (START_MS + 5, START_MS + 7, -1)

    late_ms = START_MS + bench.step.erased_kept_ms + DAY_MS
    bench.step.run(bench.state, slice_of([record(click("z", time_ms=late_ms), 1)]), late_ms)
    assert not bench.state.erased.until_ms


# --- invariants ----------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 30),
        st.sampled_from([None, None, True, False]),
        st.booleans(),
    ),
    max_size=30,
)


def stream(drawn: Sequence[tuple[str, int, bool | None, bool]]) -> list[Record]:
    made = [
        (click if clicked else impression)(user, f"ad-{at % 5}", START_MS + at, event_id=f"e{number}", consent=consent)
        for number, (user, at, consent, clicked) in enumerate(drawn)
    ]
    return [record(event, offset) for offset, event in enumerate(made)]


def state_of(state: LaneState) -> State:
    held = [(row, user) for row, user in enumerate(state.store.users) if user is not None]
    return State.of([user for _, user in held], state.store.rows[[row for row, _ in held]])


@settings(max_examples=60, deadline=None)
@given(drawn=EVENTS, cuts=st.lists(st.integers(0, 30), max_size=6), presumed=st.booleans())
def test_state_and_watermarks_do_not_depend_on_where_the_stream_is_cut(
    engine: Engine, drawn: list[tuple[str, int, bool | None, bool]], cuts: list[int], presumed: bool
) -> None:
    given_records = stream(drawn)
    whole = Bench(engine, presumed=presumed, scoring=False)
    whole.run(given_records)
    for edges in (cuts, range(len(given_records))):
        parts = Bench(engine, presumed=presumed, scoring=False)
        places = sorted({0, len(given_records), *(cut for cut in edges if cut < len(given_records))})
        for start, end in pairwise(places):
            parts.run(given_records[start:end])
        assert compare(state_of(whole.state), state_of(parts.state)) == []
        assert whole.state.erased.until_ms == parts.state.erased.until_ms
        assert whole.kept() == whole.users() == parts.kept() == parts.users()


@settings(max_examples=60, deadline=None)
@given(drawn=EVENTS, asked_at=st.integers(0, 30))
def test_after_an_erasure_no_replay_of_the_past_brings_anyone_back(
    engine: Engine, drawn: list[tuple[str, int, bool | None, bool]], asked_at: int
) -> None:
    given_records = stream(drawn)
    bench = Bench(engine, scoring=False)
    bench.run(given_records[:asked_at])
    bench.tell(*(erasure(user, START_MS + 30) for user in "abc"))
    bench.run(given_records[asked_at:])
    assert not bench.users()
    for message in given_records:  # as from the beginning of topics made anew
        bench.run([Record(message.topic, 0, message.offset + 100, START_MS, message.key, message.value)])
    assert not bench.users()


@settings(max_examples=60, deadline=None)
@given(drawn=EVENTS, asked_at=st.integers(0, 30), kind=st.sampled_from([erasure, refusal, grant]))
def test_the_lane_rows_say_enough_to_do_it_again(
    engine: Engine, drawn: list[tuple[str, int, bool | None, bool]], asked_at: int, kind: type
) -> None:
    """A replay that follows the control topic as far as each slice's row says makes the same state."""
    given_records = stream(drawn)
    requests = [kind(user, START_MS + 12) for user in "ab"]
    live = Bench(engine, scoring=False)
    rows = []
    for number, message in enumerate(given_records):
        if number == asked_at:
            live.tell(*requests)
        rows.append(live.run([message]).lane_row)

    again = Bench(engine, scoring=False)
    pending = list(requests)
    for message, row in zip(given_records, rows, strict=True):
        while again.control.next_offset < row.control_next:
            again.tell(pending.pop(0))
        assert again.run([message]).lane_row == row
    assert compare(state_of(live.state), state_of(again.state)) == []


def test_rows_given_up_are_taken_by_others_without_a_trace() -> None:
    store = RowStore()
    row = store.row_of(b"a")
    store.rows[row]["clicks"] = 7
    store.remove(b"a")
    assert store.row_of(b"b") == row
    assert int(np.sum(store.rows["clicks"])) == 0
