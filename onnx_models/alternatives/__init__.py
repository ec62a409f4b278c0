"""Other ways to predict a click, all with the same two methods, to see what the attention model is worth.

An alternative learns from examples in time order and predicts others. It sees what the attention model sees, or less.
"""

from typing import Protocol

from onnx_models.examples import Examples, Items
from scoring.arrays import Floats


class Alternative(Protocol):
    """A model to compare. ``kflop``: thousand floating-point operations (or comparisons) a candidate, once trained."""

    name: str

    @property
    def kflop(self) -> float: ...

    def fit(self, learn: Examples, items: Items) -> None:
        """Learn from examples in time order; forget what was learnt before."""

    def predict(self, examples: Examples, *, follow: bool = False) -> Floats:
        """Click probabilities ``[E]``. ``follow``: examples come in time order, and an outcome may be learnt from its
        ``known_ms`` on.
        """
