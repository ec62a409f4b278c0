"""A worker's campaigns paced by all lanes' spending: what each lane has told, the day's budgets, the multipliers.

A lane's spending for a campaign on a day only grows. So reports that come late, twice or out of order change nothing:
the larger counts. That is how this worker's lanes and what others have published become one figure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Floats, Ids, Ints
from scoring.catalogue import Catalogue
from scoring.ids import MISSING, places_in
from scoring.ledger import Spending
from scoring.market import Market
from scoring.offers import bid_for_clicks
from scoring.pacing import LEAST, Pacer
from scoring.settlement import MICROS_MAX, Settlement
from scoring.traffic import day_curve, unknown
from scoring.units import DAY_MS, FOREVER_MS

EVERY_MS = 1_000
"""Least time between two updates of pacing, in the lanes' time."""
PRIOR_CLICKS, PRIOR_IMPRESSIONS = 100, 1_000
"""Clicks and impressions that the terms' conversion and seconds count for, as a prior beside a campaign's own."""


_NOTHING = Spending("", -1, 0, 0, 0, 0, 0.0)
_ON_PLAN = 0.0, 0.0
_PLAN = np.dtype(
    [
        ("began_ms", "<i8"),  # its first ad, of all that are or were known, here or to other lanes; FOREVER_MS: of none
        ("ends_ms", "<i8"),  # its last ad on offer, of those that had not before the newest day; FOREVER_MS: never
        ("anew_ms", "<i8"),  # when what was left of its budget was last planned anew; 0: never
        ("anew_micros", "<i8"),  # what was planned to be spent that day by then
        ("offered", "?"),  # whether it had an ad on offer when the catalogue was last read
        ("behind", "<f8"),  # how far it was behind the plan when it last had, as a share of its budget
        ("level", "<f8"),
        ("paced_by", "<i8"),  # the budget that this worker last paced by; 0: it has not, and others report the level
        ("stopped", "?"),  # whether it has spent that budget
    ]
)
_UNPLANNED = np.array([(FOREVER_MS, FOREVER_MS, 0, 0, False, 0.0, 0.0, 0, False)], dtype=_PLAN)


