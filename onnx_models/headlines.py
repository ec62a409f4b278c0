"""Which of two headlines is clicked more: text vectors, against a hashed bag of words, plain figures and "longer wins".

Each model is a ridge regression (Hoerl & Kennard 1970) from the difference of two headlines' features to the z of their
click rates. It has no intercept, so swapping the two swaps the answer. The penalty is chosen on the latest training
weeks; no model sees a test week before it is evaluated.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from onnx_models.bootstrap import Draws, Interval, interval
from scoring.arrays import Bools, Floats, Ints
from scoring.ids import id64

PENALTIES = tuple(10.0 ** (power / 2) for power in range(2, 14))
"""Penalties tried on the validation weeks; features have unit variance in training."""
Z_MAX = 6.0
"""A difference counts as at most so many standard errors: beyond that, more impressions make it no more certain."""
WORDS_DIM = 2_048
"""Dimensions of the hashed bag of words and pairs of words."""
DRAWS = 1_000
"""Draws of tests with replacement, since pairs of one test are correlated."""
_WORD = re.compile(r"[\w']+")
_TOLD = ("you", "your", "i", "my", "she", "her", "he", "his", "this", "these", "why", "how", "what", "if", "not", "who",
         "when", "they", "we", "because", "but", "it", "watch", "people", "here", "some", "that", "and", "the", "a",
         "all", "just", "can")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Duel:
    """P pairs of headlines: rows of their features ``one, other [P]``, each pair's ``test [P]``, and ``z [P]``."""

    one: Ints
    other: Ints
    test: Ints
    z: Floats

    def at(self, chosen: Bools) -> "Duel":
        """The chosen pairs."""
        return Duel(self.one[chosen], self.other[chosen], self.test[chosen], self.z[chosen])

    def certain(self, z_min: float) -> "Duel":
        """The pairs whose difference is significant."""
        return self.at(np.abs(self.z) >= z_min)


