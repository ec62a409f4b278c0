"""A market of known truth: the demo shop's shoppers, 200 campaigns with budgets, two workers that share them.

Visits follow an hourly curve. A worker decides, the placement is shown at once or within its ten minutes, and what
follows is charged to the lane's ledger. Each worker paces by its own lanes' ledgers and by those that the other
published a minute ago. The first day is planned by the clock, the others by the traffic learnt before they begin. In
the middle of the second day one worker leaves for two hours, and its lanes move.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scoring.arrays import Bools, Floats, Ids, Ints
from scoring.catalogue import Catalogue, Entry
from scoring.features import Content
from scoring.ids import MISSING, id64s
from scoring.ledger import PARTS, charges
from scoring.market import Asked, Cap, Decided, Market, Terms
from scoring.offers import Offers
from scoring.pacing import Pacer, planned
from scoring.settlement import Settlement
from scoring.traffic import HOURS, Traffic, day_curve
from scoring.units import DAY_MS, HOUR_MS, MINUTE_MS
from scoring.value import BidType
from streams.demo.catalogue import catalogue as shop_ads
from streams.demo.shop import BASE_LOG_ODDS, REACH, SLOT_WEIGHT
from streams.demo.tastes import Tastes

CAMPAIGNS, ADVERTISERS, LANES, WORKERS = 200, 60, 8, 2
USERS, VISITS_PER_DAY, SLOTS, HISTORY = 3_000, 40_000, 10, 50
AT_ONCE, SHOWN_WITHIN_MIN = 0.8, 10
"""Share of placements shown in the minute they are made; minutes within which the others are, their validity."""
NOISE = 0.15
"""Standard deviation of the model's error in log-odds."""
CVR, VIEW_S = 0.06, 4.0
CAPS = (Cap("ad", 2, HOUR_MS), Cap("campaign", 3, HOUR_MS), Cap("advertiser", 6, HOUR_MS))
DAY_CURVE = np.roll(1 + 0.6 * np.sin(np.arange(24) / 24 * 2 * np.pi), 9) / 24
"""Traffic by the hour: quiet at night, full in the evening."""
WARM_UP_MIN = 360
LEAVES_MIN, RETURNS_MIN = 1_440 + 720, 1_440 + 840
PRICES_CHECKED = 500
"""People whose prices are checked: ten slots each, and for each slot two decisions made again."""
SURELY_SPENT = 0.5
"""A campaign whose budget is at most this share of its unpaced spending could spend it on any day."""
EVENT_SHARE_MAX = 0.01
"""Where one paid event is more than this share of a budget, pacing meets the budget only to within a few events."""


@dataclass(frozen=True)
class Shop:
    """The market's constant part: M campaigns, A ads."""

    catalogue: Catalogue
    campaign: Ints  # [A]
    campaign_ids: Ids  # [M]
    tastes: Tastes

    @classmethod
    def of(cls, seed: int) -> "Shop":
        draw, ads = np.random.default_rng([seed, 1]), shop_ads(1)
        campaign = np.arange(len(ads)) % CAMPAIGNS
        types = ["cpc"] * 5 + ["cpm"] * 2 + ["cpa"] * 2 + ["attention"]
        level = {"cpc": 350_000, "cpm": 140_000_000, "cpa": 6_000_000, "attention": 45_000}
        stock = Catalogue()
        for number, ad in enumerate(ads):
            kind = types[int(campaign[number]) % len(types)]
            stock.upsert([
                Entry(
                    Content(ad.ad_id, ad.category, ad.brand, ad.price_micros, ad.tags, ad.title),
                    campaign_id=f"c{campaign[number]}", advertiser_id=f"a{campaign[number] % ADVERTISERS}",
                    bid_micros=int(level[kind] * np.exp(draw.normal(0, 0.25))), bid_type=kind,
                )
            ])  # fmt: skip
        names = id64s([f"c{number}" for number in range(CAMPAIGNS)])
        return cls(stock, campaign, names, Tastes(ads, USERS, 1, np.random.default_rng([seed, 2])))


@dataclass
class Worker:
    """One worker's view: its market, its pacer, and the lanes that are its own."""

    market: Market
    pacer: Pacer
    lanes: Bools

    def pace(self, shop: Shop, now_ms: int, ledger: Ints, published: Ints) -> None:
        """Pace by its own lanes' present ledger and the others' published ledgers, ``[lanes, M]``."""
        known = np.where(self.lanes[:, None], ledger, published).sum(axis=0) // PARTS
        self.pacer.update(now_ms, known)
        self.market.pace(shop.campaign_ids, self.pacer.multiplier)