@dataclass
class Budgets:
    """A worker's view of all lanes. Changed between slices alone, on the compute thread."""

    market: Market
    catalogue: Catalogue
    day_curve: Floats = field(default_factory=lambda: day_curve([]))
    """The traffic by which the whole day is planned; what is learnt meanwhile serves the next day."""
    _traffic: dict[int, Floats] = field(default_factory=dict)
    _told: dict[tuple[int, str, str], Spending] = field(default_factory=dict)
    """The newest report by lane, campaign and arm: 0.45 KB each, and 1 KB a campaign, of all that it has heard."""
    _lanes: dict[int, int] = field(default_factory=dict)
    """The newest day that each lane has reported."""
    _campaigns: dict[str, int] = field(default_factory=dict)
    _days: Settlement = field(default_factory=Settlement)
    _earned: Floats = field(default_factory=lambda: np.zeros((0, 4)))
    """Impressions, clicks, purchases that were charged and seconds viewed, of all time."""
    _plans: npt.NDArray[Any] = field(default_factory=lambda: _UNPLANNED[:0])
    """`_PLAN` of each campaign."""
    _level_ms: dict[int, int] = field(default_factory=dict)
    """For the campaigns that this worker has not paced, when their level was reported."""
    _pacer: Pacer | None = None
    _paced: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _ids: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    _version: int = -1
    tick_ms: Callable[[], int] = lambda: 0
    """A clock beside the lanes': a lane whose time is ahead must not keep ads' budgets from being read."""
    _paced_ms: int = -EVERY_MS
    """The newest time that pacing has seen: a lane that is behind must not make the plan's progress count twice."""
    _read_due_ms: int = 0
    _standing: tuple[float, float] = _ON_PLAN
    """Replaced whole: the gauges are read on another thread."""

    def tell(self, lane: int, arm: str, news: Spending) -> None:
        """Take a lane's report of a cell; of two reports the larger counts."""
        key = (lane, news.campaign, arm)
        old = self._told.get(key, _NOTHING)
        if news.age <= old.age:
            return
        self._told[key] = news
        self._lanes[lane] = max(self._lanes.get(lane, 0), news.day)
        at = self._place(news.campaign)
        if news.day > self._days.newest:
            self._turn(news.day)
        self._days.spend(at, news.day, news.spent_micros - (old.spent_micros if old.day == news.day else 0))
        self._earned[at] += (
            news.impressions - old.impressions,
            news.clicks - old.clicks,
            news.sold - old.sold,
            news.viewed_s - old.viewed_s,
        )

    def told_day(self, lane: int, campaign: str, arm: str) -> int:
        """The newest day of which a cell has told; -1: it has not told anything."""
        return self._told.get((lane, campaign, arm), _NOTHING).day

    def tell_level(self, campaign: str, level: float, time_ms: int) -> None:
        """Take the long-term level of a campaign's multiplier, as reported at ``time_ms``; 0: it is not paced.

        The newest report counts, and none once this worker has paced the campaign itself: a cell that has long been
        silent reports an old level, and is read first.
        """
        at = self._place(campaign)
        if level <= 0 or self._plans["paced_by"][at] or time_ms < self._level_ms.get(at, time_ms):
            return
        self._level_ms[at] = time_ms
        self._plans["level"][at] = level

    def tell_budget(self, campaign: str, day: int, budget_micros: int | None, time_ms: int) -> None:
        """Take a campaign's budget of ``day``, which a lane reported at ``time_ms``.

        None: the lane knows of no budget; `MICROS_MAX`: it knows that there is no limit.

        The newest report counts, and none where the catalogue itself gave the budget, or no limit. So reports count for
        days before this worker began, and for campaigns of which it has never had an ad on offer, such as those stopped
        or withdrawn before it started: what was delivered beyond their budgets must not be billed.
        """
        at = self._place(campaign)
        if budget_micros is not None and self._days.hear_limit(at, day, budget_micros, time_ms):
            self._version = -1  # the catalogue is read again, with what is known now

    def tell_start(self, campaign: str, starts_ms: int) -> None:
        """Take when a lane knows the campaign's first ad to have begun; of all reports the earliest counts.

        The catalogue has no ads that were withdrawn before this worker began: a campaign whose first one was replaced
        today must not be planned as if it began with the second, which would hold back what it has not spent.
        """
        at = self._place(campaign)
        if starts_ms < self._plans["began_ms"][at]:
            self._plans["began_ms"][at] = starts_ms
            self._version = -1  # the catalogue is read again, with what is known now

    def tell_anew(self, campaign: str, anew_ms: int, planned_micros: int) -> None:
        """Take when a lane's worker planned anew what was left of the campaign's budget, and what was planned by then.

        Of all reports the latest counts. Without it a worker that begins after a campaign went on, or its budget was
        changed, would make up for what was not to be spent before.
        """
        at = self._place(campaign)
        plan = self._plans[at]
        if (anew_ms, planned_micros) > (plan["anew_ms"], plan["anew_micros"]):
            plan["anew_ms"], plan["anew_micros"] = anew_ms, planned_micros
            self._version = -1

    def tell_billed(self, campaign: str, day: int, billed_micros: int) -> None:
        """Take what a lane reported as billed of a campaign's ``day``, after its report by `tell`; the most counts."""
        self._days.hear(self._place(campaign), day, billed_micros)

    def learn(self, lane: int, mean: Floats) -> None:
        """Take what a lane has learnt of its traffic, ``[24]`` as in `scoring.traffic.Traffic`."""
        self._traffic[lane] = mean
        if self._pacer is None:  # nothing has been planned yet
            self.day_curve = day_curve(self._traffic.values())

    def traffic(self, lane: int) -> Floats:
        """What is known of a lane's traffic: a lane's new owner goes on from there."""
        return self._traffic.get(lane, unknown()).copy()

    def _place(self, campaign: str) -> int:
        at = self._campaigns.setdefault(campaign, len(self._campaigns))
        if at >= len(self._plans):
            more = max(at, 64)
            self._days.grow(more)
            self._earned = np.concatenate([self._earned, np.zeros((more, 4))])
            self._plans = np.concatenate([self._plans, np.repeat(_UNPLANNED, more)])
        return at

    def _turn(self, day: int) -> None:
        """Begin a day, with nothing spent."""
        self._days.turn(day)
        self._plans["behind"] = 0.0
        self._version, self._read_due_ms = -1, 0  # read again at once: limits begin, and ads that gave one have ended
        self.day_curve = day_curve(self._traffic.values())

    def set_back(self, day: int) -> None:
        """Go back to ``day``, by what lanes told of days up to it, where the newest is later: a lane was ahead.

        What is known of limits, bills, levels and starts stays; what was spent or planned on days to come does not.
        """
        if self._days.newest <= day:
            return
        told, self._told, self._lanes, self._paced_ms = self._told, {}, {}, -EVERY_MS
        self._earned[:] = 0
        self._plans["anew_ms"][self._plans["anew_ms"] // DAY_MS > day] = 0
        self._plans["stopped"] = True  # what was spent by ``day`` tells nothing of how this worker has bid since
        self._days.set_back(day)
        self._turn(day)
        for (lane, _, arm), news in told.items():
            if news.day <= day:
                self.tell(lane, arm, news)

    def spent_micros(self, campaign: str) -> int:
        """What all lanes report as spent on the newest day."""
        at = self._campaigns.get(campaign)
        return 0 if at is None else int(self._days.spent[at])

    def budget_micros(self, campaign: str, day: int | None = None) -> int:
        """The campaign's budget of ``day`` (None: the newest); 0 where there is no limit."""
        at = self._campaigns.get(campaign)
        limit = 0 if at is None else self._days.limit_of(at, self._days.newest if day is None else day)
        return limit if limit < MICROS_MAX else 0

    def known_micros(self, campaign: str, day: int) -> int:
        """What is known of the budget of ``day`` alone; `MICROS_MAX`: that there is no limit, 0: nothing."""
        at = self._campaigns.get(campaign)
        return 0 if at is None else self._days.known(at, day)

    def billed_micros(self, campaigns: Sequence[str], days: Sequence[int]) -> Ints:
        """Micros ``[N]`` billed to ``campaigns [N]`` for ``days [N]`` by what all lanes spent; the newest days alone.

        Raises `KeyError` for a campaign of which nothing was told.
        """
        at = np.array([self._campaigns[campaign] for campaign in campaigns], dtype=np.int64)
        return self._days.billed(at, np.array(days, dtype=np.int64))

    def _budgets(self, at: Ints, day: int) -> Ints:
        """Budgets of campaigns ``at [M]`` on ``day``; 0 where there is no limit."""
        limits = self._days.limits(at, day)
        return np.where(limits < MICROS_MAX, limits, 0)

    def level(self, campaign: str) -> float:
        """The long-term level of a campaign's multiplier; 0 where it has no budget."""
        return float(self._plans["level"][self._campaigns[campaign]]) if self.budget_micros(campaign) else 0.0

    def hours_ms(self, campaign: str) -> tuple[int | None, int | None]:
        """When the campaign's first ad begins, None: not known; and when its last one ends, None: never."""
        at = self._campaigns.get(campaign)
        plan = _UNPLANNED[0] if at is None else self._plans[at]
        began_ms, ends_ms = (None if plan[name] == FOREVER_MS else int(plan[name]) for name in ("began_ms", "ends_ms"))
        return began_ms, ends_ms

    def anew(self, campaign: str, day: int) -> tuple[int, int] | None:
        """When on ``day`` what was left of the campaign's budget was last planned anew, and micros planned by then."""
        at = self._campaigns.get(campaign)
        if at is None or self._plans["anew_ms"][at] // DAY_MS != day:
            return None
        return int(self._plans["anew_ms"][at]), int(self._plans["anew_micros"][at])

    def standing(self) -> tuple[float, float]:
        """How far campaigns with a budget are from the plan today, and how much was delivered unbilled.

        First, the mean distance of spending from the plan, as a share of the budget. Second, what was delivered beyond
        each day's budgets, today and, while a lane is still in it, on the day before, as a share of the sum of today's
        budgets, since the newest day alone is paced. Both are 0 where no campaign has a budget. As of the last `pace`;
        any thread may ask.
        """
        return self._standing

    def pace(self, now_ms: int) -> None:
        """Set the market's offers, at most once every `EVERY_MS` of the lanes' time ``now_ms``.

        A campaign that has spent its budget stops at once, whenever this is called.
        """
        if now_ms // DAY_MS > self._days.newest:
            self._turn(now_ms // DAY_MS)  # first: what the catalogue says now is not for the day before
        due, paced_ms = now_ms >= self._paced_ms + EVERY_MS, max(now_ms, self._paced_ms)
        now_ms = max(paced_ms, self._days.newest * DAY_MS)
        if self.catalogue.version != self._version and (due or self.tick_ms() >= self._read_due_ms):
            self._finish_plan(now_ms)
            self._read_catalogue(now_ms)
            self._read_due_ms = self.tick_ms() + EVERY_MS  # 200,000 ads take 15 ms, 100,000 campaigns 80
        if not due and not self._newly_spent():
            return
        self._paced_ms = paced_ms
        if self._pacer is None:
            self._standing = _ON_PLAN
            return
        self._keep_to_plan(self._pacer, now_ms)
        paced, day = self._paced, self._days.newest
        impressions, clicks, sold, viewed_s = self._earned[paced].T
        terms = self.market.terms
        conversion = (sold + PRIOR_CLICKS * terms.conversion) / (clicks + PRIOR_CLICKS)
        seconds = (viewed_s + PRIOR_IMPRESSIONS * terms.viewed_s) / (impressions + PRIOR_IMPRESSIONS)
        self.market.pace(self._ids, self._pacer.multiplier, np.minimum(conversion, 1.0), seconds)
        # A lane that is two days behind or more is gone, or catches up after an outage: not today's news.
        since = day - 1 if day - 1 in self._lanes.values() else day
        unbilled = self._days.unbilled(paced, since)
        self._standing = _standing(self._pacer, self._days.spent[paced], unbilled)

    def _keep_to_plan(self, pacer: Pacer, now_ms: int) -> None:
        """Update the multipliers by what is spent now."""
        paced = self._paced
        pacer.update(now_ms, self._days.spent[paced])
        self._plans["paced_by"][paced], self._plans["stopped"][paced] = pacer.budget_micros, pacer.stopped
        self._plans["level"][paced] = np.where(pacer.budget_micros > 0, np.exp(pacer.base), 0.0)

    def _finish_plan(self, now_ms: int) -> None:
        """Keep to the plan until now, before another takes its place, and note how far from it campaigns are.

        A campaign without ads on offer stays as far from it as it was. One that is stopped has nothing to make up for.
        """
        pacer = self._pacer
        if pacer is None or pacer.updated_ms // DAY_MS != self._days.newest:  # a day begins on its plan
            return
        self._keep_to_plan(pacer, now_ms)
        ran = self._plans["offered"][self._paced]
        self._plans["behind"][self._paced[ran]] = np.where(pacer.stopped, 0.0, pacer.behind)[ran]

    def _newly_spent(self) -> bool:
        """Whether a campaign that still bids has spent its budget."""
        if self._pacer is None:
            return False
        over = (self._pacer.budget_micros > 0) & (self._days.spent[self._paced] >= self._pacer.budget_micros)
        return bool((over & (self._pacer.multiplier > 0)).any())

    def _read_catalogue(self, now_ms: int) -> None:
        """Read which campaigns there are and what they may spend; pacing goes on from its own or the reported level.

        A changed budget counts from the day of its change on; until then the old one holds. That of an ad which ended
        before the day counts only where no other states one: else there would be no limit. A campaign that has no ad on
        offer, or whose ads have all moved to another campaign, keeps its budget, as known here or as reported: what was
        delivered beyond it must not be billed.
        """
        shop, self._version = self.catalogue, self.catalogue.version
        ids, first, of = np.unique(shop.campaign, return_index=True, return_inverse=True)
        budgets, offered = np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=np.bool_)
        np.maximum.at(budgets, of, np.where(shop.end_ms > self._days.newest * DAY_MS, shop.budget_micros, 0))
        open_ = np.flatnonzero(budgets[of] == 0)
        np.maximum.at(budgets, of[open_], shop.budget_micros[open_])
        np.logical_or.at(offered, of, shop.active)
        at = places_in(self._ids, ids)
        paced, known, new = np.empty(len(ids), dtype=np.int64), at != MISSING, np.flatnonzero(at == MISSING)
        paced[known] = self._paced[at[known]]
        paced[new] = [self._place(shop.campaigns[slot]) for slot in first[new].tolist()]
        self._ids, self._paced = ids, paced
        sure = offered | (budgets > 0)
        since = np.fromiter(map(shop.budget_ms.get, ids.tolist(), repeat(0)), np.int64, len(ids)) // DAY_MS
        self._days.limit(paced[sure], np.where(budgets > 0, budgets, MICROS_MAX)[sure], since[sure])
        budgets = self._budgets(paced, self._days.newest)
        self._plan(paced, of, budgets, offered, now_ms)
        if not budgets.any() and bid_for_clicks(shop):
            if self._pacer is not None:
                self._pacer = None
                self.market.pace(ids[:0], np.zeros(0))
            return
        plans = self._plans[paced]
        # One that is told by a worker whose lanes are ahead counts, too: nothing more is planned until these get there.
        anew = plans["anew_ms"] // DAY_MS == self._days.newest
        starts = np.where(anew, np.maximum(plans["began_ms"], plans["anew_ms"]), plans["began_ms"])
        before = np.where(anew, np.minimum(plans["anew_micros"] / np.maximum(budgets, 1), 1.0), 0.0)
        pacer = Pacer(budgets, self.day_curve, starts, plans["ends_ms"], before)
        pacer.base = np.where(plans["level"] > 0, np.log(np.maximum(plans["level"], LEAST)), pacer.base)
        # Where the budget was cut, what is spent tells nothing of how this worker has bid.
        cut = (budgets < plans["paced_by"]) | (plans["paced_by"] == 0)
        pacer.stopped = (budgets > 0) & (self._days.spent[paced] >= budgets) & (plans["stopped"] | cut)
        if self._pacer is not None:
            pacer.resume(self._pacer)
        self._pacer = pacer

    def _plan(self, paced: Ints, of: Ints, budgets: Ints, offered: Bools, now_ms: int) -> None:
        """Learn from the catalogue when the campaigns at ``paced`` begin and end; ``of``: each ad's, among these.

        What is left of a budget is planned anew where the budget has changed within the day, or where the campaign goes
        on after a time without ads: what it could not spend then is no reason to spend it in haste. As far as it was
        behind its plan before, or ahead, it stays, in money or, of a lowered budget, in its share: else bids of a
        campaign whose budget changes every minute would never be corrected. A worker that reads its first catalogue has
        seen no change.
        """
        shop, plans = self.catalogue, self._plans[paced]
        starts, ends = np.full(len(paced), FOREVER_MS), np.zeros(len(paced), dtype=np.int64)
        np.minimum.at(starts, of, shop.start_ms)
        np.maximum.at(ends, of, np.where(shop.active, shop.end_ms, 0))
        if self._paced_ms >= 0:
            ran, runs = plans["offered"] & (plans["ends_ms"] > now_ms), offered & (ends > now_ms)
            anew = (budgets > 0) & ((budgets != plans["paced_by"]) | (runs & ~ran))
            behind = np.where(plans["offered"] & ~ran, 0.0, plans["behind"]) * np.minimum(budgets, plans["paced_by"])
            planned = (self._days.spent[paced] + behind).astype(np.int64)
            plans["anew_ms"][anew], plans["anew_micros"][anew] = now_ms, planned[anew]
        plans["began_ms"] = np.minimum(plans["began_ms"], starts)
        plans["ends_ms"] = np.where(ends > self._days.newest * DAY_MS, ends, FOREVER_MS)
        plans["offered"], self._plans["offered"] = offered, False  # of those that the catalogue knows no more
        self._plans[paced] = plans


def _standing(pacer: Pacer, spent_micros: Ints, unbilled_micros: Floats) -> tuple[float, float]:
    """As `Budgets.standing` has it, of campaigns that have spent ``spent_micros [M]`` today."""
    limited = pacer.budget_micros > 0
    if not limited.any():
        return _ON_PLAN
    budget, spent = pacer.budget_micros[limited], spent_micros[limited]
    error = np.abs(np.minimum(spent / budget, 1.0) - pacer.plan[limited]).mean()
    return float(error), float(unbilled_micros[limited].mean() / budget.mean())
