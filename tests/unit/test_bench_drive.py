"""The load generator knows which events an answer answers, whatever order word of things comes in."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams.lag.watch import Lag, LagWatch, StalledError
from streams.placement_ids import placement_id
from streams.wire import Impression, encode_json
from tests.bench import learn, overload
from tests.bench.bed import Child
from tests.bench.drive import Echoes, Events, Placements, Plan
from tests.bench.overload import Look, _of, _watch

PLAN = Plan(
    bootstrap="",
    prefix="",
    lanes=2,
    answers="placements",
    rate=50,
    seconds=1,
    warm_s=1,
    users=1,
    ads=10,
    seed=3,
)


@pytest.fixture
def events() -> Events:
    return Events(PLAN)


def placement(events: Events, upto: tuple[int, int]) -> bytes:
    """A placement of the only user, whose last applied offsets are ``upto``."""
    user = events.all[0].user_id
    return encode_json({"placement_id": placement_id(0, user.encode(), upto), "user_id": user, "slots": []})


def impressions(events: Events) -> list[int]:
    return [number for number, event in enumerate(events.all) if isinstance(event, Impression)]


def test_a_placement_answers_the_events_that_it_knows_and_no_later_ones(events: Events) -> None:
    matching = Placements(events)
    first, second, third = impressions(events)[:3]
    for offset, number in enumerate((first, second, third)):
        matching.delivered(number, offset)
    matching.answer(placement(events, (1, -1)), 5.0)
    assert np.flatnonzero(events.answered_s).tolist() == [first, second]
    matching.answer(placement(events, (2, -1)), 6.0)
    assert events.answered_s[[first, second, third]].tolist() == [5.0, 5.0, 6.0]


def test_a_placement_that_overtakes_the_word_of_the_delivery_counts_from_when_it_came(events: Events) -> None:
    matching = Placements(events)
    number = impressions(events)[0]
    matching.answer(placement(events, (0, -1)), 5.0)
    matching.answer(placement(events, (4, -1)), 6.0)
    matching.delivered(number, 0)
    assert events.answered_s[number] == 5.0


def test_offsets_of_one_topic_say_nothing_of_the_others(events: Events) -> None:
    matching = Placements(events)
    number = impressions(events)[0]
    matching.delivered(number, 0)
    matching.answer(placement(events, (-1, 99)), 5.0)
    assert not events.answered_s.any()


def test_an_echo_answers_its_own_event_the_first_time(events: Events) -> None:
    matching = Echoes(events)
    matching.answer(events.value(7, 1), 5.0)
    matching.answer(events.value(7, 1), 6.0)
    assert {number: events.answered_s[number] for number in np.flatnonzero(events.answered_s)} == {7: 5.0}


def test_all_events_are_made_before_the_first_is_sent_and_warm_up_is_among_them(events: Events) -> None:
    assert len(events.all) == PLAN.events == 100


def test_every_impression_of_the_learning_benchmark_is_learned_once() -> None:
    found = learn.measure(impressions=3_000, ads=300)
    assert found["examples"] == 3_000
    assert found["clicked"] == pytest.approx(3_000 * learn.CLICK_RATE, rel=0.4)
    assert found["examples_per_s"] > 0


class Frozen(LagWatch):
    """The lag of a worker that lives and does nothing, from the first events on; a look takes ten seconds."""

    def __init__(self) -> None:
        super().__init__("nowhere:1", "t-", "group")
        self.now_s = 0.0

    async def look(self) -> Lag:
        self.now_s += 10
        return Lag(10, 5_000 if self.now_s > 20 else 0, 4)

    async def until_zero(self, *arguments: Any, **options: Any) -> float:
        return await super().until_zero(*arguments, **options, clock=lambda: self.now_s)


def test_an_overload_that_nobody_works_on_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(overload, "LOOK_EVERY_S", 0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        worker = Child("worker", process, tmp_path / "log", 0)
        with pytest.raises(StalledError, match="5000 behind, and has not moved for 60 s"):
            asyncio.run(_watch(Frozen(), worker, worker, 100_000))
        process.communicate(b"\n")


def test_growth_of_memory_is_that_of_the_second_half_of_the_overload() -> None:
    early = [Look(at, 100_000_000 + 9_000_000 * at, 10 * at) for at in range(30)]
    late = [Look(at, 400_000_000 + 100_000 * at, 10 * at) for at in range(30, 61)]
    drained = [Look(70, 401_000_000, 0)]
    found = _of([*early, *late, *drained])
    assert found["memory_growth_mb_per_minute"] == pytest.approx(6)
    assert (found["lag_max"], found["drain_s"]) == (600, 10)
