"""An impression is clicked once and bought from once, whatever answers it again, for as long as the ring knows it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.cleaning import Rules
from scoring.events import Events, Kind
from scoring.ids import id64
from scoring.rows import RING_SIZE, RowStore
from scoring.update import apply
from streams.wire import EventKind, Impression
from tests.builders import START_MS, catalogue, click, columns_of, impression

SHOP = catalogue(4)
RULES = Rules(unshown_per_day=1_000)
KINDS: list[EventKind] = ["view", "click", "cart", "purchase"]
STRENGTH = {"view": Kind.VIEWED, "click": Kind.CLICKED, "cart": Kind.CARTED, "purchase": Kind.PURCHASED}


def counted(events: Events, cuts: Sequence[int] = ()) -> list[list[int]]:
    """Clicks and purchases that answer impressions, user by user, after ``events`` in batches cut at ``cuts``."""
    store = RowStore()
    for user in ("user-1", "user-2"):
        store.row_of(user.encode())
    for part in np.split(events, sorted(cuts)):
        apply(store, part, SHOP, RULES)
    return [[int(row["answered_clicks"]), int(row["answered_purchases"])] for row in store.rows[:2]]


def by_hand(history: Sequence[Any], user: str) -> list[int]:
    """The same of one user, event by event, with a ring that is a dict."""
    ring: dict[tuple[int, int], int] = {}
    clicks = purchases = 0
    for event in history:
        if event.user_id != user:
            continue
        shown_ms = None if isinstance(event, Impression) else event.impression_time_ms
        kind = Kind.SHOWN if isinstance(event, Impression) else STRENGTH[event.kind]
        key = ((event.time_ms if shown_ms is None else shown_ms) // 1000, id64(event.ad_id))
        gone = len(ring) == RING_SIZE and key < min(ring)
        was = ring.get(key, 0)
        if shown_ms is not None:
            clicks += kind == Kind.CLICKED if gone else was < Kind.CLICKED <= kind
            purchases += kind == Kind.PURCHASED if gone else was < Kind.PURCHASED <= kind
        if not gone:
            ring[key] = was if shown_ms is None else max(was, kind)
        if len(ring) > RING_SIZE:
            del ring[min(ring)]
    return [clicks, purchases]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["click"] * 5, [1, 0]),
        (["view", "click", "view"], [1, 0]),
        (["cart"], [1, 0]),
        (["purchase"], [1, 1]),
        (["purchase", "click"], [1, 1]),
        (["click", "cart", "purchase", "purchase"], [1, 1]),
        (["view"], [0, 0]),
    ],
)
@pytest.mark.parametrize("cut", [True, False])
def test_an_impression_was_clicked_and_bought_from_or_not(
    kinds: list[EventKind], expected: list[int], cut: bool
) -> None:
    told: list[Any] = [impression("user-1", "ad-1", START_MS, event_id="i")]
    for number, kind in enumerate(kinds):
        told.append(
            click(
                "user-1", "ad-1", START_MS + number, event_id=f"e{number}", kind=kind, impression_time_ms=START_MS,
                value_micros=7,
            )
        )  # fmt: skip
    events = columns_of(RowStore(), told)
    assert counted(events, range(1, len(events)) if cut else ())[0] == expected


def test_two_impressions_of_an_ad_are_clicked_each_and_a_click_of_ones_own_accord_answers_none() -> None:
    told: list[Any] = []
    for number, shown_ms in enumerate([START_MS, START_MS + 60_000, None]):
        time_ms = START_MS + 90_000
        told.append(click("user-1", "ad-1", time_ms, event_id=f"e{number}", impression_time_ms=shown_ms))
    assert counted(columns_of(RowStore(), told))[0] == [2, 0]


@st.composite
def long_histories(draw: st.DrawFn) -> list[Any]:
    """Events of two users, of whom the first has more than a ring holds; times go back and forth."""
    rng, out = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), []
    span, answering = draw(st.sampled_from([40, 100, 400])), draw(st.sampled_from([0.2, 0.6, 0.9]))
    for number in range(draw(st.integers(1, 160))):
        user, ad = f"user-{1 + (rng.random() < 0.1)}", f"ad-{rng.integers(1, 4)}"
        time_ms = START_MS + 1_000 * int(rng.integers(0, span)) + 3 * number
        if rng.random() > answering:
            out.append(impression(user, ad, time_ms, event_id=f"e{number}"))
            continue
        kind = KINDS[rng.integers(len(KINDS))]
        shown_ms = None if rng.random() < 0.1 else START_MS + 1_000 * int(rng.integers(0, span))
        out.append(click(user, ad, time_ms, event_id=f"e{number}", kind=kind, impression_time_ms=shown_ms))
    return out


@given(long_histories(), st.lists(st.integers(0, 160), max_size=6))
def test_what_a_ring_has_forgotten_counts_as_what_it_is_wherever_batches_end(
    history: list[Any], cuts: list[int]
) -> None:
    store = RowStore()
    for user in ("user-1", "user-2"):
        store.row_of(user.encode())
    events = columns_of(store, history)
    expected = [by_hand(history, user) for user in ("user-1", "user-2")]

    assert counted(events, range(1, len(events))) == expected
    assert counted(events) == expected
    assert counted(events, [min(cut, len(events)) for cut in cuts]) == expected
