"""Why a value is no message, in words that its producer can go by, and that name nobody."""

import re
import tracemalloc
from collections.abc import Iterator
from types import SimpleNamespace

import msgspec
import pytest

from scoring.catalogue import Catalogue
from streams import refusal
from streams.feeds.catalogue import apply_ads
from streams.feeds.refused_ads import RefusedAds
from streams.refusal import Refusal
from streams.reviews.reviewer import Reviewer
from streams.wire import UNREADABLE, Ad, Click
from tests.builders import START_MS, Record, ad, click
from tests.unit.slices import new_state, run, step_of

FIX = "correct it where it is sent"
WHOLE = f"expected a whole JSON object; {FIX}"
HALF = "half of a character; cut texts between characters"


def changed(message: Click | Ad, **fields: object) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(message) | fields)


TOLD: dict[str, tuple[type[Click | Ad], bytes, str]] = {
    "a number below its bound": (
        Click,
        changed(click(), value_micros=-5),
        f"Expected `int` >= 0 - at `$.value_micros`; found -5; {FIX}",
    ),
    "a fraction above its bound": (
        Click,
        changed(click(), viewed_s=86_400.5),
        f"Expected `float` <= 86400.0 - at `$.viewed_s`; found 86400.5; {FIX}",
    ),
    "a text too long": (
        Ad,
        changed(ad(), title="t" * 1_000),
        f"Expected `str` of length <= 512 - at `$.title`; found a length of 1,000; {FIX}",
    ),
    "a text within a list": (
        Ad,
        changed(ad(), tags=["a", "b" * 129]),
        f"Expected `str` of length <= 128 - at `$.tags[1]`; found a length of 129; {FIX}",
    ),
    "a list too long": (
        Ad,
        changed(ad(), tags=["a"] * 33),
        f"Expected `array` of length <= 32 - at `$.tags`; found a length of 33; {FIX}",
    ),
    "of a value, and malformed after it": (
        Click,
        b'{"time_ms":-1,"user_id":01}',
        f"Expected `int` >= 0 - at `$.time_ms`; found what cannot be read; {FIX}",
    ),
    "of a value told twice, of which it saw the first": (
        Click,
        b'{"time_ms":-1,"time_ms":5}',
        f"Expected `int` >= 0 - at `$.time_ms`; found what may be one of several; {FIX}",
    ),
    "the same, its name in other signs": (
        Click,
        rb'{"time_ms":-1,"time\u005fms":5}',
        f"Expected `int` >= 0 - at `$.time_ms`; found what may be one of several; {FIX}",
    ),
    "of a value beside a text that is its name": (
        Click,
        b'{"time_ms":-1,"event_id":"time_ms"}',
        f"Expected `int` >= 0 - at `$.time_ms`; found -1; {FIX}",
    ),
    "of a value told twice, with blanks": (
        Click,
        b'{"time_ms":-1,"time_ms" \n: 5}',
        f"Expected `int` >= 0 - at `$.time_ms`; found what may be one of several; {FIX}",
    ),
    "of a value beside a text with an accent": (
        Click,
        rb'{"surface":"caf\u00e9","time_ms":-1}',
        f"Expected `int` >= 0 - at `$.time_ms`; found -1; {FIX}",
    ),
    "another type, which may be a person's number": (
        Click,
        changed(click(), user_id=491_701_234),
        "Expected `str`, got `int` - at `$.user_id`",
    ),
    "a text that is none of those expected, which may name a person": (
        Click,
        changed(click(), kind="anna@example.org - at `$.surface`\n"),
        f"Invalid enum value - at `$.kind`; found a length of 34; {FIX}",
    ),
    "a field that is not there": (Click, b"{}", "Object missing required field `event_id`"),
    "a text cut within an emoji": (Ad, rb'{"title":"Tent \ud83d"}', rf"a text holds \ud83d, {HALF}"),
    "the same, and more text": (Ad, rb'{"title":"Tent \uD83D..."}', rf"a text holds \uD83D, {HALF}"),
    "half an emoji and another escape": (Ad, rb'{"title":"\ud83d\u0041"}', rf"a text holds \ud83d, {HALF}"),
    "an emoji's second half": (Ad, rb'{"title":"\ude00"}', rf"a text holds \ude00, {HALF}"),
    "half an emoji in a field that is passed over": (
        Click,
        rb'{"title":"\ud83d and more text"}',
        rf"a text holds \ud83d, {HALF}",
    ),
    "an emoji's second half behind a whole one": (
        Ad,
        rb'{"title":"\ud83d\ude00\ude00"}',
        rf"a text holds \ude00, {HALF}",
    ),
    "the second half behind a backslash and letters": (
        Ad,
        rb'{"title":"\\ud83d\ude00"}',
        rf"a text holds \ude00, {HALF}",
    ),
    "half an emoji far before a record's end that is cut off": (
        Ad,
        rb'{"title":"' + rb"\ud83d\ude00" * 9 + rb'","x":"',
        f"the value ends unfinished at byte 125; {WHOLE}",
    ),
    "a whole emoji, and cut off": (
        Ad,
        rb'{"title":"\ud83d\ude00',
        f"the value ends unfinished at byte 22; {WHOLE}",
    ),
    "a backslash and letters, and cut off": (
        Ad,
        rb'{"title":"\\ud83d',
        f"the value ends unfinished at byte 17; {WHOLE}",
    ),
    "more of them, and cut off": (
        Ad,
        rb'{"title":"' + b"\\" * 14 + b"ud83d",
        f"the value ends unfinished at byte 29; {WHOLE}",
    ),
    "nothing": (Ad, b"", f"the value is empty; {WHOLE}"),
    "no number, before half an emoji": (
        Ad,
        rb'{"bid_micros":01,"title":"\ud83d"}',
        "JSON is malformed: invalid number (byte 15)",
    ),
}


