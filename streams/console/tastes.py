"""An interest vector in words: which categories, brands and tags of the catalogue it points to. No I/O.

The vector is a signed hash (`scoring.features`): words cannot be read from it, but are found by cosine similarity. In
64 dimensions, the cosine of two unrelated words has a standard deviation of 0.125.
"""

from collections import Counter

import msgspec
import numpy as np

from scoring.arrays import Singles
from scoring.catalogue import Catalogue
from scoring.features import FEATURE_DIM, add_token, tokens

ADS_READ = 20_000
"""The ads whose words are known: half a second's work, on the first request after a change."""
WORDS_MAX = 2_000
"""The most frequent words: 0.5 MB."""
KINDS = ("category", "brand", "tag")
TOLD = 6
LIKENESS_MIN = 0.2
"""A smaller cosine is likely to be chance."""


class Taste(msgspec.Struct, frozen=True, kw_only=True):
    """``likeness``: cosine between the interest and the word, 1 at the most."""

    kind: str
    word: str
    likeness: float


class Vocabulary:
    """The words of a catalogue, rebuilt when it has changed; of a large one, of the active ads that start last."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._version = -1
        self._words: list[tuple[str, str]] = []
        self._vectors = np.zeros((0, FEATURE_DIM), dtype=np.float32)

    def tastes(self, interest: Singles) -> list[Taste]:
        """The words most similar to an interest vector ``[FEATURE_DIM]``; none where it is zero."""
        norm = float(np.linalg.norm(interest))
        if norm == 0:
            return []
        self._refresh()
        likeness = self._vectors @ (interest / norm)
        most = np.argsort(-likeness, kind="stable")[:TOLD].tolist()
        return [
            Taste(kind=self._words[at][0], word=self._words[at][1], likeness=round(float(likeness[at]), 3))
            for at in most
            if likeness[at] >= LIKENESS_MIN
        ]

    def _refresh(self) -> None:
        if self._version == self._catalogue.version:
            return
        shop = self._catalogue
        newest = np.argsort(np.where(shop.active, shop.start_ms, -1), kind="stable")[-ADS_READ:]
        counts = Counter(
            (kind, word)
            for slot in newest.tolist()
            for kind, word in tokens(shop.entries[slot].content)
            if kind in KINDS
        )
        self._words = [word for word, _ in counts.most_common(WORDS_MAX)]
        self._vectors = np.zeros((len(self._words), FEATURE_DIM), dtype=np.float32)
        for vector, (kind, word) in zip(self._vectors, self._words, strict=True):
            add_token(vector, f"{kind}={word}", 1.0)
        self._vectors /= np.maximum(np.linalg.norm(self._vectors, axis=1, keepdims=True), 1e-9)
        self._version = self._catalogue.version
