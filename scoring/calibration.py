"""The click layer as serving reads it: weights and lifts as arrays, calibrated click rates of all candidates at once.

Through dictionaries, as the layer learns, 500 candidates would take 10 ms.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scoring.arrays import Bools, Ints, Singles
from scoring.catalogue import Catalogue
from scoring.clicks import (
    LIFT_PRIOR,
    MARGIN,
    NUMBERS,
    START_WEIGHTS,
    Floats,
    Ids,
    PersonLifts,
    bounded,
    person_numbers,
)
from scoring.examination import over
from scoring.feedback import ClickLayer
from scoring.inputs import SURFACES
from scoring.pool import Others
from scoring.rates import RateTable

PERSONAL = ("bias", *NUMBERS, "surface")
"""P: the weights that count for one person. ``surface`` is the weight of the person's place in the app; ``person_lift``
is the person's lift times its weight, which adds the same to the log-odds of every ad."""
_AT = {name: place for place, name in enumerate(PERSONAL)}


def chance_of(log_odds: Floats) -> Singles:
    """The chances that have these log-odds, of any shape; as `scoring.clicks.probability`."""
    return (1 / (1 + np.exp(-np.clip(log_odds, -MARGIN, MARGIN)))).astype(np.float32)


def no_evidence(shape: tuple[int, ...]) -> Singles:
    """The evidence for lifts of ads without outcomes: the prior's."""
    return np.full(shape, LIFT_PRIOR, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns the attention model's log-odds into click rates for B people with C candidates each.

    ``weights [B, P]`` in the order of `PERSONAL`; ``lift [B, C]`` of the candidates, and the clicks that it rests on,
    ``evidence [B, C]``; ``examined [K]``: how likely each slot is looked at, relative to the first, None where unknown.
    A receipt keeps them.
    """

    weights: Floats
    lift: Singles
    evidence: Singles
    examined: Floats | None = None

    @property
    def lift_weights(self) -> Floats:
        """The weight of ads' lifts for each person, ``[B]``."""
        return self.weights[:, _AT["lift"]]

    def log_odds(self, logit: Singles, context: Singles, control: Bools) -> Floats:
        """Log-odds of a click ``[B, C]`` on candidates in the first slot, from ``logit [B, C]``, ``context [B, X]``.

        For people not in ``control [B]`` every ad counts as chosen by the engine.
        """
        weights, (numbers, _) = self.weights, person_numbers(context)
        person = weights[:, [_AT["bias"], _AT["surface"], _AT["person_lift"]]].sum(axis=1)
        person += weights[:, _AT["chosen"]] * ~control
        person += (weights[:, [_AT["long_views"], _AT["clicks"], _AT["activity"]]] * numbers).sum(axis=1)
        learnt = bounded(logit)
        odds: Floats = learnt * weights[:, _AT["logit"], None] + self.lift * weights[:, _AT["lift"], None]
        odds += logit - learnt  # nothing is learned beyond the bound: that part passes as it is, so the order stays
        odds += person[:, None]
        return odds

    def in_slots(self, log_odds: Floats) -> Singles:
        """Chances of clicks ``[B, L]`` on ads in slots 0 to L - 1, from their ``log_odds [B, L]`` in the first."""
        chance = chance_of(log_odds)
        return chance if self.examined is None else chance * over(self.examined, log_odds.shape[1]).astype(np.float32)


def _lifts(records: Floats) -> tuple[Singles, Singles]:
    """Lifts ``[N]`` of ads with ``records [N, RECORD]``, and the clicks that each rests on, including the prior's.

    These clicks are the shape of the gamma posterior of an ad's rate.
    """
    clicks, expected = records[:, :2].T + LIFT_PRIOR
    return np.log(clicks / expected).astype(np.float32), clicks.astype(np.float32)


class Calibrator:
    """What all lanes have learned, as one lane serves it; brought up to date between slices.

    Weights by attention model, slots' examination, each ad's lift, and how often ads are clicked (``rates``). People's
    lifts are the lane's own.
    """

    def __init__(self) -> None:
        self._weights: Mapping[int, Floats] = {}
        self._lift, self._evidence = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32)
        self._people = PersonLifts()
        self._examined: Floats | None = None
        self.rates = RateTable()
        self.learned = 0
        """Outcomes that went into it."""

    def update(self, layer: ClickLayer, catalogue: Catalogue, others: Others) -> None:
        """Take what ``layer`` and the ``others`` have learned: weights, slots, and records of ads touched or new."""
        self._weights = {number: others.weights(number, one.model) for number, one in layer.learners.items()}
        self.learned, self._examined = layer.learned, others.examined(layer.examination)
        self._people = layer.people
        new = self.rates.follow(catalogue)
        if more := len(catalogue) - len(self._lift):
            self._lift = np.append(self._lift, np.zeros(more, dtype=np.float32))
            self._evidence = np.append(self._evidence, no_evidence((more,)))
        touched = np.array([*layer.lifts.touched | others.news()], dtype=np.uint64)
        slots = catalogue.slots_of(touched)
        slots = slots[slots >= 0]
        slots = np.union1d(new, slots) if len(new) else slots
        ads = catalogue.ad[slots].tolist()
        records = layer.lifts.records(ads) + others.records(ads)
        self._lift[slots], self._evidence[slots] = _lifts(records)
        self.rates.set(slots, records[:, 2:])

    def rated(self, candidates: Ints) -> Singles:
        """What `scoring.rates` tells of candidates ``[B, C]``, ``[B, C, RATES_DIM]``."""
        return self.rates.at(candidates)

    def calibration(self, people: Ids, context: Singles, candidates: Ints, model: int = 0) -> Calibration:
        """For ``people [B]`` with ``context [B, X]`` and candidates ``[B, C]``, which are slots of the catalogue.

        ``model``: the number of the attention model whose log-odds are to be calibrated; where nothing was learned
        about it, its log-odds stay as they are.
        """
        learned = self._weights.get(model, START_WEIGHTS)
        _, surface = person_numbers(context)
        weights = np.empty((len(context), len(PERSONAL)))
        weights[:, :-1] = learned[: len(PERSONAL) - 1]
        weights[:, -1] = learned[-SURFACES:][surface]
        weights[:, _AT["person_lift"]] *= self._people.lifts(people)
        if len(self._lift):
            lift, evidence = self._lift.take(candidates), self._evidence.take(candidates)
        else:
            lift, evidence = np.zeros(candidates.shape, dtype=np.float32), no_evidence(candidates.shape)
        return Calibration(weights, lift, evidence, self._examined)
