"""Interest: the time-decayed sum of what a person attended to, in the fixed feature space, as a River estimator."""

import numpy as np
import numpy.typing as npt

from scoring.events import Kind

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

HALF_LIVES_MS = (1_800_000, 7 * 86_400_000)
WEIGHTS = np.zeros(max(Kind) + 1, dtype=np.float32)
WEIGHTS[[Kind.VIEWED, Kind.VIEWED_LONG, Kind.CLICKED, Kind.CARTED, Kind.PURCHASED]] = (0.3, 0.7, 1.0, 2.0, 3.0)


def weight_of(kind: npt.NDArray[np.uint8], viewed_ms: Ints) -> Floats:
    return (WEIGHTS[kind] + np.minimum(viewed_ms, 60_000) / np.float32(60_000)).astype(np.float32) * (kind > Kind.SHOWN)


def _decay(age_ms: Ints) -> Floats:
    return np.exp2(-np.maximum(age_ms, 0)[..., None] / np.array(HALF_LIVES_MS, dtype=np.float64)).astype(np.float32)


def accumulate(
    vectors: Floats, reference_ms: Ints, index: Ints, time_ms: Ints, weight: Floats, features: Floats
) -> None:
    if not len(index):
        return
    order = np.argsort(index, kind="stable")
    rows, starts = np.unique(index[order], return_index=True)
    newest = np.maximum.reduceat(time_ms[order], starts)
    before = reference_ms[rows]
    reference = np.maximum(before, newest)
    of = np.repeat(np.arange(len(rows)), np.diff(np.append(starts, len(order))))
    part = _decay(reference[of] - time_ms[order])[:, :, None] * (weight[order, None] * features[order])[:, None, :]
    vectors[rows] = vectors[rows] * _decay(reference - before)[:, :, None] + np.add.reduceat(part, starts, axis=0)
    reference_ms[rows] = reference


def decayed(vectors: Floats, reference_ms: Ints, now_ms: Ints) -> Floats:
    return vectors * _decay(now_ms - reference_ms)[:, :, None]


class DecayedInterest:
    def __init__(self, vectors: Floats, reference_ms: Ints) -> None:
        self.vectors, self.reference_ms = vectors, reference_ms

    @classmethod
    def over(cls, vectors: Floats, reference_ms: Ints) -> "DecayedInterest":
        return cls(vectors, reference_ms)

    def learn_arrays(self, index: Ints, time_ms: Ints, weight: Floats, features: Floats) -> None:
        accumulate(self.vectors, self.reference_ms, index, time_ms, weight, features)
