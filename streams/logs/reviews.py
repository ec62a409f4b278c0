"""Rated reviews from a file, ``reviews.csv.gz``: ``positive`` (1 or 0) and ``text``, judged one after the other."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scoring.sentiment import Sentiment, ToneWatch
from streams.logs.table import rows

FILE = "reviews.csv.gz"
BEFORE, AFTER = 0.8, 0.3
"""Share of positive reviews before and after a simulated turn."""
TURNS, REVIEWS_BEFORE, WITHIN = 100, 100, 200
STEADY, REVIEWS_STEADY = (0.5, BEFORE), 50_000
"""Shares of positive reviews of keys that do not turn, each with so many: false alarms come with numbers."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Of all reviews in one pass, each predicted before it was learnt from, and of simulated turns of tone.

    ``false_alarms``: before a turn. ``false_per_1000``: of a thousand reviews of keys that never turn. Where the later
    half of the reviews has none of one kind no turn is simulated, and what would be known of them is None.
    """

    reviews: int
    accuracy: float
    turns: int
    found: int
    delay_median: float | None
    delay_most: float | None
    false_alarms: int
    false_per_1000: float | None


def judge(directory: Path, seed: int, progress: Callable[[], None] = lambda: None) -> Judged:
    """Read the file in an order drawn by ``seed`` (it comes sorted by rating). Raises `LogError`."""
    lines = rows(directory / FILE, ("positive", "text"))
    read = [(row.values["text"], row.integer("positive", 0, 1) == 1) for row in lines]
    draw, sentiment = np.random.default_rng(seed), Sentiment()
    chances, rated = np.empty(len(read)), np.empty(len(read), dtype=np.bool_)
    for at, place in enumerate(draw.permutation(len(read)).tolist()):
        text, positive = read[place]
        chances[at], rated[at] = sentiment.predict_one(text), positive
        sentiment.learn_one(text, positive)
        progress()
    late = len(read) // 2  # what it says once it has learnt
    sound = chances[late:][rated[late:]], chances[late:][~rated[late:]]
    can_turn = all(map(len, sound))
    found, false_alarms = _turns(draw, *sound) if can_turn else ([], 0)
    return Judged(
        reviews=len(read),
        accuracy=float(((chances > 0.5) == rated).mean()),
        turns=TURNS if can_turn else 0,
        found=len(found),
        delay_median=float(np.median(found)) if found else None,
        delay_most=float(max(found)) if found else None,
        false_alarms=false_alarms,
        false_per_1000=1_000 * _steady(draw, *sound) / (len(STEADY) * REVIEWS_STEADY) if can_turn else None,
    )


def _turns(
    draw: np.random.Generator, positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]
) -> tuple[list[int], int]:
    """Reviews from each simulated turn until its alarm, and items that alarmed before they turned."""
    found, false_alarms = [], 0

    def stream(share: float, count: int) -> list[float]:
        return _drawn(draw, positive, negative, share, count)

    for number in range(TURNS):
        watch, key = ToneWatch(), f"item-{number}"
        false_alarms += any(watch.update(key, chance) for chance in stream(BEFORE, REVIEWS_BEFORE))
        delay = next((at for at, chance in enumerate(stream(AFTER, WITHIN), 1) if watch.update(key, chance)), None)
        found += [] if delay is None else [delay]
    return found, false_alarms


def _steady(draw: np.random.Generator, positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]) -> int:
    """Alarms of keys whose tone does not turn."""
    watch = ToneWatch()
    return sum(
        watch.update(str(share), chance)
        for share in STEADY
        for chance in _drawn(draw, positive, negative, share, REVIEWS_STEADY)
    )


def _drawn(
    draw: np.random.Generator,
    positive: npt.NDArray[np.float64],
    negative: npt.NDArray[np.float64],
    share: float,
    count: int,
) -> list[float]:
    """Chances of so many reviews, of which ``share`` are positive."""
    drawn = np.where(draw.random(count) < share, draw.choice(positive, count), draw.choice(negative, count))
    return list(map(float, drawn))
