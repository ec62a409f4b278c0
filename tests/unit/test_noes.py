"""A no wins: over an older yes, over clocks that are ahead, and over what is still placed."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import pytest

from scoring.engine import Engine
from scoring.units import DAY_MS
from streams.control_wire import Consent, Erasure
from streams.privacy.consent import ERASED_KEY, Watermarks, watermark_key
from streams.step import Effects
from streams.wire import Placement
from tests.builders import START_MS, Record, click, impression, record, records
from tests.unit.consenting import Bench, erasure, grant, no_of, opened, refusal, told
from tests.unit.slices import NOW_MS

YEAR_MS = 365 * DAY_MS


def placed(effects: Effects, user: bytes) -> list[Placement | None]:
    of = [message.value for message in effects.messages["placements"] if message.key == user]
    return [None if value is None else msgspec.json.decode(value, type=Placement) for value in of]


# --- over an older yes ---------------------------------------------------------------------------------------


@pytest.fixture
def agreed(engine: Engine) -> Bench:
    """Where people opt in, and one has, on the control topic."""
    bench = Bench(engine, presumed=False)
    bench.tell(grant("a"))
    bench.run([record(click("a", time_ms=START_MS + 10), 0)])
    assert bench.users() == {b"a"}
    return bench


def restart(bench: Bench) -> None:
    """Let the lane go on from its changelog."""
    bench.state.erased = Watermarks.restore(bench.changelog)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_no_on_an_event_ends_an_older_consent_that_silence_would_lean_on(agreed: Bench, restarts: bool) -> None:
    agreed.run([record(click("a", time_ms=START_MS + 20, consent=False), 1)])
    agreed.run([record(click("z", time_ms=START_MS + YEAR_MS), 9)], now_ms=START_MS + YEAR_MS)
    assert no_of(agreed.state.erased, b"a") == START_MS + 20  # the consent stands as long as nobody answers anew
    if restarts:
        restart(agreed)
    effects = agreed.run([record(click("a", "ad-2", time_ms=START_MS + 30), 2)])
    assert agreed.users() == set()
    (placement,) = placed(effects, b"a")
    assert placement is not None
    assert placement.context_only
    agreed.run([record(click("a", "ad-3", time_ms=START_MS + 40, consent=True), 3)])
    assert agreed.users() == {b"a"}  # whoever says yes again is remembered again


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("ahead_ms", [0, 60_000, YEAR_MS], ids=["right", "ahead", "far ahead"])
def test_a_consent_that_is_newer_than_a_no_stands_whatever_the_clock_of_the_no(
    agreed: Bench, ahead_ms: int, restarts: bool
) -> None:
    no = click("a", time_ms=START_MS + 20 + ahead_ms, consent=False)
    agreed.run([record(no, 1, timestamp=START_MS + 20)])
    agreed.tell(grant("a", START_MS + 25))
    agreed.run()
    if restarts:
        restart(agreed)
    later_ms = START_MS + 120_000
    agreed.run([record(click("a", "ad-2", time_ms=later_ms), 2)], now_ms=later_ms)
    assert agreed.users() == {b"a"}


def test_a_no_of_a_clock_that_is_behind_ends_the_consent_before_it(engine: Engine) -> None:
    bench = Bench(engine, presumed=False)
    bench.tell(refusal("a"), grant("a", START_MS + 60))
    bench.run([record(click("a", time_ms=START_MS + 50, consent=False), 1, timestamp=START_MS + 120)])
    bench.run([record(click("a", "ad-2", time_ms=START_MS + 130), 2)])
    assert bench.users() == set()


def test_a_no_that_is_older_than_a_consent_and_comes_again_takes_nothing_back(agreed: Bench) -> None:
    agreed.run([record(click("a", time_ms=START_MS - 20, consent=False), 1, timestamp=START_MS - 10)])
    agreed.run([record(click("a", "ad-2", time_ms=START_MS + 30), 2)])
    assert agreed.users() == {b"a"}


@pytest.mark.parametrize("presumed", [False, True])
@pytest.mark.parametrize("answers", [[], [refusal("a", START_MS + 30)], [grant("a", START_MS + 30)]])
def test_a_no_goes_with_its_watermark_where_no_consent_stands_that_it_ends(
    engine: Engine, presumed: bool, answers: list[Consent]
) -> None:
    bench = Bench(engine, presumed=presumed)
    bench.run([record(click("a", time_ms=START_MS + 20, consent=False), 1)])
    bench.tell(*answers)
    bench.run()
    assert no_of(bench.state.erased, b"a") == START_MS + 20
    bench.run([record(click("z", time_ms=START_MS + YEAR_MS, consent=True), 2)], now_ms=START_MS + YEAR_MS)
    assert (no_of(bench.state.erased, b"a"), bench.state.erased.of(b"a")) == (-1, -1)
    assert not [key for key in bench.changelog if key.startswith(ERASED_KEY)]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_no_ends_a_consent_before_it_that_is_read_after_it(engine: Engine, restarts: bool) -> None:
    bench = Bench(engine, presumed=False)
    bench.run([record(click("a", time_ms=START_MS + 20, consent=False), 1)])
    if restarts:
        restart(bench)
    bench.tell(grant("a", START_MS + 10))
    bench.run([record(click("a", "ad-2", time_ms=START_MS + 30), 2)])
    assert bench.users() == set()
    bench.tell(grant("a", START_MS + 40))
    bench.run([record(click("a", "ad-3", time_ms=START_MS + 50), 3)])
    assert bench.users() == {b"a"}


@pytest.mark.parametrize("first", ["no", "erasure"])
def test_a_no_by_a_right_clock_takes_what_a_fast_one_did_since_it_was_forgotten(engine: Engine, first: str) -> None:
    bench, minute_ms, ahead_ms = Bench(engine), 60_000, 240_000

    def sent(at_ms: int, offset: int, ahead_ms: int = 0, consent: bool | None = None) -> Record:
        event = click("a", f"ad-{offset}", START_MS + at_ms + ahead_ms, consent=consent)
        return record(event, offset, timestamp=START_MS + at_ms)

    bench.run([sent(0, 0, ahead_ms, False if first == "no" else None)])
    if first == "erasure":
        bench.tell(erasure("a", START_MS + 6_000))
    bench.run([sent(30_000, 1, ahead_ms, True)])
    assert bench.users() == {b"a"}
    bench.run([sent(minute_ms, 2, consent=False)])
    assert bench.users() == bench.kept() == set()
    bench.run([sent(10 * minute_ms, 3)], now_ms=START_MS + 10 * minute_ms)
    assert bench.users() == {b"a"}  # somebody new, where silence means yes


def test_of_two_noes_in_one_millisecond_the_second_is_the_first_once_more(engine: Engine) -> None:
    bench = Bench(engine)
    no, yes = (click("a", time_ms=START_MS + at, consent=said) for at, said in ((0, False), (1, True)))
    sent = [record(each, at, timestamp=START_MS + 5) for at, each in enumerate((no, yes, no))]
    for each in sent:
        bench.run([each])
    assert bench.users() == {b"a"}
    bench.run([record(msgspec.structs.replace(no, time_ms=START_MS + 2), 3, timestamp=START_MS + 5)])
    assert bench.users() == set()  # which is dated after all that is held back


@pytest.mark.parametrize("asks", ["no", "erasure"])
def test_whoever_is_forgotten_has_a_record_of_it_though_the_watermark_was_higher(engine: Engine, asks: str) -> None:
    bench = Bench(engine)
    bench.tell(erasure("a", START_MS))
    bench.run([record(click("a", time_ms=START_MS + 10), 0)])
    bench.control.take([told(grant("a", START_MS + 100), 1, came_ms=START_MS + 15)])
    bench.run()
    assert (bench.users(), bench.state.erased.of(b"a")) == ({b"a"}, START_MS + 99)
    if asks == "erasure":
        bench.tell(erasure("a", START_MS + 20))
    no = record(click("a", time_ms=START_MS + 20, consent=False), 1)
    effects = bench.run([no] if asks == "no" else [])
    assert bench.users() == set()
    assert [message.key for message in effects.watermarks] == [watermark_key(b"a")]  # its readers tell it by that


def test_a_no_ends_the_consent_before_it_of_a_device_whose_clock_is_ahead(engine: Engine) -> None:
    bench, minute_ms = Bench(engine, presumed=False), 60_000
    ahead = told(grant("a", START_MS + 4 * minute_ms), bench.control.next_offset, came_ms=START_MS)
    bench.control.take([ahead])
    no_ms, later_ms = START_MS + minute_ms, START_MS + 10 * minute_ms
    no = click("a", time_ms=no_ms + 4 * minute_ms, consent=False)
    bench.run([record(no, 1, timestamp=no_ms)], now_ms=no_ms)
    bench.run([record(click("a", "ad-2", time_ms=later_ms), 2)], now_ms=later_ms)
    assert bench.users() == set()


@pytest.mark.parametrize("read_at_once", [False, True])
@pytest.mark.parametrize("behind_ms", [0, 120_000])
def test_a_consent_that_comes_after_a_no_counts_whatever_its_devices_clock_says(
    agreed: Bench, behind_ms: int, read_at_once: bool
) -> None:
    minute_ms = 60_000
    no_ms, yes_ms, later_ms = (START_MS + at * minute_ms for at in (10, 11, 70))
    no = record(click("a", time_ms=no_ms, consent=False), 1, timestamp=no_ms)
    anew = told(grant("a", yes_ms - behind_ms), agreed.control.next_offset, came_ms=yes_ms)
    if read_at_once:
        agreed.run([no], now_ms=no_ms)
    agreed.control.take([anew])
    agreed.run([] if read_at_once else [no], now_ms=yes_ms)
    agreed.run([record(click("a", "ad-2", time_ms=later_ms), 2)], now_ms=later_ms)
    assert agreed.users() == {b"a"}


@pytest.mark.parametrize("presumed", [False, True])
@pytest.mark.parametrize("former", [refusal, erasure])
def test_a_no_by_a_right_clock_is_heeded_though_the_consent_before_it_was_of_a_fast_one(
    engine: Engine, presumed: bool, former: Callable[[str, int], Consent | Erasure]
) -> None:
    bench, minute_ms, ahead_ms = Bench(engine, presumed=presumed), 60_000, 240_000
    bench.control.take([told(former("a", START_MS - DAY_MS), 0, came_ms=START_MS - DAY_MS)])
    bench.run()
    bench.control.take([told(grant("a", START_MS + ahead_ms), bench.control.next_offset, came_ms=START_MS)])
    bench.run([record(click("a", time_ms=START_MS + ahead_ms + 9), 0, timestamp=START_MS + 9)])
    assert bench.users() == {b"a"}
    bench.run([record(click("a", time_ms=START_MS + minute_ms, consent=False), 1)], now_ms=START_MS + minute_ms)
    assert bench.users() == set()


def test_a_consent_that_is_written_once_more_keeps_its_place(engine: Engine) -> None:
    bench = Bench(engine)
    said = [told(grant(user), at, came_ms=START_MS + at) for at, user in enumerate("aba")]
    bench.control.take(said)
    assert list(bench.control.all(Consent)) == ["a", "b"]


@pytest.mark.parametrize(("presumed", "refused"), [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize("came_minute", [5, 7])
def test_what_a_fast_clock_dates_before_its_consent_stays_out(
    engine: Engine, presumed: bool, refused: bool, came_minute: int
) -> None:
    bench, minute_ms, ahead_ms = Bench(engine, presumed=presumed), 60_000, 240_000

    def at(minute: int) -> int:
        return START_MS + minute * minute_ms

    def said(answer: Consent, minute: int) -> None:
        bench.control.take([told(answer, bench.control.next_offset, came_ms=at(minute))])

    if refused:
        said(refusal("a", at(0) + ahead_ms), 0)
        bench.run()
    said(grant("a", at(6) + ahead_ms), 6)
    before = record(click("a", time_ms=at(5) + ahead_ms), 1, timestamp=at(came_minute))
    bench.run([before], now_ms=at(7))
    assert bench.users() == set()


# --- over clocks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("presumed", [False, True])
def test_a_consent_dated_a_year_ahead_counts_from_when_it_came(engine: Engine, presumed: bool) -> None:
    bench = Bench(engine, presumed=presumed)
    bench.tell(refusal("a"))
    bench.run()
    bench.control.take([told(grant("a", START_MS + YEAR_MS), bench.control.next_offset, came_ms=START_MS)])
    bench.run([record(click("a", time_ms=START_MS + DAY_MS), 1)], now_ms=START_MS + DAY_MS)
    assert bench.users() == {b"a"}


def test_an_erasure_dated_a_year_ahead_holds_back_what_had_happened_when_it_came(engine: Engine) -> None:
    bench = Bench(engine)
    bench.run(records([click("a")]))
    bench.control.take([told(erasure("a", START_MS + YEAR_MS), bench.control.next_offset, came_ms=START_MS)])
    bench.run([record(click("a", time_ms=START_MS + 5), 1)])
    assert bench.users() == set()
    bench.run([record(click("a", time_ms=START_MS + DAY_MS), 2)], now_ms=START_MS + DAY_MS)
    assert bench.users() == {b"a"}


def test_a_request_of_a_record_that_does_not_tell_when_it_came_is_taken_at_its_word(engine: Engine) -> None:
    bench = Bench(engine)
    bench.control.take([told(grant("a", START_MS + YEAR_MS), 0, came_ms=-1)])
    assert [*bench.requests.answers.values()] == [Consent(user_id="a", granted=True, time_ms=START_MS + YEAR_MS)]


def test_a_no_of_a_device_whose_clock_is_far_ahead_is_heeded(engine: Engine) -> None:
    bench = Bench(engine)
    bench.run(records([click("a")]))
    ahead = click("a", time_ms=NOW_MS + YEAR_MS, impression_time_ms=NOW_MS + YEAR_MS, consent=False)
    effects = bench.run([record(ahead, 1, timestamp=NOW_MS)])
    assert bench.users() == set()
    assert not effects.messages["dead-letters"]
    assert bench.state.erased.of(b"a") == NOW_MS
    (placement,) = placed(effects, b"a")
    assert placement is not None
    assert placement.context_only


@pytest.mark.parametrize("ahead_ms", [0, DAY_MS // 24, YEAR_MS])
@pytest.mark.parametrize("behind_ms", [0, DAY_MS])
def test_a_no_is_of_the_same_time_whenever_it_is_read(engine: Engine, ahead_ms: int, behind_ms: int) -> None:
    bench, back_ms = Bench(engine), START_MS + 60_000
    no = record(click("a", time_ms=START_MS + ahead_ms, consent=False), 0, timestamp=START_MS)
    yes = record(click("a", "ad-2", time_ms=back_ms, consent=True), 1, timestamp=back_ms)
    bench.run([no, yes], now_ms=back_ms + behind_ms)
    assert bench.users() == {b"a"}
    assert bench.state.erased.of(b"a") == START_MS


def test_a_yes_of_a_device_whose_clock_is_far_ahead_is_a_dead_letter(engine: Engine) -> None:
    bench = Bench(engine)
    effects = bench.run([record(click("a", time_ms=NOW_MS + YEAR_MS, consent=True), 1)])
    assert len(effects.messages["dead-letters"]) == 1
    assert bench.users() == set()


@pytest.mark.parametrize(
    ("asked", "until_ms"),
    [
        ((erasure("a", START_MS + 24), erasure("a", START_MS + 8)), START_MS + 24),
        ((refusal("a"), grant("a", START_MS + 24), grant("a", START_MS + 8)), START_MS + 23),
    ],
    ids=["erasures", "consents"],
)
@pytest.mark.parametrize("between", [False, True])
def test_of_two_requests_the_one_dated_later_holds_back_whether_a_slice_came_between_or_not(
    engine: Engine, asked: Sequence[Consent | Erasure], until_ms: int, between: bool
) -> None:
    bench = Bench(engine)
    *first, last = asked
    bench.tell(*first)
    if between:
        bench.run()
    bench.tell(last)
    bench.run([record(click("a", time_ms=START_MS + 20), 1)])
    assert (bench.users(), bench.state.erased.of(b"a")) == (set(), until_ms)


def test_a_no_holds_back_what_its_clock_dated_before_it_as_far_as_clocks_are_believed(engine: Engine) -> None:
    bench, ahead_ms = Bench(engine), 600_000
    bench.step = replace(bench.step, time_tolerance_ms=3_600_000)
    no = click("a", time_ms=START_MS + ahead_ms, consent=False)
    before = impression("a", time_ms=START_MS + ahead_ms - 1_000)
    bench.run([record(no, 1, timestamp=START_MS), record(before, 2, timestamp=START_MS + 5)])
    assert bench.users() == set()


def test_what_happens_in_the_moment_of_a_renewed_consent_counts(engine: Engine) -> None:
    bench = Bench(engine, presumed=False)
    bench.tell(refusal("a"), grant("a", START_MS + 5))
    bench.run([record(click("a", time_ms=START_MS + 4), 0), record(click("a", "ad-2", time_ms=START_MS + 5), 1)])
    assert int(bench.state.store.rows["clicks"][bench.state.store.find(b"a")]) == 1


# --- over what is placed -------------------------------------------------------------------------------------


def test_a_forgotten_persons_placement_goes_though_they_act_again_at_once_and_nothing_is_on_offer() -> None:
    bench = Bench(opened())
    assert placed(bench.run(records([click("a")])), b"a") != [None]
    bench.step.engine.catalogue.withdraw([f"ad-{n}" for n in range(40)])
    bench.tell(erasure("a", START_MS + 5))
    assert placed(bench.run([record(click("a", time_ms=START_MS + 10), 1)]), b"a") == [None]
    assert bench.users() == {b"a"}


def test_a_forgotten_persons_placement_goes_though_what_they_did_since_came_too_late(engine: Engine) -> None:
    bench = Bench(engine)
    bench.run(records([click("a")]))
    later_ms = START_MS + 20 * DAY_MS
    bench.run([record(click("b", time_ms=later_ms), 1)], now_ms=later_ms)
    old = [click("a", "ad-2", START_MS + 1, consent=False), click("a", "ad-3", START_MS + 2)]
    effects = bench.run([record(each, 2 + at, timestamp=later_ms) for at, each in enumerate(old)], now_ms=later_ms)
    last = placed(effects, b"a")[-1]
    assert last is None or last.context_only


def test_who_agreed_before_and_acts_without_saying_so_is_placed_by_context(engine: Engine) -> None:
    bench = Bench(engine, presumed=False)
    bench.run(records([click("a", consent=True)]))
    (placement,) = placed(bench.run([record(click("a", "ad-2", time_ms=START_MS + 5), 1)]), b"a")
    assert placement is not None
    assert placement.context_only
    both = [click("a", "ad-3", START_MS + 6), click("a", "ad-4", START_MS + 7, consent=True)]
    (placement,) = placed(bench.run([record(each, 2 + at) for at, each in enumerate(both)]), b"a")
    assert placement is not None
    assert not placement.context_only


def test_a_late_event_of_who_agreed_before_leaves_the_placement_that_stands(engine: Engine) -> None:
    bench = Bench(engine, presumed=False)
    bench.run(records([click("a", consent=True)]))
    assert placed(bench.run([record(click("a", "ad-2", time_ms=START_MS - DAY_MS), 1)]), b"a") == []


def test_a_late_event_of_a_guest_leaves_the_placement_that_stands(engine: Engine) -> None:
    bench = Bench(engine, presumed=False)
    assert placed(bench.run(records([click("no")])), b"no") != [None]
    note = dict(bench.state.guests.until_ms)
    assert placed(bench.run([record(click("no", "ad-2", time_ms=START_MS - DAY_MS), 1)]), b"no") == []
    assert bench.state.guests.until_ms == note
