"""Records of the topic of tones, as a worker's catalogue hears them and as training does."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from scoring.catalogue import Catalogue
from scoring.ids import id64s
from scoring.tones import TONES_DIM
from streams.feeds.tones import history_of, take
from streams.wire import Tone, encode_json
from tests.builders import START_MS, Record, entry, tone


def shop() -> Catalogue:
    out = Catalogue()
    out.upsert([entry("shoe"), entry("boot")])
    return out


def records(tones: Sequence[Tone], first: int = 0) -> list[Record]:
    return [Record("tones", 0, first + at, one.time_ms, one.key, encode_json(one)) for at, one in enumerate(tones)]


def gone(ad_id: str) -> Record:
    return Record("tones", 0, 99, START_MS, f"ad/{ad_id}".encode(), None)


def test_of_one_ad_the_last_record_counts_and_a_tombstone_takes_it_back() -> None:
    ads = shop()
    said = [tone("ad", "shoe", 10, sound=0.2), tone("ad", "boot", 50, sound=0.5), tone("ad", "shoe", 50, sound=0.9)]
    assert take(ads, records(said)) == 0
    shoe, boot = ads.tone.tolist()
    assert shoe[0] == pytest.approx(0.2 * 50 / 58, abs=1e-3)
    assert boot[0] == pytest.approx(-0.2 * 50 / 58, abs=1e-3)
    assert take(ads, [*records([tone("ad", "shoe", 51, sound=0.9)]), gone("shoe")]) == 0
    assert not ads.tone[0].any()
    assert ads.tone[1].tolist() == [0, boot[1]]  # all the reviews that are left are its own


def test_the_tones_of_brands_are_for_people_and_change_nothing() -> None:
    ads = shop()
    assert take(ads, [*records([tone("brand", "shoe", 50)]), Record("tones", 0, 1, 0, b"brand/shoe", None)]) == 0
    assert (len(ads.tones), ads.tones.version) == (0, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"ad/shoe", b"{"),
        (b"ad/shoe", b"\xff"),
        (b"ad/shoe", encode_json(tone("ad", "boot", 5))),
        (b"ad/shoe", encode_json(tone("brand", "shoe", 5))),
        (b"ad/shoe", encode_json(tone("ad", "shoe", 5)).replace(b'"tone":0.75', b'"tone":7.5')),
        (b"ad/shoe", encode_json(tone("ad", "shoe", 5)).replace(b'"reviews":5', b'"reviews":-5')),
        (b"ad/shoe", encode_json(tone("ad", "shoe", 5)).replace(b'"reviews":5', b'"reviews":%d' % 2**63)),
        (b"ad/shoe", encode_json(tone("ad", "shoe", 5)).replace(b'"reviews":5', b'"reviews":%d' % 10**400)),
        (b"ad/\xff", encode_json(tone("ad", "shoe", 5))),
        (b"ad/\xff", None),
    ],
)
def test_what_is_no_tone_is_refused_and_leaves_what_was_heard_before(key: bytes, value: bytes | None) -> None:
    ads = shop()
    take(ads, records([tone("ad", "shoe", 20, sound=0.9), tone("ad", "boot", 20, sound=0.4)]))
    before = ads.tone.copy()
    assert take(ads, [Record("tones", 0, 7, START_MS, key, value)]) == 1
    np.testing.assert_array_equal(ads.tone, before)


def test_a_record_without_a_key_is_of_nobody() -> None:
    ads = shop()
    assert take(ads, [Record("tones", 0, 7, START_MS, None, msgspec.json.encode({}))]) == 0
    assert not ads.tone.any()


def test_training_is_told_of_ads_at_the_time_of_the_review_whatever_the_order() -> None:
    said = [tone("ad", "shoe", 2, START_MS + 9, 1.0), tone("brand", "b", 90, START_MS), tone("ad", "shoe", 1, START_MS)]
    history = history_of(said)
    assert history.time_ms.tolist() == [START_MS, START_MS + 9]
    assert history.said.tolist() == [[1, 0.75], [2, 1.0]]
    asked = id64s(["shoe"] * 3)
    reviews = history.before(asked, np.array([START_MS, START_MS + 9, START_MS + 10]))[:, 1]
    assert 0 == reviews[0] < reviews[1] < reviews[2]
    assert history_of([]).before(asked, np.zeros(3, dtype=np.int64)).shape == (3, TONES_DIM)
