"""What was sent before the record of an erasure is what that takes, to the millisecond, for whoever reads it."""

import pytest

from streams.control import Control
from streams.control_wire import Erasure
from streams.decode import sent
from streams.experiments.service import RefereeService
from streams.learnable import Learnable
from streams.privacy.consent import Gate, Verdict, Watermarks
from streams.privacy.requests import Requests
from streams.settings import Settings
from tests.builders import START_MS, click, record
from tests.unit.consenting import by_digest, erasure, grant, told
from tests.unit.test_learnable import learnt

CAME_MS = START_MS + 1_000
LATER_MS = START_MS + 600_000


def gate() -> Gate:
    """Of a lane that has heard, at `CAME_MS`, of an erasure that was dated earlier, and has met it."""
    control = Control()
    control.take([told(erasure("a"), 0, came_ms=CAME_MS)])
    marks = Watermarks()
    marks.raise_to(b"a", START_MS)
    return Gate(erasures=by_digest(*control.all(Erasure).values()), watermarks=marks)


@pytest.mark.parametrize(
    ("said", "sent_ms", "verdict"),
    [
        (None, CAME_MS, Verdict.ERASED),
        (None, CAME_MS + 1, Verdict.ADMITTED),
        (False, CAME_MS, Verdict.ERASED),
        (False, CAME_MS + 1, Verdict.REFUSED),
    ],
)
def test_what_was_sent_by_the_millisecond_of_an_erasures_record_is_passed_over_a_no_too(
    said: bool | None, sent_ms: int, verdict: Verdict
) -> None:
    assert gate().judge(b"a", said, LATER_MS, sent_ms) is verdict


def test_every_event_is_judged_while_an_erasure_stands() -> None:
    assert Gate().stands_open(said=False)
    assert not Gate(erasures=by_digest(erasure("a"))).stands_open(said=False)


@pytest.mark.parametrize(("agreed_ms", "verdict"), [(CAME_MS, Verdict.WITHOUT), (CAME_MS + 1, Verdict.ADMITTED)])
def test_an_erasure_ends_the_consents_that_came_by_its_millisecond_where_silence_means_no(
    agreed_ms: int, verdict: Verdict
) -> None:
    control = Control()
    requests = Requests(control, lambda _: 0)
    control.take([told(erasure("a"), 0, came_ms=CAME_MS), told(grant("a"), 1, came_ms=agreed_ms)])
    opted = Gate(requests.answers, requests.erasures, presumed=False)
    assert opted.judge(b"a", None, LATER_MS, LATER_MS) is verdict
    assert opted.judge(b"a", True, LATER_MS, LATER_MS) is Verdict.ADMITTED


@pytest.mark.parametrize("presumed", [True, False])
@pytest.mark.parametrize("said", [True, None])
def test_what_was_sent_before_a_no_is_passed_over_however_far_its_devices_clock_is_ahead(
    said: bool | None, presumed: bool
) -> None:
    marks = Watermarks()
    marks.say_no(b"a", CAME_MS)
    marks.raise_to(b"a", START_MS)
    heard = Gate(watermarks=marks, presumed=presumed)
    assert heard.judge(b"a", said, LATER_MS, CAME_MS - 1) is Verdict.ERASED
    # What a device sends at once, perhaps of hours, goes by the order in which it was done.
    assert heard.judge(b"a", True, START_MS, CAME_MS) is Verdict.ERASED
    assert heard.judge(b"a", True, START_MS + 1, CAME_MS) is Verdict.ADMITTED


@pytest.mark.parametrize(
    ("time_ms", "sent_ms", "verdict"),
    [
        (LATER_MS, CAME_MS - 1, Verdict.WITHOUT),
        (LATER_MS, CAME_MS, Verdict.ADMITTED),
        (START_MS, LATER_MS, Verdict.ADMITTED),
        (START_MS - 1, LATER_MS, Verdict.WITHOUT),
    ],
)
def test_where_silence_means_no_a_consent_counts_for_what_was_done_after_it_and_sent_after_its_record(
    time_ms: int, sent_ms: int, verdict: Verdict
) -> None:
    control = Control()
    requests = Requests(control, lambda _: 0)
    control.take([told(grant("a"), 0, came_ms=CAME_MS)])
    assert Gate(requests.answers, presumed=False).judge(b"a", None, time_ms, sent_ms) is verdict


@pytest.mark.parametrize(("no_ms", "kept"), [(CAME_MS, True), (CAME_MS - 1, False)])
def test_a_no_stays_known_as_long_as_a_consent_stands_that_came_by_its_millisecond(no_ms: int, kept: bool) -> None:
    control, marks = Control(), Watermarks()
    requests = Requests(control, lambda _: 0)
    control.take([told(grant("a"), 0, came_ms=CAME_MS)])
    marks.say_no(b"a", no_ms)
    Gate(requests.answers, watermarks=marks).expire(LATER_MS)
    assert (marks.of(b"a") >= 0) is kept


@pytest.mark.parametrize("after_ms", [0, 1])
def test_what_was_sent_by_the_millisecond_of_an_erasures_record_is_not_learnt_from(after_ms: int) -> None:
    event = record(click("a", time_ms=LATER_MS, event_id="ahead"), timestamp=CAME_MS + after_ms)
    found, _ = learnt([event], told(erasure("a"), 0, came_ms=CAME_MS), now_ms=LATER_MS)
    assert found == ["ahead"] * after_ms


def test_who_was_erased_was_forgotten_when_the_record_came_however_the_request_was_dated() -> None:
    learnable = Learnable({}, presumed=True, now_ms=LATER_MS, tolerance_ms=0, entries_max=100)
    learnable.control.take([told(erasure("a"), 0, came_ms=CAME_MS)])
    learnable.settle()
    assert learnable._forgotten_ms(b"a") == CAME_MS


def test_a_record_was_sent_no_later_than_events_may_be_dated() -> None:
    assert [sent(record(click("a"), timestamp=ms), START_MS, CAME_MS) for ms in (CAME_MS - 1, CAME_MS + 1, -1)] == [
        CAME_MS - 1,
        CAME_MS,
        START_MS,
    ]


def test_the_referee_goes_by_the_erasures_that_it_hears_of() -> None:
    service = RefereeService(Settings(), 1_000, lambda _: None)
    service._control.take([told(erasure("a"), 0, came_ms=CAME_MS)])
    assert service._referee._gate.judge(b"a", None, LATER_MS, CAME_MS) is Verdict.ERASED
