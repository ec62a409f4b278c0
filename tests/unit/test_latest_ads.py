"""Doctor counts the ads that may be shown as a worker would, from the records that it reads."""

import json
from collections.abc import AsyncGenerator, Sequence

import pytest

from streams import latest_ads
from streams.latest_ads import Stock, Stocktaking
from streams.settings import Settings
from streams.wire import Ad, encode_json
from tests.builders import START_MS, Record, ad


def told(*ads: Ad | tuple[str, bytes | None], at: int = 0) -> list[Record]:
    """Records of ``ads``, or of keys and values, from offset ``at`` on."""
    pairs = [(one.ad_id, encode_json(one)) if isinstance(one, Ad) else one for one in ads]
    return [Record("ads", 0, at + n, START_MS, key.encode(), value) for n, (key, value) in enumerate(pairs)]


def counted(*batches: list[Record]) -> Stock:
    taking = Stocktaking()
    for batch in batches:
        taking.take(batch)
    return taking.stock(START_MS, whole=True)


def test_ads_that_have_ended_or_are_paused_withdrawn_or_without_budget_are_known_and_not_placeable() -> None:
    stock = counted(
        told(
            ad("live"),
            ad("ended", end_ms=START_MS),
            ad("to come", start_ms=START_MS + 1),
            ad("paused", status="paused"),
            ad("spent", budget_micros=0),
            ad("withdrawn"),
        ),
        told(("withdrawn", None), ("never there", None), at=6),
    )
    assert stock == Stock(records=8, known=6, placeable=1, refused=0, why="", whole=True)


def test_a_refused_record_counts_until_a_sound_one_of_its_ad_is_read() -> None:
    good = told(*(ad(f"ad-{number}") for number in range(49)))
    refused = told(("ad-49", b"{"), at=49)
    assert (counted(good, refused).refused, counted(good, refused).known) == (1, 49)
    for mended in (told(ad("ad-49"), at=50), told(("ad-49", None), at=50)):
        for batches in ([good, refused, mended], [good + refused + mended]):
            stock = counted(*batches)
            assert (stock.records, stock.refused, stock.why) == (51, 0, "")


def test_a_sound_record_mends_neither_what_follows_it_nor_another_ad() -> None:
    sound_first = [*told(ad("a"), ("a", b"{"), at=0)]
    stock = counted(sound_first, told(ad("b"), ("b", b"[]"), ("a", b"{"), ad("c"), at=2))
    assert (stock.records, stock.known, stock.placeable, stock.refused) == (6, 3, 3, 3)
    assert (
        stock.why
        == "DecodeError: the value ends unfinished at byte 1; expected a whole JSON object; correct it where it is sent"
    )


def test_the_first_that_is_told_of_is_one_that_nobody_has_mended() -> None:
    stock = counted(told(("a", b"{"), ("b", b"[]"), ad("a")))
    assert (stock.refused, stock.why) == (1, "ValidationError: Expected `object`, got `array`")


@pytest.mark.parametrize("spoilt", [{}, {"bid_micros": -1}, {"title": None}], ids=["sound", "a bid", "a title"])
def test_ads_that_were_sent_under_a_key_of_another_kind_are_refused_until_each_is_sent_under_its_own(
    spoilt: dict[str, object],
) -> None:
    wrong = [json.dumps(json.loads(encode_json(ad(f"ad-{number}"))) | spoilt).encode() for number in range(100)]
    first = told(*(("campaign-1", value) for value in wrong))
    assert counted(first).refused == 100
    right = told(*(ad(f"ad-{number}") for number in range(99)), at=100)
    for batches in ([first, right], [first + right]):
        assert (counted(*batches).refused, counted(*batches).placeable) == (1, 99)
    last = told(("ad-99", None), at=199)
    assert counted(first, right, last).refused == 0
    assert counted(first, told(("campaign-1", None), at=100)).refused == 0, "withdrawn by its key, and gone with that"
    assert counted(right, told(*(("campaign-1", value) for value in wrong), at=199)).refused == 100


@pytest.mark.parametrize(
    ("offsets", "read", "whole"),
    [
        (range(20), 20, True),
        (range(21), 20, False),
        ([], 0, True),
        ([*range(15_000, 15_005), 15_019], 6, True),  # compacted: what was sent before is not there any more
        ([14_999, *range(15_000, 15_005), 15_019], 6, False),
    ],
    ids=["as many as are read", "one more", "none", "the newest alone", "one older"],
)
def test_all_was_read_where_no_record_is_older_than_those_that_were_however_many_offsets_there_were(
    monkeypatch: pytest.MonkeyPatch, offsets: Sequence[int], read: int, whole: bool
) -> None:
    held = [record for at in offsets for record in told(ad(f"ad-{at}"), at=at)]

    async def topic(
        _bootstrap: str, _topic: str, *, latest: int | None = None
    ) -> AsyncGenerator[Sequence[Record], None]:
        begin = held[-1].offset + 1 - latest if held and latest else 0
        for record in held:
            if record.offset >= begin:
                yield [record]

    monkeypatch.setattr(latest_ads, "read_topic", topic)
    monkeypatch.setattr(latest_ads, "LATEST", 20)
    seen = latest_ads.stock(Settings())
    assert (seen.records, seen.whole) == (read, whole)
