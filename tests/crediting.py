"""Credits, and what is learned of touches, from rings as they were after events: without the batch that led to them."""

from copy import deepcopy
from typing import cast

from scoring.arrays import Bools
from scoring.attribution import Attribution, Credits, earn
from scoring.catalogue import Catalogue
from scoring.events import Events
from scoring.moments import Moments
from scoring.rows import Rows
from scoring.touches import TouchWeights


class Known:
    """Stands in for `Moments`: the ``rings [E]`` after each event."""

    def __init__(self, rings: Rows) -> None:
        self.rings = rings

    def at(self, _applied: Events, asked: Bools) -> Rows:
        """Those after the events asked for."""
        return self.rings[asked]


def learn(weights: TouchWeights, rings: Rows, events: Events, catalogue: Catalogue, owed: Attribution) -> Credits:
    """Credits of ``events [E]``, from the ``rings [E]`` after each; ``weights`` learn."""
    return earn(cast("Moments", Known(rings)), events, catalogue, owed, weights)


def credit(
    rings: Rows, purchases: Events, catalogue: Catalogue, owed: Attribution, weights: TouchWeights | None = None
) -> Credits:
    """The same of ``purchases``, by ``weights`` as they are; None: nothing was learned."""
    return learn(deepcopy(weights or TouchWeights()), rings, purchases, catalogue, owed)
