"""The made-up shop's ads, as the engine gets them; the same seed gives the same ads."""

import math

import numpy as np

from scoring.ids import id64s, uniform
from scoring.units import DAY_MS
from streams.demo.words import ADJECTIVES, BRANDS, SHELVES, TAGS
from streams.wire import Ad

ADS_PER_SHELF = 11
"""Ads in each of the 36 sub-categories: one placement's worth, so that a good one must look further."""
PRICE_SPREAD = 0.45
"""Standard deviation of log price around the middle price of the sub-category."""
BID_SPREAD = 0.2
"""Standard deviation of log bid: money breaks ties between ads; it does not drown taste."""
LOG_START_MS = 1_760_000_000_000
"""When a simulated log begins: a day in October 2025."""
AGES_DAYS = 730
"""Age of the oldest ad that tells its start, when a log begins. Logs of ages are spread evenly, as the model is told
them: so it learns of every age that it means nothing here, and thinks no worse of a shop's new ads than of old ones."""
AGELESS = 0.1
"""Share of ads that do not tell their start."""


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
    ad_id = f"ad-{number:04d}"
    return Ad(
        ad_id=ad_id,
        campaign_id=f"campaign-{campaign:02d}",
        advertiser_id=f"advertiser-{campaign // 2:02d}",
        bid_micros=round(350_000 * float(np.exp(rng.normal(0, BID_SPREAD)))),
        category=category,
        brand=BRANDS[campaign],
        price_micros=units * 1_000_000,
        tags=tuple(tags),
        title=f"{BRANDS[campaign]} {title}",
        start_ms=_start_ms(ad_id),
    )


def _start_ms(ad_id: str) -> int:
    """When the ad began, before any log does; 0 where it does not tell. By its id, since age says nothing of taste."""
    untold, spread = uniform(id64s([f"{ad_id} untold", f"{ad_id} age"])).tolist()
    age_days = math.expm1(spread * math.log1p(AGES_DAYS))
    return 0 if untold < AGELESS else LOG_START_MS - round(age_days * DAY_MS)