@pytest.mark.parametrize(("of", "value", "told"), TOLD.values(), ids=TOLD)
def test_a_refusal_tells_what_was_found(of: type[Click | Ad], value: bytes, told: str) -> None:
    with pytest.raises(UNREADABLE) as caught:
        msgspec.json.decode(value, type=of)
    assert Refusal.of(caught.value, value).message == told


@pytest.mark.parametrize("of", [Click, Ad])
@pytest.mark.parametrize("after", range(14))
@pytest.mark.parametrize("before", ["", "e", "\\\\", r"\\\\", r"\ud83d\ude00" * 3, r"\u0041" * 5])
def test_half_an_emoji_is_named_wherever_the_text_goes_on_or_ends(
    of: type[Click | Ad], before: str, after: int
) -> None:
    value = rf'{{"title":"{before}\ud83d{"." * after}"}}'.encode()
    with pytest.raises(UNREADABLE) as caught:
        msgspec.json.decode(value, type=of)
    assert Refusal.of(caught.value, value).message == rf"a text holds \ud83d, {HALF}"


@pytest.mark.parametrize("escape", [r"\u0041", r"\\", r"\ud83d\ude00"])
def test_of_a_record_that_is_cut_off_the_end_alone_is_looked_at(escape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All escapes of a megabyte, one by one, keep the thread that places ads for a quarter of a second."""
    value, looked, real = f'{{"title":"{escape * 1_000}'.encode(), list[tuple[int, int]](), refusal._ESCAPE

    def told(value: bytes, begin: int = 0, end: int = 10**6) -> Iterator[re.Match[bytes]]:
        looked.append((begin, end))
        return real.finditer(value, begin, end)

    monkeypatch.setattr(refusal, "_ESCAPE", SimpleNamespace(finditer=told))
    with pytest.raises(UNREADABLE) as caught:
        msgspec.json.decode(value, type=Ad)
    assert Refusal.of(caught.value, value).message == f"the value ends unfinished at byte {len(value):,}; {WHOLE}"
    ((begin, end),) = looked
    assert end - begin < 20


def test_of_a_record_of_many_names_that_of_the_value_alone_is_kept() -> None:
    """A megabyte of them, each made an object, keeps the thread that places ads for as long as fifty sound records."""
    value = changed(click(), time_ms=-1, **{f"name-{number}": number for number in range(9_000)})
    with pytest.raises(UNREADABLE) as caught:
        msgspec.json.decode(value, type=Click)
    refused = Refusal.of(caught.value, value)  # what is kept for every record is made before it is measured
    tracemalloc.start()
    assert Refusal.of(caught.value, value) == refused
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.message.endswith(f"found -1; {FIX}")
    assert most < len(value) / 10


def test_letters_of_every_topic_tell_what_was_found() -> None:
    refused = RefusedAds()
    apply_ads(Catalogue(), [Record("ads", 0, 0, START_MS, b"ad-1", changed(ad(), bid_micros=-1))], refused)
    ((_, _, _, of_ad),) = refused.take(0)[0]
    event = Record("clicks", 0, 0, START_MS, b"user-1", changed(click(), value_micros=-1))
    (of_event,) = run(step_of(), new_state(), [event]).messages["dead-letters"]
    review = b'{"review_id":"r","ad_id":"a","time_ms":-1,"text":""}'
    (of_review,) = Reviewer().take([Record("reviews", 0, 0, START_MS, b"a", review)])
    told = [of_ad, *(dict(each.headers)["salience.message"].decode() for each in (of_event, of_review))]
    assert all("; found -1; " in message for message in told), told
