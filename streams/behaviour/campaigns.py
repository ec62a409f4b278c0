"""Campaign return: what campaigns were charged, and what people bought after it."""

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from scoring.confidence import wilson
from scoring.events import Kind
from streams.behaviour.joined import Behaviour

CAMPAIGNS_MAX = 50
"""Campaigns told of one by one: those most shown. The others are one line."""
OTHERS = "(others)"


class Campaign(Struct, frozen=True):
    """A campaign's impressions and what came of them. Click rates with 95 % intervals (Wilson).

    ``cost_micros``: the prices that impressions told; where none did, the bid of the ad for each clicked one, which is
    the most that it may have cost. ``return_on_cost``: value by cost; null where nothing was charged.
    """

    campaign: str
    impressions: int
    clicks: int
    purchases: int
    ctr: float
    ctr_low: float
    ctr_high: float
    cost_micros: int
    value_micros: int
    return_on_cost: float | None


class Campaigns(Struct, frozen=True):
    """All together, and campaign by campaign."""

    total: Campaign
    campaigns: list[Campaign]


def campaigns(behaviour: Behaviour) -> Campaigns:
    """Value is that of purchases which answer an impression."""
    names, campaign = behaviour.campaigns.names, behaviour.campaigns.of_ad[behaviour.impression_ad]
    columns = np.stack(
        [
            np.ones(len(campaign), dtype=np.int64),
            behaviour.clicked,
            behaviour.stage >= Kind.PURCHASED,
            cost_micros(behaviour),
            behaviour.of_impressions("value_micros"),
        ]
    )
    sums = np.zeros((len(columns), len(names)), dtype=np.int64)
    for column, total in zip(columns, sums, strict=True):
        np.add.at(total, campaign, column)
    order = [at for at in np.argsort(-sums[0], kind="stable").tolist() if sums[0, at]]
    told = [_campaign(names[at], sums[:, at]) for at in order[:CAMPAIGNS_MAX]]
    if others := order[CAMPAIGNS_MAX:]:
        told.append(_campaign(f"{OTHERS}: {len(others)}", sums[:, others].sum(axis=1)))
    return Campaigns(total=_campaign("all", sums.sum(axis=1)), campaigns=told)


def cost_micros(behaviour: Behaviour) -> npt.NDArray[np.int64]:
    """What each impression cost at most, ``[I]``."""
    bids = np.array([*(ad.bid_micros for ad in behaviour.gathered.ads), 0], dtype=np.int64)[behaviour.impression_ad]
    told = behaviour.impressions["price_micros"]
    cost: npt.NDArray[np.int64] = np.where(told > 0, told, bids * behaviour.clicked)
    return cost


def _campaign(name: str, sums: npt.NDArray[np.int64]) -> Campaign:
    impressions, clicks, purchases, cost, value = sums.tolist()
    low, high = wilson(clicks, impressions)
    return Campaign(
        campaign=name,
        impressions=impressions,
        clicks=clicks,
        purchases=purchases,
        ctr=clicks / impressions if impressions else 0.0,
        ctr_low=low,
        ctr_high=high,
        cost_micros=cost,
        value_micros=value,
        return_on_cost=value / cost if cost else None,
    )
