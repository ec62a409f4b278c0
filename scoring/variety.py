"""What a candidate loses for being like those already placed: maximal marginal relevance, or a determinantal process.

Both are asked slot after slot, in units of log value per ``strength``: MMR takes the largest cosine with what stands
above (Carbonell & Goldstein 1998); DPP takes what is left of the volume that the list spans, by greedy MAP inference
with an incremental Cholesky factor (Chen, Zhang & Zhou 2018).
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Floats, Ints

Vectors = npt.NDArray[np.float32]
Method = Literal["mmr", "dpp"]

VOLUME_MIN = 1e-4
"""Least square of a residual: what is wholly like those above loses 4.6 × strength, and is still in order of value."""


@dataclass
class Variety:
    """What variety costs the candidates of B people, ``vectors [B, C, K]`` of any length; ask `cost`, tell `place`."""

    method: Method
    strength: float
    vectors: Vectors
    cost: Floats = field(init=False)
    """``[B, C]``: to be taken from a candidate's log value now."""

    def __post_init__(self) -> None:
        self._unit = unit(self.vectors)
        self.cost = np.zeros(self.vectors.shape[:2])
        self._residual = np.ones(self.vectors.shape[:2], dtype=np.float32)
        self._factors: list[Vectors] = []

    def place(self, place: Ints, filled: Bools) -> None:
        """The next slot went to the candidate ``place [B]`` of everyone who is ``filled [B]``."""
        people = np.arange(len(place))
        alike = np.matmul(self._unit, self._unit[people, place][:, :, None])[:, :, 0]
        if self.method == "mmr":
            alike[~filled] = 0
            self.cost = np.maximum(self.cost, self.strength * alike)
            return
        for factor in self._factors:  # the direction of what was placed is taken out of everyone's residual
            alike -= factor * factor[people, place][:, None]
        alike /= np.sqrt(self._residual[people, place])[:, None]
        alike[~filled] = 0
        self._factors.append(alike)
        self._residual = np.maximum(self._residual - alike * alike, np.float32(VOLUME_MIN))
        self.cost = -0.5 * self.strength * np.log(self._residual.astype(np.float64))


def unit(vectors: Vectors) -> Vectors:
    """Vectors of length 1 along the last axis; zero stays zero."""
    norm = np.sqrt(np.einsum("...k,...k->...", vectors, vectors))[..., None]
    scaled: Vectors = vectors / np.maximum(norm, np.float32(1e-9))
    return scaled


def intra_list_distance(features: Vectors) -> Floats:
    """Mean cosine distance between the items of each list, ``[B]``, of ``features [B, L, K]``; 0 for one item.

    A vector of zeros, of an item without content, is at a distance of 1 from any.
    """
    directions = unit(features)
    size = features.shape[1]
    if size < 2:
        return np.zeros(len(features))
    similarity = np.einsum("bik,bjk->b", directions, directions) - np.einsum("bik,bik->b", directions, directions)
    distance: Floats = 1 - similarity / (size * (size - 1))
    return distance
