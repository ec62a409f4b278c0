"""The made-up shop's ads, as the engine gets them; the same seed gives the same ads."""

import numpy as np

from streams.demo.words import ADJECTIVES, BRANDS, SHELVES, TAGS
from streams.wire import Ad

ADS_PER_SHELF = 11
"""Ads in each of the 36 sub-categories: one placement's worth, so that a good one must look further."""
PRICE_SPREAD = 0.45
"""Standard deviation of log price around the middle price of the sub-category."""
BID_SPREAD = 0.2
"""Standard deviation of log bid: money breaks ties between ads; it does not drown taste."""


def catalogue(seed: int) -> list[Ad]:
    """The shop's 396 ads in 12 categories, 36 sub-categories and 40 campaigns, one brand each."""
    rng = np.random.default_rng([seed, 0])
    ads: list[Ad] = []
    for level, (category, shelves) in enumerate(SHELVES.items()):
        campaigns = list(range(level, len(BRANDS), len(SHELVES)))
        for shelf, (price, nouns) in shelves.items():
            titles = [f"{adjective} {noun}" for adjective in ADJECTIVES for noun in nouns]
            for title in rng.choice(titles, ADS_PER_SHELF, replace=False).tolist():
                campaign = int(rng.choice(campaigns))
                ads.append(_ad(rng, len(ads), campaign, f"{category}/{shelf}", price, title))
    return ads


def _ad(rng: np.random.Generator, number: int, campaign: int, category: str, price: float, title: str) -> Ad:
    units = max(1, round(price * float(np.exp(rng.normal(0, PRICE_SPREAD)))))
    tags = rng.choice(TAGS, rng.integers(1, 4), replace=False).tolist()
    return Ad(
        ad_id=f"ad-{number:04d}",
        campaign_id=f"campaign-{campaign:02d}",
        advertiser_id=f"advertiser-{campaign // 2:02d}",
        bid_micros=round(350_000 * float(np.exp(rng.normal(0, BID_SPREAD)))),
        category=category,
        brand=BRANDS[campaign],
        price_micros=units * 1_000_000,
        tags=tuple(tags),
        title=f"{BRANDS[campaign]} {title}",
    )
