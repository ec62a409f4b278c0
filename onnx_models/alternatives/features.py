"""Inputs of models of flat tables: all that the attention model sees, with the history summed up, and click rates."""

import numpy as np
import numpy.typing as npt

from onnx_models.examples import Examples, Items
from scoring.arrays import Floats, Ints
from scoring.inputs import SURFACES, HistoryKind

PRIOR = 20
"""Strength of the prior: a click rate counts as if there had been so many more impressions, at the overall rate."""
RECENT = 10
"""So many newest items of a history are also counted separately."""
_KINDS = (HistoryKind.VIEWED, HistoryKind.VIEWED_LONG, HistoryKind.CLICKED, HistoryKind.SKIPPED)


def surface_of(examples: Examples) -> Ints:
    """The hashed surface of each impression, 0 to SURFACES - 1."""
    return (examples.surface % SURFACES).astype(np.int64)


def numbers(examples: Examples) -> Floats:
    """Person, moment and match ``[E, 8 + S + 8]``: the context's numbers, the candidate's stats, shares of kinds."""
    kind, context = examples.kind, examples.context[:, :-SURFACES]
    held = (kind > 0).sum(axis=1) + 5
    shares = [(kind == each).sum(axis=1) / held for each in _KINDS]
    recent = [(kind[:, -RECENT:] == each).sum(axis=1) for each in _KINDS]
    return np.column_stack([context, examples.stats, *shares, *recent])


class Rates:
    """Click rates by key, as they were known at a given time: nothing that became known later counts."""

    def __init__(self) -> None:
        self._order: Ints = np.zeros(0, dtype=np.int64)
        self.rate = 0.5

    def fit(self, key: Ints, known_ms: Ints, label: npt.NDArray[np.floating], rate: float) -> None:
        """Record impressions ``[E]`` and when their outcomes are known; keys count from 0.

        ``rate``: the overall click rate, as it was known.
        """
        self._start_ms = int(known_ms.min())
        self._span = int(known_ms.max()) - self._start_ms + 2
        self._order = np.sort(self._code(key, known_ms))
        by_code = np.argsort(self._code(key, known_ms), kind="stable")
        self._clicks = np.concatenate([[0.0], np.cumsum(label[by_code], dtype=np.float64)])
        self.rate = rate

    def _code(self, key: Ints, time_ms: Ints) -> Ints:
        return key * self._span + np.clip(time_ms - self._start_ms, 0, self._span - 1)

    def known(self, key: Ints, time_ms: Ints) -> Floats:
        """log1p of the impressions, and the click rate, of each key before each time, ``[E, 2]``."""
        first = np.searchsorted(self._order, self._code(key, np.full(len(key), self._start_ms)))
        last = np.maximum(np.searchsorted(self._order, self._code(key, time_ms)), first)
        shown, clicks = last - first, self._clicks[last] - self._clicks[first]
        return np.column_stack([np.log1p(shown), (clicks + PRIOR * self.rate) / (shown + PRIOR)])


def content(examples: Examples, items: Items) -> Floats:
    """The item's own numbers ``[E, R + K]`` and the person's interest ``[E, K]``, side by side."""
    return np.column_stack([items.dense[examples.item], items.features[examples.item], examples.interest])
