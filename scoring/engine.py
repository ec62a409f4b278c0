"""Rows in, ranked placements out: gather, choose candidates, score all people in one call, rank."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from scoring.attention import AttentionModel
from scoring.calibration import Calibration, chance_of
from scoring.candidates import choose
from scoring.catalogue import Catalogue
from scoring.ids import MISSING
from scoring.inputs import ModelInputs, context_of, history_of, interest_of, stats_of
from scoring.interest import decayed
from scoring.policies import Experiments, Group, Policy, in_control
from scoring.ranking import Ranked, rank
from scoring.rows import Rows

Ids = npt.NDArray[np.uint64]

PEOPLE_PER_CALL = 32
"""People gathered and ranked at once: enough to share numpy's cost per call."""
CANDIDATES_PER_RUN = 4_000
"""Candidates scored in one run of the model, all people's together: what it computes stays within the processor's
cache. 16 people with 500 in one run take 1.2 times as long as in two (measured)."""

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


def gather(
    catalogue: Catalogue,
    rows: Rows,
    now_ms: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.int64],
    surface: npt.NDArray[np.uint16],
) -> tuple[ModelInputs, npt.NDArray[np.int64]]:
    """The model's inputs for ``rows [B]`` at ``now_ms [B]`` and candidates ``[B, C]``; slots ``[B, H]``.

    ``surface [B]`` is the place of what is scored. An impression that is learnt from or evaluated has its own; a
    placement is for the place where its user was seen last, ``rows["surface"]``.
    """
    history = history_of(rows, now_ms)
    history_slots = catalogue.slots_of(history.ad)
    known = history_slots != MISSING
    unit, interest = interest_of(decayed(rows["interest"], rows["interest_ms"], now_ms))
    features = catalogue.features.take(candidates, axis=0)
    age_ms = now_ms[:, None] - catalogue.start_ms[candidates]
    inputs = ModelInputs(
        history=catalogue.learned[history_slots] * known[:, :, None],
        history_age=np.log1p(history.age_s),
        history_kind=np.where(known, history.kind, 0),
        history_mask=known.astype(np.float32),
        interest=interest,
        candidates=catalogue.learned.take(candidates, axis=0),
        candidate_features=features,
        candidate_stats=stats_of(unit, features, catalogue.ad[candidates], age_ms, history),
        context=context_of(rows, now_ms, surface),
    )
    return inputs, history_slots


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
        now_ms = rows["time_ms"].copy()
        _, interest = interest_of(decayed(rows["interest"], rows["interest_ms"], now_ms))
        latest_ms = int(now_ms.max())
        control = in_control(users, group.policy.control_share)
        candidates = choose(self.catalogue, interest, seeds, latest_ms, group.policy.shares, control)
        return self.score(rows, users, seeds, candidates, group, calibrate)

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
        now_ms = rows["time_ms"].copy()
        inputs, history_slots = gather(self.catalogue, rows, now_ms, candidates, rows["surface"])
        people = max(CANDIDATES_PER_RUN // candidates.shape[1], 1)
        runs = [slice(start, start + people) for start in range(0, len(rows), people)]
        logits, attentions = zip(*(self.model.score(inputs.part(run)) for run in runs), strict=True)
        policy = group.policy
        control = in_control(users, policy.control_share)
        calibration = calibrate(inputs.context, candidates)
        odds = calibration.log_odds(np.concatenate(logits), inputs.context, control)
        pctr = chance_of(odds)
        bids = self.catalogue.bid_micros[candidates]
        temperatures = np.where(control, np.inf, policy.temperature)
        ads = self.catalogue.ad[candidates]
        ranked = rank(pctr, bids, ads, seeds, temperatures, policy.slots)
        attended = [
            np.take_along_axis(attention, ranked.chosen[run, :, None], axis=1)
            for attention, run in zip(attentions, runs, strict=True)
        ]
        in_slots = chance_of(calibration.in_slots(np.take_along_axis(odds, ranked.chosen, axis=1)))
        return Scored(
            group=group,
            now_ms=now_ms,
            seeds=seeds,
            control=control,
            history_slots=history_slots,
            candidates=candidates,
            calibration=calibration,
            pctr=pctr,
            bids_micros=bids,
            ranked=ranked,
            slot_pctr=in_slots,
            attention=np.concatenate(attended),
        )
