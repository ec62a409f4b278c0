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


def test_what_was_sold_adds_up_with_what_lanes_of_a_version_that_did_not_count_it_may_have_sold() -> None:
    counted = told(0, total=Figures(clicks=9, purchases=8.0, sold=2))
    before = [told(1, total=Figures(clicks=9, purchases=5.5)), told(2, total=Figures(clicks=3, purchases=4.0))]
    (one,) = campaigns([counted, *before])
    assert (one.total.sold, one.total.purchases) == (2 + 5 + 3, 17.5)


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


def test_lanes_of_one_arm_and_arms_of_one_lane_add_up_and_none_takes_the_place_of_another() -> None:
    cells = [told(0, spent=1), told(1, spent=2), told(0, arm="1-0", spent=4), told(1, arm="1-0", spent=8)]
    (one,) = campaigns(cells)
    assert (one.total.spent_micros, one.total.impressions) == (15, 40)
    assert [(arm.arm, arm.total.spent_micros) for arm in campaigns(cells, by_arm=True)] == [("1-0", 12), ("", 3)]


def test_a_day_within_its_budget_is_billed_as_it_was_spent_and_one_without_a_budget_whole() -> None:
    (one,) = campaigns([told(0, spent=70, budget_micros=100)])
    assert (one.budget_micros, one.billed_micros, one.unbilled_micros) == (100, 70, 0)
    (one,) = campaigns([told(0, spent=70)])
    assert (one.budget_micros, one.billed_micros, one.unbilled_micros) == (None, 70, 0)
    (arm,) = campaigns([told(0, spent=170, budget_micros=100)], by_arm=True)
    assert (arm.budget_micros, arm.billed_micros, arm.unbilled_micros) == (None, None, None)


def test_what_any_cell_of_the_day_tells_as_billed_stays_owed_when_the_budget_is_lowered() -> None:
    early = told(0, spent=70, time_ms=1, budget_micros=100, billed_micros=90)
    late = [told(1, spent=30, time_ms=2, budget_micros=1, billed_micros=5), told(2, day=6, spent=9, billed_micros=99)]
    for cells in ([early, *late], [*late, early]):
        (one,) = campaigns(cells)
        assert (one.budget_micros, one.billed_micros, one.unbilled_micros) == (1, 90, 10)


def test_what_spent_as_much_is_told_in_the_order_of_names_and_arms() -> None:
    cells = [told(0, name, arm, spent=5) for name in ("two", "one") for arm in ("2-0", "", "1-0")]
    assert [(one.campaign_id, one.arm) for one in campaigns(cells, by_arm=True)] == [
        (name, arm) for name in ("one", "two") for arm in ("", "1-0", "2-0")
    ]


def test_a_budget_and_a_level_are_those_that_were_told_last() -> None:
    early, late = (told(lane, spent=1, time_ms=at, budget_micros=at, level=at / 10) for lane, at in ((1, 5), (0, 7)))
    for cells in ([early, late], [late, early]):
        (one,) = campaigns(cells)
        assert (one.budget_micros, one.level) == (7, 0.7)


def test_the_smallest_amount_has_a_return() -> None:
    (one,) = campaigns([told(0, spent=1)])
    assert (one.roas, one.roi, one.spread_roas) == (300, 299, 200)
