"""What the behaviour report says that campaigns cost, against the billing of lanes."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from scoring.billing import bill, look
from scoring.catalogue import Catalogue
from scoring.confidence import by_person, student_95, wilson
from scoring.ids import id64s
from scoring.ledger import PARTS
from scoring.rows import RowStore
from scoring.seal import Seal
from scoring.update import apply
from scoring.value import BID_TYPES
from streams.behaviour.campaigns import CAMPAIGNS_MAX, campaigns
from streams.columns import columns
from streams.feeds.catalogue import entry_of
from streams.logs import Event, Log, in_order
from streams.placement_ids import placement_id
from streams.wire import Ad
from tests.builders import START_MS, ad, click, impression
from tests.unit.test_behaviour import alike, behaviour_of, happened

PRICE, ATTENTION = 700, 3


def _sold(bid_type: str, *, told: bool) -> tuple[list[Event], list[Ad]]:
    """Ten impressions, of which three are clicked, two of these put in the cart and one of these bought."""
    price: dict[str, Any] = {"placement_id": "p", "price_micros": PRICE, "seal": "1f"} if told else {}
    events: list[Event] = []
    for at in range(10):
        shown = {"impression_time_ms": START_MS + 1_000 * at, "value_micros": 4_000, **price}
        events.append(impression("u", "a", START_MS + 1_000 * at, **price))
        for kind, most in (("click", 3), ("cart", 2), ("purchase", 1)):
            if at < most:
                answer = {"kind": kind, "event_id": f"{kind}-{at}", "viewed_s": 2.0 if kind == "click" else None}
                events.append(click("u", "a", START_MS + 1_000 * at + 2_000, **answer, **shown))
    return events, [ad("a", campaign_id="c", bid_micros=900, bid_type=bid_type, attention_micros=ATTENTION)]


@pytest.mark.parametrize(("bid_type", "paid"), [("cpc", 3), ("cpm", 10 / 1_000), ("cpa", 1), ("attention", 6)])
@pytest.mark.parametrize("told", [True, False])
def test_a_campaign_costs_the_price_of_each_event_that_is_paid_for_or_the_bid_and_viewed_seconds(
    bid_type: str, paid: float, told: bool
) -> None:
    found = campaigns(behaviour_of(*_sold(bid_type, told=told))).total
    assert (found.impressions, found.clicks, found.purchases) == (10, 3, 1)
    assert found.cost_micros == (PRICE if told else 900) * paid + 6 * ATTENTION
    assert found.value_micros == 4_000  # what is in a cart is not sold
    assert found.return_on_cost == 4_000 / found.cost_micros
    assert found.ctr_low < found.ctr < found.ctr_high


def test_the_interval_of_a_campaigns_click_rate_is_as_wide_as_that_of_people_who_differ() -> None:
    found = campaigns(behaviour_of(alike(), [ad("a", campaign_id="c")]))
    of_people = wilson(39 / 2, 39, student_95(39))
    for told in (found.total, *found.campaigns):
        assert (told.ctr_low, told.ctr_high) == pytest.approx(of_people)


@pytest.mark.parametrize("most", [1, 3, CAMPAIGNS_MAX])
def test_each_campaigns_figures_are_those_of_its_own_impressions_alone(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ads without a campaign are told with those that no catalogue knows; the others, beyond the most shown, as one."""
    monkeypatch.setattr("streams.behaviour.campaigns.CAMPAIGNS_MAX", most)
    draw, names = np.random.default_rng(3), ["c1", "", "c2", "c3", "idle"]
    events: list[Event] = []
    for at in range(600):
        ad_id = f"a{min(int(draw.geometric(0.5)), 5) - 1}"  # the fifth is not known, and the idle one never shown
        shown = (f"u{draw.integers(20)}", ad_id if ad_id != "a4" else "stranger", START_MS + 1_000 * at)
        events.append(impression(*shown))
        if draw.random() < 0.3:
            events.append(click(*shown, impression_time_ms=shown[2], event_id=f"click-{at}"))
    behaviour = behaviour_of(events, [ad(f"a{at}", campaign_id=name) for at, name in enumerate(names)])
    found = campaigns(behaviour)

    campaign = np.array(behaviour.campaigns.names)[behaviour.campaigns.of_ad[behaviour.impression_ad]]
    counts = Counter(campaign.tolist()).most_common()
    plain = {name: campaign == name for name, _ in counts[:most]} | {"all": np.ones(len(campaign), dtype=np.bool_)}
    if left := [name for name, _ in counts[most:]]:
        plain[f"(others): {len(left)}"] = np.isin(campaign, left)
    assert sorted(plain) == sorted(told.campaign for told in (found.total, *found.campaigns))
    for told in (found.total, *found.campaigns):
        clicked, person = (of[plain[told.campaign]] for of in (behaviour.clicked, behaviour.impression_user))
        tried = np.bincount(person)
        people = tried > 0
        interval = by_person(np.bincount(person, weights=clicked)[people].astype(np.int64), tried[people])
        assert (told.impressions, told.clicks) == (len(clicked), clicked.sum())
        assert (told.ctr_low, told.ctr_high) == interval


SEAL = Seal.of("a secret")


def _sealed(event: Event, ads: dict[str, Ad], draw: np.random.Generator) -> Event:
    """``event`` with its placement's price and seal; some with a price of its own making, some with neither."""
    fate, price, of = draw.random(), int(draw.integers(1, PRICE)), ads[event.ad_id]
    kind = np.array([BID_TYPES[of.bid_type]], dtype=np.uint8)
    name = placement_id(0, event.user_id.encode(), (0, 0))
    (tag,) = SEAL.tags(id64s([name]), id64s([of.ad_id]), np.array([price]), kind).tolist()
    told = {"placement_id": name, "price_micros": price + (fate < 0.2), "seal": f"{tag:016x}" if fate < 0.8 else ""}
    return replace(event, **told)


