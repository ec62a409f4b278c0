"""Campaign return: what campaigns were charged, by the lanes' own billing, and what people bought after it."""

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from scoring.billing import Before, Bills, bill, proven
from scoring.confidence import of_trials
from scoring.events import EVENT, Events, Kind, Outcome, Source, only
from scoring.ids import MISSING
from scoring.ledger import PARTS
from scoring.seal import Seal
from streams.behaviour.joined import Behaviour, Ints, by_rank

CAMPAIGNS_MAX = 50
"""Campaigns told of one by one: those most shown. The others are one line."""
OTHERS = "(others)"
_TOLD = ("time_ms", "shown_ms", "ad", "placement", "price_micros", "seal", "own", "viewed_ms", "kind", "answers")
_BILLED = np.dtype([(name, EVENT[name]) for name in (*_TOLD, "arms", "row", "source")])
"""What billing looks at of an event."""


class Campaign(Struct, frozen=True):
    """A campaign's impressions and what came of them. Click rates with 95 % intervals, by people (`by_person`).

    ``cost_micros``: what billing charges (`scoring.billing`), before the day's budget is settled; ads that no catalogue
    knows cost nothing. ``return_on_cost``: value by cost; null where nothing was charged.
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
    """All together, and campaign by campaign.

    ``verified``: some seals were told that fit the secret at hand (most, of the empty one, with which anybody can
    seal), so that prices count as they do in billing: with the placement's seal. ``unpriced`` events would have been
    charged and brought none; ``misquoted`` ones told one that no placement of their user asked. Else prices are as
    events told them, and the bid, the most that it may have been, where none did: then the secret is not at hand, or
    the log has no seals.
    """

    total: Campaign
    campaigns: list[Campaign]
    verified: bool
    unpriced: int
    misquoted: int

    @property
    def prices(self) -> str:
        """What the costs rest on, in a sentence."""
        if self.verified:
            return (
                f"Prices count where their placement's seal proves them: {self.unpriced:,} events that would have been "
                f"charged brought no such price, and {self.misquoted:,} told one that no placement of their user asked."
            )
        return (
            "Seals do not fit the secret at hand (SALIENCE_SEAL_SECRET), so prices are unverified: as events told "
            "them, and the bid, the most that it may have been, where none did."
        )


def campaigns(behaviour: Behaviour) -> Campaigns:
    """Value is that of purchases which answer an impression."""
    names, campaign = behaviour.campaigns.names, behaviour.campaigns.of_ad[behaviour.impression_ad]
    bills, verified = billed(behaviour)
    columns = (
        (campaign, np.ones(len(campaign), dtype=np.int64)),
        (campaign, behaviour.clicked),
        (campaign, behaviour.stage >= Kind.PURCHASED),
        (behaviour.campaigns.of_ad[bills.slot], bills.charged),
        (campaign, behaviour.bought_micros),
    )
    sums = np.zeros((len(columns), len(names)), dtype=np.int64)
    for (of, column), total in zip(columns, sums, strict=True):
        np.add.at(total, of, column)
    order, members = by_rank(campaign, sums[0], CAMPAIGNS_MAX)

    def told_of(name: str, those: list[int], theirs: Ints | slice) -> Campaign:
        interval = of_trials(behaviour.clicked[theirs], behaviour.impression_user[theirs])
        return _campaign(name, sums[:, those].sum(axis=1), interval)

    told = [told_of(names[at], [at], theirs) for at, theirs in zip(order[:CAMPAIGNS_MAX], members[:-1], strict=True)]
    if others := order[CAMPAIGNS_MAX:]:
        told.append(told_of(f"{OTHERS}: {len(others)}", others, members[-1]))
    unpriced = int(bills.unpriced.sum())
    return Campaigns(told_of("all", [*range(len(names))], slice(None)), told, verified, unpriced, bills.misquoted)


def billed(behaviour: Behaviour) -> tuple[Bills, bool]:
    """What the events of known ads charge, as if a lane took them in one batch, in which no ring forgets; whether their
    prices were verified.
    """
    shop, seal, events = behaviour.shop, behaviour.gathered.seal, _events(behaviour)
    slot = shop.slots_of(events["ad"])
    events, slot = only(events, slot != MISSING), slot[slot != MISSING]
    right, _ = proven(events, slot, shop, seal)
    # Anybody can seal with the empty secret, and so make one event that fits.
    least = int(np.count_nonzero(events["seal"])) // 2 if seal == Seal() else 0
    if not (verified := int(right.sum()) > least):  # taken at their word: sealed here
        price, seal = events["price_micros"], Seal()
        events["price_micros"] = np.where(price < 0, shop.bid_micros[slot], price)
        events["own"] = True
        events["seal"] = seal.tags(events["placement"], events["ad"], events["price_micros"], shop.bid_type[slot])
    nothing = Before(np.zeros(len(events), dtype=np.uint8), np.zeros(len(events), dtype=np.bool_))
    return bill(nothing, events, np.full(len(events), Outcome.APPLIED, dtype=np.uint8), shop, seal), verified


def _events(behaviour: Behaviour) -> Events:
    """Impressions and actions in the order in which lanes take them; what tells no price has that of its impression."""
    impressions, actions = behaviour.impressions, behaviour.actions
    out = np.zeros(len(impressions) + len(actions), dtype=_BILLED)
    for name in _TOLD:
        out[name] = np.concatenate([impressions[name], actions[name]])
    out["row"] = np.concatenate([behaviour.impression_user, behaviour.action_user])
    out["source"][len(impressions) :] = Source.CLICK
    told, answered = behaviour.price_micros, behaviour.answers != MISSING
    asked = np.concatenate([told, np.full(len(actions), -1)])
    asked[len(impressions) :][answered] = told[behaviour.answers[answered]]
    out["price_micros"] = np.where(out["price_micros"] < 0, asked, out["price_micros"])
    return out[np.lexsort((out["source"], out["time_ms"]))]


def _campaign(name: str, sums: npt.NDArray[np.int64], interval: tuple[float, float]) -> Campaign:
    impressions, clicks, purchases, parts, value = sums.tolist()
    cost = parts // PARTS
    return Campaign(
        campaign=name,
        impressions=impressions,
        clicks=clicks,
        purchases=purchases,
        ctr=clicks / impressions if impressions else 0.0,
        ctr_low=interval[0],
        ctr_high=interval[1],
        cost_micros=cost,
        value_micros=value,
        return_on_cost=value / cost if cost else None,
    )
