"""Rows in, ranked placements out: gather, choose candidates, score all people in one call, rank."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from scoring.attention import AttentionModel
from scoring.calibration import Calibration, chance_of
from scoring.candidates import choose
from scoring.catalogue import Catalogue
from scoring.gathering import Gathered, People
from scoring.policies import Experiments, Group, Policy, in_control
from scoring.ranking import Ranked, rank
from scoring.rows import Rows

Ids = npt.NDArray[np.uint64]

PEOPLE_PER_CALL = 32
"""People gathered and ranked at once: enough to share numpy's cost per call."""
CANDIDATES_PER_RUN = 2_000
"""Candidates scored in one run of the model, all people's together: what it is given and computes stays within the
processor's cache. 16 people with 500 in one run take 1.06 times as long as in four (measured)."""

Calibrate = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], Calibration]
"""The click layer's part for people with context ``[B, X]`` and candidates ``[B, C]``."""


def uncalibrated(context: npt.NDArray[np.float32], candidates: npt.NDArray[np.int64]) -> Calibration:
    """The attention model's own click rates."""
    return Calibration.none(len(context), candidates.shape[1])


@dataclass(frozen=True, slots=True)
class Scored:
    """What was decided for B people, with all that went into it: C candidates, L slots, H past items.

    ``group``: their policy, and where they stand among all that were asked for.
    """

    group: Group
    now_ms: npt.NDArray[np.int64]  # [B]
    seeds: Ids  # [B]
    control: npt.NDArray[np.bool_]  # [B]
    history_slots: npt.NDArray[np.int64]  # [B, H]
    candidates: npt.NDArray[np.int64]  # [B, C] catalogue slots
    calibration: Calibration  # [B, P], [B, C]
    pctr: npt.NDArray[np.float32]  # [B, C] in the first slot
    bids_micros: npt.NDArray[np.int64]  # [B, C]
    ranked: Ranked  # [B, L]
    slot_pctr: npt.NDArray[np.float32]  # [B, L] of the chosen, each in its slot
    attention: npt.NDArray[np.float32]  # [B, L, H] of the chosen


@dataclass(frozen=True)
class Engine:
    """A catalogue, a model, the shop's policy, and the experiments that change it for some."""

    catalogue: Catalogue
    model: AttentionModel
    policy: Policy
    experiments: Experiments = field(default_factory=Experiments)

    def place(self, rows: Rows, users: Ids, seeds: Ids, calibrate: Calibrate = uncalibrated) -> list[Scored]:
        """Decide for ``rows [B]`` (copies), each as of its newest event; in parts of `PEOPLE_PER_CALL`.

        Empty where no ad may be shown.
        """
        if not len(self.catalogue.eligible(int(rows["time_ms"].max(initial=0)))):
            return []
        return [
            self._place(rows[part.people], users[part.people], seeds[part.people], part, calibrate)
            for group in self.experiments.groups(users, self.policy)
            for part in group.parts(PEOPLE_PER_CALL)
        ]

    def _place(self, rows: Rows, users: Ids, seeds: Ids, group: Group, calibrate: Calibrate) -> Scored:
        people = self._people(rows)
        control = in_control(users, group.policy.control_share)
        latest_ms = int(people.now_ms.max())
        candidates = choose(self.catalogue, people.interest, seeds, latest_ms, group.policy.shares, control)
        return self._score(people, seeds, candidates, group, control, calibrate)

    def score(
        self,
        rows: Rows,
        users: Ids,
        seeds: Ids,
        candidates: npt.NDArray[np.int64],
        group: Group,
        calibrate: Calibrate = uncalibrated,
    ) -> Scored:
        """Score and rank given candidates ``[B, C]``: what a receipt is computed again with."""
        control = in_control(users, group.policy.control_share)
        return self._score(self._people(rows), seeds, candidates, group, control, calibrate)

    def _people(self, rows: Rows) -> People:
        return People.of(self.catalogue, rows, rows["time_ms"].copy(), rows["surface"])

    def _score(
        self,
        people: People,
        seeds: Ids,
        candidates: npt.NDArray[np.int64],
        group: Group,
        control: npt.NDArray[np.bool_],
        calibrate: Calibrate,
    ) -> Scored:
        gathered = Gathered(self.catalogue, people, candidates)
        together = max(CANDIDATES_PER_RUN // candidates.shape[1], 1)
        runs = [slice(start, start + together) for start in range(0, len(candidates), together)]
        logits, attentions = zip(*(self.model.score(gathered.inputs(run)) for run in runs), strict=True)
        calibration = calibrate(people.context, candidates)
        odds = calibration.log_odds(np.concatenate(logits), people.context, control)
        pctr = chance_of(odds)
        bids = self.catalogue.bid_micros.take(candidates)
        temperatures = np.where(control, np.inf, group.policy.temperature)
        ranked = rank(pctr, bids, self.catalogue.ad.take(candidates), seeds, temperatures, group.policy.slots)
        each = np.arange(len(candidates))[:, None]
        attended = [
            attention[each[: len(attention)], ranked.chosen[run]]
            for attention, run in zip(attentions, runs, strict=True)
        ]
        return Scored(
            group=group,
            now_ms=people.now_ms,
            seeds=seeds,
            control=control,
            history_slots=people.slots,
            candidates=candidates,
            calibration=calibration,
            pctr=pctr,
            bids_micros=bids,
            ranked=ranked,
            slot_pctr=chance_of(calibration.in_slots(odds[each, ranked.chosen])),
            attention=np.concatenate(attended),
        )
