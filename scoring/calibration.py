"""The click layer as serving reads it: weights and lifts as arrays, calibrated click rates of all candidates at once.

Through dictionaries, as the layer learns, 500 candidates would take 10 ms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from scoring.catalogue import Catalogue
from scoring.clicks import (
    MARGIN,
    NUMBERS,
    START_WEIGHTS,
    AdLifts,
    Floats,
    person_numbers,
)
from scoring.inputs import SURFACES

PERSONAL = ("bias", *NUMBERS, "surface")
"""P: the weights that count for one person, whose place in the app is one of all."""
_AT = {name: place for place, name in enumerate(PERSONAL)}


def chance_of(log_odds: Floats) -> npt.NDArray[np.float32]:
    """The chances that have these log-odds, of any shape; as `scoring.clicks.probability`."""
    return (1 / (1 + np.exp(-np.clip(log_odds, -MARGIN, MARGIN)))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns the attention model's log-odds into click rates for B people with C candidates each.

    ``weights [B, P]`` in the order of `PERSONAL`; ``lift [B, C]`` of the candidates. A receipt keeps both.
    """

    weights: Floats
    lift: npt.NDArray[np.float32]

    @classmethod
    def none(cls, people: int, candidates: int) -> Self:
        """The attention model's own click rates."""
        weights = np.tile(np.append(START_WEIGHTS[: len(PERSONAL) - 1], 0.0), (people, 1))
        return cls(weights, np.zeros((people, candidates), dtype=np.float32))

    def log_odds(
        self, logit: npt.NDArray[np.float32], context: npt.NDArray[np.float32], control: npt.NDArray[np.bool_]
    ) -> Floats:
        """Log-odds of a click ``[B, C]`` on candidates in the first slot, of ``logit [B, C]``, ``context [B, X]``.

        For people not in ``control [B]`` an ad in a slot is one that the engine has chosen.
        """
        weights, (numbers, _) = self.weights, person_numbers(context)
        person = weights[:, _AT["bias"]] + weights[:, _AT["chosen"]] * ~control + weights[:, _AT["surface"]]
        person += (weights[:, [_AT["long_views"], _AT["clicks"], _AT["activity"]]] * numbers).sum(axis=1)
        odds: Floats = logit * weights[:, _AT["logit"], None] + self.lift * weights[:, _AT["lift"], None]
        odds += person[:, None]
        return odds

    def in_slots(self, log_odds: Floats) -> Floats:
        """``log_odds [B, L]`` of what stands in slots 0 to L - 1, moved from the first slot to its own."""
        odds: Floats = log_odds + self.weights[:, _AT["slot"], None] * np.log1p(np.arange(log_odds.shape[1]))
        return odds


class Calibrator:
    """A layer's weights by attention model, and the lift of every slot of the catalogue; up to date between slices."""

    def __init__(self) -> None:
        self._weights: Mapping[int, Floats] = {}
        self._lift = np.zeros(0, dtype=np.float32)
        self.learned = 0
        """Outcomes that went into it."""

    def update(self, weights: Mapping[int, Floats], learned: int, lifts: AdLifts, catalogue: Catalogue) -> None:
        """Take ``weights [F]`` by number of attention model, the lifts of ads touched, and those of what is new."""
        self._weights, self.learned = weights, learned
        known = len(self._lift)
        if len(catalogue) > known:
            grown = np.zeros(len(catalogue), dtype=np.float32)
            grown[:known] = self._lift
            grown[known:] = [lifts.lift(ad) for ad in catalogue.ad[known:].tolist()]
            self._lift = grown
        if lifts.touched:
            ads = list(lifts.touched)
            slots = catalogue.slots_of(np.array(ads, dtype=np.uint64))
            values = np.array([lifts.lift(ad) for ad in ads], dtype=np.float32)
            self._lift[slots[slots >= 0]] = values[slots >= 0]

    def calibration(
        self, context: npt.NDArray[np.float32], candidates: npt.NDArray[np.int64], model: int = 0
    ) -> Calibration:
        """For people with ``context [B, X]`` and candidates ``[B, C]``, which are slots of the catalogue.

        ``model``: the number of the attention model whose log-odds they are; one of which nothing was learned is
        believed as it is.
        """
        learned = self._weights.get(model, START_WEIGHTS)
        _, surface = person_numbers(context)
        weights = np.empty((len(context), len(PERSONAL)))
        weights[:, :-1] = learned[: len(PERSONAL) - 1]
        weights[:, -1] = learned[-SURFACES:][surface]
        lift = self._lift[candidates] if len(self._lift) else np.zeros(candidates.shape, dtype=np.float32)
        return Calibration(weights, lift)
