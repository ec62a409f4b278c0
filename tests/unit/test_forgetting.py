"""Whoever is forgotten, or expires: what was learned of them and their placement go when their state goes."""

from collections.abc import Sequence

import numpy as np
import pytest

from scoring.feedback import WINDOW_MS
from scoring.ids import id64
from scoring.units import DAY_MS
from streams.lanes.clicks import LaneClicks, person_key
from streams.wire import RESERVED
from tests.builders import START_MS, Record, click, impression, record
from tests.unit.consenting import Bench, erasure, opened, refusal

LATER_MS = START_MS + WINDOW_MS + 100_000
"""When the windows of all that was shown have ended."""


def shown_to(users: Sequence[str], at_ms: int, offset: int) -> list[Record]:
    events = [impression(user, "ad-1", at_ms + place, surface="home") for place, user in enumerate(users)]
    return [record(event, offset + place) for place, event in enumerate(events)]


@pytest.mark.parametrize("how", ["erased", "refused", "refuses", "idle"])
def test_what_was_learned_of_a_person_goes_with_their_state(how: str) -> None:
    bench = Bench(opened(data_to_ms=-1))
    bench.run(shown_to(["a", "b"], START_MS, 0))
    learned = {person_key(b"a"), person_key(b"b")}
    assert learned <= bench.changelog.keys()
    taken: list[Record] = []
    if how == "erased":
        bench.tell(erasure("a", START_MS + 5))
    elif how == "refused":
        bench.tell(refusal("a", START_MS + 5))
    elif how == "refuses":
        taken = [record(impression("a", "ad-2", START_MS + 5, consent=False), 2)]
    else:
        taken = shown_to(["b"], START_MS + 31 * DAY_MS, 2)
    bench.run(taken, START_MS + 31 * DAY_MS)
    assert bench.kept() == bench.users() == {b"b"}
    assert learned & bench.changelog.keys() == {person_key(b"b")}
    assert list(bench.state.clicks.layer.people) == [id64(b"b")]

    bench.run(shown_to(["b"], START_MS + 32 * DAY_MS, 3), START_MS + 32 * DAY_MS)  # what was open has its outcome now
    assert bench.state.clicks.layer.learned >= 2
    assert learned & bench.changelog.keys() == {person_key(b"b")}


def test_who_is_erased_and_comes_back_in_one_slice_is_known_of_that_alone() -> None:
    bench = Bench(opened(data_to_ms=-1))
    bench.run(shown_to(["a"], START_MS, 0))
    bench.run(shown_to(["a"], LATER_MS, 1), LATER_MS)
    assert bench.state.clicks.layer.people.lift(id64(b"a")) < 0
    bench.tell(erasure("a", LATER_MS + 100_000))
    bench.run(shown_to(["a"], LATER_MS + 100_001, 2), LATER_MS + 100_001)
    assert bench.users() == {b"a"}
    assert bench.state.clicks.layer.people.lift(id64(b"a")) == 0
    assert learned_of(bench, "a") == (0, 0)


def test_who_expires_in_the_slice_that_would_place_them_has_a_tombstone_and_no_placement() -> None:
    bench = Bench(opened())
    late_ms = START_MS + 31 * DAY_MS
    effects = bench.run([*shown_to(["a"], START_MS, 0), *shown_to(["b"], late_ms, 1)], late_ms)
    assert bench.users() == {b"b"}
    told = [(message.key, message.value is None) for message in effects.messages["placements"]]
    assert sorted(told) == [(b"a", True), (b"b", False)]
    assert [message.key for message in effects.messages["decisions"]] == [b"b"]
    assert effects.counts["placements"] == sum(effects.arms.values()) == 1


def learned_of(bench: Bench, user: str) -> tuple[float, ...]:
    """Clicks and clicks expected, as the changelog has them."""
    return tuple(np.frombuffer(bench.changelog[person_key(user.encode())])[:2].tolist())


@pytest.mark.parametrize("clicks", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
def test_what_is_open_when_a_person_is_erased_teaches_nothing_of_them_afterwards(clicks: bool, restarts: bool) -> None:
    bench = Bench(opened(data_to_ms=-1))
    bench.run(shown_to(["a", "b"], START_MS, 0))
    bench.tell(erasure("a", START_MS + 5))
    bench.run()
    again, answers = shown_to(["a"], START_MS + 2_000, 2), []
    if clicks:
        answers = [record(click("a", "ad-1", START_MS + 3_000, impression_time_ms=START_MS), 3)]
    bench.run([*again, *answers], START_MS + 3_000)
    if restarts:
        parts = {key: value for key, value in bench.changelog.items() if key.startswith(RESERVED)}
        bench.state.clicks = LaneClicks.restore(None, parts)
    bench.run(shown_to(["c"], LATER_MS, 4), LATER_MS)
    once, other = learned_of(bench, "a"), learned_of(bench, "b")
    assert bench.state.clicks.layer.learned == 3  # all are learned from
    assert once == pytest.approx(other, rel=0.2)  # one impression each, and no click


@pytest.mark.parametrize("together", [False, True])
def test_who_came_back_and_says_no_on_a_device_whose_clock_is_behind_is_forgotten(together: bool) -> None:
    bench = Bench(opened())
    bench.tell(erasure("a", START_MS + 1_000))
    back = record(click("a", time_ms=START_MS + 2_000), 0)
    late = click("a", "ad-2", START_MS + 900, event_id="no", consent=False)
    no = record(late, 1, timestamp=START_MS + 3_000)
    for part in [[back, no]] if together else [[back], [no]]:
        bench.run(part)
    assert not bench.users()
    assert not bench.kept()
    assert bench.state.erased.of(b"a") == START_MS + 2_000

    bench.run([record(click("a", "ad-3", START_MS + 4_000, consent=True), 2)])
    again = bench.run([record(late, 3, timestamp=START_MS + 3_000)])  # the same no, once more
    assert again.counts["erased"] == 1
    assert bench.users() == {b"a"}
