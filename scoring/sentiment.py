"""What reviews say: positive or not, learnt one after the other; and when an item's or a brand's tone turns.

A review's features are its characters' one- to three-grams, hashed into a bounded number of buckets. They need no word
boundaries, so Chinese reads as well as English. The classifier is River's logistic regression under AdaGrad; the watch
is River's Page-Hinkley test (Page 1954) on the chance that each review is good: by its stars where it has some, else by
its text.
"""

import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import xxhash
from river import drift, linear_model, optim
from river.utils import VectorDict

from scoring.tones import MEMORY

FEATURES = 1 << 18
"""Buckets that n-grams are hashed into: at most 60 MB of weights and sums, however many reviews come."""
GRAMS = (1, 2, 3)
"""Characters of a feature. Of 27,992 Chinese reviews, in one pass, .905 are classified right, and .831 of those whose
text is new; without threes .890 and .827, with fours .907 and .827."""
CHARACTERS_MAX = 400
"""Characters that are read of a review: opinions come first, and a review costs a bounded time."""
RATE = 0.5
KEYS_MAX = 100_000
"""Items and brands watched: 1 KB each. Of more, those longest without a review are forgotten."""
REVIEWS_MIN = 20
"""Reviews of a key before its tone can turn: there must be something to turn from."""
STARS = 0.9
"""Chance that a review is good, given good stars: about what the classifier gives on average where it knows well (.88),
so that reviews with and without stars can make one tone."""
TOLERANCE, THRESHOLD = 0.08, 5.5
"""Page-Hinkley: how far below its mean the tone may stay, and the sum of the excess that raises the alarm. Of 1,000
reviews of keys that do not turn, .3 raise a false one, and .2 to .6 % of turns take more than 50 reviews (`salience
reviews evaluate` of the Chinese ones, three seeds); by stars .1 and .1 to .3 %; where every text is new, so that the
classifier is less sure, .04 to .12 and 10 to 13 %."""

_HEAD = struct.Struct("<dQ")
"""Head of a classifier's bytes: intercept, and number of reviews learnt from."""
_WEIGHT = np.dtype([("bucket", "<u4"), ("weight", "<f8"), ("squares", "<f8")])
"""Then one record per bucket, in order of first occurrence, in which sums are taken. ``squares``: AdaGrad's."""


def grams(text: str) -> dict[int, float]:
    """The review's features, by bucket, of unit length, in the order of the text; none for an empty one."""
    text = "".join(text.lower().split())[:CHARACTERS_MAX]
    # In their order: that of a set is another one in each process, and so would be the last digits of sums.
    found = dict.fromkeys(text[at : at + size] for size in GRAMS for at in range(len(text) - size + 1))
    weight = 1 / np.sqrt(max(len(found), 1))
    return {xxhash.xxh3_64_intdigest(gram.encode()) % FEATURES: float(weight) for gram in found}


def by_stars(*, positive: bool) -> float:
    """Chance that a review is good, by its stars."""
    return STARS if positive else 1 - STARS


