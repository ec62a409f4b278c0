"""A receipt computed again: the same placement, byte for byte, or what differs and why."""

from dataclasses import dataclass, field, replace

import numpy as np

from scoring.arrays import Floats, Ids, Ints, Singles
from scoring.calibration import PERSONAL, Calibration, no_evidence
from scoring.engine import Engine, Scored
from scoring.exploration import EXPLORATIONS
from scoring.ids import MISSING, id64
from scoring.models import number_of
from scoring.offers import Offers
from scoring.policies import Group, Policy, changed
from scoring.ranking import EMPTY_SLOT
from scoring.rates import RATES_DIM
from scoring.rows import ROW
from streams.placing import placement_of, policy_of, versions_of
from streams.receipts import check_receipt
from streams.wire import Decision, Interleaved, Placement, encode_json


@dataclass(slots=True)
class Recomputed:
    """``identical``: the placement's bytes are those recorded. ``differences``: in words, empty where all agree.

    ``scored`` and ``placement`` are the recomputed ones, None where the catalogue no longer allows it.
    ``pctr_difference``: the largest between recorded and recomputed pCTR; None where nothing was recomputed.
    """

    identical: bool = False
    differences: list[str] = field(default_factory=list)
    pctr_difference: float | None = None
    scored: Scored | None = None
    placement: Placement | None = None


