"""State after events is a function of the events: not of how they were cut into batches, nor of a crash between."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring import ring as rings
from scoring.catalogue import Catalogue
from scoring.dedup import mark_repeats
from scoring.events import EVENT, Events, Kind, Outcome, Source
from scoring.ids import id64
from scoring.rows import (
    ANSWER_SHIFT,
    KIND_MASK,
    PLACES,
    RING_SIZE,
    ROW,
    SEEN_SIZE,
    SHOWN_BIT,
    Rows,
    RowStore,
    answered,
    place_of,
    places_of,
)
from scoring.update import Applied, apply
from streams.wire import Click, EventKind, Impression
from tests.builders import START_MS, catalogue, click, columns_of, impression

CATALOGUE = catalogue(20)
USERS = 3
KINDS: list[EventKind] = ["click", "view", "cart", "purchase"]


@st.composite
def histories(draw: st.DrawFn) -> list[Any]:
    """Events of a few users: late ones, retries, answers without their impression, ads that nobody knows."""
    out: list[Any] = []
    for number in range(draw(st.integers(1, 60))):
        if out and draw(st.integers(0, 9)) == 0:
            out.append(out[draw(st.integers(0, len(out) - 1))])
            continue
        user, ad_id = f"user-{draw(st.integers(1, USERS))}", f"ad-{draw(st.integers(0, 24))}"
        time_ms = START_MS + 500 * draw(st.integers(0, 200))
        surface = draw(st.sampled_from(["", "feed", "search"]))
        told: dict[str, Any] = {"surface": surface, "event_id": f"e{number}"}
        if draw(st.booleans()):
            out.append(impression(user, ad_id, time_ms, **told))
            continue
        told |= {"kind": draw(st.sampled_from(KINDS)), "viewed_s": draw(st.sampled_from([None, 3.0, 20.0]))}
        shown_ms = draw(st.sampled_from([None, START_MS, START_MS + 5_500]))
        out.append(click(user, ad_id, time_ms, impression_time_ms=shown_ms, value_micros=number, **told))
    return out


def new_store() -> RowStore:
    store = RowStore()
    for number in range(1, USERS + 1):
        store.row_of(f"user-{number}".encode())
    return store


def apply_in_parts(events: Events, cuts: Sequence[int], shop: Catalogue = CATALOGUE) -> tuple[RowStore, list[int]]:
    """A new store after ``events`` in batches cut at ``cuts``, and every event's outcome."""
    store, outcomes = new_store(), []
    for part in np.split(events, sorted(cuts)):
        outcomes += apply(store, part, shop).outcome.tolist()
    return store, outcomes


def assert_same(some: Rows, others: Rows) -> None:
    """Equal to the byte, but for interest: equal up to 1e-5 of a vector's length."""
    for name in ROW.names or ():
        if name != "interest":
            assert some[name].tobytes() == others[name].tobytes(), name
    length = np.linalg.norm(others["interest"], axis=2, keepdims=True)
    assert (np.abs(some["interest"] - others["interest"]) <= 1e-5 * length).all()


@given(histories(), st.lists(st.integers(0, 60), max_size=20))
def test_batches_cut_in_any_way_give_the_same_rows_and_outcomes(history: list[Any], cuts: list[int]) -> None:
    events = columns_of(new_store(), history)
    whole, outcomes = apply_in_parts(events, [])

    parts, outcomes_of_parts = apply_in_parts(events, [min(cut, len(events)) for cut in cuts])
    singles, outcomes_of_singles = apply_in_parts(events, range(1, len(events)))

    assert outcomes == outcomes_of_parts == outcomes_of_singles
    assert_same(parts.rows, whole.rows)
    assert_same(singles.rows, whole.rows)


@given(histories(), st.integers(0, 60), st.integers(0, 60))
def test_a_row_past_an_offset_is_not_applied_again(history: list[Any], crash: int, resume: int) -> None:
    events = columns_of(new_store(), history)
    crash = min(crash, len(events))
    store, _ = apply_in_parts(events[:crash], [])
    before = store.rows.tobytes()

    again = apply(store, events[min(resume, crash) : crash], CATALOGUE)

    assert set(again.outcome.tolist()) <= {Outcome.REPLAYED}
    assert store.rows.tobytes() == before
    apply(store, events[crash:], CATALOGUE)
    assert_same(store.rows, apply_in_parts(events, [crash])[0].rows)