@dataclass(frozen=True, slots=True)
class Line:
    """A model's accuracy on the test's pairs, its gain over "longer wins", and its penalty."""

    accuracy: Interval
    above_longer: Interval
    penalty: float | None


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs to learn from, to choose the penalty on, and to test on; every week is in one of them."""

    learn: Duel
    validate: Duel
    test: Duel
    validate_from_week: int
    test_from_week: int


def split(pairs: Duel, week: Ints, share: float, z_min: float, test_from: int | None = None) -> Split:
    """Split ``pairs`` by ``week [P]``: the test begins where the earlier weeks have ``share`` of the tests, or at
    ``test_from``; the validation likewise within the rest. Raises `ValueError` where a part is empty.

    Only pairs with |z| ≥ ``z_min`` are tested on. Pairs with a headline that is in the test, too (it was tried again),
    are not learnt from.
    """
    test_from = _week_after(pairs.test, week, share) if test_from is None else test_from
    early = week < test_from
    validate_from = _week_after(pairs.test[early], week[early], share) if early.any() else test_from
    test = pairs.at(~early).certain(z_min)
    seen = np.concatenate([test.one, test.other])
    early &= ~np.isin(pairs.one, seen) & ~np.isin(pairs.other, seen)
    found = Split(
        pairs.at(early & (week < validate_from)),
        pairs.at(early & (week >= validate_from)),
        test,
        validate_from,
        test_from,
    )
    for name in ("learn", "validate", "test"):
        if not len(getattr(found, name).z):
            raise ValueError(
                f"no pairs to {name} with: the weeks are {week.min()} to {week.max()}, the test begins in {test_from} "
                f"and asks for |z| ≥ {z_min:g}; expected earlier and later weeks with pairs of headlines"
            )
    return found


def _week_after(test: Ints, week: Ints, share: float) -> int:
    """The week of the first test after a ``share`` of all, in order of weeks."""
    _, first = np.unique(test, return_index=True)
    weeks = np.sort(week[first])
    return int(weeks[min(int(share * len(weeks)), len(weeks) - 1)])


def longer(headlines: Sequence[str], duel: Duel) -> Floats:
    """The prediction that the longer headline wins, by characters."""
    length = np.array([len(headline) for headline in headlines], dtype=np.float64)
    return length[duel.one] - length[duel.other]


def figures(headlines: Sequence[str]) -> Floats:
    """Plain figures of each headline, ``[N, F]``: lengths, punctuation, and some of the commonest words."""
    return np.array([_figures(headline) for headline in headlines], dtype=np.float64)


def _figures(headline: str) -> list[float]:
    words = _WORD.findall(headline)
    lower = {word.lower() for word in words}
    marks = [float(mark in headline) for mark in ("?", "!", "...", ",", ":", "-", '"', "'", "(", "*", ". ")]
    return [
        len(headline) / 100,
        len(words) / 20,
        float(np.log1p(len(headline))),
        sum(map(len, words)) / max(len(words), 1),
        float(any(letter.isdigit() for letter in headline)),
        float(headline.endswith(".")),
        float(sum(word.isupper() and len(word) > 1 for word in words)),
        *marks,
        *(float(word in lower) for word in _TOLD),
    ]


def bag_of_words(headlines: Sequence[str]) -> Floats:
    """Hashed counts of words and of pairs of neighbours, ``[N, WORDS_DIM]``."""
    out = np.zeros((len(headlines), WORDS_DIM))
    for row, headline in zip(out, headlines, strict=True):
        words = [word.lower() for word in _WORD.findall(headline)]
        for told in (*words, *(f"{first} {second}" for first, second in pairwise(words))):
            row[id64(told) % WORDS_DIM] += 1
    return out


def compare(
    headlines: Sequence[str],
    features: Mapping[str, Floats],
    parts: Split,
    seed: int = 1,
    told: Callable[[str], None] = lambda _: None,
) -> dict[str, Line]:
    """A model for each of ``features [N, F]`` by name, and "longer wins", on the pairs of the test.

    The penalty is the best one on the validation weeks, from which the model then learns as well. ``told`` is called
    with a model's name once it is fitted.
    """
    both = Duel(*(np.concatenate(pair) for pair in zip(_columns(parts.learn), _columns(parts.validate), strict=True)))
    wins: dict[str, tuple[Floats, float | None]] = {"longer wins": (longer(headlines, parts.test), None)}
    for name, each in features.items():
        scaled = each / _scale(each, parts.learn)
        penalty = _best_penalty(scaled, parts.learn, parts.validate)
        (model,) = _fit(scaled, both, [penalty])
        wins[name] = _difference(scaled, parts.test) @ model, penalty
        told(name)
    draws = Draws(parts.test.z, parts.test.test, seed, DRAWS)
    found = {name: draws.mean(_right(predicted, parts.test.z)) for name, (predicted, _) in wins.items()}
    base = found["longer wins"]
    nothing = np.zeros_like(base)
    return {
        name: Line(interval(values, nothing, draws.people), interval(values, base, draws.people), wins[name][1])
        for name, values in found.items()
    }


def _columns(duel: Duel) -> tuple[Any, ...]:
    return duel.one, duel.other, duel.test, duel.z


def _difference(features: Floats, duel: Duel) -> Floats:
    return features[duel.one] - features[duel.other]


def _scale(features: Floats, learn: Duel) -> Floats:
    """Root mean square of each feature's differences; 1 where it never differs."""
    spread = np.sqrt((_difference(features, learn) ** 2).mean(axis=0))
    return np.where(spread > 0, spread, 1.0)


def _fit(features: Floats, duel: Duel, penalties: Sequence[float]) -> list[Floats]:
    """A model ``[F]`` for each penalty."""
    x, y = _difference(features, duel), np.clip(duel.z, -Z_MAX, Z_MAX)
    values, vectors = np.linalg.eigh(x.T @ x)
    turned = vectors.T @ (x.T @ y)
    return [vectors @ (turned / (np.maximum(values, 0) + penalty)) for penalty in penalties]


def _best_penalty(features: Floats, learn: Duel, validate: Duel) -> float:
    """The best penalty by correlation with the clipped z of the validation weeks, which tells more than accuracy."""
    x, y = _difference(features, validate), np.clip(validate.z, -Z_MAX, Z_MAX)
    agreement = []
    for model in _fit(features, learn, PENALTIES):
        predicted = x @ model
        agreement.append(float(predicted @ y) / max(float(np.linalg.norm(predicted) * np.linalg.norm(y)), 1e-12))
    best: float = PENALTIES[int(np.argmax(agreement))]
    return best


def _right(predicted: Floats, z: Floats) -> Floats:
    """Whether each pair's winner is predicted; a tie, predicted or observed, counts half."""
    return np.where((predicted == 0) | (z == 0), 0.5, (predicted > 0) == (z > 0))
