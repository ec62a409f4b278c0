"""What a person is drawn to: time-decayed interest vectors in the fixed feature space, and their River estimator.

A person's interest is the weighted sum of the feature vectors of the items attended to. An item's weight says what
happened to it, and halves every half-life. There is a sum for each of L = 2 horizons: this session's and a long one.
Sums are as of a *reference time*, that of the newest item learned, so that an idle person's need no update.

`accumulate` and `decayed` are the arithmetic, over the rows of many people at once. `DecayedInterest` is the
estimator over the same arrays: the engine binds it to its rows, a notebook feeds it dictionaries.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from river import base

from scoring.arrays import Ints, Singles
from scoring.events import TIME_MS_MAX, Kind
from scoring.features import FEATURE_DIM, Vector, add_token
from scoring.runs import runs
from scoring.units import DAY_MS

Example = Mapping[Any, Any]
Frame = Any
"""A pandas DataFrame, River's mini-batch; only a caller that passes one needs pandas."""

HALF_LIVES_MS: tuple[int, int] = (1_800_000, 7 * DAY_MS)
"""Half-lives of the session's interest (half an hour) and of the long one (a week)."""

_WEIGHTS = {Kind.VIEWED: 0.3, Kind.VIEWED_LONG: 0.7, Kind.CLICKED: 1, Kind.CARTED: 2, Kind.PURCHASED: 3}
WEIGHTS: Singles = np.array([_WEIGHTS.get(kind, 0) for kind in Kind], dtype=np.float32)
"""What each `Kind` counts, ``[len(Kind)]``. Being shown an item is no sign of interest and counts 0."""
VIEWED_MS_MAX = 60_000
"""A look adds up to 1 to an item's weight, for a minute; a longer one says that somebody left the page open."""
WEIGHT_MAX = float(WEIGHTS.max()) + 1
"""What one event counts at most."""

_NUMBER_MAX = 1e6  # larger numbers count as this: they would drown all other features


def weight_of(kind: npt.NDArray[Any], viewed_ms: Ints) -> Singles:
    """What events count, ``[E]`` in [0, `WEIGHT_MAX`]: the kind's weight, and up to 1 for a minute's look."""
    by_kind = WEIGHTS[np.where(kind < len(WEIGHTS), kind, Kind.NONE)]
    looked = np.clip(viewed_ms, 0, VIEWED_MS_MAX).astype(np.float32) / np.float32(VIEWED_MS_MAX)
    return np.where(by_kind > 0, by_kind + looked, np.float32(0))


def accumulate(
    vectors: Singles,
    reference_ms: Ints,
    index: npt.NDArray[np.integer[Any]],
    time_ms: Ints,
    weight: Singles,
    features: Singles,
    half_lives_ms: tuple[int, ...] = HALF_LIVES_MS,
) -> None:
    """Learn E events, in place: ``vectors [N, L, K]``, ``reference_ms [N]`` (0 where nothing was ever learned).

    Event e adds ``weight[e] · features[e, K]`` to row ``index[e]`` as of ``time_ms[e]``. A row's reference time moves
    to the newest event it has learned; older ones, late events included, are decayed to it. But for float32's rounding
    the result depends neither on the order of the events nor on how they are split into calls. Events of weight 0
    change nothing.
    """
    learned = np.flatnonzero(weight)
    if not len(learned):
        return
    learned = learned[np.argsort(index[learned], kind="stable")]
    index, time_ms = index[learned], time_ms[learned]
    starts, counts = runs(index)  # [R] where each touched row's events begin, and how many they are
    rows = index[starts]
    reference = np.maximum(reference_ms[rows], np.maximum.reduceat(time_ms, starts))
    ages = np.repeat(reference, counts) - time_ms
    added = _decay(ages, half_lives_ms) * weight[learned, None]  # [E, L]
    kept = vectors[rows] * _decay(reference - reference_ms[rows], half_lives_ms)[:, :, None]  # [R, L, K]
    content = features[learned]
    for horizon in range(len(half_lives_ms)):
        kept[:, horizon] += np.add.reduceat(added[:, horizon, None] * content, starts, axis=0)
    vectors[rows] = kept
    reference_ms[rows] = reference