@given(histories())
def test_every_event_has_one_outcome_and_is_counted_once_as_what_it_was(history: list[Any]) -> None:
    store = new_store()
    events = columns_of(store, history)

    applied: Applied = apply(store, events, CATALOGUE)

    assert applied.touched.tolist() == sorted({int(row) for row in events["row"]})
    counted = [event for event, outcome in zip(history, applied.outcome, strict=True) if outcome == Outcome.APPLIED]
    for number, row in enumerate(store.rows[:USERS], 1):
        done = [event for event in counted if isinstance(event, Click) and event.user_id == f"user-{number}"]
        assert row["impressions"] == sum(event.user_id == f"user-{number}" for event in counted) - len(done)
        kinds = Counter(event.kind for event in done)
        assert [row[f"{kind}s"] for kind in KINDS] == [kinds[kind] for kind in KINDS]
        assert row["long_views"] == sum((event.viewed_s or 0) >= 10 for event in done)
        assert row["viewed_ms"] == 1_000 * sum(event.viewed_s or 0 for event in done)
        bought = [event for event in done if event.kind == "purchase"]
        assert row["value_micros"] == sum(event.value_micros for event in bought)
        answers = [event for event in done if event.impression_time_ms is not None]
        assert row["answered_viewed_cs"] == 100 * sum(event.viewed_s or 0 for event in answers)
        assert row["answered_value_micros"] == sum(event.value_micros for event in bought if event in answers)
    by_id = {event.event_id: event for event in history}
    if len(history) <= SEEN_SIZE:  # none is forgotten yet
        showings = {(e.user_id, e.ad_id, e.time_ms) for e in by_id.values() if isinstance(e, Impression)}
        assert len(counted) == len(showings) + sum(isinstance(event, Click) for event in by_id.values())


@given(st.booleans(), st.sampled_from(KINDS), st.booleans())
def test_a_click_joins_its_impression_from_either_side(click_first: bool, kind: str, one_batch: bool) -> None:
    shown = impression("user-1", "ad-1", START_MS, event_id="i")
    acted = click("user-1", "ad-1", START_MS + 9_000, event_id="c", kind=kind, impression_time_ms=START_MS)
    events = columns_of(new_store(), [acted, shown] if click_first else [shown, acted])

    store, _ = apply_in_parts(events, [] if one_batch else [1])

    row = store.rows[0]
    assert np.flatnonzero(row["ring_ad"]).tolist() == [RING_SIZE - 1]
    assert row["ring_ad"][-1] == id64("ad-1")
    assert row["ring_s"][-1] == START_MS // 1_000
    assert row["ring_kind"][-1] & KIND_MASK == {"click": Kind.CLICKED, "view": Kind.VIEWED, "cart": Kind.CARTED}.get(
        kind, Kind.PURCHASED
    )
    assert (row["impressions"], row["time_ms"]) == (1, START_MS + 9_000)


def test_two_showings_of_one_ad_are_two_memories_and_a_click_belongs_to_its_own() -> None:
    first, second = impression("user-1", "ad-1", START_MS), impression("user-1", "ad-1", START_MS + 60_000)
    acted = click("user-1", "ad-1", START_MS + 70_000, impression_time_ms=START_MS)

    store, _ = apply_in_parts(columns_of(new_store(), [first, second, acted]), [])

    assert (store.rows[0]["ring_kind"][-2:] & KIND_MASK).tolist() == [Kind.CLICKED, Kind.SHOWN]


def test_an_unknown_ad_counts_and_is_remembered_and_adds_nothing_to_interest() -> None:
    store = new_store()

    applied = apply(store, columns_of(store, [click("user-1", "nobody-knows")]), CATALOGUE)

    assert applied.unknown_ads == 1
    assert store.rows[0]["clicks"] == 1
    assert store.rows[0]["ring_ad"][-1] == id64("nobody-knows")
    assert not store.rows[0]["interest"].any()


def test_being_shown_an_ad_is_no_interest_and_clicking_it_is_its_content() -> None:
    store = new_store()
    shown, acted = impression("user-1", "ad-3"), click("user-2", "ad-3")

    apply(store, columns_of(store, [shown, acted]), CATALOGUE)

    assert not store.rows[0]["interest"].any()
    np.testing.assert_allclose(store.rows[1]["interest"], [CATALOGUE.features[3]] * 2, atol=1e-6)


def test_an_id_repeated_across_the_two_topics_is_no_duplicate() -> None:
    store = new_store()
    events = columns_of(store, [impression("user-1", event_id="same"), click("user-1", event_id="same")])

    assert apply(store, events, CATALOGUE).outcome.tolist() == [Outcome.APPLIED] * 2


def test_the_place_in_the_app_is_that_of_the_last_event_that_says_one() -> None:
    told = [impression("user-1", f"ad-{n}", surface=surface) for n, surface in enumerate(["feed", "search", ""])]
    store = new_store()
    events = columns_of(store, told)

    apply(store, events, CATALOGUE)

    assert store.rows[0]["surface"] == events["surface"][1] != events["surface"][0]


