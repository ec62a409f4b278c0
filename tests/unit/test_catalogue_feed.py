"""Records of the ads topic into the catalogue: one bad ad costs nobody else anything."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.catalogue import Catalogue
from scoring.units import DAY_MS, HOUR_MS
from streams.app import make_engine
from streams.clock import wall_ms
from streams.feeds.catalogue import apply_ads
from streams.feeds.refused_ads import HELD_BYTES_MAX, RefusedAds
from streams.refusal import Refusal
from streams.settings import Settings
from streams.wire import Ad, encode_json
from tests.builders import START_MS, Record, ad, entry
from tests.unit.garbage import cycles


def told(advert: Ad, key: bytes | None = None, time_ms: int = START_MS) -> Record:
    return Record("ads", 0, 0, time_ms, key or advert.ad_id.encode(), encode_json(advert))


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


def test_what_is_no_ad_leaves_what_its_key_was_told_before_in_the_same_read() -> None:
    catalogue = Catalogue()
    apply_ads(catalogue, [told(ad("withdrawn"))])
    bad = [Record("ads", 0, 9, START_MS, key, b"{bad") for key in (b"withdrawn", b"new")]
    assert apply_ads(catalogue, [Record("ads", 0, 1, START_MS, b"withdrawn", None), told(ad("new")), *bad]) == 2
    assert shown(catalogue) == {"new"}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ad", "tombstone", "bad"])), max_size=12),
    st.sets(st.integers(1, 11)),
)
def test_reads_of_any_length_leave_the_same_catalogue(topic: list[tuple[str, str]], cuts: set[int]) -> None:
    records = []
    for offset, (name, kind) in enumerate(topic):
        value = {"ad": encode_json(ad(name, bid_micros=1 + offset)), "tombstone": None, "bad": b"{bad"}[kind]
        records.append(Record("ads", 0, offset, START_MS, name.encode(), value))
    left = []
    for ends in ([*sorted(cuts), len(records)], range(1, len(records) + 1)):
        catalogue, at = Catalogue(), 0
        for end in ends:
            apply_ads(catalogue, records[at:end])
            at = min(end, len(records))
        slots = catalogue.eligible(START_MS)
        bids = catalogue.bid_micros[slots].tolist()
        left.append({catalogue.entries[slot].content.item_id: bid for slot, bid in zip(slots, bids, strict=True)})
    assert left[0] == left[1]


@pytest.mark.parametrize("name", ["ad_id", "campaign_id", "advertiser_id"])
def test_an_ad_whose_ids_could_part_a_key_is_refused(name: str) -> None:
    catalogue = Catalogue()
    refused = RefusedAds()
    assert apply_ads(catalogue, [told(ad(**({"ad_id": "a"} | {name: "c1\x00x"}))), told(ad("b"))], refused) == 1
    assert shown(catalogue) == {"b"}
    ((_, _, _, message),) = refused.take(0)[0]
    assert "'c1\\x00x' holds a control character" in message


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


def test_a_refused_ad_keeps_nothing_of_its_batch_in_memory() -> None:
    """A batch is up to 5,000 ads: they must go when they were read, not when the garbage collector comes by."""
    with cycles() as left:
        assert apply_ads(Catalogue(), [Record("ads", 0, 0, START_MS, b"a", b"{"), told(ad("b"))]) == 1
        assert not [each for each in left() if isinstance(each, Record)]


def test_refused_ads_are_told_once_in_order_and_from_where_letters_were_made() -> None:
    refused, catalogue = RefusedAds(), Catalogue()
    bad = [Record("ads", 0, offset, START_MS, b"a", b"{") for offset in (3, 5, 9)]
    apply_ads(catalogue, [bad[0], Record("ads", 0, 4, START_MS, b"b", encode_json(ad("b"))), *bad[1:]], refused)

    found, after = refused.take(4)

    assert [(record.offset, stage, error) for record, stage, error, _ in found] == [
        (5, "catalogue", "DecodeError"),
        (9, "catalogue", "DecodeError"),
    ]
    assert after == 10
    assert refused.beyond(9)
    assert not refused.beyond(10)
    assert refused.take(10) == ([], 10)


def test_a_bad_ad_that_another_record_of_its_key_follows_is_told_too() -> None:
    refused = RefusedAds()

    assert apply_ads(Catalogue(), [Record("ads", 0, 3, START_MS, b"a", b"{"), told(ad("a"))], refused) == 1
    assert refused.beyond(3)


@pytest.mark.parametrize("read", [0, 1, 60])
def test_who_has_not_read_as_far_as_letters_were_made_makes_none_again(read: int) -> None:
    refused = RefusedAds()
    bad = [Record("ads", 0, offset, START_MS, b"a", b"{") for offset in range(read)]
    apply_ads(Catalogue(), bad, refused)

    assert not refused.beyond(100)
    assert refused.take(100) == ([], 100)


def test_refused_ads_are_bounded_in_number_and_bytes_and_the_newest_stay() -> None:
    refused = RefusedAds()
    large = bytes(HELD_BYTES_MAX // 10 - 30)
    for offset in range(40):  # wherever a record is large
        key, value, headers = ((large, b"{", ()), (b"a", large, ()), (b"a", b"{", [("h", large)]))[offset % 3]
        refused.refuse(Record("ads", 0, offset, START_MS, key, value, headers), Refusal("ValueError", "no"))

    assert [record.offset for record, *_ in refused.take(0)[0]] == list(range(30, 40))


def test_a_tombstone_whose_key_is_no_text_withdraws_nothing_and_is_refused() -> None:
    catalogue, refused, name = Catalogue(), RefusedAds(), "\N{REPLACEMENT CHARACTER}"
    apply_ads(catalogue, [told(ad(name))])
    assert apply_ads(catalogue, [Record("ads", 0, 7, START_MS, b"\xff", None)], refused) == 1
    assert shown(catalogue) == {name}
    ((record, stage, error, _),), _ = refused.take(0)
    assert (record.offset, stage, error) == (7, "catalogue", "UnicodeDecodeError")
    assert apply_ads(catalogue, [Record("ads", 0, 8, START_MS, name.encode(), None)]) == 0
    assert shown(catalogue) == set()


@pytest.mark.parametrize("days", [-365, 365])
@pytest.mark.parametrize("withdraws", [False, True])
def test_records_whose_clock_is_a_year_off_make_no_ad_be_forgotten_early_nor_refused(
    days: int, *, withdraws: bool
) -> None:
    now_ms, catalogue = wall_ms(), Catalogue(kept_ms=DAY_MS)
    off_ms = now_ms + days * DAY_MS
    apply_ads(catalogue, [told(ad(name), time_ms=now_ms - 3 * DAY_MS) for name in "ab"])
    apply_ads(catalogue, [Record("ads", 0, 2, now_ms - DAY_MS // 2, b"a", None)])
    off = Record("ads", 0, 3, off_ms, b"b", None) if withdraws else told(ad("off"), time_ms=off_ms)
    assert apply_ads(catalogue, [off]) == 0
    apply_ads(catalogue, [Record("ads", 0, 4, now_ms + 365 * DAY_MS, b"b", None)])

    for name in "cd":
        assert apply_ads(catalogue, [told(ad(name), time_ms=now_ms)]) == 0
    assert {"a", "b", "c", "d"} <= set(catalogue.names)
    assert shown(catalogue) == {"c", "d", *([] if withdraws else ["off"])}
    catalogue.upsert([entry("e"), entry("f")], [now_ms + 2 * DAY_MS] * 2)
    catalogue.upsert([entry("g"), entry("h")], [now_ms + 2 * DAY_MS] * 2)
    assert not {"a", "b"} & set(catalogue.names)  # nor are they kept for a year


def test_ads_withdrawn_before_any_clock_could_be_believed_are_not_forgotten_when_the_first_one_can() -> None:
    """As where this machine's clock, or that of the ads' producer, was wrong until now."""
    catalogue, ahead_ms = Catalogue(), wall_ms() + 365 * DAY_MS
    apply_ads(catalogue, [told(ad("a"), time_ms=ahead_ms)])
    apply_ads(catalogue, [Record("ads", 0, 1, ahead_ms, b"a", None)])

    for name in "bcd":
        apply_ads(catalogue, [told(ad(name), time_ms=wall_ms())])
    assert catalogue.names == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("rules", "days"), [("{}", 30), ("windows: {days: 90}", 97)])
def test_a_record_as_far_ahead_as_is_believed_makes_no_withdrawn_ad_be_forgotten_early(
    rules: str, days: int, tmp_path: Path
) -> None:
    """The longest cap looks 30 days back, and who bought 90 days after an impression may be told of a week later."""
    (file := tmp_path / "rules.yml").write_text(rules)
    catalogue, now_ms = make_engine(Settings(home=tmp_path, rules=file)).catalogue, wall_ms()
    withdrawn_ms = now_ms - days * DAY_MS + HOUR_MS
    apply_ads(catalogue, [told(ad("a"), time_ms=withdrawn_ms)])
    apply_ads(catalogue, [Record("ads", 0, 1, withdrawn_ms, b"a", None)])

    for name in "bc":  # the first tells the time
        apply_ads(catalogue, [told(ad(name), time_ms=now_ms + DAY_MS)])
    assert catalogue.names == ["a", "b", "c"]
    catalogue.upsert([entry("d")], [now_ms + DAY_MS + 2 * HOUR_MS])
    catalogue.upsert([entry("e")], [now_ms + DAY_MS + 2 * HOUR_MS])
    assert "a" not in catalogue.names
