"""What is barred from every placement, while it is: budgets that are spent, and what rules forbid."""

import numpy as np
import pytest

from scoring.attention import AttentionModel
from scoring.candidates import Shares
from scoring.catalogue import Catalogue
from scoring.engine import Engine, Scored
from scoring.ids import id64, id64s
from scoring.market import Fate, Market, Terms
from scoring.policies import Policy
from scoring.ranking import EMPTY_SLOT
from scoring.rows import RowStore
from scoring.update import apply
from tests.builders import START_MS, click, columns_of, entry

PEOPLE = 10
BIG = id64s(["big"])
BARS = {
    "spent": (Terms(), 0.0),
    "advertiser": (Terms(blocked_advertisers=frozenset([id64("big")])), 1.0),
    "category": (Terms(blocked_categories=frozenset([id64("shoes")])), 1.0),
    "reserve": (Terms(reserve_micros=85), 0.8),
}
"""What bars the large campaign's ads: rules, and its multiplier."""


def shop_of(model: AttentionModel, small: int = 30) -> Catalogue:
    """150 shoes of one campaign, boots of others, and 20 ads of other things."""
    shop = Catalogue(model.encode, model.dim)
    told = [("big", f"big-{n}", "shoes") for n in range(150)]
    told += [(f"small-{n}", f"small-{n}", "boots") for n in range(small)]
    told += [(f"other-{n}", f"other-{n}", f"k{n}") for n in range(20)]
    shop.upsert(
        [
            entry(name, campaign_id=who, advertiser_id=who, category=category, bid_micros=100 if who == "big" else 90)
            for who, name, category in told
        ]
    )
    return shop


def placed(engine: Engine) -> Scored:
    """Placements of people who like shoes."""
    store = RowStore()
    events = [click(f"u{n}", f"big-{n}", START_MS + n) for n in range(PEOPLE)]
    apply(store, columns_of(store, events), engine.catalogue)
    users = id64s([f"u{n}" for n in range(PEOPLE)])
    (scored,) = engine.place(store.rows[:PEOPLE].copy(), users, users)
    return scored


@pytest.mark.parametrize("control_share", [0.0, 1.0], ids=["near", "at random"])
@pytest.mark.parametrize("why", BARS)
def test_ads_that_are_barred_leave_their_places_among_the_candidates_to_others(
    model: AttentionModel, why: str, control_share: float
) -> None:
    terms, multiplier = BARS[why]
    market = Market(terms)
    market.pace(BIG, np.array([multiplier]))
    scored = placed(Engine(shop_of(model), model, Policy(5, Shares(20), control_share=control_share), market=market))
    assert set(scored.decided.fate.ravel().tolist()) <= {Fate.OUTBID, *range(Fate.WON, Fate.WON + 5)}
    assert (scored.asked.candidates >= 150).all()
    assert (scored.decided.chosen != EMPTY_SLOT).all()


def test_a_campaign_gets_its_places_back_as_soon_as_it_may_spend_again(model: AttentionModel) -> None:
    market = Market()
    engine = Engine(shop_of(model), model, Policy(5, Shares(20), control_share=0.0), market=market)
    shares = []
    for multiplier in (1.0, 0.0, 0.5):
        market.pace(BIG, np.array([multiplier]))
        shares.append(float((placed(engine).asked.candidates < 150).mean()))
    assert shares[1] == 0 < min(shares[0], shares[2])
    assert market.barred(engine.catalogue) is None


def test_ads_that_are_new_or_changed_since_are_barred_at_once(model: AttentionModel) -> None:
    market = Market(Terms(blocked_ads=frozenset([id64("new")])))
    market.pace(BIG, np.array([0.0]))
    shop = shop_of(model)
    assert np.flatnonzero(market.barred(shop)).tolist() == list(range(150))
    shop.upsert([entry("new"), entry("big-0", campaign_id="another")])
    assert np.flatnonzero(market.barred(shop)).tolist() == [*range(1, 150), 200]


def test_where_too_few_are_left_all_of_them_are_candidates_and_the_others_tell_why_slots_are_empty(
    model: AttentionModel,
) -> None:
    market = Market()
    market.pace(BIG, np.array([0.0]))
    engine = Engine(shop_of(model, small=0), model, Policy(30, Shares(40)), market=market)
    scored = placed(engine)
    assert (np.sort(scored.asked.candidates)[:, -20:] == np.arange(150, 170)).all()
    assert (scored.decided.chosen != EMPTY_SLOT).sum(axis=1).tolist() == [20] * PEOPLE
    assert (engine.shown.empty_slots, engine.shown.losers()["budget_spent"]) == (10 * PEOPLE, 20 * PEOPLE)


def test_where_all_are_barred_placements_are_empty_and_tell_why(model: AttentionModel) -> None:
    engine = Engine(shop_of(model), model, Policy(5, Shares(20)), market=Market(Terms(reserve_micros=10**9)))
    scored = placed(engine)
    assert (scored.decided.chosen == EMPTY_SLOT).all()
    assert (scored.decided.fate == Fate.BELOW_RESERVE).all()


def test_the_shelf_is_laid_out_anew_only_where_another_ad_is_barred(model: AttentionModel) -> None:
    market, shop = Market(), shop_of(model)
    shelves = []
    for multipliers in ([0.0, 0.9], [0.0, 0.5], [0.0, 0.0]):
        market.pace(id64s(["big", "small-0"]), np.array(multipliers))
        barred = market.barred(shop)
        assert barred is not None
        shelves.append(shop.open_shelf(START_MS, barred))
    assert shelves[0] is shelves[1]
    assert [len(shelf.slots) for shelf in shelves[1:]] == [50, 49]
    shop.withdraw(["small-1"])
    barred = market.barred(shop)
    assert barred is not None
    assert len(shop.open_shelf(START_MS, barred).slots) == 48
