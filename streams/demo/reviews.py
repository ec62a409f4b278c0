"""What customers of the made-up shop have said of its things: better of what has more for everybody.

A shopper never sees what an ad has for everybody (`streams.demo.tastes.appeal`), nor does the engine; reviews tell of
it, as loudly as there are many. The same shop has the same reviews.
"""

from collections.abc import Iterator

import numpy as np

from streams.demo.tastes import APPEAL_SPREAD, Floats, appeal
from streams.reviews.reviewer import Reviewer
from streams.wire import Ad, Review, Tone

REVIEWS_MEDIAN, REVIEWS_SPREAD = 10.0, 1.0
"""Reviews of an ad: log-normal around so many, with so much spread of the log; one in nine has two at most."""
GOOD_LOG_ODDS, GOOD_PER_SPREAD = 1.2, 0.9
"""Log-odds of a good review of what has the usual appeal, and what a standard deviation more adds."""
SENTENCES, MIXED = 2, 0.2
"""Sentences of a review, and how often one of them says the opposite: nobody is quite happy, or quite unhappy."""
RATED = 0.8
"""Share of reviews with stars."""
DAYS = 30
"""Reviews are even over so many days before the shop's log begins and those that the log lasts."""
DAY_MS = 86_400_000

GOOD = (
    "I would buy it again", "works just as described", "arrived early and well packed", "better than my last one",
    "good value for what it costs", "my whole family likes it", "well made and easy to use", "a favourite already",
    "looks even nicer than in the pictures", "still like new after months",
)  # fmt: skip
BAD = (
    "it broke within a week", "not what the pictures promise", "arrived late and damaged", "I sent it back",
    "a waste of money", "cheaply made, I would not buy it again", "the colour is off and it smells",
    "it stopped working after a month", "nobody answered my complaint", "much smaller than I thought",
)  # fmt: skip


def reviews(shop: int, ads: list[Ad], start_ms: int, end_ms: int) -> list[Review]:
    """Reviews of the ``ads`` of a ``shop`` until ``end_ms``, by time; most of them come before ``start_ms``."""
    rng = np.random.default_rng([shop, 5])
    counts = (REVIEWS_MEDIAN * np.exp(rng.normal(0, REVIEWS_SPREAD, len(ads)))).astype(np.int64)
    of = np.repeat(np.arange(len(ads)), counts)
    liked: Floats = appeal(shop, len(ads)) / np.float32(APPEAL_SPREAD)
    chance = 1 / (1 + np.exp(-(GOOD_LOG_ODDS + GOOD_PER_SPREAD * liked[of])))
    good = rng.random(len(of)) < chance
    rated = rng.random(len(of)) < RATED
    times = rng.integers(start_ms - DAYS * DAY_MS, end_ms, len(of))
    return [
        Review(
            review_id=f"review-{number:05d}",
            ad_id=ads[of[at]].ad_id,
            time_ms=int(times[at]),
            text=_text(rng, good=bool(good[at])),
            positive=bool(good[at]) if rated[at] else None,
        )
        for number, at in enumerate(np.argsort(times, kind="stable").tolist())
    ]


def _text(rng: np.random.Generator, *, good: bool) -> str:
    """Sentences that say so, one of them perhaps not."""
    said = [str(rng.choice(GOOD if good else BAD)) for _ in range(SENTENCES)]
    if rng.random() < MIXED:
        said[-1] = str(rng.choice(BAD if good else GOOD))
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in said)


def tones(ads: list[Ad], written: list[Review]) -> Iterator[Tone]:
    """What the reader of reviews says as each of them comes."""
    reader = Reviewer()
    for ad in ads:
        reader.offer(ad)
    for review in written:
        reader.hear(review)
        yield from reader.news()
