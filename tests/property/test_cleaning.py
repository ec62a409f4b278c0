"""The cleaning rules are what one event after another gives, however a stream is cut; filtered events move nothing."""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scoring.claims import one_by_one
from scoring.cleaning import Rules
from scoring.events import EVENT, Events, Kind, Outcome, Source
from scoring.ids import id64
from scoring.rows import RING_SIZE, SEEN_SIZE, SHOWN_BIT, RowStore, ring_key
from scoring.units import MINUTE_MS
from scoring.update import apply
from tests.builders import START_MS, catalogue, click, columns_of, impression

CATALOGUE = catalogue(20)
USERS = 3
TIGHT = Rules(late_ms=200_000, per_minute=(20, 6), per_day=(90, 30), unshown_per_day=3)


class OneByOne:
    """One event after another, in dictionaries and lists, as the rules are stated."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.seen: dict[Any, list[Any]] = defaultdict(list)
        self.counts: Counter[Any] = Counter()
        self.rings: dict[int, dict[tuple[int, int], bool]] = defaultdict(dict)

    def outcome(self, event: Any) -> Outcome:
        shown = event["source"] == Source.IMPRESSION
        ring, entry = self.rings[int(event["row"])], (int(event["shown_ms"]) // 1000, int(event["ad"]))
        outcome = self._judge(event, ring, entry)
        if outcome is Outcome.APPLIED:
            ring[entry] = ring.get(entry, False) or shown
            if len(ring) > RING_SIZE:
                del ring[min(ring)]
        return outcome

    def _judge(self, event: Any, ring: dict[tuple[int, int], bool], entry: tuple[int, int]) -> Outcome:
        if event["time_ms"] < event["stream_ms"] - self.rules.late_ms:
            return Outcome.LATE
        if repeated := self._repeated(event):
            return repeated
        row, source, minute = int(event["row"]), int(event["source"]), int(event["stream_ms"]) // MINUTE_MS
        day = minute // 1_440
        in_minute, in_day = self._count(row, source, minute), self._count(row, source, "day", day)
        if in_minute > self.rules.per_minute[source]:
            return Outcome.BURST
        if in_day > self.rules.per_day[source]:
            return Outcome.BOT
        claims = event["answers"] and not ring.get(entry)
        if claims and (len(ring) < RING_SIZE or entry >= min(ring)):
            return Outcome.UNSHOWN if self._count(row, "unshown", day) > self.rules.unshown_per_day else Outcome.APPLIED
        return Outcome.APPLIED

    def _repeated(self, event: Any) -> Outcome | None:
        ids = self.seen[int(event["row"]), int(event["source"])]
        showings = self.seen[int(event["row"]), "showings"]
        showing = (int(event["ad"]), int(event["time_ms"]))
        if int(event["event"]) in ids:
            return Outcome.DUPLICATE
        if event["source"] == Source.IMPRESSION:
            if showing in showings:
                return Outcome.RESHOWN
            showings.append(showing)
        ids.append(int(event["event"]))
        del ids[:-SEEN_SIZE], showings[:-SEEN_SIZE]
        return None

    def _count(self, *what: Any) -> int:
        self.counts[what] += 1
        return self.counts[what]


@st.composite
def streams(draw: st.DrawFn) -> Events:
    """Events of three users within minutes or a few days: repeated ids and showings, floods, claims true and false."""
    count = draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pace_ms = draw(st.sampled_from([500, 4_000, 1_000_000]))
    out = np.zeros(count, dtype=EVENT)
    out["row"] = rng.integers(0, USERS, count)
    out["source"] = rng.random(count) < draw(st.sampled_from([0.2, 0.5]))
    out["event"] = (
        1
        + np.arange(count)
        - np.where(rng.random(count) < 0.1, rng.integers(0, 15, count), 0).clip(0, np.arange(count))
    )
    out["stream_ms"] = START_MS + np.cumsum(rng.integers(0, 2 * pace_ms, count))
    # Distinct high halves: those of equal time are ordered by them.
    out["ad"] = (1 + rng.integers(0, draw(st.sampled_from([3, 400])), count).astype(np.uint64)) << np.uint64(32)
    lag_ms = rng.choice([0, 0, 1_000, 30_000, 199_000, 201_000], count)
    out["time_ms"] = out["stream_ms"] - lag_ms
    out["shown_ms"] = out["time_ms"]
    for at in np.flatnonzero(rng.random(count) < 0.7).tolist():
        earlier = int(rng.integers(0, at + 1))
        if out["source"][at] == Source.CLICK and out["source"][earlier] == Source.IMPRESSION:
            out["ad"][at], out["shown_ms"][at] = out["ad"][earlier], out["time_ms"][earlier]
            out["answers"][at] = True
        elif out["source"][at] == Source.CLICK:
            out["shown_ms"][at] -= int(rng.integers(0, 100_000))
            out["answers"][at] = True
        elif out["source"][earlier] == Source.IMPRESSION and at - earlier < 20:
            out["ad"][at], out["time_ms"][at] = out["ad"][earlier], out["time_ms"][earlier]
            out["shown_ms"][at] = out["time_ms"][at]
    out["kind"] = np.where(out["source"] == Source.CLICK, Kind.CLICKED, Kind.SHOWN)
    out["offset"] = np.arange(count)
    return out


def outcomes_of(events: Events, cuts: Sequence[int], rules: Rules) -> tuple[RowStore, list[int]]:
    store = RowStore()
    for number in range(USERS):
        store.row_of(f"user-{number}".encode())
    parts = np.split(events, sorted(min(cut, len(events)) for cut in cuts))
    return store, [outcome for part in parts for outcome in apply(store, part, CATALOGUE, rules).outcome.tolist()]


@given(streams(), st.lists(st.integers(0, 250), max_size=20))
def test_outcomes_are_those_of_one_event_after_another_however_the_stream_is_cut(
    events: Events, cuts: list[int]
) -> None:
    one_by_one = OneByOne(TIGHT)
    expected = [one_by_one.outcome(event) for event in events]

    whole, outcomes = outcomes_of(events, [], TIGHT)
    parts, outcomes_of_parts = outcomes_of(events, cuts, TIGHT)
    singles, outcomes_of_singles = outcomes_of(events, range(1, len(events)), TIGHT)

    assert outcomes == expected
    assert outcomes_of_parts == expected
    assert outcomes_of_singles == expected
    for name in (
        "rate_minute",
        "minute_count",
        "day_count",
        "unshown",
        "seen",
        "showings",
        "ring_ad",
        "ring_kind",
        "ring_place",
    ):
        assert parts.rows[name].tobytes() == singles.rows[name].tobytes() == whole.rows[name].tobytes(), name


@given(streams())
def test_what_is_filtered_or_late_leaves_the_rows_of_a_stream_without_it(events: Events) -> None:
    store, outcomes = outcomes_of(events, [], TIGHT)
    kept = events[np.array(outcomes) == Outcome.APPLIED]

    clean, outcomes_of_clean = outcomes_of(kept, [], Rules(unshown_per_day=1_000))
    assume(not any(outcomes_of_clean))  # nothing that filtered events have pushed out of a memory of ids

    for name in (
        "ring_ad",
        "ring_s",
        "ring_kind",
        "ring_place",
        "impressions",
        "clicks",
        "time_ms",
        "interest",
        "value_micros",
    ):
        assert store.rows[name].tobytes() == clean.rows[name].tobytes(), name


class ListedRing:
    """The ring as a sorted list of pairs, and what each event of it claims, looked up in there."""

    def __init__(self, ring: Any) -> None:
        key = ring_key(ring["ring_s"], ring["ring_ad"]).tolist()
        self.entries = list(zip(key, ring["ring_ad"].tolist(), strict=True))
        shown = (ring["ring_kind"] >= SHOWN_BIT).tolist()
        self.proofs = {entry for entry, proves in zip(self.entries, shown, strict=True) if proves}
        self.spent: Counter[int] = Counter()

    def unproven(self, event: Any, day: int, allowed: int) -> bool:
        seconds = np.uint32(event["shown_ms"] // 1000)
        entry = (int(ring_key(seconds, event["ad"])), int(event["ad"]))
        unproven = bool(event["answers"]) and entry not in self.proofs and entry[0] >= self.entries[0][0]
        self.spent[day] += unproven
        if unproven and self.spent[day] > allowed:
            return True
        if entry not in self.entries:
            insort(self.entries, entry)
            self.proofs.discard(self.entries.pop(0))
        if event["source"] == Source.IMPRESSION and entry in self.entries:
            self.proofs.add(entry)
        return unproven


@given(streams(), st.integers(0, 250), st.integers(0, 4))
def test_claims_taken_by_the_ranks_of_entries_are_those_of_a_ring_that_is_a_sorted_list(
    events: Events, cut: int, allowed: int
) -> None:
    events["row"] = 0
    before, after = np.split(events, [min(cut, len(events))])
    store, _ = outcomes_of(before, [], Rules(unshown_per_day=1_000))
    ring, day = ListedRing(store.rows[0]), after["stream_ms"] // (1_440 * MINUTE_MS)
    expected = [ring.unproven(event, today, allowed) for event, today in zip(after, day.tolist(), strict=True)]

    assert one_by_one(store.rows[0], after, day, np.full(len(after), allowed)) == expected


def ruled(history: Sequence[Any], **rules: int) -> Counter[str]:
    store = RowStore()
    applied = apply(store, columns_of(store, history), CATALOGUE, Rules(**rules))  # type: ignore[arg-type]  # by name
    return Counter(Outcome(outcome).name for outcome in applied.outcome.tolist())


def test_a_click_flood_counts_as_far_as_a_person_could_click_and_is_a_burst_beyond() -> None:
    flood = [click("user-1", f"ad-{n % 20}", START_MS + n, event_id=f"c{n}") for n in range(1_000)]

    assert ruled(flood) == {"APPLIED": 300, "BURST": 700}


def test_one_who_clicks_all_day_at_a_persons_pace_is_a_bot() -> None:
    day_ms = START_MS // 86_400_000 * 86_400_000
    steady = [click("user-1", "ad-1", day_ms + 1_000 * n, event_id=f"c{n}") for n in range(12_000)]

    tomorrow = [click("user-1", "ad-1", day_ms + 86_400_000 + n) for n in range(10)]

    assert ruled([*steady, *tomorrow]) == {"APPLIED": 10_010, "BOT": 2_000}


def test_an_impression_replayed_under_another_id_with_another_price_counts_once() -> None:
    shown = [impression("user-1", "ad-1", START_MS, event_id=f"i{n}", price_micros=n) for n in range(5)]
    other = [impression("user-1", "ad-2", START_MS, event_id="x"), impression("user-1", "ad-1", START_MS + 1)]

    assert ruled([*shown, *other]) == {"APPLIED": 3, "RESHOWN": 4}


def test_clicks_on_impressions_that_never_were_are_let_pass_a_few_times_a_day() -> None:
    claims = [
        click("user-1", f"ad-{n}", at_ms, event_id=f"c{day}-{n}", impression_time_ms=at_ms - 1)
        for day in range(3)
        for n, at_ms in enumerate(range(START_MS + day * 86_400_000, START_MS + day * 86_400_000 + 80 * 60_000, 60_000))
    ]

    assert ruled(claims) == {"APPLIED": 3 * 50, "UNSHOWN": 3 * 30}


def test_an_impression_proves_what_names_any_moment_of_its_second_and_of_no_other() -> None:
    shown = impression("user-1", "ad-1", START_MS)
    named = {at: click("user-1", "ad-1", START_MS + 2_000, impression_time_ms=START_MS + at) for at in (-1, 999, 1_000)}

    assert ruled([shown, named[999]], unshown_per_day=0) == {"APPLIED": 2}
    for at in (-1, 1_000):
        assert ruled([shown, named[at]], unshown_per_day=0) == {"APPLIED": 1, "UNSHOWN": 1}


def test_a_click_that_overtakes_its_impression_counts_and_so_does_its_impression() -> None:
    acted = click("user-1", "ad-1", START_MS + 900, impression_time_ms=START_MS)

    assert ruled([acted, impression("user-1", "ad-1", START_MS)], unshown_per_day=1) == {"APPLIED": 2}


def test_an_answer_to_an_impression_that_a_full_ring_no_longer_holds_cannot_be_judged_and_counts() -> None:
    shown = [impression("user-1", f"ad-{n}", START_MS + 1_000 * n) for n in range(RING_SIZE + 10)]
    forgotten = click("user-1", "ad-3", START_MS + 100_000, impression_time_ms=START_MS + 3_000)
    never = click("user-1", "ad-3", START_MS + 100_000, impression_time_ms=START_MS + 55_000)

    assert ruled([*shown, forgotten], unshown_per_day=0) == {"APPLIED": RING_SIZE + 11}
    assert ruled([*shown, never], unshown_per_day=0)["UNSHOWN"] == 1


def test_an_answer_to_what_its_own_batch_has_pushed_out_of_the_ring_cannot_be_judged_and_counts() -> None:
    shown = [impression("user-1", f"ad-{n}", START_MS + 1_000 * n) for n in range(RING_SIZE + 2)]
    pushed_out, held = (
        click("user-1", "never", START_MS + 100_000, impression_time_ms=START_MS + 1_000 * second) for second in (1, 3)
    )

    assert ruled([*shown, pushed_out], unshown_per_day=0) == {"APPLIED": RING_SIZE + 3}
    assert ruled([*shown, held], unshown_per_day=0) == {"APPLIED": RING_SIZE + 2, "UNSHOWN": 1}


@pytest.mark.parametrize("pushed", [1, RING_SIZE - 2, RING_SIZE - 1])
def test_what_a_batch_pushes_out_of_a_full_ring_is_judged_no_longer_and_what_it_leaves_is(pushed: int) -> None:
    def outcome(named_s: int) -> int:
        held = [impression("user-1", f"ad-{n}", START_MS + 2_000 * n) for n in range(RING_SIZE)]
        newer = [impression("user-1", f"ad-{n}", START_MS + 200_000 + 1_000 * n) for n in range(pushed)]
        claim = click("user-1", "never", START_MS + 300_000, impression_time_ms=START_MS + 1_000 * named_s)
        events = columns_of(RowStore(), [*held, *newer, claim])
        return outcomes_of(events, [len(held)], Rules(unshown_per_day=0))[1][-1]

    oldest_s = 2 * pushed  # of what is held then
    assert (outcome(oldest_s - 1), outcome(oldest_s + 1)) == (Outcome.APPLIED, Outcome.UNSHOWN)


@pytest.mark.parametrize(("allowed", "applied"), [(0, RING_SIZE), (1, RING_SIZE + 2)])
def test_an_unproven_answer_enters_a_full_ring_and_pushes_out_its_oldest_only_if_it_was_let_pass(
    allowed: int, applied: int
) -> None:
    shown = [impression("user-1", f"ad-{n}", START_MS + 1_000 * n) for n in range(RING_SIZE)]
    newer = click("user-1", "never", START_MS + 100_000, impression_time_ms=START_MS + 10_000)
    behind = next(name for name in map(str, range(99)) if id64(name) > id64("ad-0"))  # the ring's oldest, or beyond it
    oldest = click("user-1", behind, START_MS + 100_001, impression_time_ms=START_MS)

    counted = ruled([*shown, newer, oldest], unshown_per_day=allowed)
    assert (counted["APPLIED"], counted.total()) == (applied, RING_SIZE + 2)


@pytest.mark.parametrize("cuts", [[], [RING_SIZE + 1]], ids=["in one batch", "in two"])
def test_a_batch_lets_pass_so_many_fewer_as_the_day_has_let_pass_before_it(cuts: list[int]) -> None:
    shown = [impression("user-1", f"ad-{n}", START_MS + 1_000 * n) for n in range(RING_SIZE)]
    passed, newer = (
        click("user-1", "never", START_MS + 100_000 + at, event_id=f"c{at}", impression_time_ms=START_MS + 1_000 * at)
        for at in (10, 11)
    )
    behind = next(name for name in map(str, range(99)) if id64(name) > id64("ad-1"))  # the oldest that is left
    oldest = click("user-1", behind, START_MS + 100_012, impression_time_ms=START_MS + 1_000)

    events = columns_of(RowStore(), [*shown, passed, newer, oldest])
    outcomes = outcomes_of(events, cuts, Rules(unshown_per_day=1))[1]
    assert outcomes[RING_SIZE:] == [Outcome.APPLIED, Outcome.UNSHOWN, Outcome.UNSHOWN]


def test_an_event_is_late_by_the_lanes_time_and_not_by_its_users_own() -> None:
    history = [click("user-1", "ad-1", START_MS), click("user-2", "ad-1", START_MS - Rules().late_ms - 1)]
    store = RowStore()

    applied = apply(store, columns_of(store, history), CATALOGUE)

    assert applied.outcome.tolist() == [Outcome.APPLIED, Outcome.LATE]
    assert applied.acted.tolist() == [True, False]
    assert store.rows[1]["offset"].tolist() == [-1, 1]
    assert ruled([history[0], click("user-2", "ad-1", START_MS - Rules().late_ms)]) == {"APPLIED": 2}


@pytest.mark.parametrize("batch", [1_000, 100_000])
def test_a_user_with_a_hundred_thousand_events_has_the_memories_of_any_other(batch: int) -> None:
    rng = np.random.default_rng(5)
    events = np.zeros(100_000, dtype=EVENT)
    events["source"] = rng.integers(0, 2, len(events))
    events["kind"] = np.where(events["source"] == Source.CLICK, Kind.CLICKED, Kind.SHOWN)
    events["time_ms"] = events["shown_ms"] = events["stream_ms"] = START_MS + 50 * np.arange(len(events))
    events["ad"] = CATALOGUE.ad[rng.integers(0, len(CATALOGUE), len(events))]
    events["event"] = 1 + np.arange(len(events))
    events["offset"] = np.arange(len(events))
    store, outcomes = outcomes_of(events, range(batch, len(events), batch), Rules())

    assert store.nbytes == outcomes_of(events[:1], [], Rules())[0].nbytes
    counted = Counter(Outcome(outcome).name for outcome in outcomes)
    assert set(counted) == {"APPLIED", "BURST", "BOT"}
    assert counted.total() == 100_000
    assert np.isfinite(store.rows["interest"]).all()
    for source, counter in ((Source.IMPRESSION, "impressions"), (Source.CLICK, "clicks")):
        applied = (np.array(outcomes) == Outcome.APPLIED) & (events["source"] == source)
        assert int(store.rows[0][counter]) == int(applied.sum())
