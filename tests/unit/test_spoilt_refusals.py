"""A refusal counts though another field of its event is wrong, and its record becomes a dead letter."""

import msgspec
import numpy as np
import pytest

from scoring.engine import Engine
from scoring.events import Source
from scoring.rows import RowStore
from streams.decode import decode
from streams.learnable import Learnable
from streams.privacy.consent import Gate
from tests.builders import START_MS, Record, click, record
from tests.unit.consenting import Bench, no_of, placements
from tests.unit.slices import NOW_MS

SENT_MS = START_MS + 1_000
SPOILT = [{"kind": "like"}, {"viewed_s": 90_000}, {"surface": "p" * 129}, {"impression_time_ms": -5}, {"ad_id": ""}]


def spoilt(offset: int = 1, key: bytes = b"a", **fields: object) -> Record:
    """A refusal of the user a, sent at `SENT_MS`, with ``fields`` that make it no event."""
    event = click("a", time_ms=SENT_MS, consent=False)
    value = msgspec.json.encode(msgspec.to_builtins(event) | {"kind": "like"} | fields)
    return Record("clicks", 0, offset, SENT_MS, key, value)


@pytest.mark.parametrize("fields", SPOILT, ids=str)
def test_a_refusal_is_heard_besides_the_dead_letter_that_its_event_becomes(
    engine: Engine, fields: dict[str, object]
) -> None:
    bench = Bench(engine)
    bench.run([record(click("a"), 0)])
    effects = bench.run([spoilt(**fields)])
    assert effects.counts["dead"] == 1
    assert bench.users() == bench.kept() == set()
    assert placements(effects) == {b"a": None}
    late = bench.run([record(click("a", time_ms=SENT_MS - 1), 2)])
    assert (late.counts["erased"], late.counts["applied"]) == (1, 0)
    assert no_of(bench.state.erased, b"a") == SENT_MS


def test_what_its_own_batch_did_before_it_goes_with_it_and_what_followed_stays(engine: Engine) -> None:
    bench = Bench(engine)
    after = record(click("a", time_ms=SENT_MS + 1, consent=True), 2)
    effects = bench.run([record(click("a"), 0), spoilt(), after])
    assert (effects.counts["applied"], effects.counts["erased"], effects.counts["dead"]) == (1, 1, 1)
    assert bench.users() == {b"a"}


@pytest.mark.parametrize("time_ms", [-5, "noon", None, 10**18, NOW_MS + 10**9, True, [1]], ids=str)
def test_a_refusal_with_an_absurd_time_counts_at_its_records_time(engine: Engine, time_ms: object) -> None:
    bench = Bench(engine)
    bench.run([record(click("a"), 0)])
    bench.run([spoilt(time_ms=time_ms)])
    assert bench.users() == set()
    assert bench.state.erased.of(b"a") == SENT_MS


@pytest.mark.parametrize(
    "other",
    [
        spoilt(key=b"b"),
        spoilt(consent=True),
        spoilt(consent=None),
        spoilt(consent="false"),
        spoilt(user_id="b"),
        spoilt(user_id=7),
        spoilt(user_id="a\0", key=b"a\0"),
        spoilt(user_id="a\n", key=b"a\n"),
        Record("clicks", 0, 1, SENT_MS, b"a", b'{"user_id":"a","consent":false'),
        Record("clicks", 0, 1, SENT_MS, b"a", None),
    ],
    ids=["another key", "yes", "null", "a text", "another user", "a number", "NUL", "line end", "cut off", "nothing"],
)
def test_what_is_no_refusal_of_the_records_own_user_forgets_nobody(engine: Engine, other: Record) -> None:
    bench = Bench(engine)
    bench.run([record(click("a"), 0), record(click("b"), 1)])
    assert bench.run([other]).counts["dead"] == 1
    assert bench.users() == {b"a", b"b"}
    assert not bench.state.erased.until_ms


def test_one_that_came_to_another_lane_is_sent_on_to_its_own_which_hears_it() -> None:
    given, gate = [spoilt()], Gate()
    out = decode(
        given,
        np.full(1, Source.CLICK, dtype=np.uint8),
        RowStore(),
        latest_ms=NOW_MS,
        belongs_here=lambda _: False,
        gate=gate,
    )
    assert (out.misplaced, out.dead, gate.watermarks.until_ms) == (given, [], {})


@pytest.mark.parametrize("fields", SPOILT, ids=str)
def test_nothing_is_learnt_of_what_a_person_did_before_such_a_refusal(fields: dict[str, object]) -> None:
    events = [
        record(click("a", event_id="before"), 0),
        spoilt(1, **fields),
        record(click("a", time_ms=SENT_MS + 1, event_id="after"), 2),
    ]
    learnable = Learnable({("clicks", 0): 3}, presumed=True, now_ms=NOW_MS, tolerance_ms=0, entries_max=100)
    learnable.hear(Source.CLICK, events)
    assert learnable.settle()
    learnable.recall(Source.CLICK, events)
    assert [event.event_id for event in learnable.take(Source.CLICK, events)] == ["after"]
    assert (learnable.refused, learnable.invalid) == (1, 1)