@given(st.sampled_from(["feed", ""]), st.sampled_from(["feed", ""]), st.booleans())
def test_a_memory_is_of_the_place_that_the_impression_or_its_answer_says(
    shown_at: str, acted_at: str, one_batch: bool
) -> None:
    shown = impression("user-1", "ad-1", START_MS, surface=shown_at)
    acted = click("user-1", "ad-1", START_MS + 9_000, surface=acted_at, impression_time_ms=START_MS)
    events = columns_of(new_store(), [shown, acted])

    store, _ = apply_in_parts(events, [] if one_batch else [1])

    kept = places_of(store.rows["ring_place"])[0]
    assert kept[-1] == place_of(events["surface"]).max()
    assert bool(kept[-1]) == bool(shown_at or acted_at)
    assert not kept[:-1].any()


def test_no_events_touch_nothing() -> None:
    store = new_store()
    before = store.rows.tobytes()

    applied = apply(store, np.zeros(0, dtype=EVENT), CATALOGUE)

    assert (applied.outcome.tolist(), applied.touched.tolist(), applied.unknown_ads) == ([], [], 0)
    assert store.rows.tobytes() == before


# --- duplicates: first in, first out -------------------------------------------------------------------------


def fifo_reference(batches: Sequence[Events]) -> list[bool]:
    """One event after another, a list of the latest ids per row and source."""
    seen: dict[tuple[int, int], list[int]] = defaultdict(list)
    out = []
    for event in (event for batch in batches for event in batch):
        latest = seen[int(event["row"]), int(event["source"])]
        out.append(int(event["event"]) in latest)
        if not out[-1]:
            latest.append(int(event["event"]))
            del latest[:-SEEN_SIZE]
    return out


def id_events(columns: Sequence[tuple[int, int, int]]) -> Events:
    out = np.zeros(len(columns), dtype=EVENT)
    for name, column in zip(("row", "source", "event"), zip(*columns, strict=True), strict=False):
        out[name] = column
    out["time_ms"] = START_MS + out["event"].astype(np.int64)  # so that one id is one showing
    return out


# Few ids, so that they repeat within and across batches; more than the memory holds, so that some are forgotten.
IDS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(1, 3 * SEEN_SIZE)), min_size=1, max_size=120)


@given(IDS, st.lists(st.integers(0, 120), max_size=12))
def test_duplicates_are_those_of_a_first_in_first_out_memory(ids: list[tuple[int, int, int]], cuts: list[int]) -> None:
    batches = np.split(id_events(ids), sorted(min(cut, len(ids)) for cut in cuts))
    rows = np.zeros(3, dtype=ROW)

    marked = [outcome for batch in batches for outcome in mark_repeats(rows, batch).tolist()]

    assert [outcome == Outcome.DUPLICATE for outcome in marked] == fifo_reference(batches)
    assert Outcome.RESHOWN not in marked


@pytest.mark.parametrize("batch", [1, 7, 100, 4_000])
def test_an_id_is_known_for_as_many_events_as_the_memory_holds_and_then_new_again(batch: int) -> None:
    ids = [(0, 0, 1), *((0, 0, 100 + number) for number in range(SEEN_SIZE - 1)), (0, 0, 1), (0, 0, 999), (0, 0, 1)]
    rows = np.zeros(1, dtype=ROW)
    events = id_events(ids)

    marked = np.concatenate([mark_repeats(rows, events[at : at + batch]) for at in range(0, len(ids), batch)])

    assert np.flatnonzero(marked == Outcome.DUPLICATE).tolist() == [SEEN_SIZE]


# --- the ring: a set of the newest ---------------------------------------------------------------------------

Known = tuple[int, int, bool, int]
"""Of an entry: the strongest kind, the strongest that named the impression, whether that was seen, and the place."""
Entries = list[tuple[int, int, int, Known]]


def ring_reference(entries: Entries, row: int) -> list[tuple[int, int, Known]]:
    """Everything that ever happened, the most that is known of each, of that the newest."""
    most: dict[tuple[int, int], Known] = {}
    for of, ad, seconds, (kind, answer, shown, place) in entries:
        if of == row:
            was = most.get((seconds, ad), (0, 0, False, 0))
            most[seconds, ad] = (max(kind, was[0]), max(answer, was[1]), shown or was[2], max(place, was[3]))
    return [(seconds, ad, known) for (seconds, ad), known in sorted(most.items())][-RING_SIZE:]


def ring_of(rows: Rows, row: int) -> list[tuple[int, int, Known]]:
    kinds = rows[row]["ring_kind"]
    fields = (kinds & KIND_MASK, answered(kinds), kinds >= SHOWN_BIT, places_of(rows["ring_place"])[row])
    known = zip(*(field.tolist() for field in fields), strict=True)
    ring = list(zip(rows[row]["ring_s"].tolist(), rows[row]["ring_ad"].tolist(), known, strict=True))
    filled = [entry for entry in ring if entry[1]]
    assert ring == [(0, 0, (0, 0, False, 0))] * (RING_SIZE - len(filled)) + filled  # empty places come first
    return filled


