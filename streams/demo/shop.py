"""Simulated shoppers: they browse by their hidden tastes, and look at the ads of their placements.

No clock and no I/O: time is an argument, chance comes from the seed, and the same calls give the same events.
Shoppers do not influence each other, so many of them are computed at once in arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from scoring.arrays import Bools, Ints, Singles
from streams.demo.catalogue import LOG_START_MS, catalogue
from streams.demo.reviews import reviews, tones
from streams.demo.tastes import Tastes
from streams.logs import Event, Log, in_order
from streams.wire import Click, EventKind, Impression

BASE_LOG_ODDS = -3.55
"""Log-odds of a click on an item that a shopper neither likes nor dislikes, in the first slot."""
REACH = 0.94
"""Share of shoppers who scroll on to the next slot; a slot that they do not reach is no impression."""
SLOT_WEIGHT = 0.06
"""A look at slot s is worth 1 / (1 + 0.06 s) of one at the top."""
FATIGUE, FATIGUE_MS = 1.5, 120_000
"""Log-odds that an item loses right after it was seen, and the time after which 1/e of that loss is left."""
RANDOM_BROWSING = 0.15
"""Share of organic clicks that say nothing about taste."""
JUMP_IN_SESSION = 0.06
"""Chance, at each act, that another sub-category comes to mind."""
SHOP = 1
"""Seed of the shop: the shipped model has learnt its ads."""
LOG_SLOTS = 10
"""Ads of each of its placements."""
SURFACES = ("home", "search", "category")


@dataclass(frozen=True, slots=True)
class Pace:
    """Median seconds between acts, mean number of acts in a session, mean seconds between sessions."""

    act_s: float = 6.0
    session_acts: float = 8.0
    away_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Answers:
    """What B shoppers do with S slots each, all ``[B, S]``; times in ms after the impression."""

    shown: Bools
    click: Bools
    click_ms: Ints
    view: Bools
    viewed_ms: Ints
    cart: Bools
    purchase: Bools


class Shoppers:
    """``users`` shoppers of the shop ``catalogue(SHOP)``, named by their ``crowd``: ``user-0000`` and so on.

    ``run`` is the prefix of their events' ids: to let the same people in again, give another one. `organic` gives what
    shoppers do of their own accord, `see` what a shopper does when shown a placement.
    Memory: users × (ads × 8 + 500) bytes, for who saw what when.
    """

    def __init__(
        self, seed: int, users: int, *, pace: Pace | None = None, crowd: str = "user", run: str = "demo"
    ) -> None:
        self.ads = catalogue(SHOP)
        self.names = [f"{crowd}-{number:04d}" for number in range(users)]
        self.tastes = Tastes(self.ads, users, SHOP, np.random.default_rng([seed, 1]))
        self._pace = pace or Pace()
        self._rng = np.random.default_rng([seed, 2])
        self._run = f"{run}-{seed}"
        self._events = 0
        self._number = {name: number for number, name in enumerate(self.names)}
        self._ad_number = {ad.ad_id: number for number, ad in enumerate(self.ads)}
        self._seen_ms = np.full((users, len(self.ads)), -(10**15), dtype=np.int64)
        self._distracted = np.zeros(users, dtype=np.bool_)
        self._next_ms: Ints | None = None

    def organic(self, now_ms: int) -> list[Event]:
        """What shoppers do of their own accord up to ``now_ms``, at most one act each; the first call starts them.

        An act is a click (on a search result, say), mostly with a view that tells its length and is dated when it ends:
        so some events are later than ``now_ms``.
        """
        if self._next_ms is None:
            self.start(now_ms)
        due = np.flatnonzero(self.next_ms <= now_ms)
        return self.act(due, np.full(len(due), now_ms, dtype=np.int64)) if len(due) else []

    def start(self, now_ms: int) -> None:
        """Start the shoppers as on any day: some within a session, the others away."""
        pace, rng, count = self._pace, self._rng, len(self.names)
        session_s = pace.session_acts * pace.act_s
        within = rng.random(count) < session_s / (session_s + pace.away_s)
        wait_s = rng.uniform(0, np.where(within, pace.act_s, pace.away_s))
        self._next_ms = now_ms + (1000 * wait_s).astype(np.int64)

    @property
    def next_ms(self) -> Ints:
        """When each shopper acts next, ``[users]``. Raises `RuntimeError` before `start`."""
        if self._next_ms is None:
            raise RuntimeError("the shoppers have not begun; call start(now_ms) or organic(now_ms) first")
        return self._next_ms

    def act(self, users: Ints, now_ms: Ints) -> list[Event]:
        """One organic act of each of the distinct ``users [B]`` at ``now_ms [B]``; sets when they act next."""
        rng, count = self._rng, len(users)
        self.tastes.drift(users, now_ms)
        self.tastes.jump(users[self._distracted[users]])
        liking = self.tastes.log_odds(users)
        chosen = np.argmax(1.5 * liking + rng.gumbel(size=liking.shape), axis=1)
        wander = rng.random(count) < RANDOM_BROWSING
        chosen[wander] = rng.integers(0, len(self.ads), int(wander.sum()))
        viewed_ms = _viewed_ms(rng, liking[np.arange(count), chosen])
        stays, carts = rng.random(count) < 0.7, rng.random(count) < 0.06
        surface = rng.integers(0, len(SURFACES), count)
        events: list[Event] = []
        for at in range(count):
            user, ad, time = self.names[users[at]], self.ads[chosen[at]].ad_id, int(now_ms[at])
            where, end = SURFACES[surface[at]], time + int(viewed_ms[at])
            events.append(self._click(user, ad, where, time, "click"))
            if stays[at]:
                events.append(self._click(user, ad, where, end, "view", viewed_ms=int(viewed_ms[at])))
            if carts[at] and stays[at]:
                events.append(self._click(user, ad, where, end + 500, "cart"))
        self._plan(users, now_ms)
        return events

    def _plan(self, users: Ints, now_ms: Ints) -> None:
        """Set when ``users [B]`` act next, and who has another sub-category in mind then."""
        rng, pace = self._rng, self._pace
        ends = rng.random(len(users)) < 1 / pace.session_acts
        pause_s = pace.act_s * np.exp(rng.normal(0, 0.7, len(users)))
        pause_s[ends] = rng.exponential(pace.away_s, int(ends.sum())) + pace.act_s
        self.next_ms[users] = now_ms + np.maximum(pause_s * 1000, 1).astype(np.int64)
        self._distracted[users] = ends | (rng.random(len(users)) < JUMP_IN_SESSION)

    def see(self, user: str, placement: Sequence[str], placement_id: str, now_ms: int) -> list[Event]:
        """What ``user`` does when shown the ads ``placement``, from the top: impressions and outcomes.

        Raises `KeyError` for a user or ad that the shop does not have.
        """
        users = np.array([self._number[user]], dtype=np.int64)
        slots = np.array([[self._ad_number[ad] for ad in placement]], dtype=np.int64)
        return self.see_many(users, slots, [placement_id], np.array([now_ms], dtype=np.int64))

    def see_many(self, users: Ints, slots: Ints, placement_ids: list[str], now_ms: Ints) -> list[Event]:
        """`see` for distinct ``users [B]``, numbers of ads ``slots [B, S]`` (-1: none), at ``now_ms [B]``."""
        answers = self._answer(users, slots, now_ms)
        events: list[Event] = []
        for at, slot in zip(*np.nonzero(answers.shown), strict=True):
            user, ad, time = self.names[users[at]], self.ads[slots[at, slot]].ad_id, int(now_ms[at])
            events.append(
                Impression(
                    event_id=self._next_id(), user_id=user, ad_id=ad, time_ms=time,
                    placement_id=placement_ids[at], slot=int(slot), surface="home",
                )
            )  # fmt: skip
            if answers.click[at, slot] or answers.view[at, slot]:
                events += self._outcome(user, ad, time, placement_ids[at], answers, (at, slot))
        return events

    def _answer(self, users: Ints, slots: Ints, now_ms: Ints) -> _Answers:
        """Draw what happens, and remember what was seen: chance × taste × position × fatigue."""
        rng, shape = self._rng, slots.shape
        rows, position = np.arange(len(users))[:, None], np.arange(shape[1])[None, :]
        reached = rng.geometric(1 - REACH, len(users))[:, None] > position
        shown = reached & (slots >= 0)
        liking = self.tastes.log_odds(users)[rows, slots]
        seen_ms = now_ms[:, None] - self._seen_ms[users[:, None], slots]
        log_odds = BASE_LOG_ODDS + liking - FATIGUE * np.exp(-np.clip(seen_ms, 0, 10**9) / FATIGUE_MS)
        chance = 1 / (1 + np.exp(-log_odds)) / (1 + SLOT_WEIGHT * position)
        row, slot = np.nonzero(shown)
        self._seen_ms[users[row], slots[row, slot]] = now_ms[row]
        click = shown & (rng.random(shape) < chance)
        cart = click & (rng.random(shape) < 0.12)
        return _Answers(
            shown=shown,
            click=click,
            click_ms=rng.integers(300, 3_000, shape),
            view=(click & (rng.random(shape) < 0.8)) | (shown & (rng.random(shape) < chance)),
            viewed_ms=_viewed_ms(rng, liking),
            cart=cart,
            purchase=cart & (rng.random(shape) < 0.35),
        )

    def _outcome(
        self, user: str, ad: str, shown_ms: int, placement_id: str, answers: _Answers, at: tuple[int, int]
    ) -> list[Event]:
        """Events that answer one impression, in time order."""
        viewed_ms = int(answers.viewed_ms[at])
        clicked_ms = shown_ms + int(answers.click_ms[at])
        looked_ms = (clicked_ms if answers.click[at] else shown_ms) + viewed_ms

        price = self.ads[self._ad_number[ad]].price_micros
        event = partial(self._click, user, ad, "home", shown_ms=shown_ms, placement_id=placement_id)
        out: list[Event] = [event(clicked_ms, "click")] if answers.click[at] else []
        out += [event(looked_ms, "view", viewed_ms=viewed_ms)] if answers.view[at] else []
        out += [event(looked_ms + 800, "cart")] if answers.cart[at] else []
        out += [event(looked_ms + 4_000, "purchase", value_micros=price)] if answers.purchase[at] else []
        return out

    def _click(
        self, user: str, ad: str, surface: str, time_ms: int, kind: EventKind, *,
        viewed_ms: int | None = None, value_micros: int = 0,
        shown_ms: int | None = None, placement_id: str | None = None,
    ) -> Click:  # fmt: skip
        return Click(
            event_id=self._next_id(), user_id=user, ad_id=ad, time_ms=time_ms, kind=kind,
            viewed_s=None if viewed_ms is None else viewed_ms / 1000, value_micros=value_micros,
            impression_time_ms=shown_ms, placement_id=placement_id, surface=surface,
        )  # fmt: skip

    def _next_id(self) -> str:
        self._events += 1
        return f"{self._run}-{self._events}"


def _viewed_ms(rng: np.random.Generator, liking: Singles) -> Ints:
    """How long looks last: log-normal, with a median of 2 s at liking 0 that grows with it; 0.3 s to two minutes."""
    median_s = 2.0 * np.exp(0.4 * np.clip(liking, -1, 5))
    viewed_s = median_s * np.exp(rng.normal(0, 0.6, liking.shape))
    viewed_ms: Ints = (np.clip(viewed_s, 0.3, 120) * 1000).astype(np.int64)
    return viewed_ms


def simulate_log(seed: int, users: int, hours: float) -> Log:
    """A shop's past to learn from: shoppers over ``hours``, shown *random* placements, so that it favours no policy.

    It includes the tones of reviews, and has about 500 impressions per user and day. A round is everyone's next act,
    each at its own time.
    """
    shoppers = Shoppers(seed, users, pace=Pace(away_s=3 * 3600))
    shoppers.start(LOG_START_MS)
    rng = np.random.default_rng([seed, 3])
    end_ms, events, round_ = LOG_START_MS + int(hours * 3_600_000), list[Event](), 0
    while len(active := np.flatnonzero(shoppers.next_ms < end_ms)):
        now_ms = shoppers.next_ms[active].copy()
        events += shoppers.act(active, now_ms)
        placements = np.argsort(rng.random((len(active), len(shoppers.ads))), axis=1)[:, :LOG_SLOTS]
        names = [f"log-{seed}-{round_}-{user}" for user in active.tolist()]
        events += shoppers.see_many(active, placements, names, now_ms + 50)
        round_ += 1
    told = tones(shoppers.ads, reviews(SHOP, shoppers.ads, LOG_START_MS, end_ms))
    return Log(shoppers.ads, in_order(events), list(told))
