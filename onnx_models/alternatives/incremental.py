"""River's models, which learn one example at a time: matrix factorisation, a Hoeffding tree, an adaptive random forest.

A slow model (the forest learns a few hundred examples a second) gets only the latest examples.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from river import forest, optim, reco, tree

from onnx_models.alternatives.features import numbers, surface_of
from onnx_models.alternatives.popularity import ItemRates
from onnx_models.examples import Examples, Items
from scoring.arrays import Floats

Row = dict[str, Any]


class Incremental:
    """A River classifier over the flat numbers and the item's click rate."""

    def __init__(self, name: str, make: Callable[[], Any], kflop: float, latest: int) -> None:
        self.name, self.kflop = name, kflop
        self._make, self._latest = make, latest
        self._rates = ItemRates()

    def fit(self, learn: Examples, _items: Items) -> None:
        self._rates.fit(learn)
        self._model = self._make()
        latest = learn.at(np.arange(max(len(learn) - self._latest, 0), len(learn)))
        for x, label in zip(self._rows(latest), latest.label.astype(bool).tolist(), strict=True):
            self._learn(x, label)

    def predict(self, examples: Examples, *, follow: bool = False) -> Floats:
        out = np.empty(len(examples))
        waiting: deque[tuple[int, Row, bool]] = deque()
        rows = self._rows(examples, follow=follow)
        labels, known_ms = examples.label.astype(bool).tolist(), examples.known_ms.tolist()
        for at, (x, label, time_ms) in enumerate(zip(rows, labels, examples.time_ms.tolist(), strict=True)):
            while waiting and waiting[0][0] <= time_ms:
                self._learn(*waiting.popleft()[1:])
            out[at] = self._chance(x)
            if follow:
                waiting.append((known_ms[at], x, label))
        return np.clip(out, 0.001, 0.999)

    def _rows(self, examples: Examples, *, follow: bool = False) -> Iterator[Row]:
        rates = self._rates.known(examples, follow=follow)
        table = np.column_stack([numbers(examples), surface_of(examples), rates])
        names = [f"x{column}" for column in range(table.shape[1])]
        return (dict(zip(names, row, strict=True)) for row in table.tolist())

    def _learn(self, x: Row, label: bool) -> None:
        self._model.learn_one(x, label)

    def _chance(self, x: Row) -> float:
        known = self._model.predict_proba_one(x)
        return float(known.get(True, 0.0 if known else 0.5))  # a label that it has not met is missing


class Factors(Incremental):
    """Biased matrix factorisation of users and items (Koren et al., 2009)."""

    def _rows(self, examples: Examples, *, follow: bool = False) -> Iterator[Row]:  # noqa: ARG002 - ids say it all
        users, items = examples.row.tolist(), examples.item.tolist()
        return ({"user": user, "item": item} for user, item in zip(users, items, strict=True))

    def _learn(self, x: Row, label: bool) -> None:
        self._model.learn_one(x["user"], x["item"], float(label))

    def _chance(self, x: Row) -> float:
        return float(self._model.predict_one(x["user"], x["item"]))


def river_models(seed: int) -> list[Incremental]:
    """All River models. Their depths of trees and numbers of factors are those assumed in their costs."""

    def factors() -> Any:
        return reco.BiasedMF(
            n_factors=8, bias_optimizer=optim.SGD(0.025), latent_optimizer=optim.SGD(0.025), l2_bias=0.02,
            l2_latent=0.02, seed=seed,
        )  # fmt: skip

    return [
        Factors("matrix_factorisation", factors, 2 * 8 / 1000, 10**9),
        Incremental("hoeffding_tree", lambda: tree.HoeffdingTreeClassifier(grace_period=500), 0.1, 10**9),
        Incremental("adaptive_forest", lambda: forest.ARFClassifier(n_models=5, seed=seed), 0.5, 20_000),
    ]
