"""Watermarks of the forgotten: they only rise, and there is a bound to how many are held."""

from typing import Any, NoReturn

import pytest

from scoring.engine import Engine
from streams.control_wire import Consent
from streams.privacy.consent import ERASED_KEY, Gate, Verdict, Watermarks, digest_of, watermark_key
from tests.builders import START_MS, click, record
from tests.unit.consenting import Bench, by_digest, erasure, grant, no_of


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
    Gate(watermarks=watermarks).bound()
    gone = [number for number in range(81) if watermarks.of(b"u%d" % number) < 0]
    assert gone == list(range(71, 81))
    told = dict(watermarks.changes())
    assert sum(value is None for value in told.values()) == 10
    restored = Watermarks.restore({key: value for key, value in told.items() if value}, most=71)
    restored.raise_to(b"more", START_MS)
    Gate(watermarks=restored).bound()
    assert len(restored.until_ms) == 71 - 71 // 8 + 1


def test_a_slice_drops_what_a_lane_may_not_have_and_tells_its_changelog(engine: Engine) -> None:
    bench = Bench(engine, presumed=True)
    bench.state.erased = Watermarks(most=8)
    refusals = [click(f"u{number}", time_ms=START_MS + number, consent=False) for number in range(20)]
    bench.run([record(each, offset) for offset, each in enumerate(refusals)])
    assert len(bench.state.erased.until_ms) == 8
    kept = Watermarks.restore({key: value for key, value in bench.changelog.items() if value})
    assert kept.until_ms.keys() == bench.state.erased.until_ms.keys()


def test_at_the_bound_those_go_last_that_guard_an_erasure_or_end_a_consent_that_stands() -> None:
    answers = by_digest(grant("agreed", START_MS), grant("again", START_MS + 9))
    gate = Gate(answers, by_digest(erasure("erased", START_MS)), Watermarks(most=8))
    marks = gate.watermarks
    for user in (b"erased", b"agreed", b"again"):
        marks.raise_to(user, START_MS)
        marks.say_no(user, START_MS + 5)
    for number in range(20):
        marks.raise_to(b"u%d" % number, START_MS + 1 + number)
        gate.bound()
    left = [user for user in (b"erased", b"agreed", b"again") if marks.of(user) == START_MS]
    assert (left, len(marks.until_ms)) == ([b"erased", b"agreed"], 8)


@pytest.mark.parametrize(("no_ms", "verdict"), [(4, Verdict.ADMITTED), (5, Verdict.WITHOUT), (6, Verdict.WITHOUT)])
@pytest.mark.parametrize("presumed", [False, True])
def test_a_consent_that_a_no_has_ended_counts_no_more_however_late_an_operator_asks_for_one(
    presumed: bool, no_ms: int, verdict: Verdict
) -> None:
    answers = by_digest(grant("a", START_MS + 5))
    before = Gate(answers, {}, Watermarks(), presumed=presumed)
    before.watermarks.raise_to(b"a", START_MS)
    before.watermarks.say_no(b"a", START_MS + no_ms)
    before.expire(START_MS + 7)
    after = Gate(answers, {}, before.watermarks, presumed=False)
    assert after.judge(b"a", None, START_MS + 8, START_MS + 8) == verdict
    assert (after.watermarks.of(b"a") == START_MS) == (verdict == Verdict.WITHOUT)


class Looked(dict[bytes, Consent]):
    """Answers of which each that is looked at is written down."""

    def __init__(self, *said: Consent) -> None:
        super().__init__(by_digest(*said))
        self.at: list[bytes] = []

    def get(self, digest: bytes, default: Any = None) -> Any:
        self.at.append(digest)
        return super().get(digest, default)

    def __iter__(self) -> NoReturn:
        raise AssertionError("all were looked through")

    keys = values = items = __iter__  # type: ignore[assignment]  # whichever way


def test_an_hours_expiry_looks_at_the_answers_of_those_alone_whose_watermarks_have_ended() -> None:
    answers = Looked(*(grant(f"u{number}", START_MS) for number in range(9)))
    gate = Gate(answers)
    for user, time_ms in ((b"u1", START_MS), (b"silent", START_MS), (b"u2", START_MS + 7)):
        gate.watermarks.raise_to(user, time_ms)
        gate.watermarks.say_no(user, START_MS + 5)
    gate.expire(START_MS + 7)
    assert answers.at == [digest_of(b"u1"), digest_of(b"silent")]
    assert {*gate.watermarks.until_ms} == {digest_of(b"u1"), digest_of(b"u2")}


def test_a_no_is_kept_beside_the_watermark_and_neither_falls() -> None:
    marks = Watermarks()
    marks.raise_to(b"a", START_MS)
    assert dict(marks.changes()) == {watermark_key(b"a"): START_MS.to_bytes(8, "big")}
    for sent_ms in (START_MS + 7, START_MS + 3):
        marks.say_no(b"a", sent_ms)
    told = dict(marks.changes())
    assert told == {watermark_key(b"a"): START_MS.to_bytes(8, "big") + (START_MS + 7).to_bytes(8, "big")}
    again = Watermarks.restore(told)
    for value in (START_MS.to_bytes(8, "big"), (START_MS - 1).to_bytes(8, "big") * 2):
        again.take(watermark_key(b"a"), value)
        assert (again.of(b"a"), no_of(again, b"a")) == (START_MS, START_MS + 7)
    again.take(watermark_key(b"a"), None)
    assert (again.of(b"a"), no_of(again, b"a")) == (-1, -1)


def test_a_mark_of_a_development_version_is_dropped_from_the_changelog() -> None:
    key = ERASED_KEY + bytes(16)
    marks = Watermarks.restore({key: ((1 << 50) + START_MS).to_bytes(8, "big")})
    assert (marks.until_ms, dict(marks.changes())) == ({}, {key: None})