def decayed(
    vectors: Singles, reference_ms: Ints, now_ms: Ints, half_lives_ms: tuple[int, ...] = HALF_LIVES_MS
) -> Singles:
    """Interest ``vectors [B, L, K]`` of ``reference_ms [B]`` as of ``now_ms [B]``; unchanged where that is earlier."""
    return vectors * _decay(np.maximum(now_ms - reference_ms, 0), half_lives_ms)[:, :, None]


def _decay(age_ms: Ints, half_lives_ms: tuple[int, ...]) -> Singles:
    """The share that is left after ``age_ms [E]`` at each horizon, ``[E, L]``."""
    return np.exp2(age_ms[:, None] / -np.array(half_lives_ms, dtype=np.float64)).astype(np.float32)


class DecayedInterest(base.MiniBatchTransformer):
    """Interest in content, decaying with time.

    Features are hashed into a space of fixed size[^1]: a string as the token ``name=value``, a number as the
    token ``name`` with its value, and the whole to unit length, so that every example counts by its weight
    alone. Learning adds the example's vector to the interest; `transform_one` gives the interest *in* an
    example, the inner product of its vector with the interest as of its time: 1 right after an equal example
    of weight 1, half of that a half-life later. A late example counts as if it had come in time[^2].

    An instance holds one interest; River's grouping keeps one per value of a feature
    (``DecayedInterest() * "user"``). `over` binds an instance to arrays that hold many, which it changes in
    place by `learn_arrays`: the engine's way, with the same arithmetic.

    Parameters
    ----------
    time
        Feature with the time in milliseconds since the epoch. Where it is missing the example is as old as
        the newest one learned; where there is never one, nothing decays.
    weight
        Feature with what the example counts, clipped to ±`WEIGHT_MAX`; 1 where it is missing.
    half_lives_ms
        Half-life of each horizon in milliseconds, each above 0. One value per horizon is put out, named
        ``interest_<half-life in seconds>s``.

    Examples
    --------
    >>> from scoring.interest import DecayedInterest

    >>> interest = DecayedInterest(half_lives_ms=(1_800_000, 604_800_000))
    >>> shoes = {"category": "shoes", "brand": "Arco"}

    >>> interest.transform_one(shoes)
    {'interest_1800s': 0.0, 'interest_604800s': 0.0}

    >>> interest.learn_one({**shoes, "time_ms": 1_700_000_000_000, "weight": 2})
    >>> half_an_hour_later = {**shoes, "time_ms": 1_700_001_800_000}
    >>> {name: round(value, 3) for name, value in interest.transform_one(half_an_hour_later).items()}
    {'interest_1800s': 1.0, 'interest_604800s': 1.996}

    Content in common is shared interest: another brand of shoes is worth half as much.

    >>> other_brand = {"category": "shoes", "brand": "Onda", "time_ms": 1_700_001_800_000}
    >>> {name: round(value, 1) for name, value in interest.transform_one(other_brand).items()}
    {'interest_1800s': 0.5, 'interest_604800s': 1.0}

    References
    ----------
    [^1]: [Weinberger et al. (2009), Feature Hashing for Large Scale Multitask Learning](https://arxiv.org/abs/0902.2206)
    [^2]: [Cormode et al. (2009), Forward Decay: A Practical Time Decay Model for Streaming Systems](https://dimacs.rutgers.edu/~graham/pubs/papers/fwddecay.pdf)

    """

    def __init__(
        self, time: str = "time_ms", weight: str = "weight", half_lives_ms: tuple[int, ...] = HALF_LIVES_MS
    ) -> None:
        if not half_lives_ms or min(half_lives_ms) <= 0:
            raise ValueError(f"half_lives_ms is {half_lives_ms}; give one or more numbers above 0")
        self.time = time
        self.weight = weight
        self.half_lives_ms = half_lives_ms
        self.vectors: Singles = np.zeros((1, len(half_lives_ms), FEATURE_DIM), dtype=np.float32)
        self.reference_ms: Ints = np.zeros(1, dtype=np.int64)

    @classmethod
    def over(cls, vectors: Singles, reference_ms: Ints, half_lives_ms: tuple[int, ...] = HALF_LIVES_MS) -> Self:
        """The estimator bound to ``vectors [N, L, K]`` and ``reference_ms [N]``, which learning changes in place.

        Views of a structured array's fields will do. Raises `ValueError` where the shapes do not fit.
        """
        if vectors.shape != (expected := (len(reference_ms), len(half_lives_ms), FEATURE_DIM)):
            raise ValueError(f"vectors have shape {vectors.shape}; {expected} is what fits reference_ms and half-lives")
        bound = cls(half_lives_ms=half_lives_ms)
        bound.vectors, bound.reference_ms = vectors, reference_ms
        return bound

    def learn_arrays(
        self, index: npt.NDArray[np.integer[Any]], time_ms: Ints, weight: Singles, features: Singles
    ) -> None:
        """Learn events ``[E]`` of rows ``index``, with ``features [E, K]``: see `accumulate`."""
        accumulate(self.vectors, self.reference_ms, index, time_ms, weight, features, self.half_lives_ms)

    def interest(self, index: npt.NDArray[np.integer[Any]], now_ms: Ints) -> Singles:
        """Interest vectors of rows ``index [B]`` as of ``now_ms [B]``, ``[B, L, K]``: see `decayed`."""
        return decayed(self.vectors[index], self.reference_ms[index], now_ms, self.half_lives_ms)

    def learn_one(self, x: Example) -> None:
        """Add one example to the interest."""
        self._learn([x])

    def learn_many(self, X: Frame) -> None:  # noqa: N803 - River's name for a mini-batch
        """Add a mini-batch of examples, in order, to the interest."""
        self._learn(X.to_dict("records"))

    def transform_one(self, x: Example) -> dict[str, float]:
        """The interest in ``x`` at its time, per horizon."""
        return self._transform([x])[0]

    def transform_many(self, X: Frame) -> Frame:  # noqa: N803 - River's name for a mini-batch
        """The interest in each example of a mini-batch, one column per horizon."""
        return type(X)(self._transform(X.to_dict("records")), index=X.index, columns=self._names())

    def _learn(self, examples: list[Example]) -> None:
        weight = np.array([self._weight(x) for x in examples], dtype=np.float32)
        time_ms, newest = np.zeros(len(examples), dtype=np.int64), int(self.reference_ms[0])
        for place, x in enumerate(examples):
            time_ms[place] = self._time_ms(x, newest)
            newest = max(newest, int(time_ms[place])) if weight[place] else newest
        self.learn_arrays(np.zeros(len(examples), dtype=np.int64), time_ms, weight, self._content(examples))

    def _transform(self, examples: list[Example]) -> list[dict[str, float]]:
        newest = int(self.reference_ms[0])
        now_ms = np.array([self._time_ms(x, newest) for x in examples], dtype=np.int64)
        vectors = self.interest(np.zeros(len(examples), dtype=np.int64), now_ms)
        values = np.einsum("blk,bk->bl", vectors, self._content(examples))
        names = self._names()
        return [dict(zip(names, row, strict=True)) for row in values.tolist()]

    def _names(self) -> list[str]:
        return [f"interest_{half_life / 1000:g}s" for half_life in self.half_lives_ms]

    def _time_ms(self, x: Example, newest: int) -> int:
        time = _number(x.get(self.time))
        return newest if time is None else int(min(max(time, 0), TIME_MS_MAX))

    def _weight(self, x: Example) -> float:
        weight = _number(x.get(self.weight))
        return 1.0 if weight is None else min(max(weight, -WEIGHT_MAX), WEIGHT_MAX)

    def _content(self, examples: Iterable[Example]) -> Singles:
        """Unit vectors of what the examples say besides time and weight, ``[E, K]``."""
        told = (self.time, self.weight)
        vectors = [_vector((str(name), x[name]) for name in x if name not in told) for x in examples]
        return np.stack(vectors) if vectors else np.zeros((0, FEATURE_DIM), dtype=np.float32)


def _vector(features: Iterable[tuple[str, Any]]) -> Vector:
    """The features' signed hash, ``[FEATURE_DIM]``, of unit length; one sum in one order, whatever theirs is."""
    vector = np.zeros(FEATURE_DIM, dtype=np.float32)
    for name, value in sorted(features, key=lambda feature: feature[0]):
        if isinstance(value, str):
            add_token(vector, f"{name}={value}", 1.0)
        elif number := _number(value):
            add_token(vector, name, min(max(number, -_NUMBER_MAX), _NUMBER_MAX))
    norm = float(np.linalg.norm(vector))
    return vector / np.float32(norm) if norm > 0 else vector


def _number(value: Any) -> float | None:
    """The value as a finite number; None where it is none: missing, text, NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
