"""Lanes whose time is ahead, as their worker's clock once was: what they tell, and how they come back."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scoring.arrays import Floats
from scoring.budgets import EVERY_MS, Budgets
from scoring.ledger import FIGURES, PARTS, Ledger
from scoring.market import Market
from scoring.units import DAY_MS, HOUR_MS, MINUTE_MS
from streams.columns import source_of
from streams.feeds import campaigns
from streams.feeds.campaigns import tell
from streams.lanes.ahead import AHEAD_MS
from streams.lanes.ledger import LaneLedger
from streams.wire import Click, Impression
from tests.builders import START_MS, click, impression, record
from tests.unit.lanes import Group, Outbox, shared_of, taken_over
from tests.unit.test_budgets import DAY, NOON_MS, offered, shop, spent
from tests.unit.test_ledger import figures
from tests.unit.test_told_budgets import cell, replace_told


@pytest.mark.parametrize("ahead_ms", [15 * HOUR_MS, 365 * DAY_MS])
@pytest.mark.parametrize("dated", ["time and day", "day alone"])
def test_a_report_of_a_lane_that_is_ahead_of_the_clock_lets_no_other_lane_spend_beyond_the_budget(
    ahead_ms: int, dated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaigns, "wall_ms", lambda: NOON_MS)
    told_ms = NOON_MS + ahead_ms if dated == "time and day" else NOON_MS
    ahead = replace_told(cell(1_000_000, lane=1), time_ms=told_ms, day=(NOON_MS + ahead_ms) // DAY_MS)
    budgets = Budgets(Market(), shop())
    budgets.pace(NOON_MS)
    assert tell(budgets, [ahead]) == 0
    budgets.tell(0, "", spent(1_000_000))
    budgets.pace(NOON_MS + EVERY_MS)
    assert budgets.spent_micros("one") == 1_000_000
    assert offered(budgets) == [0.0, 0.0, 1.0]


def test_a_report_within_what_a_clock_may_be_off_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "wall_ms", lambda: (DAY + 1) * DAY_MS - AHEAD_MS)
    budgets = Budgets(Market(), shop())
    tell(budgets, [replace_told(cell(1_000_000, lane=1), time_ms=(DAY + 1) * DAY_MS, day=DAY + 1)])
    assert budgets.billed_micros(["one"], [DAY + 1]).tolist() == [1_000_000]


# --- how they come back --------------------------------------------------------------------------------------

YEAR_MS = 365 * DAY_MS


class Worker:
    """A lane of a machine whose clock is at ``clock_ms``."""

    def __init__(self, home: Path, loop: asyncio.Runner) -> None:
        self.clock_ms = START_MS
        self.lane = taken_over(shared_of(home, Group()), Outbox())
        self._loop = loop
        self._offset = 0

    def act(self, *events: Impression | Click) -> Counter[str]:
        """What slices of ``events`` count, where nothing more is to come."""
        for event in events:
            self.lane.queues.put(source_of(event), [record(event, self._offset)])
            self._offset += 1
        counts: Counter[str] = Counter()
        while len(self.lane.queues):
            for queue in self.lane.queues.sources:
                queue.caught_up, queue.empty_since_ms = True, -(10**9)
            counts += self._loop.run(self.lane.step()) or Counter()
        return counts

    def jump(self) -> None:
        """All clocks are a year ahead for a moment, in which one person acts."""
        self.clock_ms += YEAR_MS
        self.act(impression("jumper", "ad-1", time_ms=self.clock_ms), click("jumper", "ad-2", time_ms=self.clock_ms))
        self.clock_ms += 60_000 - YEAR_MS


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker that has seen a person act."""
    with asyncio.Runner() as loop:
        worker = Worker(tmp_path, loop)
        monkeypatch.setattr("streams.lanes.lane.wall_ms", lambda: worker.clock_ms)
        worker.act(click("regular", "ad-1", time_ms=START_MS))
        yield worker


@pytest.fixture
def stepped(worker: Worker) -> Worker:
    """The same after its clock, and everybody's, was a year ahead."""
    worker.jump()
    return worker


def test_a_lane_goes_on_when_all_clocks_have_been_a_year_ahead_and_are_right_again(stepped: Worker) -> None:
    counts = stepped.act(click("regular", "ad-2", time_ms=stepped.clock_ms))
    assert (counts["late"], counts["applied"], counts["placements"]) == (0, 1, 1)
    assert stepped.lane.state.stream_ms == stepped.clock_ms
    assert stepped.lane.state.watermarks_ms == (stepped.clock_ms, stepped.clock_ms)


def test_budgets_go_back_with_the_lane_to_the_day_that_they_pace(stepped: Worker) -> None:
    budgets = stepped.lane._shared.step.budgets
    assert budgets is not None
    assert budgets._days.newest == (START_MS + YEAR_MS) // DAY_MS
    stepped.act(click("regular", "ad-2", time_ms=stepped.clock_ms))
    assert budgets._days.newest == stepped.clock_ms // DAY_MS


def test_a_producer_that_stays_a_year_ahead_does_not_keep_its_lane_there(stepped: Worker) -> None:
    fast = click("fast", "ad-2", time_ms=stepped.clock_ms + YEAR_MS)
    events = [click(user, "ad-2", time_ms=stepped.clock_ms) for user in ("regular", "another")]
    counts = stepped.act(fast, *events)
    assert (counts["dead"], counts["late"], counts["applied"]) == (1, 0, 2)


