"""The market of one decision: rules, prices, fates; pacing of budgets; what is billed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.catalogue import Catalogue, Entry
from scoring.features import Content
from scoring.ids import MISSING, id64, id64s
from scoring.ledger import PARTS, charges
from scoring.market import Asked, Cap, Fate, Market, Terms
from scoring.pacing import LEAST, Pacer, planned
from scoring.ranking import EMPTY_SLOT, TEMPERATURE_MIN
from scoring.slate import Limits, Wanted, fill
from scoring.units import DAY_MS, HOUR_MS
from scoring.value import BID_TYPES, BidType
from scoring.variety import Variety, intra_list_distance
from tests.builders import entry

SEED = np.ones(1, dtype=np.uint64)


def shop(*ads: tuple[str, str, str, int]) -> Catalogue:
    """Ads of (campaign, advertiser, category, bid)."""
    stock = Catalogue()
    stock.upsert(
        [
            Entry(Content(f"ad-{at}", category, f"brand-{advertiser}"), campaign, advertiser, bid)
            for at, (campaign, advertiser, category, bid) in enumerate(ads)
        ]
    )
    return stock


ADS = shop(
    ("c1", "a1", "shoes/red", 400),
    ("c1", "a1", "shoes/blue", 300),
    ("c2", "a2", "shoes/red", 200),
    ("c3", "a3", "hats", 100),
)


def decide(market: Market, *, shown=(), ages=(), slots=4, temperature=0.0, stock=ADS, pctr=None, other=None, **told):
    among = len(stock)
    history = np.full((1, 50), MISSING)
    age = np.full((1, 50), 10**12)
    if len(shown):
        history[0, -len(shown) :], age[0, -len(shown) :] = shown, ages
    pctr = np.full((1, among), 0.5) if pctr is None else pctr
    candidates = np.arange(among)[None]
    offers = market.offers(stock, candidates)
    asked = Asked(candidates, pctr, SEED, np.full(1, temperature), history, age, offers, **told)
    return market.decide(stock, asked, slots, None if other is None else replace(asked, pctr=other))


@pytest.mark.parametrize("temperature", [1e-12, 1e-15, 1e-17, 5e-324])
@pytest.mark.parametrize("terms", [Terms(), Terms(diversity=0.2)])
def test_slots_are_drawn_with_the_chance_that_is_logged_however_cold_it_is(temperature, terms):
    people = 2_000
    nobody = np.full((people, 1), MISSING)
    alike = Asked(
        np.tile([0, 3, 1], (people, 1)), np.tile([0.25, 1.0, 0.01], (people, 1)), np.arange(people, dtype=np.uint64),
        np.full(people, temperature), nobody, np.full(nobody.shape, 10**12),
    )  # fmt: skip
    made = Market(terms).decide(ADS, alike, 1)
    assert made.propensity == pytest.approx(np.full((people, 1), 0.5), abs=1e-4)
    assert set(made.chosen[:, 0].tolist()) == {0, 1}  # of the same value; the third is worth less
    assert made.chosen.mean() == pytest.approx(0.5, abs=0.05)
    coldest = replace(alike, temperatures=np.full(people, TEMPERATURE_MIN))
    two, of_coldest = (Market(terms).decide(ADS, each, 2) for each in (alike, coldest))
    assert two.chosen.tolist() == of_coldest.chosen.tolist()
    assert two.propensity.tolist() == of_coldest.propensity.tolist()


def test_without_rules_the_most_valuable_stand_first_and_pay_the_next_ones_value():
    made = decide(Market(), slots=3)
    assert made.chosen.tolist() == [[0, 1, 2]]
    assert made.prices_micros.tolist() == [[300, 200, 100]]
    assert made.fate.tolist() == [[Fate.WON, Fate.WON + 1, Fate.WON + 2, Fate.OUTBID]]


def test_vcg_prices_by_how_likely_the_slots_are_looked_at():
    plain, flat = Market(Terms(auction="vcg")), Market(Terms(auction="vcg", examination=(1.0,)))
    assert decide(flat, slots=3).prices_micros.tolist() == [[100, 100, 100]]  # who is kept out loses the same anywhere
    steep = decide(Market(Terms(auction="vcg", examination=(1.0, 0.5, 0.5))), slots=3)
    assert steep.prices_micros.tolist() == [[200, 100, 100]]  # (300 - 200) / 2 of the one below, and 100 beyond
    assert decide(plain, slots=3).prices_micros.tolist() != steep.prices_micros.tolist()
    learned = decide(plain, slots=3, examined=np.array([1.0, 0.5]))  # where the rules say nothing
    assert learned.prices_micros.tolist() == steep.prices_micros.tolist()
    assert decide(flat, slots=3, examined=np.array([1.0, 0.5])).prices_micros.tolist() == [[100, 100, 100]]


def test_a_cap_counts_what_was_shown_within_its_window_and_what_this_placement_shows():
    market = Market(Terms(caps=(Cap("campaign", 2, HOUR_MS),)))
    assert decide(market).chosen.tolist() == [[0, 1, 2, 3]]
    assert decide(market, shown=[1], ages=[HOUR_MS - 1]).chosen.tolist() == [[0, 2, 3, EMPTY_SLOT]]
    assert decide(market, shown=[1], ages=[HOUR_MS]).chosen.tolist() == [[0, 1, 2, 3]]
    full = decide(market, shown=[0, 1], ages=[5, 5])
    assert full.chosen.tolist() == [[2, 3, EMPTY_SLOT, EMPTY_SLOT]]
    assert full.fate[0, :2].tolist() == [Fate.CAPPED, Fate.CAPPED]
    assert full.prices_micros[0, 2:].tolist() == [0, 0]


def test_what_a_person_was_shown_of_ads_that_are_no_longer_known_counts_for_no_cap():
    once = Market(Terms(caps=(Cap("ad", 1, HOUR_MS),)))
    assert decide(once, shown=[MISSING], ages=[5]).chosen.tolist() == [[0, 1, 2, 3]]


def test_who_may_have_seen_more_than_the_ring_holds_is_shown_nothing_capped():
    market = Market(Terms(caps=(Cap("ad", 40, HOUR_MS),)))
    assert (decide(market, shown=[3] * 50, ages=[1] * 50).chosen == EMPTY_SLOT).all()
    known = decide(market, shown=[3] * 50, ages=[HOUR_MS, *[1] * 49])  # all of the window is in the ring
    assert known.chosen.tolist() == [[0, 1, 2, EMPTY_SLOT]]


def test_a_stopped_campaign_a_blocked_ad_and_a_bid_below_the_reserve_lose_for_their_own_reason():
    market = Market(Terms(blocked_ads=frozenset([id64("ad-0")]), reserve_micros=150))
    market.pace(id64s(["c2"]), np.array([0.0]))
    made = decide(market)
    assert made.fate.tolist() == [[Fate.BLOCKED, Fate.WON, Fate.BUDGET_SPENT, Fate.BELOW_RESERVE]]
    assert made.prices_micros[0, 0] == 150  # nobody else: the reserve


def test_a_reserve_is_for_bids_and_bars_no_ad_that_pays_for_attention_alone():
    told = {"alone": (0, 50), "of both": (149, 50), "a micro": (1, 50), "of nothing": (0, 0)}
    stock = Catalogue()
    stock.upsert([entry(name, bid_micros=bid, attention_micros=paid) for name, (bid, paid) in told.items()])
    made = decide(Market(Terms(reserve_micros=150)), stock=stock)
    assert made.fate.tolist() == [[Fate.WON, *[Fate.BELOW_RESERVE] * 3]]
    assert made.prices_micros[0, 0] == 0  # what it owes for attention is beside any price


def test_a_bid_of_the_reserve_is_enough_and_a_campaign_that_all_but_stops_is_not_spent():
    assert decide(Market(Terms(reserve_micros=200))).prices_micros.tolist() == [[300, 200, 200, 0]]
    market = Market()
    market.pace(id64s(["c1"]), np.array([LEAST]))
    assert decide(market).fate.tolist() == [[Fate.WON + 2, Fate.WON + 3, Fate.WON, Fate.WON + 1]]
    market.pace(id64s(["c1"]), np.array([1.0]))  # from the next decision on
    assert decide(market).chosen.tolist() == [[0, 1, 2, 3]]


def test_who_is_blocked_by_category_or_advertiser_is_so_whatever_a_cap_says():
    caps = (Cap("campaign", 1, HOUR_MS),)
    for blocked in (
        {"blocked_categories": frozenset([id64("hats")])},
        {"blocked_advertisers": frozenset([id64("a3")])},
    ):
        made = decide(Market(Terms(caps=caps, **blocked)), shown=[2, 3], ages=[5, 5])
        assert made.fate.tolist() == [[Fate.WON, Fate.KEPT_APART, Fate.CAPPED, Fate.BLOCKED]]


def test_a_paced_campaign_bids_less():
    market = Market()
    market.pace(id64s(["c1"]), np.array([0.4]))
    made = decide(market, slots=2)
    assert made.chosen.tolist() == [[2, 0]]
    assert made.prices_micros.tolist() == [[160, 120]]


def test_what_an_impression_is_worth_in_its_slot_goes_by_the_offer_and_not_by_doubt():
    market = Market()
    market.pace(id64s(["c1"]), np.array([0.4]))
    nobody, candidates = np.full((1, 1), MISSING), np.array([[3, 2, 1, 0]])
    asked = Asked(
        candidates, np.full((1, 4), 0.5), SEED, np.zeros(1), nobody, np.full((1, 1), 10**12),
        market.offers(ADS, candidates), explore="linucb", doubt=np.ones((1, 4)),
    )  # fmt: skip
    worth = market.values(ADS, asked, np.array([[3, 1, EMPTY_SLOT]]), np.array([[0.5, 0.25, 0.5]]))
    assert worth[0, :2].tolist() == [400 * 0.4 // 1 * 0.5, 200 * 0.25]


def test_ads_that_come_after_offers_were_laid_out_have_theirs():
    stock, market = shop(("c1", "a1", "hats", 400)), Market()
    market.pace(id64s(["c1"]), np.array([0.5]))
    for among in (1, 2):
        offers = market.offers(stock, np.arange(among)[None])
        assert offers is not None
        assert offers.multiplier.tolist() == [[0.5] * among]
        stock.upsert([Entry(Content("ad-1", "hats", "b"), "c1", "a1", 300)])


def test_an_ad_like_the_one_above_it_gives_way_to_another_that_is_worth_nearly_as_much():
    pctr = np.array([[0.5, 0.01, 0.5, 0.9]])  # 200, 3, 100 of the first's category, and 90 of another
    assert decide(Market(), pctr=pctr).chosen.tolist() == [[0, 2, 3, 1]]
    for other in (None, pctr):  # where two rankings take turns, either has it so
        assert decide(Market(Terms(diversity=0.5)), pctr=pctr, other=other).chosen.tolist() == [[0, 3, 2, 1]]


def test_neighbours_are_of_different_categories_where_that_is_possible():
    assert decide(Market(Terms(separate="category"))).chosen.tolist() == [[0, 3, 1, 2]]


def test_a_placement_shows_one_advertiser_of_rivals():
    stock = shop(("c1", "a1", "hat", 400), ("c4", "a1", "hat", 300), ("c2", "a2", "hat", 200), ("c3", "a3", "hat", 100))
    market = Market(Terms(rivals=tuple((id64(f"brand-{name}"), 7) for name in ("a1", "a2"))))
    made, fewer = decide(market, stock=stock), decide(market, stock=stock, slots=2)
    assert made.chosen.tolist() == [[0, 1, 3, EMPTY_SLOT]]  # of the first with both of its campaigns
    assert made.fate.tolist() == [[Fate.WON, Fate.WON + 1, Fate.KEPT_APART, Fate.WON + 2]]
    assert fewer.fate.tolist() == [[Fate.WON, Fate.WON + 1, Fate.KEPT_APART, Fate.OUTBID]]


def test_brands_that_no_rule_names_are_nobodys_rivals():
    rivals = ((id64("brand-of nobody here"), 7), (id64("brand-a3"), 7))
    assert decide(Market(Terms(rivals=rivals))).chosen.tolist() == [[0, 1, 2, 3]]


def test_a_pinned_ad_stands_in_its_slot_and_nowhere_else():
    assert decide(Market(Terms(pinned=((id64("ad-3"), 1),)))).chosen.tolist() == [[0, 3, 1, 2]]
    assert decide(Market(Terms(pinned=((id64("ad-0"), 3),)))).chosen.tolist() == [[1, 2, 3, 0]]


@pytest.mark.parametrize("terms", [{"category_share": 0.25}, {"separate": "category"}, {"separate": "brand"}])
def test_ads_that_tell_no_category_or_brand_have_none_in_common(terms):
    stock = Catalogue()
    stock.upsert([Entry(Content(f"ad-{at}"), f"c{at}", "a1", 400 - 100 * at) for at in range(2)])
    stock.upsert([Entry(Content(f"ad-{at}", "shoes", "arco"), f"c{at}", "a1", 400 - 100 * at) for at in (2, 3)])
    chosen = decide(Market(Terms(**terms)), stock=stock).chosen.tolist()
    assert chosen == ([[0, 1, 2, EMPTY_SLOT]] if "category_share" in terms else [[0, 1, 2, 3]])


@pytest.mark.parametrize(("share", "slots", "most"), [(0.58, 50, 29), (0.29, 300, 58), (0.25, 10, 2), (0.05, 10, 1)])
def test_a_category_has_the_whole_share_that_it_may_have_and_no_more(share, slots, most):
    stock = shop(*(("c", "a", "hats" if at < 100 else "", 1_000 - at) for at in range(200)))
    chosen = decide(Market(Terms(category_share=share)), slots=slots, stock=stock).chosen[0]
    assert chosen[:most].tolist() == [*range(most)]
    assert np.isin(chosen, np.arange(100)).sum() == most


def test_no_slot_stays_empty_for_the_sake_of_an_ad_that_waits_for_its_own():
    apart = Terms(separate="category", pinned=((id64("ad-3"), 3),))  # the only one of another category than ad-0
    stock = shop(("c", "a", "red", 4), ("c", "a", "red", 3), ("c", "a", "red", 2), ("c", "a", "hats", 1))
    assert decide(Market(apart), stock=stock).chosen.tolist() == [[0, 1, 2, 3]]


NAN, SOUND = np.array([[0.5, np.nan, 0.5, 0.5]]), np.full((1, 4), 0.5)
BLOCKED = {"blocked_ads": frozenset([id64("ad-0")])}


@pytest.mark.parametrize("ties", [
    {}, {"caps": (Cap("ad", 3, HOUR_MS),)}, {"separate": "category"}, {"rivals": ((id64("brand-a1"), 7),)},
    {"pinned": ((id64("ad-3"), 1),)}, {"diversity": 0.2}, {"category_share": 0.5},
])  # fmt: skip
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_click_rate_that_is_no_number_is_refused_whatever_ties_the_slots(ties, temperature):
    with pytest.raises(ValueError, match="not a number"):
        decide(Market(Terms(**BLOCKED, **ties)), pctr=NAN, temperature=temperature)


@pytest.mark.parametrize(("one", "two"), [(SOUND, NAN), (NAN, SOUND)])
def test_a_click_rate_that_is_no_number_is_refused_of_either_ranking_that_takes_turns(one, two):
    with pytest.raises(ValueError, match="not a number"):
        decide(Market(Terms(**BLOCKED)), pctr=one, other=two)


def test_a_click_rate_that_is_no_number_is_refused_where_its_doubt_is_explored():
    with pytest.raises(ValueError, match="not a number"):
        decide(Market(Terms(**BLOCKED)), pctr=NAN, explore="thompson", doubt=SOUND)


def test_a_cap_of_an_unknown_scope_or_of_nothing_is_refused():
    assert Cap("ad", 1, 1)
    for wrong in (("brand", 1, 1), ("ad", 0, 1), ("ad", 1, 0)):
        with pytest.raises(ValueError, match="expected one of"):
            Cap(*wrong)


@pytest.mark.parametrize(("method", "strength"), [("mmr", 0.1), ("dpp", 0.2)])
def test_variety_raises_the_distance_within_lists_and_costs_little_value(method, strength):
    draw = np.random.default_rng(1)
    people, count = 200, 40
    features = draw.normal(size=(people, 1, 16)).repeat(count, axis=1) * draw.integers(0, 2, (people, count, 1))
    features = (features + 0.5 * draw.normal(size=(people, count, 16))).astype(np.float32)
    utility = draw.normal(0, 0.3, (people, count))
    ads = np.tile(np.arange(1, count + 1, dtype=np.uint64), (people, 1))
    greedy, seeds = np.zeros(people), np.arange(people, dtype=np.uint64)
    limits = Limits(np.ones((people, count), dtype=np.bool_))

    def listed(strength):
        variety = Variety(method, strength, features) if strength else None
        chosen = fill(Wanted(np.exp(utility), greedy), ads, seeds, 10, limits, variety).chosen
        at = np.arange(people)[:, None]
        return intra_list_distance(features[at, chosen]).mean(), utility[at, chosen].mean()

    (plain, best), (varied, value) = listed(0.0), listed(strength)
    assert varied > plain + 0.03
    assert best - value < 0.1


def test_an_ad_without_content_is_at_a_right_angle_to_every_other():
    lists = np.array([[[1, 0], [1, 0]], [[1, 0], [0, 2]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]], dtype=np.float32)
    assert intra_list_distance(lists).tolist() == [0, 1, 1, 1]
    assert intra_list_distance(lists[:, :1]).tolist() == [0, 0, 0, 0]


@given(st.integers(0, 2**32), st.floats(0.2, 3.0))
def test_without_rules_a_slots_propensity_is_that_of_plackett_luce(seed, temperature):
    draw = np.random.default_rng(seed)
    utility = draw.normal(size=(3, 6)) / temperature
    ads = np.tile(np.arange(1, 7, dtype=np.uint64), (3, 1))
    seeds, limits = draw.integers(0, 2**63, 3).astype(np.uint64), Limits(np.ones((3, 6), dtype=np.bool_))
    wanted = Wanted(np.exp(utility * temperature), np.full(3, temperature))
    made = fill(wanted, ads, seeds, 6, limits)
    chosen, propensity = made.chosen, made.propensity
    for person in range(3):
        left = list(range(6))
        for slot, place in enumerate(chosen[person].tolist()):
            weight = np.exp(utility[person, left])
            assert propensity[person, slot] == pytest.approx(weight[left.index(place)] / weight.sum())
            left.remove(place)


def test_drawn_slots_have_the_frequencies_that_their_propensities_say():
    people = 200_000
    value = np.tile(np.array([1.0, 2.0, 3.0, 4.0]), (people, 1))
    ads = np.tile(np.arange(1, 5, dtype=np.uint64), (people, 1))
    scopes = ((np.tile(np.array([9, 9, 8, 8], dtype=np.uint64), (people, 1)), np.ones((people, 4), dtype=np.int64)),)
    limits = Limits(np.ones((people, 4), dtype=np.bool_), scopes)
    chosen = fill(Wanted(value, np.ones(people)), ads, np.arange(people, dtype=np.uint64), 2, limits).chosen
    first = np.bincount(chosen[:, 0], minlength=4)
    expected = people * np.array([0.1, 0.2, 0.3, 0.4])
    assert (((first - expected) ** 2) / expected).sum() < 16.27  # three free, p = 0.001
    after = chosen[chosen[:, 0] <= 1, 1]  # one of the other group, as 3 to 4
    share = np.array([3 / 7, 4 / 7]) * len(after)
    assert (((np.bincount(after - 2, minlength=2) - share) ** 2) / share).sum() < 10.83


def test_a_paced_campaign_spends_its_budget_by_the_days_end_whatever_its_demand():
    budgets = np.array([1_000_000, 1_000_000, 1_000_000, 0])
    demand, elasticity = np.array([1.5, 4.0, 0.5, 3.0]), 1.5  # budgets a day at the whole bid
    pacer, draw, spent = Pacer(budgets), np.random.default_rng(2), np.zeros(4)
    for minute in range(1_440):
        rate = demand * pacer.multiplier**elasticity * 1_000_000 / 1_440
        spent += draw.poisson(rate / 500) * 500  # events of a two-thousandth of the budget
        pacer.update((minute + 1) * 60_000 if minute < 1_439 else DAY_MS - 1, spent.astype(np.int64))
        if minute == 700:
            assert spent[1] == pytest.approx(1_000_000 * float(planned(700 * 60_000, pacer.day_curve)), rel=0.1)
    assert spent[:2] == pytest.approx([1_000_000, 1_000_000], rel=0.005)
    assert spent[2] == pytest.approx(500_000, rel=0.1)  # it could not
    assert pacer.multiplier[[0, 1]].tolist() == [0, 0]
    assert pacer.multiplier[3] == 1
    pacer.update(DAY_MS + 60_000, np.zeros(4, dtype=np.int64))
    assert (pacer.multiplier >= LEAST).all()  # a new day begins


def test_a_day_is_planned_from_nothing_and_begins_with_half_of_every_limited_bid():
    assert Pacer(np.array([1_000, 0])).multiplier.tolist() == [0.5, 1]
    wanted = planned(np.array([0, HOUR_MS // 2, 12 * HOUR_MS, DAY_MS]), np.full(24, 1 / 24))
    assert wanted == pytest.approx([0, 0.5 / 24 / 0.95, 0.5 / 0.95, 0])


def test_once_the_plan_wants_all_of_a_budget_what_is_left_is_offered_the_whole_bid():
    pacer = Pacer(np.array([1_000]))
    for hour in range(1, 23):
        pacer.update(hour * HOUR_MS, np.array([990]))  # far ahead of the plan all day
    assert pacer.multiplier[0] == pytest.approx(0.001)
    pacer.update(DAY_MS * 24 // 25, np.array([990]))
    assert pacer.multiplier[0] == 1
    pacer.update(DAY_MS - 1, np.array([1_000]))
    assert pacer.multiplier[0] == 0
    assert planned(np.array([DAY_MS * 24 // 25, DAY_MS - 1]), pacer.day_curve).tolist() == [1, 1]  # and never more


def test_what_is_charged_follows_the_bid_type():
    types = np.array([BidType.CPC, BidType.CPM, BidType.CPA, BidType.ATTENTION], dtype=np.uint8)
    yes, price = np.ones(4, dtype=np.bool_), np.array([500, 2_000, 9_000, 30])
    owed = charges(types, price, yes, yes, ~yes, np.full(4, 1_500), np.array([0, 0, 7, 0]))
    assert owed.tolist() == [500 * PARTS, 2_000, 7 * 1_500, 30 * 1_500]


@pytest.mark.parametrize("bid_type", list(BID_TYPES))
def test_what_ranks_an_ad_is_what_its_impressions_are_expected_to_owe(bid_type):
    stock = Catalogue()
    stock.upsert([entry("ad", bid_micros=3_000, bid_type=bid_type, attention_micros=40)])
    made = decide(Market(Terms(auction="first", conversion=0.1, viewed_s=1.5)), stock=stock, slots=1)
    many = 1_000
    clicked = np.arange(many) % 2 == 0
    owed = charges(
        stock.bid_type[np.zeros(many, int)], np.full(many, made.prices_micros[0, 0]), np.ones(many, bool),
        clicked, np.arange(many) % 20 == 0, np.full(many, 1_500), np.full(many, stock.attention_micros[0]),
    )  # fmt: skip
    assert owed.sum() / PARTS / many == pytest.approx(made.worth[0, 0])


def test_an_ad_whose_price_of_attention_holds_its_place_pays_nothing_for_clicks():
    stock = Catalogue()
    stock.upsert([entry("x", bid_micros=500, attention_micros=20), entry("y", bid_micros=60)])
    made = decide(Market(), stock=stock, slots=1)
    assert (made.chosen.tolist(), made.prices_micros.tolist()) == ([[0]], [[0]])  # 20 a second, for 2 s: above 30
    stock.upsert([entry("y", bid_micros=200)])
    assert decide(Market(), stock=stock, slots=1).prices_micros.tolist() == [[120]]  # 60 more, at half a click


def test_a_market_can_be_looked_at_before_it_knows_any_ad() -> None:
    assert repr(Market()).startswith("Market(terms=Terms(")
