"""Rows in, ranked placements out: choose candidates, score those of many people in one call, rank."""

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from scoring.arrays import Bools, Floats, Ids, Ints, Singles
from scoring.attention import AttentionModel
from scoring.calibration import Calibration, Calibrator, chance_of
from scoring.candidates import choose
from scoring.catalogue import Catalogue
from scoring.exploration import doubt_of
from scoring.gathering import Gathered, People
from scoring.ids import MISSING, id64, uniform
from scoring.market import Asked, Decided, Market
from scoring.models import ModelFailure, Models, Served
from scoring.offers import Offers
from scoring.policies import Experiments, Group, Policy, in_control
from scoring.rows import Rows
from scoring.shown import Shown
from scoring.units import FOREVER_MS

PEOPLE_PER_CALL = 128
"""People gathered and ranked in one call: enough to share numpy's cost per call, and each read of an ad from memory."""
CANDIDATES_PER_RUN = 2_000
"""Candidates scored in one run of the model, over all people: its inputs and intermediate results then stay in the
processor's cache. 16 people with 500 each take 1.06 times as long in one run as in four (measured)."""

_HALVES_SALT = id64("salience/interleaved-halves/1")


class Calibrates(Protocol):
    """What was learned online about ads and models: a `Calibrator`, or the part of one that a receipt keeps."""

    def rated(self, candidates: Ints) -> Singles:
        """The features of `scoring.rates` for candidates ``[B, C]``, ``[B, C, RATES_DIM]``."""

    def calibration(self, people: Ids, context: Singles, candidates: Ints, model: int) -> Calibration:
        """For ``people [B]`` in context ``[B, X]``, candidates ``[B, C]``, and an attention model by its number."""


UNCALIBRATED = Calibrator()
"""Has learned nothing: click rates are the attention model's own."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A shadow model's click rates for S of the people: their places ``people [S]``, ``pctr [S, C]`` in slot 0."""

    model: str
    people: Ints
    pctr: Singles


@dataclass(frozen=True, slots=True)
class Scored:
    """The decision for B people, with everything that went into it: C candidates, L slots, H items of history.

    ``group``: their policy, and their places among all people of the call.
    """

    group: Group
    model: str
    now_ms: Ints  # [B]
    control: Bools  # [B]
    history_slots: Ints  # [B, H]
    rates: Singles  # [B, C, RATES_DIM] of the candidates
    calibration: Calibration  # [B, P], [B, C]
    asked: Asked  # [B, C] candidates, their click rates in the first slot, their offers
    decided: Decided  # [B, L], [B, C]
    slot_pctr: Singles  # [B, L] of the chosen, each in its slot
    slot_value: Floats  # [B, L] expected micros of an impression there
    attention: Singles  # [B, L, H] of the chosen
    other: "Heard | None" = None  # the second model, where two rankings are interleaved
    beside: Beside | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    """What every model is asked: B people and their candidates ``[B, C]``; offers as in `scoring.market.Asked`."""

    people: People
    users: Ids
    seeds: Ids
    candidates: Ints
    rates: Singles
    group: Group
    control: Bools
    offers: Offers | None

    def asked(self, pctr: Singles, policy: Policy, calibration: Calibration) -> Asked:
        """What the market is asked, given click rates and the policy and calibration that they come from."""
        past = self.people.past
        temperatures = np.where(self.control, np.inf, policy.temperature)
        doubt = doubt_of(policy.explore, calibration, policy.ucb_alpha)
        if doubt is not None:
            doubt[self.control] = 0.0  # the control group is ranked at random and pays for no exploration
        shown = np.where(past.shown, self.people.slots, MISSING)
        age_ms = 1_000 * past.age_s.astype(np.int64) - 999  # rings hold whole seconds: this is the least age
        fields = (shown, age_ms, self.offers, calibration.examined, policy.explore, doubt)
        return Asked(self.candidates, pctr, self.seeds, temperatures, *fields)


@dataclass(frozen=True, slots=True)
class Heard:
    """One model's answer under one policy: calibrated log-odds ``odds [B, C]``, attention ``[·, C, H]`` of each run."""

    served: Served
    calibration: Calibration
    odds: Floats
    asked: Asked
    attentions: list[tuple[slice, Singles]]

    def in_slots(self, chosen: Ints) -> Singles:
        """Click rates of the chosen ``[B, L]``, each in the slot that it fills."""
        return self.calibration.in_slots(self.odds[np.arange(len(chosen))[:, None], chosen])

    def attended(self, chosen: Ints) -> Singles:
        """Attention of the chosen, ``[B, L, H]``."""
        each = np.arange(len(chosen))[:, None]
        return np.concatenate([attention[each[: len(attention)], chosen[run]] for run, attention in self.attentions])


