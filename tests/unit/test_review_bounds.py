"""What a reader of reviews remembers has bounds, and what is beyond them goes from its topics."""

import numpy as np
import pytest

from scoring import sentiment
from scoring.sentiment import FEATURES, Sentiment
from streams.reviews.reviewer import IDS_MAX
from streams.reviews.state import AT, LESSON_BYTES_MAX, PART_BYTES, teach
from streams.settings import Settings
from tests.builders import START_MS
from tests.unit.test_review_feed import records, review
from tests.unit.test_review_state import ID, Broker


def test_of_too_many_ads_those_longest_without_a_review_are_forgotten_wherever_they_were_heard() -> None:
    broker, log = Broker(), [review(at, f"ad-{at % 5}", good=True) for at in range(5)]
    broker.ads = {f"ad-{at}": "" for at in range(5)}
    one = broker.reader()
    list(one.take(records([log[2], log[0], log[1], log[3]])))
    broker.tell(one)
    again = broker.reader()
    again._watch._keys_max = 3
    list(again.take(records([log[4]], first=4)))
    again.news()
    changes = {message.key: message.value for message in again.state(ID)}
    assert changes[b"ad/ad-2"] is None
    assert changes.keys() == {b"ad/ad-2", b"ad/ad-4", AT}
    list(again.take(records([review(at, f"ad-{at % 5}", good=True) for at in (5, 6, 8)], first=5)))
    again.news()
    assert {message.key for message in again.state(ID) if message.value is None} == {b"ad/ad-4"}
    assert again.news() == []
    assert b"ad/ad-4" not in again._tones | again._heard_to


def test_of_more_than_are_watched_those_longest_without_a_review_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, log = Broker(), [review(at, f"ad-{at}", good=True) for at in range(5)]
    broker.ads = {f"ad-{at}": "" for at in range(5)}
    one = broker.reader()
    list(one.take(records(log)))
    broker.tell(one)
    monkeypatch.setattr("streams.reviews.state.KEYS_MAX", 3)
    again = broker.reader()
    assert set(again._tones) == {b"ad/ad-2", b"ad/ad-3", b"ad/ad-4"}
    list(again.take(records([review(5, "ad-4", good=True)], first=5)))
    broker.tell(again)
    assert {key for key in broker.state if key.startswith(b"ad/")} == {b"ad/ad-2", b"ad/ad-3", b"ad/ad-4"}


def test_the_tone_of_a_brand_that_no_ad_has_goes_if_it_is_forgotten() -> None:
    broker = Broker({"shoe": "acme", "boot": "rival", "sock": ""})
    one = broker.reader()
    one._watch._keys_max = 2
    said = [review(at, name, good=True) for at, name in enumerate(("shoe", "boot", "sock"))]
    list(one.take(records(said)))  # all but rival and the sock are forgotten
    broker.tell(one)
    broker.tell(one)
    assert set(broker.tones) == {b"ad/shoe", b"brand/acme", b"ad/boot", b"brand/rival", b"ad/sock"}
    broker.offer(one, "shoe", "other")
    broker.tell(one)
    assert set(broker.tones) == {b"ad/shoe", b"ad/boot", b"brand/rival", b"ad/sock"}
    broker.offer(one, "boot", None)
    broker.tell(one)
    assert set(broker.tones) == {b"ad/shoe", b"brand/rival", b"ad/sock"}


def test_the_largest_lesson_has_a_bound_and_comes_back_in_parts_that_batches_hold() -> None:
    weights = np.zeros(FEATURES, dtype=sentiment._WEIGHT)
    weights["bucket"], weights["weight"] = np.arange(FEATURES), np.linspace(-1, 1, FEATURES)
    full = Sentiment.of_bytes(sentiment._HEAD.pack(0.5, 7) + weights.tobytes())
    lesson, parts = teach(full, range(IDS_MAX), 7, START_MS)
    assert sum(len(part.value or b"") for part in parts) < LESSON_BYTES_MAX
    assert max(part.size for part in parts) <= PART_BYTES + 100
    assert lesson.part_keys() == [part.key for part in parts]
    with pytest.raises(ValueError, match="batch_bytes"):
        Settings(batch_bytes=2 * PART_BYTES - 1)
