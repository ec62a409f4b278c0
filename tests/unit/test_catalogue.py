"""All ads as arrays: added, changed, withdrawn, eligible when they should be, and bounded."""

import numpy as np
import pytest

from scoring import catalogue as catalogue_module
from scoring.arrays import Ids, Singles
from scoring.catalogue import Catalogue, CatalogueError, revision_of
from scoring.features import DENSE_DIM, TOKENS_MAX, feature_vector, token_ids
from scoring.ids import MISSING, id64, id64s
from scoring.units import FOREVER_MS
from tests.builders import START_MS, catalogue, entry


def eligible_ids(shop: Catalogue, now_ms: int = START_MS) -> list[str]:
    return [shop.entries[slot].content.item_id for slot in shop.eligible(now_ms).tolist()]


def test_an_ad_is_found_by_its_id_in_any_shape_and_others_are_missing() -> None:
    shop = catalogue(3)
    asked = np.array([[id64("ad-2"), id64("ad-0")], [id64("ad-9"), 0]], dtype=np.uint64)

    assert shop.slots_of(asked).tolist() == [[2, 0], [MISSING, MISSING]]
    assert len(shop) == 3


def test_columns_hold_what_the_ads_say_in_slot_order() -> None:
    shop = Catalogue()
    ads = [
        entry("a", bid_micros=5, start_ms=1, end_ms=9, category="c", brand="b"),
        entry("b", bid_micros=7, active=False, tags=("t",)),
    ]
    shop.upsert(ads)

    assert shop.ad.tolist() == [id64("a"), id64("b")]
    assert shop.bid_micros.tolist() == [5, 7]
    assert shop.start_ms.tolist() == [1, 0]
    assert shop.end_ms.tolist() == [9, FOREVER_MS]
    assert shop.active.tolist() == [True, False]
    assert shop.features.tolist() == [feature_vector(ad.content).tolist() for ad in ads]
    assert shop.tokens.tolist() == [token_ids(ad.content).tolist() for ad in ads]
    assert shop.revision.tolist() == [revision_of(ad) for ad in ads]
    assert shop.learned.shape == (2, 0)


def test_what_is_no_column_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="prices"):
        _ = Catalogue().prices


def test_content_is_encoded_in_one_call_by_the_model() -> None:
    calls = []

    def encode(tokens: Ids, dense: Singles) -> Singles:
        calls.append((tokens.shape, dense.shape))
        return np.stack([tokens[:, 0] % 7, dense[:, 1]], axis=1).astype(np.float32)

    shop = Catalogue(encode, dim=2)
    shop.upsert([entry("a", price_micros=1), entry("b")])

    assert calls == [((2, TOKENS_MAX), (2, DENSE_DIM))]
    assert shop.learned[:, 1].tolist() == [1, 0]


def test_a_changed_ad_keeps_its_slot_and_of_two_changes_the_last_counts() -> None:
    shop = catalogue(3)
    before = shop.version

    shop.upsert([entry("ad-1", bid_micros=1, category="new"), entry("ad-1", bid_micros=2, category="new")])

    assert len(shop) == 3
    assert shop.slots_of(id64s(["ad-1"])).tolist() == [1]
    assert shop.bid_micros.tolist() == [100, 2, 102]
    assert shop.entries[1].bid_micros == 2
    assert shop.features[1].tolist() == feature_vector(entry("x", category="new").content).tolist()
    assert shop.version > before


def test_a_withdrawn_ad_is_no_longer_shown_and_keeps_its_slot_for_the_histories_that_know_it() -> None:
    shop = catalogue(3)

    shop.withdraw(["ad-1", "nobody-knows"])

    assert eligible_ids(shop) == ["ad-0", "ad-2"]
    assert shop.slots_of(id64s(["ad-1"])).tolist() == [1]
    assert shop.features[1].any()
    shop.upsert([entry("ad-1")])
    assert eligible_ids(shop) == ["ad-0", "ad-1", "ad-2"]


def test_to_withdraw_what_nobody_knows_has_nothing_made_anew() -> None:
    shop = catalogue(3)
    before = shop.version
    shop.withdraw(["nobody-knows"])
    assert shop.version == before
    shop.withdraw(["nobody-knows", "ad-1"])
    assert shop.version > before


def test_an_ad_without_budget_or_not_active_is_not_shown() -> None:
    shop = Catalogue()

    shop.upsert(
        [entry("spent", budget_micros=0), entry("paused", active=False), entry("rich", budget_micros=1), entry("a")]
    )

    assert eligible_ids(shop) == ["rich", "a"]


def test_an_ad_is_shown_from_its_start_until_just_before_its_end_whatever_was_asked_before() -> None:
    shop = Catalogue()
    shop.upsert([entry("always"), entry("later", start_ms=START_MS + 10, end_ms=START_MS + 20)])
    moments = [0, 9, 10, 19, 20, 100, 15, 5, 10]

    shown = ["later" in eligible_ids(shop, START_MS + moment) for moment in moments]

    assert shown == [False, False, True, True, False, False, True, False, True]


