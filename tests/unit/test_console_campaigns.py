"""Campaigns on the console: a day's sums of all lanes' cells, beside the plan of each campaign's hours."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.pacing import FINISH
from scoring.units import DAY_MS
from streams.console.campaigns import Campaigns
from streams.wire import CampaignMetrics, Figures, encode_json
from tests.builders import Record


def cell(campaign: str, day: int, spent: int, lane: int = 0, arm: str = "", **fields: Any) -> Record:
    today = Figures(impressions=10, clicks=2, spent_micros=spent, unpriced=1)
    told = {"lane": lane, "campaign_id": campaign, "arm": arm, "time_ms": day * DAY_MS + DAY_MS // 2, "day": day}
    metrics = CampaignMetrics(**{**told, **fields}, today=today, total=today)
    return Record("campaign-metrics", lane, 0, 0, f"{lane}/{campaign}/{arm}".encode(), encode_json(metrics))


def test_a_campaigns_day_is_the_sum_of_its_newest_cells_and_the_next_day_begins_at_nothing() -> None:
    campaigns = Campaigns()
    campaigns.take([cell("a", 7, 100), cell("a", 7, 50, lane=1, budget_micros=1_000, level=0.5), cell("b", 6, 999)])
    campaigns.take([cell("a", 7, 130), cell("b", 7, 20, arm="1-0"), Record("campaign-metrics", 0, 0, 0, b"k", b"{")])
    day = campaigns.day()
    assert [(one.campaign, one.spent_micros, one.impressions, one.clicks) for one in day.campaigns] == [
        ("a", 180, 20, 4), ("b", 20, 10, 2),
    ]  # fmt: skip
    assert (day.campaigns[0].level, day.elapsed, day.more, campaigns.malformed) == (0.0, 0.5, 0, 1)
    assert [one.planned for one in day.campaigns] == pytest.approx([0.5 / FINISH] * 2, abs=1e-4)
    campaigns.take([Record("campaign-metrics", 1, 0, 0, b"1/a/", None)])
    assert campaigns.day().campaigns[0].spent_micros == 130
    campaigns.take([cell("b", 8, 5)])
    assert [(one.campaign, one.spent_micros) for one in campaigns.day().campaigns] == [("b", 5)]


def test_a_campaign_of_half_a_day_is_compared_with_the_plan_of_its_own_hours() -> None:
    campaigns, hour_ms = Campaigns(), DAY_MS // 24
    late = cell("late", 7, 40, budget_micros=100, starts_ms=7 * DAY_MS + 10 * hour_ms)
    campaigns.take([late, cell("early", 7, 30, budget_micros=100, ends_ms=7 * DAY_MS + 12 * hour_ms)])
    assert [one.planned for one in campaigns.day().campaigns] == pytest.approx([2 / 14 / FINISH, 1], abs=1e-4)


@pytest.mark.parametrize("number", [2**63, 10**400, -1, -(10**400)])
@pytest.mark.parametrize(
    "name",
    ["time_ms", "day", "impressions", "clicks", "spent_micros", "unpriced", "budget_micros", "level", "starts_ms",
     "ends_ms", "anew_ms", "anew_micros"],
)  # fmt: skip
def test_a_cell_with_a_number_out_of_its_bounds_is_malformed_and_the_console_goes_on(name: str, number: int) -> None:
    """Else a time of no 64 bits could not be planned for, and each start would read it again."""
    campaigns, sound = Campaigns(), cell("a", 7, 100, budget_micros=1_000, starts_ms=0, ends_ms=9 * DAY_MS, anew_ms=1)
    told = msgspec.json.decode(sound.value or b"")
    (told["today"] if name in told["today"] else told)[name] = number
    campaigns.take([Record("campaign-metrics", 1, 0, 0, b"1/a/", encode_json(told)), sound])
    day = campaigns.day()
    assert (campaigns.malformed, [one.spent_micros for one in day.campaigns]) == (1, [100])
    encode_json(day)


CELLS = st.tuples(st.sampled_from("ab"), st.integers(6, 8), st.integers(1, 9), st.integers(0, 2), st.booleans())


@given(st.lists(st.lists(CELLS, max_size=4), max_size=6))
def test_a_day_is_the_sum_of_the_cells_that_stand_however_they_came(reads: list[list[Any]]) -> None:
    campaigns, stand = Campaigns(), dict[bytes | None, tuple[str, int, int]]()
    for read in reads:
        told = []
        for campaign, day, spent, lane, gone in read:
            record = cell(campaign, day, spent, lane)
            stand.pop(record.key, None)
            if not gone:
                stand[record.key] = (campaign, day, spent)
            told.append(Record("campaign-metrics", lane, 0, 0, record.key, None) if gone else record)
        campaigns.take(told)
    spent, cells = Counter[str](), Counter[str]()
    for campaign, day, micros in stand.values():
        if day == max(each for _, each, _ in stand.values()):
            spent[campaign] += micros
            cells[campaign] += 1
    found = {one.campaign: one for one in campaigns.day().campaigns if one.impressions}
    assert {name: one.spent_micros for name, one in found.items()} == spent
    for name, one in found.items():
        assert (one.impressions, one.clicks, one.unpriced) == (10 * cells[name], 2 * cells[name], cells[name])


@pytest.mark.parametrize("turn", [1, -1])
def test_a_campaigns_budget_is_that_of_its_newest_cell_in_whatever_order_partitions_are_read(turn: int) -> None:
    former = cell("a", 7, 60, time_ms=7 * DAY_MS, budget_micros=100, level=0.9)
    newest = cell("a", 7, 20, lane=1, budget_micros=400, level=0.2)
    campaigns = Campaigns()
    campaigns.take([former, newest][::turn])
    (one,) = campaigns.day().campaigns
    assert (one.spent_micros, one.budget_micros, one.level) == (80, 400, 0.2)
    assert campaigns.day().now_ms == 7 * DAY_MS + DAY_MS // 2


def test_a_campaigns_day_goes_back_where_the_cells_of_a_day_ahead_are_taken_away() -> None:
    campaigns = Campaigns()
    ahead = cell("b", 90, 5)
    campaigns.take([cell("a", 7, 100), cell("a", 7, 50, lane=1), ahead])
    assert [one.campaign for one in campaigns.day().campaigns] == ["b"]
    campaigns.take([Record("campaign-metrics", 0, 1, 0, ahead.key, None)])
    day = campaigns.day()
    assert [(one.campaign, one.spent_micros, one.impressions) for one in day.campaigns] == [("a", 150, 20)]
    assert day.now_ms == 7 * DAY_MS + DAY_MS // 2


def test_a_cell_that_finds_no_room_is_counted_once_however_often_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.console.campaigns.CELLS_MAX", 2)
    campaigns = Campaigns()
    campaigns.take(
        [cell("z", 7, 1), cell("a", 7, 1), *(cell(name, 7, spent) for spent in range(3) for name in ("b", "c"))]
    )
    assert campaigns.day().untold == 2
    campaigns.take([cell("d", 7, 1)])  # no more of them are remembered than cells are held
    assert campaigns.day().untold == 2
    campaigns.take([Record("campaign-metrics", 0, 1, 0, cell(name, 7, 1).key, None) for name in ("a", "b")])
    campaigns.take([cell("c", 7, 9)])
    assert (campaigns.day().untold, campaigns.day().campaigns[0].spent_micros) == (0, 9)


def test_campaigns_that_ended_on_days_past_leave_room_for_those_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.console.campaigns.CELLS_MAX", 16)
    campaigns = Campaigns()
    for day in range(7, 30):
        campaigns.take([cell(f"{day}-{number}", day, 1) for number in range(5)])
        told = campaigns.day()
        assert (len(told.campaigns), told.now_ms // DAY_MS, told.untold) == (5, day, 0)
        assert len(campaigns._cells) <= 16


def test_cells_of_a_day_past_that_have_left_room_can_be_told_or_taken_away_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.console.campaigns.CELLS_MAX", 3)
    campaigns = Campaigns()
    former = [cell(name, 7, 1) for name in "abc"]
    campaigns.take([*former, cell("d", 8, 5), cell("e", 8, 6)])
    campaigns.take([Record("campaign-metrics", 0, 1, 0, record.key, None) for record in former[:2]])
    campaigns.take([cell("a", 8, 7)])
    assert [(one.campaign, one.spent_micros) for one in campaigns.day().campaigns] == [("a", 7), ("e", 6), ("d", 5)]