def recompute(decision: Decision, engine: Engine) -> Recomputed:
    """Compute ``decision`` again with the catalogue and model of ``engine``, under its recorded policy.

    Raises `ValueError` where it is no receipt (`streams.receipts.check_receipt`), or its weights are no numbers.
    """
    check_receipt(decision)
    out = Recomputed()
    out.differences += _versions(decision, engine)
    candidates = _candidates(decision, engine, out)
    if out.differences:
        return out
    _check_weights(decision)
    row = np.frombuffer(decision.row, dtype=ROW)
    user = decision.user_id.encode()
    seeds = np.array([decision.seed], dtype=np.uint64)
    users = np.array([id64(user)], dtype=np.uint64)
    policy, other = policy_of(decision), decision.other
    second = None if other is None else _second(policy, other)
    group = Group(np.zeros(1, dtype=np.int64), policy, decision.arm, other=second)
    examined = np.frombuffer(decision.examined, dtype=np.float64) if decision.examined else None
    calibrations = {number_of(decision.versions["model"]): _calibration(decision, examined)}
    # Two rankings of one model share its calibration. Its evidence is in the part of the ranking that explores by it.
    if other is not None and (other.evidence or number_of(other.model) not in calibrations):
        calibrations[number_of(other.model)] = _calibration(other, examined)
    kept = np.frombuffer(decision.offers, dtype=np.float32).reshape(-1, len(candidates), 4)
    offers = Offers(kept) if len(kept) else None
    learned = _Kept(calibrations, _rates(decision, len(candidates)))
    scored = out.scored = engine.score(row, users, seeds, candidates[None, :], group, learned, offers)
    recorded = np.frombuffer(decision.pctr, dtype=np.float32)
    difference = out.pctr_difference = float(np.abs(scored.asked.pctr[0] - recorded).max())
    _check_draw(decision, engine, scored, out)
    out.placement = placement_of(engine, scored, decision.placement_id, user)
    same = encode_json(out.placement) == decision.placement
    out.identical = same and not out.differences
    if not same:
        out.differences.append(
            f"the placement differs; the largest difference of a recomputed pCTR is {difference:.2e}"
        )
    return out


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a click layer had learned, as the receipt keeps it: a `scoring.engine.Calibrates`."""

    calibrations: dict[int, Calibration]
    rates: Singles

    def rated(self, _candidates: Ints) -> Singles:
        return self.rates

    def calibration(
        self,
        _people: Ids,
        _context: Singles,
        _candidates: Ints,
        model: int,
    ) -> Calibration:
        return self.calibrations[model]


def _rates(told: Decision, candidates: int) -> Singles:
    rates = np.zeros((1, candidates, RATES_DIM), dtype=np.float32)
    if told.rates:
        rates[0] = np.frombuffer(told.rates, dtype=np.float16).reshape(candidates, RATES_DIM)
    return rates


def _calibration(told: Decision | Interleaved, examined: Floats | None) -> Calibration:
    lifts = np.frombuffer(told.lifts, dtype=np.float32)[None]
    evidence = np.frombuffer(told.evidence, dtype=np.float32)[None] if told.evidence else no_evidence(lifts.shape)
    return Calibration(np.frombuffer(told.weights, dtype=np.float64)[None], lifts, evidence, examined)


def _check_weights(decision: Decision) -> None:
    """Checked here, since only weights of this version have a known type. Raises `ValueError`."""
    for where, told in (("", decision), ("other.", decision.other)):
        if told is not None and not np.isfinite(np.frombuffer(told.weights, dtype=np.float64)).all():
            raise ValueError(f"{where}weights has numbers that are not finite")


def _second(policy: Policy, other: Interleaved) -> Policy:
    """The policy of the second ranking."""
    ranks: dict[str, float | str] = {
        "temperature": other.temperature,
        "explore": other.explore,
        "ucb_alpha": other.ucb_alpha,
    }
    return replace(changed(policy, ranks), model=other.model)


_WEIGHTS_BYTES, _RATES_BYTES, _ID_BYTES = 8 * len(PERSONAL), 2 * RATES_DIM, 8
_FIXES = {
    "model": "give it as --model DIR; where it was removed, push it again: salience model push DIR",
    "rules": "name the file that decided in SALIENCE_RULES",
    "seal": "set the SALIENCE_SEAL_SECRET that sealed its prices",
}


def _versions(decision: Decision, engine: Engine) -> list[str]:
    now = versions_of(engine, engine.models.live.version)
    found = []
    if decision.other is not None and engine.models.able(decision.other.model) is None:
        found.append(
            f"the second ranking is by {decision.other.model}, which is not at hand; push it, or give it as --model"
        )
    if len(decision.weights) != _WEIGHTS_BYTES:
        found.append("its click layer had weights of a former version; run the version that decided")
    if len(decision.rates) not in (0, _RATES_BYTES * len(decision.candidates) // _ID_BYTES):
        found.append("its candidates were told of in numbers of a former version; run the version that decided")
    explored = (decision.explore,) if decision.other is None else (decision.explore, decision.other.explore)
    found += [
        f"its slots were explored by {by!r}; known here are {', '.join(EXPLORATIONS)}; run the version that decided"
        for by in explored
        if by not in EXPLORATIONS
    ]
    return found + [
        f"decided with {name} {was!r}, here it is {now.get(name)!r}; {_FIXES.get(name, 'run the version that decided')}"
        for name, was in decision.versions.items()
        if was != now.get(name)
    ]


def _check_draw(decision: Decision, engine: Engine, scored: Scored, out: Recomputed) -> None:
    """Decide again by the recorded pCTR, which needs no model."""
    recorded = np.frombuffer(decision.pctr, dtype=np.float32)[None]
    other = None
    if scored.other is not None and decision.other is not None:
        other = replace(scored.other.asked, pctr=np.frombuffer(decision.other.pctr, dtype=np.float32)[None])
    asked, slots = replace(scored.asked, pctr=recorded), scored.group.policy.slots
    decided = engine.market.decide(engine.catalogue, asked, slots, other)
    filled = decided.chosen[0] != EMPTY_SLOT
    chosen = tuple(decided.chosen[0, filled].tolist())
    if chosen != decision.chosen:
        out.differences.append(f"the recorded scores rank as {list(chosen)}, recorded {list(decision.chosen)}")
    elif not np.allclose(decided.propensity[0, filled], decision.propensities, rtol=1e-12, atol=0):
        out.differences.append("the recorded propensities are not those of the recorded scores")
    elif decision.fates and decided.fate[0].tobytes() != decision.fates:
        out.differences.append("the recorded fates of the candidates are not those of the recorded scores")
    elif decided.bids_micros[0].tobytes() != decision.bids_micros:
        out.differences.append("the recorded bids are not what the ads bid, paced as recorded")


def _candidates(decision: Decision, engine: Engine, out: Recomputed) -> Ints:
    """Catalogue slots of the recorded candidates; ads that have changed since are differences."""
    ads = np.frombuffer(decision.candidates, dtype=np.uint64)
    slots = engine.catalogue.slots_of(ads)
    if gone := int((slots == MISSING).sum()):
        out.differences.append(f"{gone} of {len(ads)} candidates are no longer in the ads topic")
        return slots
    revisions = np.frombuffer(decision.revisions, dtype=np.uint64)
    changed = slots[engine.catalogue.revision[slots] != revisions]
    if len(changed):
        names = ", ".join(engine.catalogue.entries[slot].content.item_id for slot in changed[:5].tolist())
        out.differences.append(f"{len(changed)} candidates have changed on the ads topic since: {names}")
    return slots
