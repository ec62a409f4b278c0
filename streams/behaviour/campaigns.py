"""Campaign return: what campaigns were charged, and what people bought after it."""

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from scoring.billing import VIEW_MS_MAX
from scoring.confidence import wilson
from scoring.events import Kind
from scoring.ids import MISSING
from scoring.ledger import PARTS, charges
from scoring.value import BID_TYPES, BidType
from streams.behaviour.joined import Behaviour

CAMPAIGNS_MAX = 50
"""Campaigns told of one by one: those most shown. The others are one line."""
OTHERS = "(others)"


class Campaign(Struct, frozen=True):
    """A campaign's impressions and what came of them. Click rates with 95 % intervals (Wilson).

    ``cost_micros``: what billing charges: the price of each event that a bid pays for, as impressions and actions told
    it, and the ad's price of each viewed second. Where none told a price it is the bid, the most that it may have been;
    ads that no catalogue knows cost nothing. ``return_on_cost``: value by cost; null where nothing was charged.
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
            charged(behaviour),
            behaviour.bought_micros,
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


def charged(behaviour: Behaviour) -> npt.NDArray[np.int64]:
    """What each impression and its answers charge, ``[I]`` in `PARTS` of a micro (`scoring.ledger.charges`)."""
    offered = [(BID_TYPES[ad.bid_type], ad.bid_micros, ad.attention_micros) for ad in behaviour.gathered.ads]
    of_ad = np.array([*offered, (BidType.CPC, 0, 0)], dtype=np.int64)  # the last: of unknown ads
    bid_type, bid, attention = of_ad[behaviour.impression_ad].T
    told, known = behaviour.price_micros, behaviour.impression_ad != MISSING
    return charges(
        bid_type.astype(np.uint8),
        np.where((told < 0) | ~known, bid, told),
        np.ones(len(told), dtype=np.bool_),
        behaviour.clicked,
        behaviour.stage >= Kind.PURCHASED,
        behaviour.of_impressions(np.minimum(behaviour.actions["viewed_ms"], VIEW_MS_MAX)),
        attention,
    )


def _campaign(name: str, sums: npt.NDArray[np.int64]) -> Campaign:
    impressions, clicks, purchases, parts, value = sums.tolist()
    cost = parts // PARTS
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
