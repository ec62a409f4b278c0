"""What variety and fairness cost and gain, in a shop whose shoppers' tastes are known.

People of the demo shop get placements of ten from a hundred candidates each. The engine's click rate is the true one
with an error. What a list is worth to a person is its discounted true click rate over that of the best list (NDCG).
`scoring.market` makes all decisions, with and without each rule.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from scoring.arrays import Floats, Ints
from scoring.catalogue import Catalogue
from scoring.ids import MISSING
from scoring.market import Asked, Decided, Market, Terms
from scoring.ranking import EMPTY_SLOT
from scoring.shown import Shown
from scoring.variety import intra_list_distance
from streams.demo.catalogue import catalogue
from streams.demo.shop import BASE_LOG_ODDS
from streams.demo.tastes import Tastes
from streams.feeds.catalogue import entry_of

PEOPLE, CANDIDATES, SLOTS, HISTORY = 32, 100, 10, 50
RULES, ROUNDS_MIN = 3, 4
"""Number of runs (no rule, variety, fairness), and the least batches of each, of `PEOPLE` placements a batch."""
USERS = 1_600
NOISE = 0.15
"""Standard deviation of the engine's error in log-odds."""
SETTLED = 0.5
"""Share of the run that is left for fairness to settle; it is judged over the rest."""


class World:
    """People, candidates and click rates; one seed gives the same world to every rule."""

    def __init__(self, seed: int) -> None:
        ads = catalogue(1)
        self.shop = Catalogue()
        self.shop.upsert([entry_of(ad) for ad in ads])
        self._draw = np.random.default_rng([seed, 1])
        self._tastes = Tastes(ads, USERS, 1, np.random.default_rng([seed, 2]))

    def ask(self, number: int) -> tuple[Asked, Floats]:
        """What the market is asked, and the true click rates ``[B, C]``."""
        draw, among = self._draw, len(self.shop)
        users = (np.arange(PEOPLE) + number * PEOPLE) % USERS
        self._tastes.jump(users[draw.random(PEOPLE) < 0.3])
        log_odds = BASE_LOG_ODDS + self._tastes.log_odds(users).astype(float)
        near = log_odds + draw.gumbel(size=log_odds.shape)
        candidates = np.sort(np.argpartition(-near, CANDIDATES, axis=1)[:, :CANDIDATES], axis=1)
        true = np.take_along_axis(log_odds, candidates, axis=1)
        guess = (1 / (1 + np.exp(-true - draw.normal(0, NOISE, true.shape)))).astype(np.float32)
        nobody = np.full((PEOPLE, HISTORY), MISSING)
        seeds = draw.integers(1, 2**63, PEOPLE).astype(np.uint64)
        asked = Asked(candidates, guess, seeds, np.zeros(PEOPLE), nobody, np.full(nobody.shape, 10**12))
        assert among > CANDIDATES
        return asked, 1 / (1 + np.exp(-true))


def ndcg(true: Floats, chosen: Ints) -> Floats:
    """NDCG ``[B]`` of the lists ``chosen [B, L]``, by the candidates' ``true [B, C]`` click rates."""
    discount = 1 / np.log2(np.arange(2, chosen.shape[1] + 2))
    gains = np.where(chosen == EMPTY_SLOT, 0.0, np.take_along_axis(true, np.maximum(chosen, 0), axis=1))
    best = -np.sort(-true, axis=1)[:, : chosen.shape[1]]
    found: Floats = (gains @ discount) / (best @ discount)
    return found


def rounds(placements: int) -> int:
    """The number of batches for so many placements."""
    return max(-(-placements // PEOPLE), ROUNDS_MIN)


def run(seed: int, placements: int, terms: Terms, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The figures of ``salience simulate diversity`` for ``terms`` with diversity; calls ``tick`` after each batch."""
    batches = rounds(placements)
    plain = replace(terms, diversity=0.0, fairness=0.0)
    off = _played(seed, batches, plain, tick)
    on = _played(seed, batches, replace(terms, fairness=0.0), tick)
    fair = _played(seed, batches, replace(plain, fairness=terms.fairness or 1.0), tick)
    return {
        "placements": batches * PEOPLE,
        "diversity": terms.diversity,
        "method": terms.diversify_by,
        "ndcg_off": off["ndcg"],
        "ndcg_on": on["ndcg"],
        "ndcg_cost": 1 - on["ndcg"] / off["ndcg"],
        "intra_list_distance_off": off["distance"],
        "intra_list_distance_on": on["distance"],
        "us_per_placement": on["us"] - off["us"],
        "fairness_ratio_off": off["fairness"],
        "fairness_ratio": fair["fairness"],
        "fairness_ndcg_cost": 1 - fair["ndcg"] / off["ndcg"],
    }


def _played(seed: int, batches: int, terms: Terms, tick: Callable[[], None]) -> dict[str, float]:
    """One rule's means over all placements, its fairness over the settled part, and the median µs per placement."""
    world, market = World(seed), Market(terms)
    shown, judge = Shown(terms.fairness, terms.fair_among), Shown(1.0, terms.fair_among)
    quality, distance, spent = [], [], []
    for number in range(batches):
        if (weights := shown.adjusted()) is not None:
            market.favour(*weights)
        asked, true = world.ask(number)
        asked = replace(asked, offers=market.offers(world.shop, asked.candidates))
        began = time.perf_counter()
        made: Decided = market.decide(world.shop, asked, SLOTS)
        spent.append(time.perf_counter() - began)
        quality.append(ndcg(true, made.chosen).mean())
        slots = np.take_along_axis(asked.candidates, np.maximum(made.chosen, 0), axis=1)
        distance.append(float(intra_list_distance(world.shop.features[slots]).mean()))
        shown.observe(world.shop, asked, made, asked.shown)
        if number >= SETTLED * batches:
            judge.observe(world.shop, asked, made, asked.shown)
        tick()
    division = judge.advertisers if terms.fair_among == "advertiser" else judge.categories
    return {
        "ndcg": float(np.mean(quality)),
        "distance": float(np.mean(distance)),
        "fairness": division.ratio,
        "us": 1e6 * float(np.median(spent)) / PEOPLE,
    }