def put(rows: Rows, entries: Entries) -> None:
    row, ad, seconds, known = zip(*entries, strict=True)
    kinds = [kind | answer << ANSWER_SHIFT | SHOWN_BIT * shown for kind, answer, shown, _ in known]
    places = [place for *_, place in known]
    told = rings.told_of(np.array(kinds, dtype=np.uint8), np.array(places, dtype=np.uint8))
    columns = np.array(row), np.array(ad, dtype=np.uint64), np.array(seconds, dtype=np.uint32), told
    for together in rings.Entries.by_turn(np.zeros(len(row), dtype=np.int64), *columns):
        rings.remember(rows, together)


@st.composite
def ring_entries(draw: st.DrawFn) -> Entries:
    """Entries of two rows; many at few moments, so that they join, tie and push each other out."""
    span = draw(st.sampled_from([3, 30, 400]))
    ads = [number << 32 | 1 for number in range(1, 13)]  # ties in time are ordered by the id's high half
    acts = st.integers(Kind.VIEWED, Kind.PURCHASED)
    happened = st.one_of(
        st.just((Kind.SHOWN, Kind.NONE, True)),
        acts.map(lambda kind: (kind, Kind.NONE, False)),
        acts.map(lambda kind: (kind, kind, False)),
    )
    known = st.builds(lambda what, place: (*what, place), happened, st.integers(0, PLACES))
    columns = st.tuples(st.integers(0, 1), st.sampled_from(ads), st.integers(1, span), known)
    return draw(st.lists(columns, min_size=1, max_size=150))


@given(ring_entries(), st.lists(st.integers(0, 150), max_size=30))
def test_the_ring_is_the_newest_of_all_that_ever_happened(entries: Entries, cuts: list[int]) -> None:
    rows = np.zeros(2, dtype=ROW)
    edges = sorted({0, len(entries), *(min(cut, len(entries)) for cut in cuts)})

    for start, end in pairwise(edges):
        put(rows, entries[start:end])

    for row in (0, 1):
        assert ring_of(rows, row) == ring_reference(entries, row)


@given(ring_entries(), st.randoms(use_true_random=False))
def test_the_ring_does_not_depend_on_the_order_of_arrival(entries: Entries, random: Any) -> None:
    one, other = np.zeros(2, dtype=ROW), np.zeros(2, dtype=ROW)
    shuffled = random.sample(entries, len(entries))

    put(one, entries)
    for entry in shuffled:
        put(other, [entry])

    assert one.tobytes() == other.tobytes()


# --- bounds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 500, 6_000])
def test_a_user_with_thousands_of_events_has_the_memories_of_any_other(batch: int) -> None:
    rng = np.random.default_rng(5)
    events = np.zeros(6_000, dtype=EVENT)
    events["source"] = rng.integers(0, 2, len(events))
    events["kind"] = np.where(events["source"] == Source.CLICK, rng.integers(2, 7, len(events)), Kind.SHOWN)
    events["stream_ms"] = START_MS + 1_000 * np.arange(len(events))
    events["time_ms"] = events["stream_ms"] - rng.integers(0, 60_000, len(events))
    events["shown_ms"] = events["time_ms"]
    events["ad"] = CATALOGUE.ad[rng.integers(0, len(CATALOGUE), len(events))]
    events["event"] = 1 + np.arange(len(events))
    events["offset"] = np.arange(len(events))
    store = new_store()
    size, others = store.nbytes, store.rows[1:].tobytes()

    for start in range(0, len(events), batch):
        apply(store, events[start : start + batch], CATALOGUE)

    assert store.nbytes == size
    assert store.rows[1:].tobytes() == others
    row = store.rows[0]
    entries: Entries = [
        (0, int(e["ad"]), int(e["shown_ms"] // 1_000), (int(e["kind"]), 0, e["source"] == Source.IMPRESSION, 0))
        for e in events
    ]
    assert ring_of(store.rows, 0) == ring_reference(entries, 0)
    for source in Source:
        latest = events["event"][events["source"] == source][-SEEN_SIZE:]
        assert sorted(row["seen"][source].tolist()) == latest.tolist()
    assert np.isfinite(row["interest"]).all()
    counters: npt.NDArray[Any] = np.array([row[name] for name in ("impressions", "clicks", "carts", "purchases")])
    kinds = (Kind.SHOWN, Kind.CLICKED, Kind.CARTED, Kind.PURCHASED)
    assert counters.tolist() == [int((events["kind"] == kind).sum()) for kind in kinds]