def test_who_may_be_shown_is_worked_out_again_only_when_it_may_have_changed() -> None:
    shop = Catalogue()
    shop.upsert([entry("a"), entry("later", start_ms=START_MS + 10)])
    first = shop.eligible(START_MS)

    assert shop.eligible(START_MS + 9) is first
    begun = shop.eligible(START_MS + 10)
    assert begun is not first
    assert shop.eligible(START_MS + 10) is begun
    again = shop.eligible(START_MS)
    shop.withdraw(["a"])
    assert shop.eligible(START_MS) is not again


def test_what_is_barred_now_counts_though_the_shelf_is_the_same() -> None:
    shop = catalogue(3)
    first, other = (np.array(barred) for barred in ([True, False, False], [False, True, False]))
    shelf = shop.open_shelf(START_MS, first)
    assert shelf.slots.tolist() == [1, 2]
    assert shop.open_shelf(START_MS, first) is shelf
    assert shop.open_shelf(START_MS, other).slots.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("change", "since_ms"),
    [
        ({"budget_micros": 8_000}, 9),
        ({"active": False}, 9),
        ({"end_ms": FOREVER_MS - 1}, 9),
        ({"campaign_id": "other"}, 9),
        ({"bid_micros": 77, "start_ms": 5}, 1),
    ],
)
def test_a_campaigns_budget_is_as_new_as_what_last_changed_how_much_it_may_spend_and_until_when(
    change: dict[str, object], since_ms: int
) -> None:
    shop, told = Catalogue(), {"campaign_id": "one", "budget_micros": 7_000}
    shop.upsert([entry("a", **told)], [1])
    shop.upsert([entry("a", **told | change)], [9])
    assert shop.budget_ms[id64("one")] == since_ms


def test_two_ads_with_one_64_bit_id_are_refused_and_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = catalogue(1)
    same = id64("ad-0")
    monkeypatch.setattr(catalogue_module, "id64", lambda _: same)  # no two texts of one XXH3 are at hand

    with pytest.raises(CatalogueError, match="'other' and 'ad-0' have one 64-bit id"):
        shop.upsert([entry("other")])

    assert (len(shop), shop.version, shop.entries[0].content.item_id) == (1, 1, "ad-0")


def test_to_withdraw_an_ad_that_was_refused_for_its_64_bit_id_leaves_the_one_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = catalogue(1)
    same = id64("ad-0")
    monkeypatch.setattr(catalogue_module, "id64", lambda _: same)

    shop.withdraw(["other"])
    assert (shop.version, eligible_ids(shop)) == (1, ["ad-0"])
    shop.withdraw(["other", "ad-0"])
    assert eligible_ids(shop) == []


def test_new_ads_of_one_batch_with_one_64_bit_id_are_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Catalogue()
    monkeypatch.setattr(catalogue_module, "id64", lambda _: 7)

    with pytest.raises(CatalogueError, match="one 64-bit id"):
        shop.upsert([entry("a"), entry("b")])

    assert len(shop) == 0


def test_more_ads_than_the_bound_are_refused_with_both_numbers_and_nothing_changes() -> None:
    shop = Catalogue(ads_max=2)
    shop.upsert([entry("a")])

    with pytest.raises(CatalogueError, match="3 ads are more than the bound of 2"):
        shop.upsert([entry("b"), entry("c")])

    assert len(shop) == 1
    shop.upsert([entry("a", bid_micros=9), entry("b")])
    assert shop.bid_micros.tolist() == [9, 1_000]


def test_growing_keeps_every_column() -> None:
    shop = Catalogue()
    for start in range(0, 3_000, 500):
        shop.upsert([entry(f"ad-{n}", bid_micros=n) for n in range(start, start + 500)])

    assert shop.bid_micros.tolist() == list(range(3_000))
    assert shop.slots_of(id64s([f"ad-{n}" for n in range(3_000)])).tolist() == list(range(3_000))


def test_nothing_to_add_is_no_new_version() -> None:
    shop = catalogue(1)

    shop.upsert([])

    assert shop.version == 1


def test_a_revision_changes_with_anything_an_ad_says_and_with_nothing_else() -> None:
    ad = entry("a", category="c", tags=("t",))
    changed = [
        entry("b", category="c", tags=("t",)),
        entry("a", category="d", tags=("t",)),
        entry("a", category="c"),
        entry("a", category="c", tags=("t",), bid_micros=7),
        entry("a", category="c", tags=("t",), end_ms=5),
        entry("a", category="c", tags=("t",), active=False),
    ]

    assert revision_of(entry("a", category="c", tags=("t",))) == revision_of(ad)
    assert len({revision_of(each) for each in [ad, *changed]}) == len(changed) + 1


@pytest.mark.parametrize(
    "path", ["weapons", "weapons/knives", "/weapons/knives", "//weapons", " /weapons ", "weapons "]
)
def test_an_ads_category_is_the_first_level_that_is_told_however_its_path_is_spelt(path: str) -> None:
    """Else an ad would get past a block of the category, and past its share of a placement."""
    shop = Catalogue()
    shop.upsert([entry("ad-1", category=path), entry("ad-2", category="/ /")])
    assert shop.category[:2].tolist() == [id64("weapons"), id64("")]
