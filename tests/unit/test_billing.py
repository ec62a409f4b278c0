"""What is owed for what happened: once, whatever comes twice, out of order or with a price of its own making."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from scoring import ledger as ledger_module
from scoring.attribution import Attribution
from scoring.billing import bill, look
from scoring.catalogue import Catalogue
from scoring.events import Kind, Outcome
from scoring.ids import id64, id64s
from scoring.ledger import FIGURES, PARTS, Ledger, Period
from scoring.rows import RING_SIZE, RowStore
from scoring.seal import Seal
from scoring.touches import TouchWeights
from scoring.update import apply
from scoring.value import BID_TYPES
from streams.columns import columns
from streams.logs import Event
from streams.placement_ids import placement_id
from tests.builders import START_MS, click, entry, impression
from tests.crediting import credit, learn

SEAL = Seal.of("a secret")
PRICES = {"cpc": 500, "cpm": 2_000, "cpa": 9_000, "attention": 30}
SHOP = Catalogue()
SHOP.upsert([
    entry(kind, campaign_id=f"c-{kind}", advertiser_id="arco", bid_micros=price, bid_type=kind)
    for kind, price in PRICES.items()
])  # fmt: skip


def sealed(event: Event, price: int | None = None, told: int | None = None, arm: str = "") -> Event:
    """``event`` with the seal of ``price``; ``told`` in its place is what it says."""
    price = PRICES[event.ad_id] if price is None else price
    kind = np.array([BID_TYPES[event.ad_id]], dtype=np.uint8)
    placement = f"{placement_id(0, event.user_id.encode(), (0, 0))}.{arm}"
    (tag,) = SEAL.tags(id64s([placement]), id64s([event.ad_id]), np.array([price]), kind).tolist()
    return replace(event, placement_id=placement, price_micros=price if told is None else told, seal=f"{tag:016x}")


def shown(ad: str = "cpc", at: int = 0) -> Event:
    return sealed(impression(ad_id=ad, time_ms=START_MS + at))


def did(kind: str, ad: str = "cpc", at: int = 0, **told: object) -> Event:
    usual = {"event_id": f"{kind}-{ad}-{at}", "impression_time_ms": START_MS + at, "time_ms": START_MS + at + 10_000}
    return sealed(click(ad_id=ad, kind=kind, **usual | told))


class Lane:
    """Events applied batch by batch, and all that was charged."""

    def __init__(self, shop: Catalogue = SHOP) -> None:
        self.shop = shop
        self.store, self.charged, self.arms = RowStore(), 0, Counter[int]()
        self.counts = {"shown": 0, "clicked": 0, "unpriced": 0, "misquoted": 0}
        self._offset = 0

    def take(self, events: Sequence[Event]) -> "Lane":
        batch = columns(events, [self.store.row_of(event.user_id.encode()) for event in events])
        batch["offset"] += self._offset
        self._offset += len(events)
        before = look(self.store.rows, batch)
        outcome = apply(self.store, batch, self.shop).outcome
        bills = bill(before, batch, outcome, self.shop, SEAL)
        self.charged += int(bills.charged.sum())
        owed = bills.charged > 0
        for arm, charged in zip(bills.arms[owed].tolist(), bills.charged[owed].tolist(), strict=True):
            self.arms[arm] += charged
        for name in ("shown", "clicked", "unpriced"):
            self.counts[name] += int(getattr(bills, name).sum())
        self.counts["misquoted"] += bills.misquoted
        return self


def test_each_bid_type_is_charged_by_the_event_that_it_pays_for() -> None:
    def owed(ad: str) -> list[int]:
        lane, out = Lane(), []
        for event in (
            shown(ad), did("view", ad, viewed_s=2.5), did("click", ad), did("cart", ad), did("purchase", ad)
        ):  # fmt: skip
            before = lane.charged
            out.append(lane.take([event]).charged - before)
        return out

    assert owed("cpm") == [2_000, 0, 0, 0, 0]
    assert owed("cpc") == [0, 0, 500 * PARTS, 0, 0]
    assert owed("cpa") == [0, 0, 0, 0, 9_000 * PARTS]
    assert owed("attention") == [0, 2_500 * 30, 0, 0, 0]


@pytest.mark.parametrize("ad", list(PRICES))
def test_the_price_of_attention_is_owed_per_viewed_second_whatever_the_bid_is_for(ad: str) -> None:
    events, shop = [shown(ad), did("view", ad, viewed_s=2.5), did("click", ad)], Catalogue()
    shop.upsert([entry(ad, campaign_id="c", bid_micros=PRICES[ad], bid_type=ad, attention_micros=40)])
    assert Lane(shop).take(events).charged == Lane().take(events).charged + 2_500 * 40
    free = [sealed(event, price=0) for event in events]  # the auction may ask nothing, and the ad still pays its own
    assert Lane(shop).take(free).charged == 2_500 * 40
    view = click(ad_id=ad, kind="view", viewed_s=2.5, time_ms=START_MS + 2_500, impression_time_ms=START_MS)
    bare = [impression(ad_id=ad), view]
    lane = Lane(shop).take(bare)
    assert (lane.charged, lane.counts["unpriced"]) == (0, 2 if ad == "cpm" else 1)


def test_an_impression_is_charged_one_click_however_many_there_are() -> None:
    lane = Lane().take([shown(), did("click"), did("click", event_id="again")]).take([did("click", event_id="third")])
    assert (lane.charged, lane.counts["clicked"], lane.counts["shown"]) == (500 * PARTS, 1, 1)


def test_a_click_that_comes_before_its_impression_is_charged_with_it() -> None:
    lane = Lane().take([did("click")])
    assert lane.charged == 0
    assert lane.take([shown()]).charged == 500 * PARTS


def test_a_click_on_an_ad_that_was_never_shown_is_charged_nothing() -> None:
    assert Lane().take([did("click"), did("purchase"), did("click", "cpa")]).charged == 0


@pytest.mark.parametrize(
    ("kind", "ad", "viewed_s"), [("click", "cpc", None), ("purchase", "cpa", None), ("view", "attention", 7.5)]
)
@pytest.mark.parametrize("at", [0, 400, 999])
def test_what_comes_of_itself_in_the_second_of_an_impression_is_charged_nothing(
    kind: str, ad: str, viewed_s: float | None, at: int
) -> None:
    own_accord = sealed(click(ad_id=ad, time_ms=START_MS + at, kind=kind, viewed_s=viewed_s, event_id="own"))
    answer = did(kind, ad, viewed_s=viewed_s)
    owed = Lane().take([shown(ad), answer])
    for batches in ([[shown(ad), own_accord]], [[shown(ad)], [own_accord]], [[own_accord], [shown(ad)]]):
        lane = Lane()
        for batch in batches:
            lane.take(batch)
        assert (lane.charged, lane.counts["clicked"], lane.counts["unpriced"]) == (0, 0, 0)
        lane.take([answer])  # what does name the impression is charged all the same
        assert (lane.charged, lane.counts["clicked"]) == (owed.charged, owed.counts["clicked"])


def test_a_price_of_the_events_own_making_is_caught_and_charged_nothing() -> None:
    dear = sealed(click(ad_id="cpc", time_ms=START_MS, impression_time_ms=START_MS), told=10**6)
    lane = Lane().take([shown(), dear])  # nor by the price that the impression told: what it pays for is not its click
    assert (lane.charged, lane.counts["misquoted"], lane.counts["unpriced"]) == (0, 1, 1)
    alone = Lane().take([sealed(impression(ad_id="cpm"), told=1)])
    assert (alone.charged, alone.counts["misquoted"], alone.counts["unpriced"]) == (0, 1, 1)


def test_the_seal_of_one_persons_placement_charges_no_event_of_anybody_else() -> None:
    answered = [shown(), did("click")]
    assert Lane().take(answered).charged == 500 * PARTS
    for at in range(50):
        others = [replace(event, user_id=f"made-up-{at}") for event in answered]
        lane = Lane().take(others)
        assert (lane.charged, lane.counts["misquoted"], lane.counts["unpriced"]) == (0, 2, 1)


def test_an_impression_sent_again_with_another_price_charges_nothing_more() -> None:
    first = sealed(impression(ad_id="cpm", event_id="one"))
    again = sealed(impression(ad_id="cpm", event_id="two"), price=1_900)  # as if another placement had asked it
    assert Lane().take([first, again]).charged == 2_000
    assert Lane().take([first]).take([again]).charged == 2_000


def test_what_is_shown_twice_within_a_second_is_one_impression_in_one_batch_or_in_two() -> None:
    first, second = shown("cpm"), shown("cpm", at=7)
    answer = did("click", "cpc", at=999)  # of one that is dated to the second alone
    for lane in (Lane().take([first, second]), Lane().take([first]).take([second])):
        assert (lane.charged, lane.counts["shown"]) == (2_000, 1)
    for lane in (Lane().take([shown(), answer]), Lane().take([shown()]).take([answer])):
        assert (lane.charged, lane.counts["clicked"]) == (500 * PARTS, 1)


def test_events_without_a_price_count_and_are_told() -> None:
    lane = Lane().take([impression(ad_id="cpm"), impression(ad_id="cpc")])
    assert (lane.charged, lane.counts["shown"], lane.counts["unpriced"]) == (0, 2, 1)


def test_what_an_event_completes_is_charged_at_the_price_that_it_tells_itself_in_one_batch_or_in_two() -> None:
    bare = click(ad_id="cpc", time_ms=START_MS + 5_000, kind="click", event_id="bare", impression_time_ms=START_MS)
    for events, owed in (
        ([shown(), bare], (0, 1)),  # the click, which told none
        ([bare, shown()], (500 * PARTS, 0)),  # the impression, which came after its click
        ([impression(ad_id="cpc"), did("click")], (500 * PARTS, 0)),
        ([did("click"), impression(ad_id="cpc")], (0, 1)),
        ([shown(), bare, did("click")], (0, 1)),  # what was completed without a price stays so
    ):
        for lane in (Lane().take(events), Lane().take(events[:1]).take(events[1:])):
            assert (lane.charged, lane.counts["unpriced"]) == owed


def test_a_view_that_overtakes_its_impression_is_charged_nothing_in_one_batch_or_in_two() -> None:
    view, after = did("view", "attention", viewed_s=7.5), did("view", "attention", viewed_s=2.0, event_id="later")
    for lane in (
        Lane().take([view, shown("attention"), after]),
        Lane().take([view]).take([shown("attention"), after]),
        Lane().take([view, shown("attention")]).take([after]),
    ):
        assert lane.charged == 2_000 * 30


def test_a_page_left_open_is_paid_for_a_minute() -> None:
    left = did("view", "attention", viewed_s=4_000, time_ms=START_MS + 4_000_000)
    assert Lane().take([shown("attention"), left]).charged == 60_000 * 30


def test_a_view_is_charged_no_more_seconds_than_have_passed_since_its_impression_however_late_it_comes() -> None:
    def owed(viewed_s: float, after_ms: int) -> int:
        view = did("view", "attention", viewed_s=viewed_s, time_ms=START_MS + after_ms)
        return Lane().take([shown("attention")]).take([view]).charged // 30

    assert owed(60, 1_000) == 1_000
    assert owed(7.5, 7_500) == owed(7.5, 3_600_000) == 7_500  # seen at once, or the tab was left and found again
    assert owed(4, -500) == 0  # by a clock that is behind the one that dated the impression
    late = did("view", "attention", viewed_s=7.5)  # of the first of two, told after the second
    assert Lane().take([shown("attention"), shown("attention", at=60_000), late]).charged == 7_500 * 30


def test_what_a_full_ring_has_forgotten_is_charged_nothing_more() -> None:
    lane = Lane().take([shown("cpm")])
    lane.take([shown("cpm", at=1_000 * n) for n in range(1, 60)])
    assert lane.charged == 60 * 2_000
    assert lane.take([sealed(impression(ad_id="cpm", event_id="late again"))]).charged == 60 * 2_000


def test_the_oldest_that_a_full_ring_still_holds_is_charged_its_click() -> None:
    lane = Lane().take([shown(at=1_000 * n) for n in range(RING_SIZE)])
    assert lane.take([did("click")]).charged == 500 * PARTS


def test_people_who_see_an_ad_in_the_same_second_are_charged_for_apart() -> None:
    events = [sealed(impression(user, "cpm")) for user in ("one", "two")]
    assert Lane().take(events).charged == 2 * 2_000


def test_an_ad_that_is_not_known_is_neither_counted_nor_charged() -> None:
    lane = Lane().take([impression(ad_id="never told of"), click(ad_id="never told of", impression_time_ms=START_MS)])
    assert (lane.charged, set(lane.counts.values())) == (0, {0})


@pytest.mark.parametrize(
    "event", [impression(ad_id="cpc", placement_id="p.1-0"), sealed(impression(ad_id="cpc"), told=1, arm="1-0")]
)
def test_an_arm_is_counted_under_only_by_what_proves_its_placement(event: Event) -> None:
    for each, wanted in ((event, False), (sealed(impression(ad_id="cpc"), arm="1-0"), True)):
        store = RowStore()
        batch = columns([each], [store.row_of(b"user-1")])
        outcome = np.array([Outcome.APPLIED], dtype=np.uint8)
        bills = bill(look(store.rows, batch), batch, outcome, SHOP, SEAL)
        assert (bills.shown.tolist(), bool(bills.arms[0])) == ([True], wanted)


KINDS = st.sampled_from(["shown", "view", "click", "purchase"])
TOLD = st.sampled_from([None, 400, 700])
"""The price that an event tells, if it does: an impression and what answers it may tell different ones."""
EVENTS = st.lists(
    st.tuples(st.sampled_from(list(PRICES)), st.integers(0, 1), KINDS, TOLD, st.sampled_from(["", "1-0", "1-1"])),
    min_size=1,
    max_size=12,
)


@example([("attention", 0, "view", 400, ""), ("attention", 0, "shown", 700, "")], [1])
@example([("cpc", 0, "shown", 400, "1-0"), ("cpc", 0, "click", None, "1-1")], [1])
@given(EVENTS, st.lists(st.integers(1, 4), min_size=12, max_size=12))
def test_what_is_charged_and_to_which_arm_depends_neither_on_how_a_stream_is_cut_nor_on_repeats(told, cuts) -> None:
    def event(ad: str, second: int, what: str, price: int | None, arm: str) -> Event:
        at, viewed_s = START_MS + 1_000 * second, 2.5 if what == "view" else None
        says = {"kind": what, "viewed_s": viewed_s, "event_id": f"{what}-{ad}-{at}", "impression_time_ms": at}
        bare = impression(ad_id=ad, time_ms=at) if what == "shown" else click(ad_id=ad, time_ms=at + 5_000, **says)
        return bare if price is None else sealed(bare, price=price, arm=arm)

    events = [event(*each) for each in told]
    whole, parts, rest = Lane().take(events), Lane(), [*events, *events]  # all of it comes a second time
    for size in cuts:
        if rest:
            parts.take(rest[:size])
            rest = rest[size:]
    if rest:
        parts.take(rest)
    assert (parts.charged, parts.counts, parts.arms) == (whole.charged, whole.counts, whole.arms)


def test_purchases_are_owed_to_the_clicks_before_them_within_their_windows() -> None:
    shop, hour = Catalogue(), 3_600_000
    shop.upsert([
        entry("a", campaign_id="one", advertiser_id="arco"), entry("b", campaign_id="two", advertiser_id="arco"),
        entry("c", campaign_id="six", advertiser_id="belle"),
    ])  # fmt: skip

    def touch(ad: str, at: int) -> list[Event]:
        return [impression(ad_id=ad, time_ms=START_MS + at),
                click(ad_id=ad, time_ms=START_MS + at + 9, impression_time_ms=START_MS + at)]  # fmt: skip

    events = [*touch("a", 0), *touch("c", 1), *touch("b", hour), *touch("a", 2 * hour), *touch("b", 3 * hour),
              impression(ad_id="b", time_ms=START_MS + 4 * hour),
              click(ad_id="b", time_ms=START_MS + 5 * hour, kind="purchase", value_micros=1_001)]  # fmt: skip
    store = RowStore()
    batch = columns(events, [store.row_of(b"user-1")] * len(events))
    apply(store, batch, shop)
    bought = batch[batch["kind"] == Kind.PURCHASED]

    found = credit(store.rows[bought["row"]], bought, shop, Attribution())
    assert found.slot.tolist() == [0, 1, 0, 1]
    assert found.spread.tolist() == [400, 100, 100, 400]
    assert (found.last.tolist(), found.last_micros.tolist()) == ([0, 0, 0, 1_000], [0, 0, 0, 1_001])
    assert found.spread_micros.sum() == 1_001

    by_time = credit(
        store.rows[bought["row"]], bought, shop, Attribution(spreads={id64("two"): "time"}, half_life_ms=hour)
    )
    assert by_time.spread.tolist() == [66, 134, 266, 534]  # 1 : 2 : 4 : 8 of fifteen, in whole thousandths
    assert by_time.last.tolist() == found.last.tolist()
    assert by_time.spread_micros.sum() == 1_001
    others = Attribution(spread="time", spreads={id64("two"): "position"}, half_life_ms=hour)
    assert credit(store.rows[bought["row"]], bought, shop, others).spread.tolist() == found.spread.tolist()
    sudden = credit(store.rows[bought["row"]], bought, shop, Attribution(spread="time", half_life_ms=1))
    assert sudden.spread.tolist() == [0, 0, 0, 1_000]  # nothing of what is that much older is left, and nothing is lost

    short = credit(store.rows[bought["row"]], bought, shop, Attribution(campaigns={id64("two"): hour}))
    assert short.slot.tolist() == [0, 0]
    assert short.last.tolist() == [0, 1_000]
    assert short.spread.tolist() == [500, 500]
    assert len(credit(store.rows[bought["row"]], bought, shop, Attribution(usual_ms=hour)).slot) == 0


def test_a_click_of_itself_in_the_second_of_an_impression_earns_no_purchase() -> None:
    def earned(**told: object) -> int:
        events = [impression(ad_id="cpc"), click(ad_id="cpc", time_ms=START_MS + 400, **told),
                  click(ad_id="cpc", time_ms=START_MS + 60_000, kind="purchase")]  # fmt: skip
        store = RowStore()
        batch = columns(events, [store.row_of(b"user-1")] * len(events))
        apply(store, batch, SHOP)
        return len(credit(store.rows[batch["row"]][-1:], batch[-1:], SHOP, Attribution()).slot)

    assert earned(impression_time_ms=START_MS) == 1
    assert earned() == 0


def test_while_no_ad_is_known_purchases_earn_nobody_anything_and_teach_nothing() -> None:
    events = [impression(ad_id="cpc"), click(ad_id="cpc", time_ms=START_MS + 400, impression_time_ms=START_MS),
              click(ad_id="cpc", time_ms=START_MS + 60_000, kind="purchase", value_micros=5)]  # fmt: skip
    store, nothing, weights = RowStore(), Catalogue(), TouchWeights()
    batch = columns(events, [store.row_of(b"user-1")] * len(events))
    apply(store, batch, nothing)
    assert len(credit(store.rows[batch["row"]][-1:], batch[-1:], nothing, Attribution(), weights).slot) == 0
    learn(weights, store.rows[batch["row"]], batch, nothing, Attribution(spread="learned"))
    assert not weights.changed


def test_a_ledger_keeps_days_apart_and_comes_back_from_its_bytes() -> None:
    ledger, ones = Ledger(), np.ones((2, len(FIGURES)), dtype=np.int64)
    ledger.add(10, [("one", ""), ("one", "1-0")], ones)
    ledger.add(10, [("one", ""), ("one", "")], ones)
    ledger.add(12, [("one", ""), ("two", "")], ones)
    assert ledger.changes() == [0, 1, 2]
    assert ledger.changes() == []
    copy = Ledger()
    for cell, name in enumerate(ledger.names):
        copy.restore(name, ledger.kept(cell))
    days, figures = copy.of(0)
    assert days == (12, 10)
    assert figures[[Period.TODAY, Period.BEFORE, Period.TOTAL], 0].tolist() == [1, 3, 4]
    assert copy.of(1)[0] == (10, 0)


def test_of_hundreds_of_cells_each_has_its_own_figures() -> None:
    ledger, names = Ledger(), [(f"c{number}", "") for number in range(300)]
    for part in (names[:3], names):
        ledger.add(10, part, np.full((len(part), len(FIGURES)), 1, dtype=np.int64))
    figures = [int(ledger.of(cell)[1][Period.TOTAL, 0]) for cell in range(len(ledger))]
    assert (ledger.names, figures) == (names, [2] * 3 + [1] * 297)


def test_arms_beyond_the_bound_count_with_their_campaigns_and_those_before_it_go_on_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_module, "CELLS_MAX", 2)
    ledger, one = Ledger(), np.ones((1, len(FIGURES)), dtype=np.int64)
    for name in [("one", ""), ("one", "1-0"), ("one", "1-0"), ("one", "1-1"), ("two", "1-0")]:
        ledger.add(10, [name], one)
    figures = {name: int(ledger.of(cell)[1][Period.TOTAL, 0]) for cell, name in enumerate(ledger.names)}
    assert figures == {("one", ""): 2, ("one", "1-0"): 2, ("two", ""): 1}


def test_bytes_that_are_no_cell_are_refused() -> None:
    with pytest.raises(ValueError, match="cell has 80 bytes"):
        Ledger().restore(("one", ""), bytes(80))


def test_only_what_was_applied_is_charged() -> None:
    store = RowStore()
    batch = columns([shown("cpm")], [store.row_of(b"user-1")])
    outcome = np.array([Outcome.LATE], dtype=np.uint8)
    assert not bill(look(store.rows, batch), batch, outcome, SHOP, SEAL).charged.any()
