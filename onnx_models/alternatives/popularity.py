"""Each item's click rate so far: what any model must beat."""

import numpy as np

from onnx_models.alternatives.features import Rates, surface_of
from onnx_models.examples import Examples, Items
from scoring.arrays import Floats, Ints
from scoring.inputs import SURFACES


class ItemRates:
    """Click rates of items, and of items by surface, as known at the moment of each impression."""

    def __init__(self) -> None:
        self._learn: Examples | None = None
        self._item, self._placed = Rates(), Rates()

    def fit(self, learn: Examples) -> None:
        """Record the training examples."""
        self._learn = learn
        self._rate = float(learn.label.mean())
        self._note([learn])

    def _note(self, parts: list[Examples]) -> None:
        for rates, key in ((self._item, _item), (self._placed, _placed)):
            rates.fit(
                np.concatenate([key(part) for part in parts]),
                np.concatenate([part.known_ms for part in parts]),
                np.concatenate([part.label for part in parts]),
                self._rate,  # the rate of the followed examples would reveal their own future
            )

    def known(self, examples: Examples, *, follow: bool = False) -> Floats:
        """Counts and rates by item, and by item and surface, ``[E, 4]``; ``follow``: with the examples themselves."""
        if follow and self._learn is not None:
            self._note([self._learn, examples])
        by = (self._item, _item(examples)), (self._placed, _placed(examples))
        return np.column_stack([rates.known(key, examples.time_ms) for rates, key in by])


def _item(examples: Examples) -> Ints:
    return examples.item.astype(np.int64)


def _placed(examples: Examples) -> Ints:
    return _item(examples) * SURFACES + surface_of(examples)


class Popularity:
    """Predicts the item's click rate."""

    name = "popularity"
    kflop = 0.003

    def __init__(self) -> None:
        self._rates = ItemRates()

    def fit(self, learn: Examples, _items: Items) -> None:
        self._rates.fit(learn)

    def predict(self, examples: Examples, *, follow: bool = False) -> Floats:
        chances: Floats = self._rates.known(examples, follow=follow)[:, 1]
        return chances
