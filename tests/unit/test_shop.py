import itertools
from collections import Counter

import msgspec
import numpy as np
import pytest

from scoring.units import DAY_MS, MINUTE_MS
from streams.demo.catalogue import LOG_START_MS, catalogue
from streams.demo.shop import SHOP, Shoppers, simulate_log
from streams.logs import in_order
from streams.wire import Ad, Click, Impression

NOW_MS = 1_760_000_000_000


def clicks_per_impression(shoppers: Shoppers, *, perfect: bool) -> float:
    """Click rate when everyone is shown ten ads once: those he likes most, or any."""
    rng = np.random.default_rng(0)
    everyone = np.arange(len(shoppers.names))
    liking = shoppers.tastes.log_odds(everyone)
    order = np.argsort(-liking if perfect else rng.random(liking.shape), axis=1)[:, :10]
    events = shoppers.see_many(everyone, order, shoppers.names, np.full(len(everyone), NOW_MS))
    counts = Counter("shown" if isinstance(event, Impression) else event.kind for event in events)
    return counts["click"] / counts["shown"]


def test_the_catalogue_is_a_shop_of_valid_ads() -> None:
    ads = catalogue(3)
    decoded = msgspec.json.decode(msgspec.json.encode(ads), type=list[Ad])
    assert decoded == ads
    assert len({ad.ad_id for ad in ads}) == len({ad.title for ad in ads}) == len(ads) == 396
    assert len({ad.category.split("/")[0] for ad in ads}) == 12
    assert len({ad.category for ad in ads}) == 36
    assert {len({ad.brand for ad in ads if ad.campaign_id == name}) for name in {ad.campaign_id for ad in ads}} == {1}


def test_the_same_seed_gives_the_same_log_and_another_seed_another_crowd_in_the_same_shop() -> None:
    log = simulate_log(7, users=20, hours=3)
    again, other = simulate_log(7, users=20, hours=3), simulate_log(8, users=20, hours=3)
    assert log == again
    assert log.ads == other.ads != catalogue(2)
    assert [event.time_ms for event in log.events] != [event.time_ms for event in other.events]


def test_a_crowd_that_comes_again_is_the_same_people_doing_other_things_than_before() -> None:
    def acts(run: str) -> list[Click]:
        shoppers = Shoppers(1, 50, crowd="shopper-1", run=run)
        shoppers.organic(NOW_MS)
        return [event for event in shoppers.organic(NOW_MS + 60_000) if isinstance(event, Click)]

    monday, tuesday = acts("monday"), acts("tuesday")
    assert {click.user_id for click in monday} <= {f"shopper-1-{number:04d}" for number in range(50)}
    assert [click.user_id for click in monday] == [click.user_id for click in tuesday]
    assert len({click.event_id for click in monday + tuesday}) == 2 * len(monday) > 50


def test_a_log_is_in_time_order_and_valid_on_the_wire() -> None:
    log = simulate_log(7, users=50, hours=3)
    assert all(a.time_ms <= b.time_ms for a, b in itertools.pairwise(log.events))
    assert len({event.event_id for event in log.events}) == len(log.events)
    for kind in (Impression, Click):
        events = [event for event in log.events if isinstance(event, kind)]
        assert len(events) > 100
        assert msgspec.json.decode(msgspec.json.encode(events), type=list[kind]) == events  # type: ignore[valid-type]  # the type is the loop's


def test_every_outcome_answers_an_impression_of_the_same_placement() -> None:
    log = simulate_log(7, users=50, hours=3)
    shown = {
        (event.user_id, event.ad_id, event.placement_id, event.time_ms)
        for event in log.events
        if isinstance(event, Impression)
    }
    outcomes = [event for event in log.events if isinstance(event, Click) and event.placement_id]
    assert outcomes
    assert all((e.user_id, e.ad_id, e.placement_id, e.impression_time_ms) in shown for e in outcomes)
    assert all(e.time_ms > (e.impression_time_ms or 0) for e in outcomes)


