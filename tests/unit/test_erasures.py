"""An erasure takes what had been sent by the time of its record, whenever that is read and whatever clocks say."""

from collections.abc import Callable, Sequence

import pytest

from scoring.engine import Engine
from scoring.units import MINUTE_MS
from streams.control import Control
from streams.control_wire import Consent, Erasure
from streams.experiments.referee import Referee
from streams.privacy.consent import Gate
from streams.privacy.requests import Requests
from tests.builders import START_MS, Record, click, impression, record
from tests.unit.consenting import Bench, erasure, refusal, told
from tests.unit.showing import placed
from tests.unit.slices import NOW_MS
from tests.unit.test_experiments import running


def erased(asked_minute: int = 10) -> Record:
    """A request that came in minute 10."""
    return told(erasure("a", START_MS + asked_minute * MINUTE_MS), 0, came_ms=START_MS + 10 * MINUTE_MS)


def sent(minute: int, *, ahead: int = 0, offset: int = 0, **headers: Sequence[tuple[str, bytes | None]]) -> Record:
    event = click("a", time_ms=START_MS + (minute + ahead) * MINUTE_MS)
    return record(event, offset, timestamp=START_MS + minute * MINUTE_MS, **headers)


@pytest.mark.parametrize("again", [(), (("salience.requeued", b"1"),)], ids=["late", "sent back from a dead letter"])
@pytest.mark.parametrize("asked_minute", [6, 10])
def test_what_a_fast_clock_sent_before_an_erasure_and_is_read_after_it_brings_nobody_back(
    engine: Engine, asked_minute: int, again: Sequence[tuple[str, bytes | None]]
) -> None:
    bench = Bench(engine)
    bench.control.take([erased(asked_minute)])
    bench.run()
    effects = bench.run([sent(9, ahead=4, headers=again)])
    assert bench.users() == bench.kept() == set()
    assert effects.counts["erased"] == 1
    bench.run([sent(12, ahead=4, offset=1)])
    assert bench.users() == {b"a"}  # somebody new


def test_what_does_not_tell_when_it_was_sent_was_by_its_own_time(engine: Engine) -> None:
    bench = Bench(engine)
    bench.control.take([erased(6)])
    for minute, users in ((9, set()), (11, {b"a"})):
        bench.run([record(click("a", time_ms=START_MS + minute * MINUTE_MS), minute, timestamp=-1)])
        assert bench.users() == users


def test_what_a_fast_clock_sent_before_an_erasure_is_in_no_experiments_books() -> None:
    control = Control()
    requests = Requests(control, lambda _: 0)
    referee = Referee(gate=Gate(requests.answers, requests.erasures))
    referee.follow(running())
    control.take([erased()])
    referee.settle(requests.since(0, 0), control.next_offset)
    for minute, people in ((9, 0), (12, 1)):
        shown = impression("a", time_ms=START_MS + (minute + 4) * MINUTE_MS, placement_id=placed("a", (1, 1)))
        referee.take_impressions([record(shown, minute, timestamp=START_MS + minute * MINUTE_MS)], NOW_MS)
        assert referee.people.number == people


@pytest.mark.parametrize("ask", [erasure, refusal])
def test_what_was_asked_for_and_is_taken_back_is_heeded_no_more(
    engine: Engine, ask: Callable[[str, int], Erasure | Consent]
) -> None:
    bench, asked = Bench(engine), ask("a", START_MS)
    bench.tell(asked)
    bench.run()
    bench.control.take([Record("control", 0, 1, START_MS, asked.key, None)])
    bench.run([record(click("a", time_ms=START_MS + MINUTE_MS), 0, timestamp=START_MS - 1)])
    assert bench.users() == {b"a"}


def test_an_erasure_that_is_written_once_more_keeps_its_place_and_is_of_its_newest_record() -> None:
    control = Control()
    said = [told(erasure(user), at, came_ms=START_MS + at) for at, user in enumerate("aba")]
    control.take(said)
    assert {user: each.told_ms for user, each in control.all(Erasure).items()} == {"a": START_MS + 2, "b": START_MS + 1}
    assert list(control.all(Erasure)) == ["a", "b"]