def test_a_machine_whose_clock_is_behind_sets_no_lane_back(worker: Worker) -> None:
    worker.clock_ms -= YEAR_MS
    slow = click("slow", "ad-2", time_ms=worker.clock_ms - 1)
    counts = worker.act(click("regular", "ad-2", time_ms=START_MS + 1), slow)
    assert counts["dead"] == 1
    assert worker.lane.state.stream_ms == START_MS


def test_a_clock_that_steps_back_by_less_than_an_hour_sets_no_lane_back(worker: Worker) -> None:
    worker.clock_ms -= AHEAD_MS
    worker.act(click("regular", "ad-2", time_ms=worker.clock_ms))
    assert worker.lane.state.stream_ms == START_MS


def test_a_person_who_acted_while_the_clock_was_ahead_is_not_taken_for_a_bot_until_then(stepped: Worker) -> None:
    rules = stepped.lane._shared.step.rules
    counts: Counter[str] = Counter()
    for minute in range(rules.per_minute[1] // 100 + 1):
        stepped.clock_ms += MINUTE_MS
        acts = (click("jumper", time_ms=stepped.clock_ms, event_id=f"{minute}-{n}") for n in range(100))
        counts += stepped.act(*acts)
    assert counts["filtered"] == 0


def test_impressions_that_waited_while_the_clock_was_ahead_hold_back_no_later_outcome(stepped: Worker) -> None:
    stepped.act(impression("regular", "ad-3", time_ms=stepped.clock_ms))
    assert len(stepped.lane.state.clicks.layer.pending) == 2
    stepped.clock_ms += 2 * stepped.lane.state.clicks.layer.learning.window_ms
    stepped.act(click("another", "ad-1", time_ms=stepped.clock_ms))
    assert len(stepped.lane.state.clicks.layer.pending) == 0


def test_traffic_is_learned_again_by_the_hour(stepped: Worker) -> None:
    told: list[Floats] = []
    for _ in range(3):
        stepped.clock_ms += HOUR_MS
        stepped.act(impression("regular", "ad-3", time_ms=stepped.clock_ms))
        told.append(stepped.lane.state.traffic.mean.copy())
    assert not np.array_equal(told[-1], told[0])


def test_a_day_that_was_ahead_is_counted_as_the_day_to_which_its_lane_goes_back() -> None:
    ledger, at = Ledger(), FIGURES.index("charged")
    ledger.add(7, [("one", ""), ("two", "")], figures(5, 3))
    ledger.add(372, [("one", ""), ("new", "")], figures(2, 1))
    ledger.changes()
    ledger.set_back(8)
    ledger.add(8, [("one", "")], figures(4))
    assert [ledger.of(cell)[0] for cell in range(3)] == [(8, 7), (7, 0), (8, 0)]
    assert ledger.of(0)[1][:, at].tolist() == [6, 5, 11]
    assert ledger.changes() == [0, 2]


def test_what_was_spent_before_the_clock_was_ahead_is_still_spent_on_that_day() -> None:
    ledger, at = Ledger(), FIGURES.index("charged")
    ledger.add(7, [("one", "")], figures(5))
    ledger.add(372, [("one", "")], figures(2))
    ledger.set_back(7)
    assert ledger.of(0)[0] == (7, 0)
    assert ledger.of(0)[1][:, at].tolist() == [7, 0, 7]


def test_a_ledger_that_was_ahead_tells_of_days_to_come_what_is_new_alone() -> None:
    ledger, budgets = LaneLedger(), Budgets(Market(), shop())
    for day, campaign in ((DAY, "one"), (DAY + 365, "two")):
        ledger.ledger.add(day, [(campaign, "")], figures(5 * PARTS))
    ledger.ledger.changes()
    ledger.tell(0, budgets, DAY + 1)
    assert (budgets.spent_micros("one"), budgets.spent_micros("two")) == (5, 0)
    ledger = LaneLedger(ledger.ledger)  # of the lane's next owner
    ledger.ledger.add(DAY + 365, [("two", "")], figures(2 * PARTS))
    ledger.tell(0, budgets, DAY + 1)
    assert (budgets.spent_micros("one"), budgets.spent_micros("two")) == (0, 7)


def test_a_worker_whose_lane_was_ahead_stops_a_campaign_that_has_spent_its_budget_once_the_lane_is_back() -> None:
    budgets = Budgets(Market(), shop())
    budgets.tell(0, "", spent(600_000))
    budgets.tell(1, "", spent(400_000, day=DAY + 365))
    budgets.pace(NOON_MS + YEAR_MS)
    budgets.set_back(DAY)
    budgets.tell(1, "", spent(400_000))
    budgets.pace(NOON_MS)
    assert budgets.spent_micros("one") == 1_000_000
    assert offered(budgets) == [0.0, 0.0, 1.0]


def test_budgets_of_lanes_that_were_never_ahead_are_left_alone() -> None:
    budgets = Budgets(Market(), shop())
    budgets.tell(0, "", spent(600_000))
    budgets.pace(NOON_MS)
    before = budgets._pacer
    budgets.set_back(DAY)
    assert budgets._pacer is before
    assert budgets.spent_micros("one") == 600_000
