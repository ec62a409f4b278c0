"""What the console says of campaigns' pace, beside the plan that workers keep to."""

import msgspec
import pytest

from scoring.budgets import Budgets
from scoring.catalogue import Catalogue
from scoring.market import Market
from scoring.pacing import FINISH, planned
from scoring.units import DAY_MS
from streams.console.desk import Desk
from streams.control_wire import HourlyTraffic
from streams.feeds.campaigns import learn
from streams.lag.arithmetic import Status
from streams.settings import Settings
from streams.wire import CampaignMetrics, Figures, encode_json
from tests.builders import START_MS, Record
from tests.unit.consoles import group, partition
from tests.unit.test_console_alarms import news

NOON_MS = 7 * DAY_MS + DAY_MS // 2
WELL = group(partition(0, Status.OK))


def traffic(lane: int, *hours: float | None) -> HourlyTraffic:
    return HourlyTraffic(lane=lane, hours=hours, time_ms=START_MS)


def test_spend_is_set_against_the_plan_by_the_shops_traffic_that_workers_pace_by() -> None:
    desk, budgets = Desk(Settings(), 2), Budgets(Market(), Catalogue())
    take = {tail.topic: tail.take for tail in desk.tails()}
    figures = Figures(impressions=10, spent_micros=10)
    cell = CampaignMetrics(lane=0, campaign_id="a", time_ms=NOON_MS, day=7, today=figures, total=figures)
    take["campaign-metrics"]([Record("campaign-metrics", 0, 0, START_MS, b"0/a/", encode_json(cell))])
    told = [traffic(0, *24 * [5.0]), traffic(1, *24 * [None]), traffic(0, *12 * [1.0], *11 * [9.0], None)]
    take["control"](
        [Record("control", 0, at, START_MS, one.key, msgspec.json.encode(one)) for at, one in enumerate(told)]
    )
    for one in told:
        learn(budgets, one.name, one)
    day = desk.tick(news(WELL), START_MS, caught_up=True, skipped=0).day
    (spend,) = day.campaigns
    assert spend.planned == pytest.approx(float(planned(NOON_MS, budgets.day_curve)), abs=1e-4)
    assert 0.1 < spend.planned < 0.11 / FINISH < day.elapsed == 0.5