@dataclass
class Waiting:
    """Placements decided and not shown yet, one per user: the newest."""

    due_min: Ints = field(default_factory=lambda: np.full(USERS, -1))
    slots: Ints = field(default_factory=lambda: np.full((USERS, SLOTS), MISSING))
    prices: Ints = field(default_factory=lambda: np.zeros((USERS, SLOTS), dtype=np.int64))


@dataclass
class World:
    """All state that changes during the simulation."""

    shop: Shop
    draw: np.random.Generator
    budgets: Ints
    terms: Terms = field(default_factory=lambda: Terms(caps=CAPS))
    waiting: Waiting = field(default_factory=Waiting)
    shown: Ints = field(default_factory=lambda: np.full((USERS, HISTORY), MISSING))
    shown_ms: Ints = field(default_factory=lambda: np.full((USERS, HISTORY), -(10**15)))
    ledger: Ints = field(default_factory=lambda: np.zeros((LANES, CAMPAIGNS), dtype=np.int64))
    published: Ints = field(default_factory=lambda: np.zeros((LANES, CAMPAIGNS), dtype=np.int64))
    impressions: list[Ints] = field(default_factory=lambda: [np.empty((0, 3), dtype=np.int64)])
    """User, ad and time in ms ``[N, 3]``, in pieces: N is 300,000 a day."""
    mismatches: int = 0
    checked: int = 0
    traffic: list[Traffic] = field(default_factory=lambda: [Traffic() for _ in range(LANES)])
    workers: list[Worker] = field(init=False)
    _sample: np.random.Generator = field(init=False)
    """Draws whose prices are checked. It is a generator of its own, so that checks change nothing else."""

    def __post_init__(self) -> None:
        (self._sample,) = self.draw.spawn(1)
        lane = np.arange(LANES)
        self.workers = [
            Worker(Market(self.terms), Pacer(self.budgets), lane % WORKERS == number) for number in range(WORKERS)
        ]

    def minute(self, number: int) -> None:
        """One minute: decide for visitors, show what is due, pace, and publish the ledgers."""
        now_ms = number * MINUTE_MS
        if number in (LEAVES_MIN, RETURNS_MIN):
            self._rebalance(both=number == RETURNS_MIN)
        visits = self.draw.poisson(VISITS_PER_DAY / 1_440 * DAY_CURVE[number // 60 % 24] * 24)
        visitors = np.unique(self.draw.integers(0, USERS, visits))
        for worker in self.workers:
            own = visitors[worker.lanes[visitors % LANES]]
            if len(own):
                self._decide(worker, own, now_ms, number)
        self._show(np.flatnonzero(self.waiting.due_min == number), now_ms)
        for worker in self.workers:
            worker.pace(self.shop, now_ms + MINUTE_MS, self.ledger, self.published)
        self.published = self.ledger.copy()

    def _rebalance(self, *, both: bool) -> None:
        """Move lanes between the workers; each lane's ledger goes with it."""
        lane = np.arange(LANES)
        self.workers[0].lanes = lane % WORKERS == 0 if both else np.ones(LANES, dtype=np.bool_)
        self.workers[1].lanes = lane % WORKERS == 1 if both else np.zeros(LANES, dtype=np.bool_)

    def _chance(self, users: Ints) -> Floats:
        """True log-odds of a click in the first slot, ``[B, A]``."""
        return BASE_LOG_ODDS + self.shop.tastes.log_odds(users).astype(float)

    def _decide(self, worker: Worker, users: Ints, now_ms: int, number: int) -> None:
        self.shop.tastes.drift(users, np.full(len(users), now_ms + 1))
        self.shop.tastes.jump(users[self.draw.random(len(users)) < 0.3])
        ads = np.broadcast_to(np.arange(len(self.shop.campaign)), (len(users), len(self.shop.campaign)))
        guess = self._chance(users) + self.draw.normal(0, NOISE, ads.shape)
        pctr = 1 / (1 + np.exp(-guess))
        seconds = VIEW_S * pctr * 2
        known = worker.market.offers(self.shop.catalogue, ads)
        kept = np.ones((*ads.shape, 4), dtype=np.float32) if known is None else known.kept.copy()
        kept[..., 2], kept[..., 3] = CVR, seconds
        offers = Offers(kept)
        asked = Asked(
            ads, pctr, users.astype(np.uint64) ^ np.uint64(now_ms + 1), np.zeros(len(users)), self.shown[users],
            now_ms - self.shown_ms[users], offers,
        )  # fmt: skip
        made = worker.market.decide(self.shop.catalogue, asked, SLOTS)
        self._check_prices(worker, made, asked)
        at_once = self.draw.random(len(users)) < AT_ONCE
        self.waiting.due_min[users] = number + np.where(at_once, 0, self.draw.integers(1, SHOWN_WITHIN_MIN, len(users)))
        placed = np.where(made.chosen >= 0, made.chosen, MISSING)
        self.waiting.slots[users], self.waiting.prices[users] = placed, made.prices_micros

    def _show(self, users: Ints, now_ms: int) -> None:
        if not len(users):
            return
        slots, prices = self.waiting.slots[users], self.waiting.prices[users]
        self.waiting.due_min[users] = -1
        position = np.arange(SLOTS)
        seen = (self.draw.geometric(1 - REACH, len(users))[:, None] > position) & (slots != MISSING)
        chance = 1 / (1 + np.exp(-np.take_along_axis(self._chance(users), np.maximum(slots, 0), axis=1)))
        clicked = seen & (self.draw.random(slots.shape) < chance / (1 + SLOT_WEIGHT * position))
        bought = clicked & (self.draw.random(slots.shape) < CVR)
        viewed_ms = (clicked * self.draw.exponential(2 * VIEW_S * 1_000, slots.shape)).astype(np.int64)
        person, slot = np.nonzero(seen)
        ad = slots[person, slot]
        owed = charges(
            self.shop.catalogue.bid_type[ad], prices[person, slot], seen[person, slot], clicked[person, slot],
            bought[person, slot],
            viewed_ms[person, slot], self.shop.catalogue.attention_micros[ad],
        )  # fmt: skip
        np.add.at(self.ledger, (users[person] % LANES, self.shop.campaign[ad]), owed)
        for traffic, count in zip(self.traffic, np.bincount(users[person] % LANES, minlength=LANES), strict=True):
            traffic.observe(now_ms, int(count))
        for at, user in enumerate(users.tolist()):
            new = slots[at][seen[at]]
            self.shown[user] = np.concatenate([self.shown[user], new])[-HISTORY:]
            self.shown_ms[user] = np.concatenate([self.shown_ms[user], np.full(len(new), now_ms)])[-HISTORY:]
        self.impressions.append(np.column_stack([users[person], ad, np.full(len(ad), now_ms)]))

    def _check_prices(self, worker: Worker, made: Decided, asked: Asked) -> None:
        """Check one person's prices against their definition, the least bid that keeps the slot, by deciding again.

        A bid of one more must keep the slot (at the price itself, two ads may be worth the same); a bid of one less
        must not, unless the price is 0.
        """
        if self.checked >= PRICES_CHECKED or self._sample.random() > 0.3:
            return
        self.checked += 1
        again = _of_first(asked)
        for slot, place in enumerate(made.chosen[0].tolist()):
            if place < 0:
                continue
            paid, bid = int(made.prices_micros[0, slot]), int(made.bids_micros[0, place])
            keeps = self._stands(worker, again, place, slot, min(paid + 1, bid))
            least = paid == 0 or not self._stands(worker, again, place, slot, paid - 1)
            self.mismatches += not (keeps and least and paid <= bid)

    def _stands(self, worker: Worker, asked: Asked, place: int, slot: int, bid: int) -> bool:
        """Whether the candidate at ``place`` would stand in ``slot`` with the unpaced ``bid`` in place of its own."""
        assert asked.offers is not None
        bids, ad, kept = self.shop.catalogue.bid_micros, int(asked.candidates[0, place]), asked.offers.kept.copy()
        kept[0, place, 0] = 1
        held, bids[ad] = int(bids[ad]), bid
        try:
            made = worker.market.decide(self.shop.catalogue, replace(asked, offers=Offers(kept)), SLOTS)
        finally:
            bids[ad] = held
        return int(made.chosen[0, slot]) == place


def _of_first(asked: Asked) -> Asked:
    """What is asked for the first person alone."""
    assert asked.offers is not None
    told = {name: getattr(asked, name)[:1] for name in ("candidates", "pctr", "seeds", "temperatures", "shown")}
    return replace(asked, **told, shown_age_ms=asked.shown_age_ms[:1], offers=Offers(asked.offers.kept[:1]))


def cap_violations(impressions: Ints, shop: Shop) -> int:
    """Impressions beyond a cap, counted from the log ``[N, 3]`` alone: each is compared with all of its window."""
    user, ad, at_ms = impressions.T
    found = 0
    for cap in CAPS:
        group = {"ad": ad, "campaign": shop.campaign[ad], "advertiser": shop.campaign[ad] % ADVERTISERS}[cap.scope]
        order = np.lexsort((at_ms, group, user))
        key, time = (user * 10_000 + group)[order], at_ms[order]
        same = key[cap.most :] == key[: -cap.most]
        found += int((same & (time[cap.most :] - time[: -cap.most] < cap.window_ms)).sum())
    return found


@dataclass
class Day:
    """A day's end, per campaign: billed, unbilled, and whether pacing held back or had stopped it in the last hour.

    ``off_traffic``: mean over the hours of the distance between its spent share of the budget and the share of the
    traffic that had come.
    """

    billed: Ints
    unbilled: Ints
    held_back: Bools
    off_traffic: Floats


def run(seed: int, days: int, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The figures of ``salience simulate market``; ``tick`` is called every simulated hour.

    ``coarse``: campaign-days whose budget is less than a hundred paid events; their error is given in events.
    ``off_traffic``: how far spending was from the course of the traffic, on the first day, which is planned by the
    clock, and on the last.
    """
    shop = Shop.of(seed)
    budgets, share = _budgets(shop, seed)
    world = World(shop, np.random.default_rng([seed, 3]), budgets)
    ends = list(_days(world, days, tick))
    impressions = np.concatenate(world.impressions)
    could = np.stack([day.held_back | (share <= SURELY_SPENT) for day in ends])
    left = np.stack([np.abs(day.billed - budgets) for day in ends])
    largest = _largest_event(shop)
    coarse = largest > EVENT_SHARE_MAX * budgets
    errors = (left / budgets)[could & ~coarse]
    unbilled = np.concatenate([day.unbilled / budgets for day in ends])
    return {
        "days": days,
        "campaigns": CAMPAIGNS,
        "impressions": len(impressions),
        "campaign_days_that_could_spend": len(errors),
        "spend_error": float(errors.max(initial=0)),
        "coarse_campaign_days": int((could & coarse).sum()),
        "coarse_error_events": float((left / largest)[could & coarse].max(initial=0)),
        "spend_error_median": float(np.median(errors)),
        "off_traffic_first_day": float(ends[0].off_traffic[could[0] & ~coarse].mean()),
        "off_traffic_last_day": float(ends[-1].off_traffic[could[-1] & ~coarse].mean()),
        "unbilled_share": float(sum(day.unbilled.sum() for day in ends) / (days * budgets.sum())),
        "unbilled_share_worst": float(unbilled.max()),
        "cap_violations": cap_violations(impressions, shop),
        "prices_checked": world.checked,
        "price_mismatches": world.mismatches,
    }


def _days(world: World, days: int, tick: Callable[[], None]) -> Iterator[Day]:
    everybody, settlement = np.arange(CAMPAIGNS), Settlement()
    settlement.grow(CAMPAIGNS)
    settlement.limit(everybody, world.budgets, np.zeros(CAMPAIGNS, dtype=np.int64))
    for day in range(days):
        settlement.turn(day)
        world.ledger[:] = 0  # a new day has its own ledger
        world.published[:] = 0
        for worker in world.workers:
            worker.pacer.day_curve = day_curve(traffic.mean for traffic in world.traffic)
        held, off = np.zeros(CAMPAIGNS, dtype=np.bool_), np.zeros(CAMPAIGNS)
        for minute in range(DAY_MS // MINUTE_MS):
            world.minute(day * 1_440 + minute)
            if 1_380 <= minute < 1_439:  # the last update is the next day's first
                held |= np.logical_or.reduce([worker.pacer.multiplier < 1 for worker in world.workers])
            if minute % 60 == 59:
                come = planned(minute * MINUTE_MS + MINUTE_MS - 1, DAY_CURVE)
                off += np.abs(np.minimum(world.ledger.sum(axis=0) / PARTS / np.maximum(world.budgets, 1), 1.0) - come)
                tick()
        for at, micros in enumerate((world.ledger.sum(axis=0) // PARTS).tolist()):
            settlement.spend(at, day, micros)
        billed = settlement.billed(everybody, day)
        yield Day(billed, settlement.spent - billed, held, off / HOURS)


def _largest_event(shop: Shop) -> Ints:
    """Micros of each campaign's most expensive paid event, at its full bid; ten seconds of attention are one event."""
    scale = np.select(
        [shop.catalogue.bid_type == BidType.CPM, shop.catalogue.bid_type == BidType.ATTENTION], [1e-3, 10], 1
    )
    largest = np.zeros(CAMPAIGNS)
    np.maximum.at(largest, shop.campaign, shop.catalogue.bid_micros * scale)
    return largest.astype(np.int64)


def _budgets(shop: Shop, seed: int) -> tuple[Ints, Floats]:
    """Daily budgets, and each one's share of what its campaign would spend unpaced: from a quarter to twice.

    A warm-up, which is not charged, tells what a campaign would spend.
    """
    world = World(shop, np.random.default_rng([seed, 4]), np.zeros(CAMPAIGNS, dtype=np.int64))
    for minute in range(720, 720 + WARM_UP_MIN):
        world.minute(minute)
    spent = world.ledger.sum(axis=0) / PARTS / DAY_CURVE[12 : 12 + WARM_UP_MIN // 60].sum()
    share = np.random.default_rng([seed, 5]).uniform(0.25, 2.0, CAMPAIGNS)
    share[spent == 0] = np.inf  # no budget could be spent
    return np.maximum(spent * np.minimum(share, 2), 1_000_000).astype(np.int64), share