@dataclass
class Sentiment:
    """Chance that a review is positive, learnt as ratings come."""

    _model: linear_model.LogisticRegression = field(
        default_factory=lambda: linear_model.LogisticRegression(optim.AdaGrad(RATE))
    )

    def predict_one(self, text: str) -> float:
        """The chance, 0.5 before anything was learnt; changes nothing."""
        return float(self._model.predict_proba_one(grams(text))[True])

    def learn_one(self, text: str, positive: bool) -> None:
        """Learn from a review whose rating is known."""
        self._model.learn_one(grams(text), positive)

    def to_bytes(self) -> bytes:
        """All that was learnt: 20 bytes a bucket, at most 5.2 MB."""
        weights, optimizer = self._model.weights, self._model.optimizer
        rows = np.empty(len(weights), dtype=_WEIGHT)
        rows["bucket"], rows["weight"] = list(weights), list(weights.values())
        rows["squares"] = [optimizer.g2[bucket] for bucket in weights]
        return _HEAD.pack(self._model.intercept, optimizer.n_iterations) + rows.tobytes()

    @classmethod
    def of_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` gave, to the last bit. Raises `ValueError`."""
        if len(content) < _HEAD.size:
            raise ValueError(f"a classifier has {_HEAD.size} bytes or more, not {len(content)}")
        intercept, learnt = _HEAD.unpack_from(content)
        rows = np.frombuffer(content, dtype=_WEIGHT, offset=_HEAD.size)
        buckets, finite = rows["bucket"].tolist(), [np.isfinite(rows[name]).all() for name in ("weight", "squares")]
        if len({*buckets}) < len(rows) or max(buckets, default=0) >= FEATURES:
            raise ValueError(f"a classifier's weights are each of a bucket of its own, of {FEATURES:,}")
        if not all((np.isfinite(intercept), *finite)):
            raise ValueError("a classifier's numbers are finite")
        one = cls()
        optimizer = one._model.optimizer
        one._model._weights = VectorDict(dict(zip(buckets, rows["weight"].tolist(), strict=True)))  # noqa: SLF001 - River has no other way to set them
        one._model.intercept, optimizer.n_iterations = intercept, learnt
        optimizer.g2.update(zip(buckets, rows["squares"].tolist(), strict=True))
        return one


@dataclass(slots=True)
class Tone:
    """``mean``: mean chance that ``reviews`` are good; old ones fade once there are `MEMORY`."""

    reviews: int = 0
    mean: float = 0.0

    def take(self, positive: float) -> None:
        """Take the chance that a review is good."""
        self.reviews += 1
        self.mean += (positive - self.mean) / min(self.reviews, MEMORY)


class Watched(NamedTuple):
    """What is kept of a key: its tone, and how far its test has come since it began.

    ``seen`` and ``usual``: numbers that the test has seen, and their mean; ``sum`` and ``highest``: its cumulative sum
    and the largest one; ``turned``: whether the last review turned it.
    """

    reviews: int
    mean: float
    seen: float
    usual: float
    sum: float
    highest: float
    turned: bool


def _test() -> drift.PageHinkley:
    return drift.PageHinkley(min_instances=REVIEWS_MIN, delta=TOLERANCE, threshold=THRESHOLD, alpha=1.0, mode="down")


class ToneWatch:
    """Follows the tone of many keys; says when one turned for the worse. The test then begins anew."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._keys: OrderedDict[str, tuple[drift.PageHinkley, Tone]] = OrderedDict()
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def update(self, key: str, positive: float) -> bool:
        """Take the chance that a review is good; returns whether the key's tone has just turned."""
        if key not in self._keys:
            self._keys[key] = _test(), Tone()
        self._keys.move_to_end(key)
        test, tone = self._keys[key]
        if len(self._keys) > self._keys_max:
            self.forget(next(iter(self._keys)))
        self._changed[key] = None
        tone.take(positive)
        test.update(positive)
        return bool(test.drift_detected)

    def tone(self, key: str) -> Tone:
        """How the key's reviews sound; nothing of one that is not watched."""
        found = self._keys.get(key)
        return Tone() if found is None else found[1]

    def forget(self, key: str) -> None:
        """Watch a key no more."""
        if self._keys.pop(key, None) is not None:
            self._changed[key] = None

    def changed(self) -> dict[str, Watched | None]:
        """What is to be stored of the keys that have changed since the last call; None for forgotten keys."""
        changed, self._changed = self._changed, {}
        return {key: self._kept(key) for key in changed}

    def _kept(self, key: str) -> Watched | None:
        if key not in self._keys:
            return None
        test, tone = self._keys[key]
        seen = test._x_mean  # noqa: SLF001 - River keeps a test to itself, here and in `resume`
        sums = test._sum_decrease, test._max_decrease  # noqa: SLF001 - as above
        return Watched(tone.reviews, tone.mean, seen.n, seen.get(), *sums, turned=test.drift_detected)

    def resume(self, key: str, kept: Watched) -> None:
        """Watch a key from where it was; resume several in order of their last review, the oldest first."""
        test = _test()
        test._x_mean = type(test._x_mean)._from_state(kept.seen, kept.usual)  # noqa: SLF001 - as above
        test._sum_decrease, test._max_decrease = kept.sum, kept.highest  # noqa: SLF001 - as above
        test._drift_detected = kept.turned  # noqa: SLF001 - as above
        self._keys[key] = test, Tone(kept.reviews, kept.mean)