def _sold_over_and_over(seed: int) -> Log:
    """A made-up log, sealed, in which one in five events comes again, as it is or under another id in its second."""
    draw, log = np.random.default_rng(seed), happened()
    types = ["cpc", "cpm", "cpa", "attention"]
    ads = {
        each.ad_id: replace(each, campaign_id=f"c-{at % 5}", bid_type=types[at % 4], attention_micros=at % 3)
        for at, each in enumerate(log.ads)
    }
    events = [_sealed(event, ads, draw) for event in log.events]
    for event in [event for event in events if draw.random() < 0.2]:
        other = {"event_id": f"{event.event_id}-again", "time_ms": event.time_ms + int(draw.integers(900))}
        events.append(replace(event, **other) if draw.random() < 0.7 else event)
    return Log(list(ads.values()), in_order(events))


def _billed(log: Log, batch: int) -> tuple[dict[str, list[int]], int, int]:
    """Impressions, clicks, thousandths of a micro by campaign as lanes have them; events of no price, of another."""
    shop, store = Catalogue(), RowStore()
    shop.upsert([entry_of(each) for each in log.ads])
    figures: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    unpriced = misquoted = 0
    for at in range(0, len(log.events), batch):
        part = log.events[at : at + batch]
        events = columns(part, [store.row_of(event.user_id.encode()) for event in part])
        events["offset"] += at
        before = look(store.rows, events)
        bills = bill(before, events, apply(store, events, shop).outcome, shop, SEAL)
        for place, slot in enumerate(bills.slot.tolist()):
            of = figures[shop.campaigns[slot]]
            of[0] += int(bills.shown[place])
            of[1] += int(bills.clicked[place])
            of[2] += int(bills.charged[place])
        unpriced, misquoted = unpriced + int(bills.unpriced.sum()), misquoted + bills.misquoted
    return dict(figures), unpriced, misquoted


@pytest.mark.parametrize("batch", [7, 10_000])
def test_click_rates_and_costs_are_those_that_lanes_bill(batch: int) -> None:
    log = _sold_over_and_over(3)
    found = campaigns(behaviour_of(log.events, log.ads, seal=SEAL))
    figures, unpriced, misquoted = _billed(log, batch)
    assert found.verified
    assert {each.campaign: (each.impressions, each.clicks, each.ctr, each.cost_micros) for each in found.campaigns} == {
        name: (shown, clicked, clicked / shown, parts // PARTS) for name, (shown, clicked, parts) in figures.items()
    }
    assert found.unpriced == unpriced > 0
    assert 0 < found.misquoted <= misquoted  # of one impression shown again it tells once


@pytest.mark.parametrize("seal", [Seal(), Seal.of("another")])
def test_prices_whose_secret_is_not_at_hand_are_taken_at_their_word_and_the_report_says_so(seal: Seal) -> None:
    events, ads = _sold("cpc", told=True)
    found = campaigns(behaviour_of(events, ads, seal=seal))
    assert not found.verified
    assert found.total.cost_micros == 3 * PRICE + 6 * ATTENTION


def _of_the_empty_secret(event: Event) -> Event:
    name = placement_id(0, event.user_id.encode(), (0, 0))
    told = (id64s([name]), id64s([event.ad_id]), np.array([PRICE]), np.array([BID_TYPES["cpc"]], dtype=np.uint8))
    return replace(event, placement_id=name, price_micros=PRICE, seal=f"{int(Seal().tags(*told)[0]):016x}")


def test_one_event_sealed_with_the_secret_that_everybody_knows_does_not_verify_the_others() -> None:
    events, ads = _sold("cpc", told=True)
    forged = _of_the_empty_secret(impression("stranger", "a", START_MS))
    found = campaigns(behaviour_of([*events, forged], ads, seal=Seal()))
    assert not found.verified
    assert found.total.cost_micros == 3 * PRICE + 6 * ATTENTION


def test_a_shop_that_seals_with_the_empty_secret_has_its_prices_verified() -> None:
    events, ads = _sold("cpc", told=True)
    found = campaigns(behaviour_of([*map(_of_the_empty_secret, events[:-1]), events[-1]], ads, seal=Seal()))
    assert (found.verified, found.misquoted) == (True, 1)


def test_a_price_of_nothing_is_one_that_was_told() -> None:
    told = {"placement_id": "p", "price_micros": 0, "seal": "1f"}
    events = [impression("u", "a", START_MS, **told), click("u", "a", START_MS + 9, impression_time_ms=START_MS)]
    assert campaigns(behaviour_of(events, [ad("a", bid_micros=900)])).total.cost_micros == 0


def test_what_answers_no_impression_and_ads_that_nobody_knows_cost_and_return_nothing() -> None:
    events = [
        impression("u", "a", START_MS),
        click("u", "a", START_MS + 9_000, kind="purchase", value_micros=5),
        impression("u", "nowhere", START_MS + 6_000, price_micros=5),
        click("u", "nowhere", START_MS + 7_000, impression_time_ms=START_MS + 6_000),
    ]
    found = campaigns(behaviour_of(events, [ad("a", campaign_id="c")])).campaigns
    assert {each.campaign: (each.clicks, each.cost_micros, each.return_on_cost) for each in found} == {
        "c": (0, 0, None),
        "(unknown)": (1, 0, None),
    }