@dataclass(frozen=True)
class Engine:
    """A catalogue, models, the market, the shop's policy, and the experiments that change it for some people.

    ``model`` encodes the catalogue; it is live until another is promoted (`models`).
    """

    catalogue: Catalogue
    model: AttentionModel
    policy: Policy
    experiments: Experiments = field(default_factory=Experiments)
    market: Market = field(default_factory=Market)
    models: Models = field(init=False)
    shown: Shown = field(init=False)

    def __post_init__(self) -> None:
        terms = self.market.terms
        object.__setattr__(self, "shown", Shown(terms.fairness, terms.fair_among))
        object.__setattr__(self, "models", Models(Served(self.model, self.catalogue)))

    def place(
        self, rows: Rows, users: Ids, seeds: Ids, learned: Calibrates = UNCALIBRATED, latest_ms: int = FOREVER_MS
    ) -> list[Scored]:
        """Decide for each of ``rows [B]`` (copies) as of its newest event, in parts of `PEOPLE_PER_CALL`.

        The ads of a part are those that may be shown at its newest event of all, or at ``latest_ms``, if that is before
        it: events are timed by people's clocks, and one that is fast must not change what the others are shown. A part
        is left out where no ad may be shown then.
        """
        times_ms = np.minimum(rows["time_ms"], latest_ms)
        if not len(self.catalogue.eligible(int(times_ms.max(initial=0)))):
            return []
        if (weights := self.shown.adjusted()) is not None:
            self.market.favour(*weights)
        return [
            self._place(rows[part.people], users[part.people], seeds[part.people], part, by, learned, moment_ms)
            for by, group in self._split(users)
            for part in group.parts(PEOPLE_PER_CALL)
            if len(self.catalogue.eligible(moment_ms := int(times_ms[part.people].max())))
        ]

    def scorers(self, users: Ids) -> list[tuple[Served, Ints]]:
        """Each model with the places of those of ``users [B]`` whom it scores, by experiments, too; each has one."""
        if not self.experiments.models:
            return self.models.split(users)
        found: list[tuple[Served, Ints]] = []
        for by, group in self._split(users):
            # Of two interleaved models each learns from one half of the people, whichever of them ranked the ad.
            half = uniform(users[group.people] ^ np.uint64(_HALVES_SALT)) < 0.5 if group.other is not None else None
            parts = [group.people] if half is None else [group.people[~half], group.people[half]]
            found += zip(by, parts, strict=True)
        return [
            (served, np.concatenate([people for by, people in found if by is served]))
            for served in {served.version: served for served, _ in found}.values()
        ]

    def _split(self, users: Ids) -> list[tuple[tuple[Served, ...], Group]]:
        """Groups of ``users`` with one policy, and its model; where two policies are interleaved, with both models."""
        return [
            (tuple(self.models.able(policy.model) or served for policy in group.policies), group.among(places))
            for served, places in self.models.split(users)
            for group in self.experiments.groups(users[places], self.policy, self.models.able)
        ]

    def _place(
        self,
        rows: Rows,
        users: Ids,
        seeds: Ids,
        group: Group,
        by: tuple[Served, ...],
        learned: Calibrates,
        moment_ms: int,
    ) -> Scored:
        """Decide for one part, among the ads that may be shown at ``moment_ms``."""
        people = self._people(rows)
        control = in_control(users, group.policy.control_share)
        pinned, barred = self.pinned(group.policy), self.market.barred(self.catalogue)
        shares = group.policy.shares
        candidates = choose(self.catalogue, people.interest, seeds, moment_ms, shares, control, pinned, barred)
        offers = self.market.offers(self.catalogue, candidates)
        question = _Question(people, users, seeds, candidates, learned.rated(candidates), group, control, offers)
        while True:
            try:
                scored = self._score(question, learned, by)
            except ModelFailure as why:
                by = (self.models.after(why),)
                if any(policy.model for policy in group.policies):
                    # An arm cannot run without its model: its people get the shop's policy.
                    return self._place(rows, users, seeds, Group(group.people, self.policy), by, learned, moment_ms)
                by *= len(group.policies)
                continue
            self.shown.observe(self.catalogue, scored.asked, scored.decided, people.slots)
            return replace(scored, beside=self._beside(scored, people, users, learned))

    def _beside(self, scored: Scored, people: People, users: Ids, learned: Calibrates) -> Beside | None:
        """The shadow model's click rates for its share of the people; None where it has none, or fails."""
        shadow, asked = self.models.shadow, self.models.shadowed(users)
        if shadow is None or not len(asked) or shadow.version == scored.model:
            return None
        some, candidates = people.part(asked), scored.asked.candidates[asked]
        try:
            logit, _ = self._logits(some, candidates, scored.rates[asked], shadow)
        except ModelFailure as why:
            self.models.after(why)
            return None
        calibration = learned.calibration(users[asked], some.context, candidates, shadow.number)
        pctr = chance_of(calibration.log_odds(logit, some.context, scored.control[asked]))
        return Beside(shadow.version, asked, pctr)

    def score(
        self,
        rows: Rows,
        users: Ids,
        seeds: Ids,
        candidates: Ints,
        group: Group,
        learned: Calibrates = UNCALIBRATED,
        offers: Offers | None = None,
    ) -> Scored:
        """Score and rank given candidates ``[B, C]`` and offers, to compute a receipt again.

        The model is the live one, unless the policy names one that is held.
        """
        control = in_control(users, group.policy.control_share)
        rates = learned.rated(candidates)
        question = _Question(self._people(rows), users, seeds, candidates, rates, group, control, offers)
        by = tuple(self.models.able(policy.model) or self.models.live for policy in group.policies)
        return self._score(question, learned, by)

    def pinned(self, policy: Policy) -> Ints:
        """Catalogue slots of the ads that the rules pin to one of the slots that ``policy`` can fill."""
        filled = min(policy.slots, policy.shares.count)
        ads = [ad for ad, slot in self.market.terms.pinned if slot < filled]
        found = self.catalogue.slots_of(np.array(ads, dtype=np.uint64))
        known: Ints = found[found != MISSING]
        return known

    def _people(self, rows: Rows) -> People:
        return People.of(self.catalogue, rows, rows["time_ms"].copy(), rows["surface"])

    def _score(self, question: _Question, learned: Calibrates, by: tuple[Served, ...]) -> Scored:
        policies = question.group.policies
        first, *others = (
            self._hear(question, learned, served, policy) for served, policy in zip(by, policies, strict=True)
        )
        other = others[0] if others else None
        decided = self.market.decide(
            self.catalogue, first.asked, policies[0].slots, None if other is None else other.asked
        )
        chosen = np.maximum(decided.chosen, 0)  # an empty slot gets the numbers of some candidate, which nobody reads
        slot_pctr, attention = first.in_slots(chosen), first.attended(chosen)
        if other is not None and decided.second is not None:
            slot_pctr = np.where(decided.second, other.in_slots(chosen), slot_pctr)
            attention = np.where(decided.second[:, :, None], other.attended(chosen), attention)
        return Scored(
            group=question.group,
            model=first.served.version,
            now_ms=question.people.now_ms,
            control=question.control,
            history_slots=question.people.slots,
            rates=question.rates,
            calibration=first.calibration,
            asked=first.asked,
            decided=decided,
            slot_pctr=slot_pctr,
            slot_value=self.market.values(self.catalogue, first.asked, chosen, slot_pctr),
            attention=attention,
            other=other,
        )

    def _hear(self, question: _Question, learned: Calibrates, served: Served, policy: Policy) -> Heard:
        people, candidates = question.people, question.candidates
        logit, attentions = self._logits(people, candidates, question.rates, served)
        calibration = learned.calibration(question.users, people.context, candidates, served.number)
        odds = calibration.log_odds(logit, people.context, question.control)
        asked = question.asked(chance_of(odds), policy, calibration)
        return Heard(served, calibration, odds, asked, attentions)

    def _logits(
        self, people: People, candidates: Ints, rates: Singles, served: Served
    ) -> tuple[Singles, list[tuple[slice, Singles]]]:
        """Log-odds ``[B, C]``, and attention ``[·, C, H]`` of each run. Raises `ModelFailure`."""
        gathered = Gathered(self.catalogue, people, candidates, served.learned, rates)
        together = max(CANDIDATES_PER_RUN // candidates.shape[1], 1)
        runs = [slice(start, start + together) for start in range(0, len(candidates), together)]
        logits, attentions = zip(*(served.score(gathered.inputs(run)) for run in runs), strict=True)
        return np.concatenate(logits), list(zip(runs, attentions, strict=True))
