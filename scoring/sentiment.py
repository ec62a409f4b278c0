"""What reviews say: positive or not, learnt one after the other; and when an item's or a brand's tone turns.

A review is its characters' one- and two-grams, which needs no word boundaries and so reads Chinese as well as
English, hashed into a bounded number of features. The classifier is River's logistic regression under AdaGrad; the
watch is River's Page-Hinkley test (Page 1954) on the chance of being positive, which needs no ratings.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import xxhash
from river import drift, linear_model, optim

from scoring.tones import MEMORY

FEATURES = 1 << 18
"""Buckets that n-grams are hashed into: at most 60 MB of weights and sums, however many reviews come."""
CHARACTERS_MAX = 400
"""Of a longer review the beginning is read: opinions come first, and a review costs a bounded time."""
RATE = 0.5
KEYS_MAX = 100_000
"""Items and brands watched: 1 KB each. Of more, those longest without a review are forgotten."""
REVIEWS_MIN = 20
"""Reviews of a key before its tone can turn: there must be something to turn from."""
TOLERANCE, THRESHOLD = 0.08, 5.5
"""Page-Hinkley: how far below its mean the tone may stay, and the sum of what is beyond that raises the alarm. A key
half of whose reviews are good has .16 false alarms in a thousand, one with four fifths .11; of turns from that to three
tenths 1.2 % take more than 50 reviews (0.05 and 6: .64, .28 and 1.5 %; 0.1 and 5: .07, .03 and 2.3 %)."""


def grams(text: str) -> dict[int, float]:
    """The review's features, by bucket, of unit length; none for an empty text."""
    text = "".join(text.lower().split())[:CHARACTERS_MAX]
    found = {text[at : at + size] for size in (1, 2) for at in range(len(text) - size + 1)}
    weight = 1 / np.sqrt(max(len(found), 1))
    return {xxhash.xxh3_64_intdigest(gram.encode()) % FEATURES: float(weight) for gram in found}


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


@dataclass(slots=True)
class Tone:
    """``mean``: of the chances of being positive, of ``reviews`` of them; old ones fade once there are `MEMORY`."""

    reviews: int = 0
    mean: float = 0.0

    def take(self, positive: float) -> None:
        """Take a review's chance of being positive."""
        self.reviews += 1
        self.mean += (positive - self.mean) / min(self.reviews, MEMORY)


def _test() -> drift.PageHinkley:
    return drift.PageHinkley(min_instances=REVIEWS_MIN, delta=TOLERANCE, threshold=THRESHOLD, alpha=1.0, mode="down")


class ToneWatch:
    """Follows the tone of many keys; says when one turned for the worse. The test then begins anew."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._keys: OrderedDict[str, tuple[drift.PageHinkley, Tone]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def update(self, key: str, positive: float) -> bool:
        """Take a review's chance of being positive; whether the key's tone has just turned."""
        if key not in self._keys:
            self._keys[key] = _test(), Tone()
        self._keys.move_to_end(key)
        test, tone = self._keys[key]
        if len(self._keys) > self._keys_max:
            self._keys.popitem(last=False)
        tone.take(positive)
        test.update(positive)
        return bool(test.drift_detected)

    def tone(self, key: str) -> Tone:
        """How the key's reviews sound; nothing of one that is not watched."""
        found = self._keys.get(key)
        return Tone() if found is None else found[1]
