"""Placements of people who are not remembered: they end, and the lane takes them back."""

from pathlib import Path

import numpy as np
import pytest

from scoring.engine import Engine
from scoring.events import Source
from scoring.rows import RowStore
from scoring.units import DAY_MS, HOUR_MS
from streams.clock import wall_ms
from streams.decode import decode
from streams.lanes.snapshots import Snapshots, holds
from streams.privacy.consent import ERASED_KEY, Gate, watermark_key
from streams.privacy.guests import Guests, guest_key, unremembered
from streams.privacy.held import Search
from streams.settings import Settings
from tests.builders import START_MS, Record, click, record, records
from tests.unit.consenting import Bench, erasure, placements
from tests.unit.slices import NOW_MS


@pytest.mark.parametrize("restarts", [False, True])
def test_the_placement_of_somebody_who_is_not_remembered_is_taken_back_once_it_has_ended(
    engine: Engine, restarts: bool
) -> None:
    bench = Bench(engine, presumed=False)
    bench.run(records([click("yes", consent=True), click("no-1"), click("no-2"), click("soon")]))
    assert set(Guests.restore(bench.changelog).until_ms) == {b"no-1", b"no-2", b"soon"}
    if restarts:
        bench.state.guests = Guests.restore(bench.changelog)
    later_ms = START_MS + HOUR_MS
    back = [click("no-2", "ad-2", later_ms), click("soon", "ad-2", later_ms, consent=True)]
    effects = bench.run([record(event, 9 + at) for at, event in enumerate(back)], now_ms=later_ms)
    placed = placements(effects)
    assert placed[b"no-1"] is None
    assert placed.keys() == {b"no-1", b"no-2", b"soon"}
    assert None not in (placed[b"no-2"], placed[b"soon"])
    assert set(Guests.restore(bench.changelog).until_ms) == {b"no-2"}
    assert bench.kept() == bench.users() == {b"yes", b"soon"}

    last = [record(click("yes", "ad-3", later_ms + HOUR_MS, consent=True), 20)]
    placed = placements(bench.run(last, now_ms=later_ms + HOUR_MS))
    assert placed[b"no-2"] is None
    assert placed.keys() == {b"no-2", b"yes"}
    assert not Guests.restore(bench.changelog).until_ms


def test_a_placement_that_a_late_event_of_somebody_unremembered_caused_is_taken_back_an_hour_later(
    engine: Engine,
) -> None:
    bench = Bench(engine, presumed=False)
    bench.run([record(click("yes", consent=True), 0)])
    later_ms = START_MS + DAY_MS
    late = record(click("no", time_ms=START_MS), 1, timestamp=later_ms)
    assert placements(bench.run([late], now_ms=later_ms))[b"no"] is not None
    last = record(click("yes", "ad-2", later_ms + HOUR_MS, consent=True), 2)
    assert placements(bench.run([last], now_ms=later_ms + HOUR_MS))[b"no"] is None


def test_a_guest_acted_when_their_newest_event_says_and_where_the_last_that_names_a_place_says() -> None:
    """Devices send late, and not every event tells its surface: neither takes back what is known of the moment."""
    taken = records([click("no", surface="home", time_ms=START_MS + 5), click("no", "ad-2", time_ms=START_MS)])
    sources, store = np.full(2, Source.CLICK, dtype=np.uint8), RowStore()
    decoded = decode(taken, sources, store, latest_ms=NOW_MS, belongs_here=lambda _: True, gate=Gate(presumed=False))
    users, rows = unremembered(decoded, store)
    assert users == [b"no"]
    assert rows["time_ms"].tolist() == [START_MS + 5]
    assert rows["surface"].tolist() == [decoded.told["surface"][0]] != [0]
    assert rows["offset"].tolist() == [[-1, 1]]


def test_a_guest_who_refuses_is_noted_before_the_watermark_is(engine: Engine) -> None:
    """Else a crash between the two, without transactions, would leave a placement that nothing takes back."""
    bench = Bench(engine)
    effects = bench.run(records([click("no", consent=False)]))
    before = [message.key or b"" for message in effects.messages["state-changelog"]]
    assert guest_key(b"no") in before
    assert not any(key.startswith(ERASED_KEY) for key in before)
    assert [message.key for message in effects.watermarks] == [watermark_key(b"no")]  # when all else is delivered


def test_nothing_is_noted_of_a_guest_who_is_erased(engine: Engine) -> None:
    bench = Bench(engine, presumed=False)
    bench.run(records([click("no")]))
    bench.tell(erasure("no", START_MS + 5))
    assert placements(bench.run()) == {b"no": None}
    assert not Guests.restore(bench.changelog).until_ms


def test_of_more_guests_than_a_lane_may_have_placements_that_end_first_are_taken_back_early(engine: Engine) -> None:
    bench = Bench(engine, presumed=False)
    bench.state.guests = Guests(most=2)
    bench.run(records([click(f"no-{at}", time_ms=START_MS + at) for at in range(3)]))
    assert placements(bench.run([record(click("yes", consent=True), 9)]))[b"no-0"] is None
    assert bench.state.guests.until_ms.keys() == {b"no-1", b"no-2"}


def test_a_guest_is_found_by_who_looks_for_what_is_held_of_a_person(engine: Engine, tmp_path: Path) -> None:
    bench = Bench(engine, presumed=False)
    bench.run(records([click("no")]))
    note = bench.changelog[guest_key(b"no")]
    assert Search(["no"]).finds(Record("state-changelog", 0, 0, START_MS, guest_key(b"no"), note))
    kept = Snapshots(Settings(home=tmp_path), "changelog")
    kept.save(bench.state, 5, wall_ms())
    assert holds(kept.path(0), [b"no"])
    assert not holds(kept.path(0), [b"yes"])
    assert Guests.restore(kept.load(0, 0, 9).parts).until_ms == bench.state.guests.until_ms


def test_an_event_without_consent_replaces_no_placement_of_later_or_agreed_events(engine: Engine) -> None:
    bench = Bench(engine, presumed=False)
    later_ms = START_MS + HOUR_MS
    agreed = record(click("user", time_ms=later_ms, consent=True), 0)
    together = [agreed, record(click("user", "ad-2", later_ms + 1), 1)]
    (message,) = bench.run(together, later_ms).messages["placements"]
    assert message.key == b"user"
    assert not Guests.restore(bench.changelog).until_ms
    assert not placements(bench.run([record(click("user", "ad-3"), 2, timestamp=later_ms)], later_ms))
    for offset in (3, 4):  # of two that end together the later counts
        at_once = record(click("user", f"ad-{offset}", later_ms), offset)
        assert placements(bench.run([at_once], later_ms)).keys() == {b"user"}
    assert Guests.restore(bench.changelog).until_ms.keys() == {b"user"}
