"""Campaign return: what campaigns were charged, by the same billing as in lanes, and what people bought in answer."""

import numpy as np
from msgspec import Struct

from scoring.arrays import Ints
from scoring.billing import Before, Bills, bill, proven
from scoring.confidence import of_trials
from scoring.events import EVENT, Events, Kind, Outcome, Source, only
from scoring.ids import MISSING
from scoring.ledger import PARTS
from scoring.seal import Seal
from streams.behaviour.joined import Behaviour, by_rank

CAMPAIGNS_MAX = 50
"""Campaigns reported one by one: those most shown. The others share one line."""
OTHERS = "(others)"
_TOLD = ("time_ms", "shown_ms", "ad", "placement", "price_micros", "seal", "own", "viewed_ms", "kind", "answers")
_BILLED = np.dtype([(name, EVENT[name]) for name in (*_TOLD, "arms", "row", "source")])
"""The columns of an event that billing reads."""


class Campaign(Struct, frozen=True):
    """A campaign's impressions and what came of them. The click rate's 95 % interval goes by people (`by_person`).

    ``cost_micros``: what billing charges (`scoring.billing`), before the day's budget is settled; ads that are in no
    catalogue cost nothing. ``return_on_cost``: value over cost; null where nothing was charged.
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
    """All campaigns together, and one by one.

    ``verified``: some events have seals that fit the secret at hand (with the empty secret, which anybody can use to
    seal: most of those that have one). Prices then count only with their placement's seal, as in billing.
    ``unpriced``: events that would have been charged, but had no such price. ``misquoted``: events with a price that no
    placement of their user asked. Not verified: the secret is not at hand, or the log has no seals. Then an event's own
    price counts; where it has none, the bid, the highest possible price.
    """

    total: Campaign
    campaigns: list[Campaign]
    verified: bool
    unpriced: int
    misquoted: int

    @property
    def prices(self) -> str:
        """A sentence on which prices the costs rest."""
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
    """The return of campaigns; only purchases that answer an impression count as value."""
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
    """What the events of known ads charge, as if one lane took all in one batch, without forgetting; and whether their
    prices were verified.
    """
    shop, seal, events = behaviour.shop, behaviour.gathered.seal, _events(behaviour)
    slot = shop.slots_of(events["ad"])
    events, slot = only(events, slot != MISSING), slot[slot != MISSING]
    right, _ = proven(events, slot, shop, seal)
    # Anybody can seal with the empty secret, so one event that fits proves nothing: most must.
    least = int(np.count_nonzero(events["seal"])) // 2 if seal == Seal() else 0
    if not (verified := int(right.sum()) > least):  # trust the events' own prices: seal them here
        price, seal = events["price_micros"], Seal()
        events["price_micros"] = np.where(price < 0, shop.bid_micros[slot], price)
        events["own"] = True
        events["seal"] = seal.tags(events["placement"], events["ad"], events["price_micros"], shop.bid_type[slot])
    nothing = Before(np.zeros(len(events), dtype=np.uint8), np.zeros(len(events), dtype=np.bool_))
    return bill(nothing, events, np.full(len(events), Outcome.APPLIED, dtype=np.uint8), shop, seal), verified


def _events(behaviour: Behaviour) -> Events:
    """Impressions and actions in the order in which lanes take them; an event without a price has its impression's."""
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


def _campaign(name: str, sums: Ints, interval: tuple[float, float]) -> Campaign:
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
