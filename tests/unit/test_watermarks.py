"""Watermarks of the forgotten: they only rise, and there is a bound to how many are held."""

from streams.privacy.consent import Watermarks, watermark_key
from tests.builders import START_MS


def test_a_watermark_never_falls() -> None:
    watermarks = Watermarks()
    for time_ms in (START_MS, START_MS - 1, START_MS + 1, 0):
        watermarks.raise_to(b"a", time_ms)
    assert watermarks.of(b"a") == START_MS + 1


def test_a_watermark_does_not_fall_to_what_a_changelog_tells_and_goes_where_it_says_so() -> None:
    watermarks = Watermarks()
    watermarks.raise_to(b"a", START_MS)
    for time_ms, held_ms in ((START_MS - 500, START_MS), (START_MS + 1, START_MS + 1), (START_MS, START_MS + 1)):
        watermarks.take(watermark_key(b"a"), time_ms.to_bytes(8, "big"))
        assert watermarks.of(b"a") == held_ms
    watermarks.take(watermark_key(b"a"), None)
    assert watermarks.of(b"a") == -1


def test_of_more_watermarks_than_a_lane_may_have_those_that_end_first_go() -> None:
    watermarks = Watermarks(most=80)
    for number in range(81):
        watermarks.raise_to(b"u%d" % number, START_MS + 100 - number)
    gone = [number for number in range(81) if watermarks.of(b"u%d" % number) < 0]
    assert gone == list(range(71, 81))
    told = dict(watermarks.changes())
    assert sum(value is None for value in told.values()) == 10
    restored = Watermarks.restore({key: value for key, value in told.items() if value}, most=71)
    restored.raise_to(b"more", START_MS)
    assert len(restored.until_ms) == 71 - 71 // 8 + 1
