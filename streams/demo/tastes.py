"""What the shoppers like: hidden from the engine, which sees only what they do.

A shopper's taste is linear in what an item is (category, sub-category, brand, tags) plus a preferred price. It changes
in two ways. It *drifts* as an Ornstein-Uhlenbeck walk, which wanders for days but keeps its spread. And it *jumps*: at
the start of a session, and now and then within one, the shopper has a new sub-category in mind.
"""

import math

import numpy as np

from scoring.arrays import Ints, Singles
from scoring.units import DAY_MS
from streams.wire import Ad

DRIFT_MS = 3 * DAY_MS
"""Time in which a slow taste falls to 1/e of what it was."""
IN_MIND, NEAR_MIND = 3.0, 1.3
"""Log-odds of a click added for an item of the sub-category in mind, and for the rest of its category."""
SPREADS = {"category": 0.8, "shelf": 0.3, "brand": 0.5, "tag": 0.25}
"""Standard deviation of slow taste per kind of feature, in log-odds."""
PRICE_WEIGHT = 0.3
"""Log-odds lost per squared standard deviation of log price from the preferred level."""
APPEAL_SPREAD = 0.25
"""Standard deviation of an item's general appeal, in log-odds; it belongs to the shop, not to the crowd."""


class Tastes:
    """Hidden tastes of ``users`` over the ``ads`` of a ``shop``. Memory: users × about 110 floats."""

    def __init__(self, ads: list[Ad], users: int, shop: int, rng: np.random.Generator) -> None:
        self._rng = rng
        shelves = sorted({ad.category for ad in ads})
        categories = sorted({ad.category.split("/")[0] for ad in ads})
        self._features, self._spread = _features(ads, categories, shelves)
        self._category_of_shelf = np.array([categories.index(shelf.split("/")[0]) for shelf in shelves])
        self._shelf = np.array([shelves.index(ad.category) for ad in ads])
        self._price = _price_levels(ads, self._shelf)
        self._common = appeal(shop, len(ads))
        self._slow = (rng.standard_normal((users, len(self._spread))) * self._spread).astype(np.float32)
        self._price_wanted = rng.normal(0, 1, users).astype(np.float32)
        self._drifted_ms = np.zeros(users, dtype=np.int64)
        self.in_mind = np.zeros(users, dtype=np.int64)
        self.jump(np.arange(users))

    def drift(self, users: Ints, now_ms: Ints) -> None:
        """Let the slow tastes of distinct ``users [B]`` wander until ``now_ms [B]``."""
        elapsed = np.maximum(now_ms - self._drifted_ms[users], 0)
        elapsed[self._drifted_ms[users] == 0] = 0
        kept = np.exp(-elapsed / DRIFT_MS)[:, None]
        noise = self._rng.standard_normal((len(users), len(self._spread))) * self._spread
        self._slow[users] = self._slow[users] * kept + noise * np.sqrt(1 - kept**2)
        self._drifted_ms[users] = np.maximum(now_ms, self._drifted_ms[users])

    def jump(self, users: Ints) -> None:
        """Give ``users [B]`` a new sub-category in mind, drawn by their slow taste (Gumbel-max)."""
        categories, shelves = len(np.unique(self._category_of_shelf)), len(self._category_of_shelf)
        slow = self._slow[users]
        liking = slow[:, self._category_of_shelf] + slow[:, categories : categories + shelves]
        self.in_mind[users] = np.argmax(2 * liking + self._rng.gumbel(size=liking.shape), axis=1)

    def log_odds(self, users: Ints) -> Singles:
        """How much ``users [B]`` like every ad now, ``[B, A]``: log-odds of a click above the base rate."""
        mind = self.in_mind[users]
        same_shelf = self._shelf[None, :] == mind[:, None]
        category = self._category_of_shelf
        near = category[self._shelf][None, :] == category[mind][:, None]
        price = (self._price[None, :] - self._price_wanted[users][:, None]) ** 2
        liking: Singles = self._slow[users] @ self._features.T + self._common
        liking -= np.float32(PRICE_WEIGHT) * np.minimum(price, 9)
        liking += np.where(same_shelf, IN_MIND, np.where(near, NEAR_MIND, 0)).astype(np.float32)
        return liking


def appeal(shop: int, ads: int) -> Singles:
    """The general appeal of each of the ``ads`` of a ``shop``, ``[A]``, in log-odds of a click."""
    return np.random.default_rng([shop, 4]).normal(0, APPEAL_SPREAD, ads).astype(np.float32)


def _features(ads: list[Ad], categories: list[str], shelves: list[str]) -> tuple[Singles, Singles]:
    """One-hot columns ``[A, F]`` (category, sub-category, brand, tag) and the spread of taste in each."""
    names = [("category", name) for name in categories] + [("shelf", name) for name in shelves]
    names += [("brand", name) for name in sorted({ad.brand for ad in ads})]
    names += [("tag", name) for name in sorted({tag for ad in ads for tag in ad.tags})]
    column = {name: at for at, name in enumerate(names)}
    out = np.zeros((len(ads), len(names)), dtype=np.float32)
    for row, ad in enumerate(ads):
        held = [("category", ad.category.split("/")[0]), ("shelf", ad.category), ("brand", ad.brand)]
        out[row, [column[name] for name in held + [("tag", tag) for tag in ad.tags]]] = 1
    return out, np.array([SPREADS[kind] for kind, _ in names], dtype=np.float32)


def _price_levels(ads: list[Ad], shelf: Ints) -> Singles:
    """The price level of each ad in its sub-category, ``[A]``, in standard deviations of log price."""
    log_price = np.array([math.log(ad.price_micros) for ad in ads])
    levels = np.zeros(len(ads), dtype=np.float32)
    for group in np.unique(shelf):
        members = shelf == group
        levels[members] = (log_price[members] - log_price[members].mean()) / (log_price[members].std() + 1e-9)
    return levels
