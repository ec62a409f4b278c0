"""Reviews of the made-up shop's items: the more an item appeals to everybody, the better they are.

Neither shoppers nor the engine see an item's general appeal (`streams.demo.tastes.appeal`), but its reviews reflect it,
the more exactly the more there are. The same shop has the same reviews.
"""

from collections.abc import Iterator

import numpy as np

from scoring.arrays import Singles
from scoring.units import DAY_MS
from streams.demo.tastes import APPEAL_SPREAD, appeal
from streams.reviews.reviewer import Reviewer
from streams.wire import Ad, Review, Tone

REVIEWS_MEDIAN, REVIEWS_SPREAD = 10.0, 1.0
"""Reviews of an ad, log-normal: the median, and the standard deviation of the log. One ad in nine has two at most."""
GOOD_LOG_ODDS, GOOD_PER_SPREAD = 1.2, 0.9
"""Log-odds of a good review for an item of usual appeal, and what each standard deviation of appeal adds."""
SENTENCES, MIXED = 2, 0.2
"""Sentences of a review, and how often one of them says the opposite: few people are wholly happy or unhappy."""
RATED = 0.8
"""Share of reviews with stars."""
DAYS = 30
"""Reviews are spread evenly from so many days before the shop's log begins to its end."""

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
    """Reviews of the ``ads`` of a ``shop`` up to ``end_ms``, by time, from `DAYS` before ``start_ms`` on."""
    rng = np.random.default_rng([shop, 5])
    counts = (REVIEWS_MEDIAN * np.exp(rng.normal(0, REVIEWS_SPREAD, len(ads)))).astype(np.int64)
    of = np.repeat(np.arange(len(ads)), counts)
    liked: Singles = appeal(shop, len(ads)) / np.float32(APPEAL_SPREAD)
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
    """Sentences of a good or bad review; the last may say the opposite."""
    said = [str(rng.choice(GOOD if good else BAD)) for _ in range(SENTENCES)]
    if rng.random() < MIXED:
        said[-1] = str(rng.choice(BAD if good else GOOD))
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in said)


def tones(ads: list[Ad], written: list[Review]) -> Iterator[Tone]:
    """The tones that the reader of reviews publishes as the reviews ``written`` come, one by one."""
    reader = Reviewer()
    for ad in ads:
        reader.offer(ad)
    for review in written:
        reader.hear(review)
        yield from reader.news()
