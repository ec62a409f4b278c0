"""Topics that workers read whole hold each key many times until compaction: of one read, the last of them counts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scoring.budgets import Budgets
from scoring.clicks import RECORD
from scoring.feedback import ClickLayer
from scoring.ledger import Spending
from scoring.market import Market
from scoring.pool import Pool
from scoring.units import DAY_MS
from streams.feeds.campaigns import tell
from streams.feeds.layers import BUCKETS, hear, shares
from streams.wire import CampaignMetrics, Figures, encode_json
from tests.builders import Record
from tests.unit.test_budgets import DAY, NOON_MS, shop

CAMPAIGNS = ("one", "two")


class CountingBudgets(Budgets):
    """How many reports it was told."""

    times = 0

    def tell(self, lane: int, arm: str, news: Spending) -> None:
        """Count the report, and take it."""
        self.times += 1
        super().tell(lane, arm, news)


class CountingPool(Pool):
    """How many buckets it was told."""

    times = 0

    def tell_bucket(self, *told: Any) -> None:
        """Count the bucket, and take it."""
        self.times += 1
        super().tell_bucket(*told)


def slices(seed: int, count: int) -> list[Record]:
    """What two lanes tell of two campaigns and two arms, slice by slice, from noon to noon."""
    rng, total, out = np.random.default_rng(seed), dict[tuple[int, str, str], list[int]](), list[Record]()
    for at in range(count):
        time_ms = NOON_MS - DAY_MS + at * DAY_MS // count
        lane, campaign, arm = int(rng.integers(2)), CAMPAIGNS[rng.integers(2)], ("", "1-0")[rng.integers(2)]
        spent, day, today = total.setdefault((lane, campaign, arm), [0, 0, 0])
        more = int(rng.integers(1, 500_000))
        today = today + more if day == time_ms // DAY_MS else more
        total[lane, campaign, arm] = [spent + more, time_ms // DAY_MS, today]
        figures, all_ = Figures(spent_micros=today, impressions=at), Figures(spent_micros=spent + more, impressions=at)
        told = CampaignMetrics(
            lane=lane, campaign_id=campaign, arm=arm, time_ms=time_ms, day=time_ms // DAY_MS, today=figures,
            total=all_, budget_micros=1_000_000 * int(rng.integers(1, 9)), billed_micros=today,
            level=rng.uniform(0.1, 1), starts_ms=NOON_MS - DAY_MS, anew_ms=time_ms, anew_micros=today,
        )  # fmt: skip
        out.append(Record("campaign-metrics", 0, at, time_ms, f"{lane}/{campaign}/{arm}".encode(), encode_json(told)))
    return out


def known(budgets: Budgets) -> list[Any]:
    """All that budgets say of the campaigns."""
    days = (DAY - 1, DAY)
    return [
        [
            budgets.spent_micros(one), budgets.level(one), budgets.hours_ms(one),
            *((budgets.budget_micros(one, each), budgets.known_micros(one, each)) for each in days),
            *(budgets.anew(one, each) for each in days),
            budgets.billed_micros([one, one], days).tolist(),
        ]
        for one in CAMPAIGNS
    ]  # fmt: skip


def test_of_what_a_cell_told_slice_by_slice_budgets_hear_the_last_of_each_day() -> None:
    told = slices(1, 600)
    budgets = CountingBudgets(Market(), shop())
    assert tell(budgets, told) == 0
    assert budgets.times == 2 * 2 * 2 * 2  # lanes, campaigns, arms, days


@pytest.mark.parametrize("seed", range(8))
def test_budgets_know_the_same_of_campaigns_wherever_reads_of_what_lanes_told_end(seed: int) -> None:
    told = slices(seed, 200)
    whole, one_by_one = Budgets(Market(), shop()), Budgets(Market(), shop())
    tell(whole, told)
    for record in told:
        tell(one_by_one, [record])
    assert known(whole) == known(one_by_one)
    for budgets in (whole, one_by_one):
        budgets.pace(NOON_MS)
    assert whole.standing() == pytest.approx(one_by_one.standing())


def test_of_a_cell_whose_last_report_cannot_be_read_the_one_before_counts() -> None:
    *told, last = slices(1, 50)
    budgets, before = Budgets(Market(), shop()), Budgets(Market(), shop())
    assert tell(budgets, [*told, replace(last, value=b"{")]) == 1
    tell(before, told)
    assert known(budgets) == known(before)


def test_of_a_day_before_a_worker_is_told_by_the_first_report_of_the_next_one_and_no_more() -> None:
    budgets, before = CountingBudgets(Market(), shop()), Figures(spent_micros=7, impressions=2)
    budgets.pace(NOON_MS)
    for at in range(5):
        figures, total = Figures(spent_micros=at, impressions=at), Figures(spent_micros=7 + at, impressions=2 + at)
        told = CampaignMetrics(
            lane=0, campaign_id="one", time_ms=NOON_MS + at, day=DAY, today=figures, before_day=DAY - 1, before=before,
            before_billed_micros=6, total=total,
        )  # fmt: skip
        tell(budgets, [Record("campaign-metrics", 0, at, NOON_MS + at, b"0/one/", encode_json(told))])
    assert budgets.times == 1 + 5
    assert budgets.billed_micros(["one", "one"], [DAY - 1, DAY]).tolist() == [7, 4]


def shared(times: int) -> list[Record]:
    """What a lane has told of its layer and two ads, of two buckets, so many times."""
    layer, ads, out = ClickLayer(), [BUCKETS + 3, 2 * BUCKETS + 5], list[Record]()
    for at in range(times):
        layer.lifts.put(np.array(ads, dtype=np.uint64), np.full((2, RECORD), 1.0 + at))
        out += [Record("click-layers", 0, 0, 0, one.key, one.value) for one in shares(0, layer, ads)]
    return out


def counts(pool: Pool) -> list[list[float]]:
    """What lane 1 has heard of the two ads."""
    heard: list[list[float]] = pool.others(1).records([BUCKETS + 3, 2 * BUCKETS + 5]).tolist()
    return heard


def test_of_what_a_lane_told_of_its_layer_again_and_again_the_last_of_each_key_is_heard() -> None:
    pool = CountingPool()
    assert hear(pool, shared(100)) == 0
    assert (pool.times, counts(pool)) == (2, [[100.0] * RECORD] * 2)


def _torn(told: Sequence[Record]) -> list[Record]:
    return [*told[:-1], replace(told[-1], value=b"no whole record")]


def test_where_the_last_that_a_lane_told_of_a_bucket_cannot_be_read_the_one_before_counts() -> None:
    pool = Pool()
    assert hear(pool, _torn(shared(2))) == 1
    assert sorted(counts(pool)) == [[1.0] * RECORD, [2.0] * RECORD]
