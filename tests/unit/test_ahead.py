"""Lanes whose time is ahead, as their worker's clock once was: what they tell, and how they come back."""

import pytest

from scoring.budgets import EVERY_MS, Budgets
from scoring.market import Market
from scoring.units import DAY_MS, HOUR_MS
from streams.feeds import campaigns
from streams.feeds.campaigns import AHEAD_MS, tell
from tests.unit.test_budgets import DAY, NOON_MS, offered, shop, spent
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
