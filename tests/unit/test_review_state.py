"""A reader of reviews that goes on where another stood: as if nobody had ended, and not at all where it cannot."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.units import DAY_MS
from streams.reviews import reviewer
from streams.reviews.reviewer import Reviewer
from streams.reviews.state import known
from streams.wire import Tone, encode_json
from tests.builders import START_MS, Record, ad
from tests.unit.test_review_feed import records, review, stream

ID = "reviews-1"
Ending = Literal["in order", "before its tones", "before its state"]
BRANDS = {"shoe": "acme", "boot": "acme", "sock": ""}


@dataclass
class Broker:
    """The topics, as far as readers of reviews see them; ``told``: all that was ever put on ``tones``, by key.

    ``turned``: those with which somebody was told of a turn, likewise.
    """

    ads: dict[str, str] = field(default_factory=dict)
    state: dict[bytes, bytes] = field(default_factory=dict)
    tones: dict[bytes, Tone] = field(default_factory=dict)
    told: dict[bytes, list[Tone | None]] = field(default_factory=lambda: defaultdict(list))
    turned: dict[bytes, list[Tone]] = field(default_factory=lambda: defaultdict(list))

    def reader(self, end: int = 10_000) -> Reviewer:
        """A new one, which has read what stands here."""
        out = Reviewer()
        out.take_told([Record("tones", 0, 0, 0, key, encode_json(tone)) for key, tone in self.tones.items()])
        if self.state:
            out.go_on(known(self.state, ID, end))
        out.take_ads([offer(name, brand) for name, brand in self.ads.items()])
        return out

    def offer(self, one: Reviewer, name: str, brand: str | None) -> None:
        """Offer an ad of ``brand``, or withdraw it."""
        self.ads.pop(name, None) if brand is None else self.ads.update({name: brand})
        one.take_ads([offer(name, brand)])

    def tell(self, one: Reviewer, ending: Ending = "in order") -> None:
        """What the feed does with what ``one`` has to tell, unless it ends before."""
        gone, news, state = one.gone(), one.news(), one.state(ID)
        if ending == "before its state":
            return
        write(self.state, {message.key or b"": message.value for message in state})
        if ending == "before its tones":
            return
        for key, tone in [*((key, None) for key in gone), *((tone.key, tone) for tone in news)]:
            self.told[key].append(tone)
        write(self.tones, dict.fromkeys(gone))
        self.tones |= {tone.key: tone for tone in news}
        for tone in one.newly_turned:
            self.turned[tone.key].append(tone)


def write(topic: dict[bytes, bytes], messages: Mapping[bytes, bytes | None]) -> None:
    """As compaction leaves it."""
    for key, value in messages.items():
        topic.pop(key, None) if value is None else topic.update({key: value})


def offer(name: str, brand: str | None) -> Record:
    return Record("ads", 0, 0, 0, name.encode(), None if brand is None else encode_json(ad(name, brand=brand)))


def reviews_of(seed: int, count: int) -> list[Record]:
    """Of three ads, one of them worse after a while; some without stars, some twice, some none."""
    rng = np.random.default_rng(seed)
    out = []
    for at in range(count):
        name = str(rng.choice([*BRANDS, "elsewhere"], p=[0.6, 0.2, 0.1, 0.1]))
        good = bool(rng.random() < (0.9 if at < count // 2 or name != "shoe" else 0.1))
        number = int(rng.integers(0, at)) if at and rng.random() < 0.05 else at
        out.append(review(number, name, good=good, rated=bool(rng.random() < 0.8)))
    read = records(out)
    for at in range(7, count, 50):
        read[at] = Record("reviews", 0, at, 0, b"shoe", b"{")
    return read


def play(broker: Broker, log: Sequence[Record], cuts: Sequence[int], endings: Mapping[int, Ending]) -> Reviewer:
    """Read ``log`` up to each of the ``cuts``, tell, and begin anew where there is an ending; the last reader."""
    one = broker.reader()
    for name, brand in BRANDS.items():
        broker.offer(one, name, brand)
    for number, (first, last) in enumerate(pairwise([0, *cuts])):
        if number == 2:
            broker.offer(one, "boot", None)
        if number == 4:
            broker.offer(one, "boot", "acme")
        list(one.take(log[first:last]))
        broker.tell(one, endings.get(number, "in order"))
        if number in endings:
            one = broker.reader()
            list(one.take(log[one.begin : last]))
            broker.tell(one)
    return one


@given(
    seed=st.integers(0, 1_000),
    steps=st.lists(st.integers(1, 120), min_size=1, max_size=9),
    endings=st.dictionaries(st.integers(0, 8), st.sampled_from(get_args(Ending)), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_who_goes_on_anywhere_knows_and_tells_to_the_last_bit_what_one_who_never_ended_does(
    seed: int, steps: list[int], endings: dict[int, Ending]
) -> None:
    cuts = [*accumulate(steps)]
    log = reviews_of(seed, cuts[-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reviewer, "LESSON_REVIEWS", 100)
        whole, cut = Broker(), Broker()
        play(whole, log, cuts, {})
        play(cut, log, cuts, endings)
    assert cut.told == whole.told  # nothing twice, nothing left out, in the same order
    assert cut.turned == whole.turned
    assert cut.tones == whole.tones
    assert cut.state == whole.state  # weights, tones, tests and counts alike


def follow(count: int = 300) -> tuple[Broker, Reviewer]:
    """A reader that has told of ``count`` reviews."""
    broker = Broker()
    return broker, play(broker, reviews_of(1, count), [count], {})


def test_a_reader_goes_on_though_the_reviews_that_it_has_learnt_from_have_left_their_topic() -> None:
    broker, one = follow()
    again, later = broker.reader(), records(stream(50, share=0.1, first=300), first=300)
    for each in (one, again):
        list(each.take(later))
    assert again.news() == one.news()
    assert again.state(ID) == one.state(ID)
    assert again.reviews == 50


def test_a_turn_is_counted_once_whoever_counts() -> None:
    broker = Broker()
    one = play(broker, records(stream(600)), [600], {})
    list(one.take(records(stream(50, share=0.1, seed=2, first=600), first=600)))
    broker.tell(one, "before its tones")
    assert one.turned == {"ad": 1, "brand": 1}
    again = broker.reader()
    assert again.turned == one.turned
    owed = again.news()
    assert {tone.key for tone in owed if tone.turned_ms is not None} == {b"ad/shoe", b"brand/acme"}
    assert again.turned == one.turned


@pytest.mark.parametrize("ending", get_args(Ending))
def test_a_turn_that_was_told_is_not_told_again_after_a_restart_and_one_that_was_not_is(ending: Ending) -> None:
    broker = Broker()
    one = play(broker, records(stream(600)), [600], {})
    list(one.take(worse := records(stream(50, share=0.1, seed=2, first=600), first=600)))
    broker.tell(one, ending)
    before = set(broker.turned)
    again = broker.reader()
    list(again.take(worse[again.begin - 600 :]))
    broker.tell(again)
    list(again.take(records(stream(50, share=0.1, seed=3, first=650), first=650)))
    broker.tell(again)
    assert {key: len(tones) for key, tones in broker.turned.items()} == {b"ad/shoe": 1, b"brand/acme": 1}
    assert before == ({b"ad/shoe", b"brand/acme"} if ending == "in order" else set())
    assert [tone for tone in broker.told[b"ad/shoe"] if tone and tone.turned_ms][1:]  # said again, as it is


def test_a_turn_is_counted_though_who_noticed_it_ended_before_he_had_written_all() -> None:
    broker = Broker()
    one = play(broker, records(stream(600)), [600], {})
    list(one.take(later := records(stream(50, share=0.1, seed=2, first=600), first=600)))
    one.news()
    for message in one.state(ID):
        if message.key in {b"ad/shoe", b"brand/acme"}:
            write(broker.state, {message.key: message.value})  # and no more
    again = broker.reader()
    list(again.take(later))
    broker.tell(again)
    assert again.turned == one.turned == {"ad": 1, "brand": 1}
    assert broker.reader().turned == one.turned


def test_what_is_no_review_has_one_dead_letter_though_nobody_holds_it_any_more() -> None:
    broker = Broker()
    wrong = Record("reviews", 0, 0, START_MS, b"shoe", b"{")
    one = broker.reader()
    assert len(list(one.take([wrong]))) == 1
    broker.tell(one)
    again = broker.reader()
    assert list(again.take([wrong])) == []
    assert (again.refused, again.state(ID)) == (0, [])


def test_a_review_that_comes_again_after_a_restart_is_passed_over() -> None:
    broker, _ = follow()
    again, came = broker.reader(), records(stream(1, first=12), first=300)
    list(again.take(came))
    assert (again.reviews, again.repeated) == (0, 1)
    broker.tell(again)
    later = broker.reader()
    list(later.take(came))
    assert (later.reviews, later.repeated) == (0, 0)  # it was counted


def test_who_has_not_written_all_of_a_state_leaves_no_review_heard_twice() -> None:
    broker, one = follow()
    list(one.take(later := records(stream(20, share=0.1, first=300), first=300)))
    gone, news, state = one.gone(), one.news(), one.state(ID)
    assert gone == []
    (shoe,) = (message for message in state if message.key == b"ad/shoe")
    write(broker.state, {b"ad/shoe": shoe.value})  # and no more
    again = broker.reader()
    list(again.take(later))
    assert {tone.key: tone for tone in again.news()} == {tone.key: tone for tone in news}
    written = {message.key: message.value for message in again.state(ID)}
    assert b"ad/shoe" not in written
    assert written | {b"ad/shoe": shoe.value} == {message.key: message.value for message in state}


def test_an_ad_that_is_withdrawn_leaves_nothing_and_begins_anew_when_it_comes_back() -> None:
    broker, one = follow()
    broker.offer(one, "shoe", None)
    broker.tell(one)
    assert b"ad/shoe" not in broker.state
    assert b"brand/acme" in broker.state
    again = broker.reader()
    for each in (one, again):
        each.take_ads([offer("shoe", "acme")])
        list(each.take(records(stream(1, first=300), first=300)))
        assert {tone.key: tone.reviews for tone in each.news()}[b"ad/shoe"] == 1


def test_what_the_one_before_did_not_tell_of_an_ad_is_not_told_once_it_is_withdrawn() -> None:
    broker = Broker()
    one = play(broker, [], [], {})
    list(one.take(records([*stream(600), *stream(50, share=0.1, seed=2, first=600)])))
    broker.tell(one, "before its tones")
    broker.offer(one, "shoe", None)
    again = broker.reader()
    broker.tell(again)
    assert [tone.key for tone in again.newly_turned] == [b"brand/acme"]
    assert {key: broker.tones.get(key) is not None for key in broker.told} == {b"ad/shoe": False, b"brand/acme": True}
    assert broker.told[b"ad/shoe"] == [None]


def test_what_the_one_before_did_not_tell_is_told_before_what_has_come_since() -> None:
    broker = Broker()
    one = play(broker, [], [], {})
    list(one.take(records(stream(20, share=1.0))))
    broker.tell(one, "before its tones")
    again = broker.reader()
    list(again.take(records(stream(20, share=0.0, first=20), first=20)))
    assert [tone.reviews for tone in again.news() if tone.of == "ad"] == [20, 40]


def test_a_state_is_of_all_reviews_that_were_heard_though_none_of_them_is_left() -> None:
    broker, _ = follow(310)
    one = broker.reader()
    list(one.take(records(stream(10, first=310), first=310)))
    broker.tell(one)
    again = broker.reader()  # of the ten that it is to learn from once more none is there
    broker.offer(again, "sock", None)
    broker.tell(again)
    assert known(broker.state, ID, 320).at.next_offset == 320


def test_a_lesson_is_written_when_many_reviews_have_come_or_the_former_is_a_day_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reviewer, "LESSON_REVIEWS", 100)
    broker = Broker()
    one = broker.reader()

    def lessons(first: int, last: int, later_ms: int = 0) -> list[bytes]:
        came = [Record("reviews", 0, at, START_MS + later_ms, b"x", b"{") for at in range(first, last)]
        list(one.take(came))
        before = [key for key in broker.state if key.startswith(b"lesson/")]
        broker.tell(one)
        after = [key for key in broker.state if key.startswith(b"lesson/")]
        assert len(after) == 1  # the former one goes
        return [key for key in after if key not in before]

    assert lessons(0, 1) == [b"lesson/1/0"]
    assert lessons(1, 100) == []
    assert lessons(100, 101) == [b"lesson/101/0"]
    assert lessons(101, 102, DAY_MS - 1) == []
    assert lessons(102, 103, DAY_MS) == [b"lesson/103/0"]
    late = [Record("reviews", 0, 103 + at, START_MS + ms, b"x", b"{") for at, ms in enumerate((2 * DAY_MS, 0))]
    list(one.take(late))
    assert lessons(105, 106) == [b"lesson/106/0"]  # though the oldest of them is the last


def test_one_review_of_a_far_future_does_not_end_daily_lessons() -> None:
    broker = Broker()
    one = broker.reader()

    def taught(offset: int, time_ms: int) -> bool:
        before = set(broker.state)
        list(one.take([Record("reviews", 0, offset, time_ms, b"x", b"{")]))
        broker.tell(one)
        return any(key.startswith(b"lesson/") for key in broker.state.keys() - before)

    assert taught(0, START_MS)
    taught(1, 4_102_444_800_000)  # the year 2100
    assert taught(2, START_MS + 1)
    assert not taught(3, START_MS + DAY_MS)
    assert taught(4, START_MS + DAY_MS + 1)


def test_the_first_lesson_is_written_though_reviews_have_no_time() -> None:
    broker = Broker()
    one = broker.reader()
    list(one.take([Record("reviews", 0, 0, -1, b"x", b"{")]))
    broker.tell(one)
    assert broker.reader().begin == 1


def test_what_was_left_by_who_ended_before_he_was_through_is_deleted_with_the_next_state() -> None:
    broker, _ = follow()
    broker.state[b"lesson/999/0"] = b"half"
    again = broker.reader()
    list(again.take(records(stream(1, first=300), first=300)))
    broker.tell(again)
    assert [key for key in broker.state if key.startswith(b"lesson/")] == [b"lesson/300/0"]
    list(again.take(records(stream(1, first=301), first=301)))
    again.news()
    assert all(message.value is not None for message in again.state(ID))  # and not again


def test_a_lesson_of_which_parts_were_left_is_not_deleted_when_the_next_writes_it_up_to_the_same_review(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reviewer, "LESSON_REVIEWS", 100)
    broker, one = follow()
    list(one.take(later := records(stream(100, first=300), first=300)))
    (part,) = (message for message in one.state(ID) if message.key == b"lesson/400/0")
    write(broker.state, {b"lesson/400/0": part.value, b"lesson/400/1": b"more"})  # and no more
    again = broker.reader()
    list(again.take(later))
    again.news()
    state = again.state(ID)
    assert {message.key for message in state[:2] if message.value is None} == {b"lesson/400/0", b"lesson/400/1"}
    for message in state:  # never more than two lessons, wherever this one ends
        write(broker.state, {message.key or b"": message.value})
    assert [key for key in broker.state if key.startswith(b"lesson/")] == [b"lesson/400/0"]
    assert known(broker.state, ID, 400).at.lesson.next_offset == 400
