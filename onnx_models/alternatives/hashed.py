"""Logistic regression over hashed ids and content (Weinberger et al., 2009): user, item, its tokens, surface, hour."""

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from onnx_models.alternatives.features import surface_of
from onnx_models.examples import Examples, Items
from onnx_models.metrics import log_loss
from scoring.arrays import Floats, Ids
from scoring.ids import mix64
from scoring.units import HOUR_MS

BUCKETS = 1 << 18
STRENGTHS = (0.02, 0.1, 0.5)
"""Inverse strengths of regularisation, tried on the latest tenth."""


class Hashed:
    """A plain model, without counters or history."""

    name = "hashed_lr"

    @property
    def kflop(self) -> float:
        return float(2 * self._width / 1000)

    def fit(self, learn: Examples, items: Items) -> None:
        self._items = items
        x, y, early = self._table(learn), learn.label, int(0.9 * len(learn))
        self._width = x.nnz / max(len(learn), 1)

        def fitted(strength: float, upto: int) -> LogisticRegression:
            return LogisticRegression(C=strength, max_iter=100, tol=1e-3).fit(x[:upto], y[:upto])

        losses = [log_loss(y[early:], fitted(c, early).predict_proba(x[early:])[:, 1]) for c in STRENGTHS]
        self._model = fitted(STRENGTHS[int(np.argmin(losses))], len(learn))

    def predict(self, examples: Examples, *, follow: bool = False) -> Floats:  # noqa: ARG002 - it has no state
        return np.asarray(self._model.predict_proba(self._table(examples))[:, 1], dtype=np.float64)

    def _table(self, examples: Examples) -> csr_matrix:
        tokens = self._items.tokens[examples.item]  # [E, T], 0 where there is none
        surface = surface_of(examples).astype(np.uint64)
        hour = (examples.time_ms // HOUR_MS % 24).astype(np.uint64)
        named = [_named(1, examples.row.astype(np.uint64)), _named(2, surface), _named(3, hour)]
        named += [_named(4, mix64(tokens[:, 0]) ^ surface), _named(5, mix64(surface) ^ hour)]
        hashes = np.column_stack([tokens, *named])
        held = hashes != 0
        columns = (hashes[held] % np.uint64(BUCKETS)).astype(np.int32)
        rows = np.repeat(np.arange(len(examples)), held.sum(axis=1))
        return csr_matrix((np.ones(len(columns), np.float32), (rows, columns)), shape=(len(examples), BUCKETS))


def _named(kind: int, value: Ids) -> Ids:
    """A hash of a feature's kind and value, never 0."""
    return mix64(mix64(value) ^ np.uint64(kind)) | np.uint64(1 << 40)
