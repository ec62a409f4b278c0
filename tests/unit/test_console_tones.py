"""The console tells whose reviews have turned of late, and keeps the latest of many."""

from streams.console.alarms import Alarm
from streams.console.desk import TURNED_MAX, Desk
from streams.lag.board import Report
from streams.lag.monitor import News
from streams.settings import Settings
from streams.wire import Outcome, Tone, encode_json
from tests.builders import START_MS, Record

NEWS = News(
    time_ms=START_MS,
    age_s=0.1,
    stale=False,
    polls=1,
    failed=0,
    poll_s=0.01,
    error="",
    report=Report(watched_s=60, groups=()),
)


def record(name: str, turned_ms: int | None) -> Record:
    tone = Tone(of="brand", name=name, reviews=90, tone=0.3, turned_ms=turned_ms, time_ms=START_MS)
    return Record("tones", 0, 0, START_MS, tone.key, encode_json(tone))


def alarms(desk: Desk) -> list[Alarm]:
    found = desk.tick(NEWS, START_MS, caught_up=True, skipped=0).alarms
    return [alarm for alarm in found if alarm.name == "SalienceToneTurned"]


def turned(desk: Desk) -> list[object]:
    return [alarm.about["name"] for alarm in alarms(desk)]


def test_a_tone_is_an_alarm_for_half_an_hour_and_until_it_is_taken_back() -> None:
    desk = Desk(Settings(), 1)
    (tail,) = [tail for tail in desk.tails() if tail.topic == "tones"]
    tail.take([record("acme", START_MS - 1_000), record("well", None), record("old", START_MS - 3_600_000)])
    tail.take([Record("tones", 0, 0, START_MS, b"brand/odd", b"{")])
    assert turned(desk) == ["acme"]
    assert desk.malformed == 1
    tail.take([Record("tones", 0, 0, START_MS, b"brand/acme", None)])
    assert turned(desk) == []


def test_a_turn_is_no_alarm_for_as_long_as_nothing_becomes_known_of_impressions() -> None:
    desk = Desk(Settings(), 1)
    take = {tail.topic: tail.take for tail in desk.tails()}
    day_ms = 86_400_000
    last = Outcome(
        event="e", ad_id="a", shown_ms=START_MS - 2 * day_ms, known_ms=START_MS - 2 * day_ms, predicted=0.1,
        attention=0.1, clicked=False, arm="engine", model="m",
    )  # fmt: skip
    take["outcomes"]([Record("outcomes", 0, 0, START_MS, None, encode_json(last))])
    take["tones"]([record("acme", START_MS - day_ms), record("today", START_MS - 1_000)])
    assert turned(desk) == ["today"]


def test_of_too_many_turns_the_latest_are_told_and_as_many_as_are_held_counted() -> None:
    desk = Desk(Settings(), 1)
    (tail,) = [tail for tail in desk.tails() if tail.topic == "tones"]
    tail.take([record(f"b{at}", START_MS - at) for at in range(TURNED_MAX + 50)])
    assert turned(desk) == ["b0", "b1", "b2"]
    assert alarms(desk)[-1].more == TURNED_MAX - 3
