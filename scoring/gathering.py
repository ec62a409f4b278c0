"""From rows and catalogue to the model's inputs: people are gathered once, their candidates run by run."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from scoring.arrays import Ints, Singles
from scoring.catalogue import Catalogue
from scoring.ids import MISSING
from scoring.inputs import History, ModelInputs, context_of, cosines_of, history_of, interest_of, stats_of
from scoring.interest import decayed
from scoring.rows import Rows

Slots = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class People:
    """B people at their moments: what the model is told of them, whatever their candidates."""

    now_ms: Ints  # [B]
    unit: Singles  # [B, HORIZONS, K] interest of unit length, per horizon
    interest: Singles  # [B, K]
    context: Singles  # [B, X]
    past: History  # [B, H]
    slots: Slots  # [B, H] of the past in the catalogue

    @classmethod
    def of(
        cls,
        catalogue: Catalogue,
        rows: Rows,
        now_ms: Ints,
        surface: npt.NDArray[np.uint16],
        *,
        shown: bool = False,
    ) -> Self:
        """``rows [B]`` at ``now_ms [B]``; ``shown``: the scored ads are shown then (`scoring.inputs.history_of`).

        ``surface [B]`` is the place of the scored ads: for an impression that is learnt from or evaluated its own, for
        a placement the place where its user was seen last, ``rows["surface"]``.
        """
        unit, interest = interest_of(decayed(rows["interest"], rows["interest_ms"], now_ms))
        past = history_of(rows, now_ms, shown=shown)
        return cls(now_ms, unit, interest, context_of(rows, past, now_ms, surface), past, catalogue.slots_of(past.ad))

    def part(self, places: Slots) -> Self:
        """The people at ``places [S]`` alone."""
        past = History(*(getattr(self.past, each.name)[places] for each in fields(History)))
        return type(self)(
            self.now_ms[places],
            self.unit[places],
            self.interest[places],
            self.context[places],
            past,
            self.slots[places],
        )


class Gathered:
    """People and their candidates ``[B, C]``: the model's inputs, a run at a time.

    The candidates' vectors are most of the bytes. Gathered for a run, they are still in the processor's cache when
    the model reads them.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        people: People,
        candidates: Slots,
        learned: Singles | None = None,
        rates: Singles | None = None,
    ) -> None:
        """``learned [N, D]``: the model's vectors of the catalogue's slots, where it is not the catalogue's first.

        ``rates [B, C, RATES_DIM]``: what `scoring.rates` tells of the candidates.
        """
        self._catalogue, self._people, self._candidates = catalogue, people, candidates
        self._learned: Singles = catalogue.learned if learned is None else learned
        known = people.slots != MISSING
        self._history = self._learned.take(people.slots, axis=0) * known[:, :, None]
        self._age = np.log1p(people.past.age_s)
        self._kind = np.where(known, people.past.kind, 0)
        self._mask = known.astype(np.float32)
        age_ms = people.now_ms[:, None] - catalogue.start_ms.take(candidates)
        self._stats = stats_of(candidates, age_ms, people.past, people.slots, rates)

    def inputs(self, run: slice) -> ModelInputs:
        """The inputs of the people of ``run``."""
        candidates, stats = self._candidates[run], self._stats[run]
        features = self._catalogue.features.take(candidates, axis=0)
        cosines_of(self._people.unit[run], features, stats)
        return ModelInputs(
            history=self._history[run],
            history_age=self._age[run],
            history_kind=self._kind[run],
            history_mask=self._mask[run],
            interest=self._people.interest[run],
            candidates=self._learned.take(candidates, axis=0),
            candidate_features=features,
            candidate_stats=stats,
            context=self._people.context[run],
        )


def gather(
    catalogue: Catalogue,
    rows: Rows,
    now_ms: Ints,
    candidates: Slots,
    surface: npt.NDArray[np.uint16],
    learned: Singles | None = None,
    rates: Singles | None = None,
) -> tuple[ModelInputs, Slots]:
    """The model's inputs for ``rows [B]`` and candidates ``[B, C]`` shown at ``now_ms [B]``; past slots ``[B, H]``.

    All at once. ``surface``: see `People.of`; ``learned`` and ``rates``: see `Gathered`.
    """
    people = People.of(catalogue, rows, now_ms, surface, shown=True)
    return Gathered(catalogue, people, candidates, learned, rates).inputs(slice(None)), people.slots