def test_lower_slots_are_seen_less_and_clicked_less() -> None:
    log = simulate_log(5, users=300, hours=12)
    assert log.events == in_order(log.events)  # many enough that clicks and impressions share a millisecond
    impressions = [event for event in log.events if isinstance(event, Impression)]
    slot_of = {(event.placement_id, event.ad_id): event.slot for event in impressions}
    shown = Counter(event.slot for event in impressions)
    clicked = Counter(
        slot_of[event.placement_id, event.ad_id]
        for event in log.events
        if isinstance(event, Click) and event.kind == "click" and event.placement_id
    )
    assert all(shown[slot] > shown[slot + 1] for slot in range(9))

    def rate(slots: range) -> float:
        return sum(clicked[slot] for slot in slots) / sum(shown[slot] for slot in slots)

    assert rate(range(3)) > 1.15 * rate(range(7, 10))


def test_random_placements_earn_three_to_five_percent_and_perfect_ones_several_times_that() -> None:
    chance = clicks_per_impression(Shoppers(1, 2_000), perfect=False)
    best = clicks_per_impression(Shoppers(1, 2_000), perfect=True)
    assert 0.03 < chance < 0.05
    assert best > 5 * chance


def test_an_ad_seen_a_moment_ago_is_clicked_less() -> None:
    shoppers = Shoppers(1, 2_000)
    first = clicks_per_impression(shoppers, perfect=True)
    assert clicks_per_impression(shoppers, perfect=True) < 0.7 * first


def test_slow_taste_hardly_moves_in_a_minute_and_is_another_after_a_fortnight() -> None:
    shoppers = Shoppers(2, 200)
    everyone, start = np.arange(200), np.full(200, NOW_MS)
    shoppers.tastes.drift(everyone, start)
    before = shoppers.tastes.log_odds(everyone)

    def likeness_after(elapsed_ms: int) -> float:
        shoppers.tastes.drift(everyone, start + elapsed_ms)
        after = shoppers.tastes.log_odds(everyone)
        spread = before - before.mean(axis=0)
        return float(np.corrcoef(spread.ravel(), (after - after.mean(axis=0)).ravel())[0, 1])

    assert likeness_after(MINUTE_MS) > 0.99
    assert likeness_after(14 * DAY_MS) < 0.8


def test_a_jump_puts_other_things_in_mind_and_they_are_liked() -> None:
    shoppers = Shoppers(2, 300)
    everyone = np.arange(300)
    before = shoppers.tastes.in_mind.copy()
    shoppers.tastes.jump(everyone)
    moved = np.flatnonzero(before != shoppers.tastes.in_mind)
    assert len(moved) > 150
    names = sorted({ad.category for ad in shoppers.ads})
    shelf = np.array([names.index(ad.category) for ad in shoppers.ads])
    liking = shoppers.tastes.log_odds(moved)
    wanted = shelf[None, :] == shoppers.tastes.in_mind[moved][:, None]
    assert liking[wanted].mean() > liking[~wanted].mean() + 2


def test_organic_acts_come_when_due_and_only_then() -> None:
    shoppers = Shoppers(4, 50)
    assert all(event.time_ms >= NOW_MS for event in shoppers.organic(NOW_MS))
    events = shoppers.organic(NOW_MS + MINUTE_MS)
    assert events
    assert all(isinstance(event, Click) and event.placement_id is None for event in events)
    assert {event.user_id for event in events} <= set(shoppers.names)
    assert not shoppers.organic(NOW_MS + MINUTE_MS)


def test_shoppers_who_have_not_begun_say_how_to_begin() -> None:
    with pytest.raises(RuntimeError, match="start"):
        _ = Shoppers(4, 5).next_ms


def test_the_past_of_a_shop_tells_how_its_ads_are_reviewed() -> None:
    told = simulate_log(3, 2, 1).tones
    assert {tone.of for tone in told} == {"ad", "brand"}
    assert len({tone.name for tone in told if tone.of == "ad"}) > 10


def test_ads_tell_starts_of_all_ages_before_any_log_and_some_tell_none() -> None:
    starts = np.array([ad.start_ms for ad in catalogue(SHOP)])
    age_days = (LOG_START_MS - starts[starts > 0]) / DAY_MS

    assert 0.05 < (starts == 0).mean() < 0.15
    assert age_days.min() >= 0
    assert age_days.max() <= 730
    for share in np.histogram(np.log1p(age_days), bins=6, range=(0, np.log1p(730)))[0] / len(age_days):
        assert share == pytest.approx(1 / 6, abs=0.06)
