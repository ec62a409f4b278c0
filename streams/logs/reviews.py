"""Evaluates the classifier on rated reviews in turn, from ``reviews.csv.gz``: ``positive`` (1 or 0) and ``text``."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scoring.arrays import Bools, Floats
from scoring.sentiment import Sentiment, ToneWatch, by_stars
from streams.logs.table import rows

FILE = "reviews.csv.gz"
BEFORE, AFTER = 0.8, 0.3
"""Share of positive reviews before and after a simulated turn."""
TURNS, REVIEWS_BEFORE, WITHIN = 1_000, 100, 200
SOON = 50
"""Reviews within which a turn should be noticed."""
STEADY, REVIEWS_STEADY = (0.5, BEFORE), 50_000
"""Shares of positive reviews for keys that do not turn, with so many reviews each, since false alarms are rare."""


@dataclass(frozen=True, slots=True)
class Noticed:
    """Simulated turns of tone: how many are found at all, how many within `SOON` reviews, and after how many reviews.

    ``false_alarms``: before a turn. ``false_per_1000``: per thousand reviews of keys that never turn. If there are no
    good or no bad reviews, no turn is simulated, and figures that would come from turns are None.
    """

    turns: int = 0
    found: int = 0
    within_50: int = 0
    delay_median: float | None = None
    delay_most: float | None = None
    false_alarms: int = 0
    false_per_1000: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """All reviews in one pass, each predicted before it is learnt from.

    ``copies``: reviews whose text came before, so that the classifier may know it by heart; ``accuracy_new``: of the
    others. Turns are simulated from the predictions of the later half (all texts, and new texts only), and from stars.
    """

    reviews: int
    copies: int
    accuracy: float
    accuracy_new: float
    by_text: Noticed
    by_new_text: Noticed
    by_stars: Noticed

    def as_json(self) -> dict[str, Any]:
        """As JSON: the figures of ``by_text`` are at the top level, beside the accuracy; the others are nested."""
        told = asdict(self)
        by_text: dict[str, Any] = told.pop("by_text")
        return told | by_text


def judge(directory: Path, seed: int, progress: Callable[[], None] = lambda: None) -> Judged:
    """Judge the reviews of the file in an order drawn by ``seed``: it is sorted by rating. Raises `LogError`."""
    lines = rows(directory / FILE, ("positive", "text"))
    read = [(row.values["text"], row.integer("positive", 0, 1) == 1) for row in lines]
    draw, sentiment = np.random.default_rng(seed), Sentiment()
    chances, rated, new = np.empty(len(read)), np.empty(len(read), dtype=np.bool_), np.empty(len(read), dtype=np.bool_)
    texts: set[str] = set()
    for at, place in enumerate(draw.permutation(len(read)).tolist()):
        text, positive = read[place]
        chances[at], rated[at], new[at] = sentiment.predict_one(text), positive, text not in texts
        sentiment.learn_one(text, positive)
        texts.add(text)
        progress()
    right = (chances > 0.5) == rated
    late = np.arange(len(read)) >= len(read) // 2  # predictions after it has learnt for a while
    stars = np.where(rated, by_stars(positive=True), by_stars(positive=False))
    return Judged(
        reviews=len(read),
        copies=int(np.count_nonzero(~new)),
        accuracy=float(right.mean()),
        accuracy_new=float(right[new].mean()),
        by_text=_noticed(draw, chances[late], rated[late]),
        by_new_text=_noticed(draw, chances[late & new], rated[late & new]),
        by_stars=_noticed(draw, stars, rated),
    )


def _noticed(draw: np.random.Generator, heard: Floats, rated: Bools) -> Noticed:
    """Simulated turns, with reviews drawn from predictions ``heard [N]``; ``rated [N]``: whether the review is good."""
    good, bad = heard[rated], heard[~rated]
    if not (len(good) and len(bad)):
        return Noticed()

    def stream(share: float, count: int) -> Iterator[float]:
        yield from np.where(draw.random(count) < share, draw.choice(good, count), draw.choice(bad, count)).tolist()

    found, false_alarms = [], 0
    for number in range(TURNS):
        watch, key = ToneWatch(), f"item-{number}"
        before = [watch.update(key, chance) for chance in stream(BEFORE, REVIEWS_BEFORE)]
        false_alarms += any(before)
        delay = next((at for at, chance in enumerate(stream(AFTER, WITHIN), 1) if watch.update(key, chance)), None)
        found += [] if delay is None else [delay]
    steady = ToneWatch()
    false = sum(steady.update(str(share), chance) for share in STEADY for chance in stream(share, REVIEWS_STEADY))
    return Noticed(
        turns=TURNS,
        found=len(found),
        within_50=sum(delay <= SOON for delay in found),
        delay_median=float(np.median(found)) if found else None,
        delay_most=float(max(found)) if found else None,
        false_alarms=false_alarms,
        false_per_1000=1_000 * false / (len(STEADY) * REVIEWS_STEADY),
    )
