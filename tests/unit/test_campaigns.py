"""Campaigns of the topic: lanes and arms add up, a day settles against its budget, and returns are ratios."""

from typing import Any

from streams.campaigns import campaigns
from streams.wire import CampaignMetrics, Figures


def told(lane: int, campaign: str = "one", arm: str = "", *, spent: int = 0, **fields: object) -> CampaignMetrics:
    figures = Figures(
        impressions=10, clicks=1, spent_micros=spent, purchases=1.0, value_micros=300, spread_value_micros=200
    )
    given: dict[str, Any] = {"time_ms": lane, "day": 7, "today": figures, "total": figures}
    return CampaignMetrics(lane=lane, campaign_id=campaign, arm=arm, **(given | fields))


def test_lanes_and_arms_add_up_and_a_day_is_billed_up_to_its_budget() -> None:
    (one,) = campaigns([told(0, spent=70), told(1, arm="1-0", spent=50, budget_micros=100, level=0.5)])
    assert (one.arm, one.today.spent_micros, one.billed_micros, one.unbilled_micros) == (None, 120, 100, 20)
    assert (one.total.impressions, one.total.purchases, one.level) == (20, 2.0, 0.5)
    assert (one.roas, one.roi, one.spread_roas) == (600 / 120, 480 / 120, 400 / 120)


def test_an_arm_by_itself_has_no_budget() -> None:
    both = campaigns([told(0, spent=70), told(1, arm="1-0", spent=50, budget_micros=100)], by_arm=True)
    assert [(one.arm, one.today.spent_micros, one.billed_micros) for one in both] == [("", 70, None), ("1-0", 50, None)]


def test_of_a_cell_the_last_counts_and_of_days_the_newest_is_today() -> None:
    one, two = campaigns([told(0, spent=1), told(0, spent=9), told(0, "two", day=6, spent=4)])
    assert (one.campaign_id, one.total.spent_micros, one.today.spent_micros) == ("one", 9, 9)
    assert (two.day, two.total.spent_micros, two.today.spent_micros) == (7, 4, 0)


def test_what_spent_nothing_has_no_return() -> None:
    (one,) = campaigns([told(0)])
    assert (one.roas, one.roi, one.billed_micros, one.budget_micros) == (None, None, 0, None)
    assert campaigns([]) == []
