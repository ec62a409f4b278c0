"""Impressions as the click layer takes them: their events, and what attention models say of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scoring.arrays import Bools, Ids, Ints, Singles
from scoring.clicks import bounded, person_numbers
from scoring.events import Events
from scoring.examination import NOWHERE, SLOTS_MAX


@dataclass(frozen=True, slots=True)
class Impressions:
    """What attention models say of some impressions of a batch of events: ``logit [N]``, ``context [N, X]``.

    ``place [N]``: their places among the events, ascending. ``model [N]``: the number of the model that scored, None
    for 0. ``known [N]``: whether it was trained on their outcomes, None for no; such impressions are predicted and not
    learned from. ``shadow_logit [N]``: log-odds by the model ``shadow``, NaN or None where it was not asked.
    ``closeness [N]``: the cosine of each ad with the person's long interest, NaN or None where there is none.
    """

    place: Ints
    logit: Singles
    context: Singles
    model: npt.NDArray[np.uint32] | None = None
    known: Bools | None = None
    shadow_logit: Singles | None = None
    shadow: int = 0
    closeness: Singles | None = None

    def among(
        self, events: Events, users: Ids, control: Bools
    ) -> Iterator[tuple[list[float], int, int, int, int, int, int, int, bool, int, float, float]]:
        """For each impression: numbers (lifts still 0), surface, ad, event, person, arm, slot, model, whether it is
        known, shadow, the shadow's log-odds, closeness. ``users [E]``, ``control [E]``: of all ``events [E]``.
        """
        of = events[self.place]
        person, surface = person_numbers(self.context)
        of_control = control[self.place]
        placed = of["slot"] >= 0
        numbers = np.column_stack([bounded(self.logit), np.zeros((len(of), 2)), person, placed & ~of_control])
        none = np.full(len(of), np.nan)
        beside = none if self.shadow_logit is None else bounded(self.shadow_logit)
        asked = ~np.isnan(beside)
        columns = (
            numbers,
            surface,
            of["ad"],
            of["event"],
            users[self.place],
            of_control.astype(int),
            np.where(placed, np.minimum(of["slot"], SLOTS_MAX - 1), NOWHERE),
            np.zeros(len(of), dtype=np.uint32) if self.model is None else self.model,
            np.zeros(len(of), dtype=np.bool_) if self.known is None else self.known,
            np.where(asked, self.shadow, 0),
            np.where(asked, beside, 0),
            none if self.closeness is None else self.closeness,
        )
        return zip(*(column.tolist() for column in columns), strict=True)
