"""Records of the ads topic into the catalogue: one bad ad costs nobody else anything."""

from scoring.catalogue import Catalogue
from streams.catalogue_feed import apply_ads
from streams.wire import Ad, encode_json
from tests.builders import START_MS, Record, ad


def told(advert: Ad, key: bytes | None = None) -> Record:
    return Record("ads", 0, 0, START_MS, key or advert.ad_id.encode(), encode_json(advert))


def shown(catalogue: Catalogue) -> set[str]:
    return {catalogue.entries[slot].content.item_id for slot in catalogue.eligible(START_MS).tolist()}


def test_of_one_ad_the_last_record_counts() -> None:
    catalogue = Catalogue()
    assert apply_ads(catalogue, [told(ad("a", bid_micros=1)), told(ad("b")), told(ad("a", bid_micros=7))]) == 0
    assert shown(catalogue) == {"a", "b"}
    assert catalogue.bid_micros.tolist() == [7, 1_000]


def test_a_tombstone_withdraws_an_ad_and_a_later_record_brings_it_back() -> None:
    catalogue = Catalogue()
    apply_ads(catalogue, [told(ad("a")), told(ad("b"))])
    apply_ads(catalogue, [Record("ads", 0, 2, START_MS, b"a", None)])
    assert shown(catalogue) == {"b"}
    apply_ads(catalogue, [told(ad("a"))])
    assert shown(catalogue) == {"a", "b"}


def test_what_is_no_ad_is_refused_and_the_others_are_taken() -> None:
    catalogue = Catalogue()
    records = [
        told(ad("a")),
        Record("ads", 0, 1, START_MS, b"b", b"{no ad"),
        told(ad("c"), key=b"not-c"),
        Record("ads", 0, 3, START_MS, None, None),
        told(ad("d")),
    ]
    assert apply_ads(catalogue, records) == 2
    assert shown(catalogue) == {"a", "d"}


def test_ads_beyond_the_bound_are_refused_one_by_one() -> None:
    catalogue = Catalogue(ads_max=2)
    assert apply_ads(catalogue, [told(ad(name)) for name in "abcd"]) == 2
    assert shown(catalogue) == {"a", "b"}
    assert apply_ads(catalogue, [told(ad("a", bid_micros=5))]) == 0  # one that is there may still change


def test_paused_ended_and_unfunded_ads_are_held_but_not_shown() -> None:
    catalogue = Catalogue()
    apply_ads(
        catalogue,
        [
            told(ad("paused", status="paused")),
            told(ad("ended", end_ms=START_MS)),
            told(ad("to come", start_ms=START_MS + 1)),
            told(ad("spent", budget_micros=0)),
            told(ad("live", start_ms=START_MS, end_ms=START_MS + 1)),
        ],
    )
    assert len(catalogue) == 5
    assert shown(catalogue) == {"live"}


def test_an_ad_that_is_no_utf8_is_refused_and_the_others_are_taken() -> None:
    catalogue = Catalogue()
    bad = Record("ads", 0, 0, START_MS, b"ad-1", b'{"ad_id":"ad-1","title":"\xff"}')

    assert apply_ads(catalogue, [bad, told(ad("ad-2"))]) == 1
    assert shown(catalogue) == {"ad-2"}
