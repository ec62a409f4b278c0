"""Gradient boosting (LightGBM) over all inputs of the attention model, with the history summed up, and click rates.

Trees cannot embed an item's id. Instead they get the item's click rate so far, overall and by surface (Prokhorenkova et
al., 2018: statistics of a category must come from earlier examples alone).
"""

import warnings

import lightgbm
import numpy as np

from onnx_models.alternatives.features import content, numbers, surface_of
from onnx_models.alternatives.popularity import ItemRates
from onnx_models.examples import Examples, Items
from scoring.arrays import Floats, Singles

ROUNDS_MAX = 400
# One thread: models are fitted side by side, and on shared cores LightGBM's threads spin for each other.
PARAMETERS = {
    "objective": "binary", "learning_rate": 0.04, "num_leaves": 31, "min_data_in_leaf": 100, "bagging_fraction": 0.8,
    "bagging_freq": 1, "feature_fraction": 0.5, "lambda_l2": 5.0, "num_threads": 1, "deterministic": True,
    "force_row_wise": True, "verbosity": -1,
}  # fmt: skip
DEPTH = 8
"""Mean number of comparisons on the way to one of 31 leaves."""


class Boosting:
    """Trained with early stopping on the latest tenth, then again on all examples with as many trees."""

    name = "gbdt"

    def __init__(self, seed: int) -> None:
        self._rates = ItemRates()
        self._parameters = PARAMETERS | {"seed": seed}

    @property
    def kflop(self) -> float:
        return float(self._model.num_trees() * DEPTH / 1000)

    def fit(self, learn: Examples, items: Items) -> None:
        self._items = items
        self._rates.fit(learn)
        early = int(0.9 * len(learn))
        x, y = self._table(learn), learn.label
        halfway = lightgbm.Dataset(x[:early], y[:early])
        stop = lightgbm.early_stopping(30, verbose=False)
        tried = lightgbm.train(
            self._parameters, halfway, ROUNDS_MAX, valid_sets=[lightgbm.Dataset(x[early:], y[early:])], callbacks=[stop]
        )
        self._model = lightgbm.train(self._parameters, lightgbm.Dataset(x, y), max(tried.best_iteration, 20))

    def predict(self, examples: Examples, *, follow: bool = False) -> Floats:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(self._model.predict(self._table(examples, follow=follow)), dtype=np.float64)

    def _table(self, examples: Examples, *, follow: bool = False) -> Singles:
        rates = self._rates.known(examples, follow=follow)
        columns = [numbers(examples), surface_of(examples), rates, content(examples, self._items)]
        return np.column_stack(columns).astype(np.float32)
