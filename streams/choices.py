"""Logged choices from the topics: decisions joined with their clicks, weighted for another policy (the target policy).

A placement's slots were drawn one after the other; each has a logged propensity, given the slots before it. The target
policy draws from the same candidates, so the importance weight of slot k is the product of the propensity ratios of
slots 1 to k. This assumes that later slots do not change what an earlier one earns (McInerney, Brost, Chandar,
Mehrotra & Carterette 2020, "Counterfactual evaluation of slate recommendations").
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import msgspec
import numpy as np

from scoring.arrays import Floats, Ids, Ints
from scoring.ids import id64
from scoring.offpolicy import Logged, Weighted
from scoring.policies import CONTROL_ARM
from scoring.ranking import first_chances, slot_chances
from scoring.units import MINUTE_MS
from streams.cleaned import Cleaned
from streams.decode import Record
from streams.oldest import give_up_oldest
from streams.reading import Progress, log_begins, read_topic
from streams.receipts import check_receipt, fates_of, may_be_shown, worth_of
from streams.topics import CLICKS, DECISIONS
from streams.wire import UNREADABLE, Decision

DECISIONS_MAX = 1_000_000
"""Placements kept at once, some 700 bytes each. Of a longer log those read last stay, since the decisions topic keeps
its records longer than the clicks topic."""

WEIGHT_MAX = 1e100
"""Largest weight of a slot: as good as infinite, yet the sum of a million such weights can still be squared."""


_decode_decision = msgspec.json.Decoder(Decision).decode


@dataclass(frozen=True, slots=True)
class _Placed:
    """One placement's first slots: the person, the ads of the slots that are filled, their ``numbers`` and weights;
    ``model``: the pCTR of the first ad; ``model_asked``: the mean pCTR under the target policy; the lane, when it was
    made, and until when it may be shown.
    """

    person: int
    numbers: tuple[int, ...]
    ads: tuple[str, ...]
    weights: Floats
    model: float
    model_asked: float
    lane: int = 0
    time_ms: int = 0
    ends_ms: int = 0


class _Shown(msgspec.Struct):
    slot: int
    ad_id: str


class _Slots(msgspec.Struct):
    slots: tuple[_Shown, ...]


_decode_slots = msgspec.json.Decoder(_Slots).decode


def temperature_of(policy: str) -> float:
    """The Plackett-Luce temperature that a policy's name says. Raises `ValueError` for another name."""
    if policy in ("uniform", "greedy"):
        return np.inf if policy == "uniform" else 0.0
    name, _, number = policy.partition("=")
    if name != "temperature" or not number.replace(".", "", 1).isdigit():
        raise ValueError(f"--policy {policy}: expected uniform, greedy, or temperature=NUMBER")
    return float(number)


@dataclass
class Choices:
    """The log of the first ``slots`` slots, for a policy of ``temperature``: decisions first, then clicks.

    The control group is left out: its candidates are any ads that the rules allow, not those that a policy draws from.
    ``control`` counts its placements. ``beyond`` counts the oldest placements, left out for `DECISIONS_MAX`.
    ``window_ms``: how long after a placement has ended a click on it may still come; 0 awaits none.
    ``cleaned``: which clicks count. ``uncounted``: clicks on these slots that do not: a burst's, a bot's, late ones.
    """

    temperature: float
    slots: int = 1
    window_ms: int = 0
    control: int = 0
    beyond: int = 0
    cleaned: Cleaned = field(default_factory=Cleaned)
    uncounted: int = 0
    placed: dict[str, _Placed] = field(default_factory=dict)
    clicks: set[tuple[str, str]] = field(default_factory=set)
    _controls: dict[str, None] = field(default_factory=dict)
    _since_ms: dict[int, float] = field(default_factory=dict)
    _newest_ms: dict[int, int] = field(default_factory=dict)
    _people: Ids | None = None

    def decided(self, values: Iterable[bytes | None]) -> None:
        """Take records of the decisions topic; malformed ones are skipped."""
        for value in values:
            if value is not None:
                with suppress(*UNREADABLE):
                    self._decided(_decode_decision(value))

    def _decided(self, decision: Decision) -> None:
        if decision.arm == CONTROL_ARM:
            self.control += decision.placement_id not in self._controls  # at_least_once may repeat a receipt
            self._controls[decision.placement_id] = None
            give_up_oldest(self._controls, DECISIONS_MAX)
        elif decision.chosen:  # the rules may have left no ad
            check_receipt(decision)
            self.placed[decision.placement_id] = self._placed(decision)
            self._people = None
            before = len(self.placed)
            give_up_oldest(self.placed, DECISIONS_MAX)
            self.beyond += before - len(self.placed)
        lane, time_ms = decision.lane, decision.time_ms  # of every decision, the control group's and empty ones too
        self._newest_ms[lane] = max(time_ms, self._newest_ms.get(lane, time_ms))

    def clicked(self, records: Sequence[Record]) -> None:
        """Take records of one partition of the clicks topic; what workers refuse, filter or find late does not count.

        Nor does what answers no impression, or another person's placement, or another ad than those of the slots held,
        which bound the number of clicks: ids may be made up.
        """
        if self._people is None:
            self._people = np.unique(np.array([one.person for one in self.placed.values()], dtype=np.uint64))
        for click, counts in self.cleaned.take(records, self._people):
            placed = self.placed.get(placed_id := click.placement_id or "")
            if placed is None or click.impression_time_ms is None or click.kind != "click":
                continue
            if click.ad_id in placed.ads and id64(click.user_id) == placed.person:
                if counts:
                    self.clicks.add((placed_id, click.ad_id))
                self.uncounted += (placed_id, click.ad_id) not in self.clicks

    def kept(self, records: Sequence[Record]) -> None:
        """Note, at a partition's first ``records``, since when its clicks are complete.

        Where retention has deleted older ones, they are complete since the first record left; else from the beginning.
        """
        first = records[0]
        self._since_ms.setdefault(first.partition, first.timestamp if first.offset else 0)

    def begun(self, begins: Mapping[int, int]) -> None:
        """Take where the log of each partition of clicks begins; to be called after all `kept`.

        A partition that begins above 0 and is empty has lost all its clicks to retention. It counts as complete since
        the latest moment of the others.
        """
        latest_ms = max(filter(None, self._since_ms.values()), default=math.inf)
        for partition, begin in begins.items():
            self._since_ms.setdefault(partition, latest_ms if begin else 0)

    @property
    def known(self) -> dict[str, _Placed]:
        """The placements whose outcome, clicked or not, is known: neither `too_old` nor `too_new`."""
        return {name: one for name, one in self._with_clicks().items() if self._awaits_ms(one) <= 0}

    @property
    def too_old(self) -> int:
        """How many placements are older than the clicks that are still there."""
        return len(self.placed) - len(self._with_clicks())

    @property
    def too_new(self) -> int:
        """How many of the others may still be clicked, by their lane's newest decision."""
        return len(self.placed) - self.too_old - len(self.known)

    def _with_clicks(self) -> dict[str, _Placed]:
        """The placements whose clicks are still there. A lane's clicks are in its own partition.

        Where nothing was noted of that partition, those since the latest moment of all, when the others are complete.
        """
        latest_ms = max(self._since_ms.values(), default=0)
        return {
            name: one for name, one in self.placed.items() if one.time_ms >= self._since_ms.get(one.lane, latest_ms)
        }

    def _awaits_ms(self, one: _Placed) -> int:
        """How much longer clicks on it may come, by its lane's newest decision: at 0 and below, none will.

        Only its own lane's time counts, as for outcomes: a lane that is ahead ends no window of another.
        """
        return one.ends_ms + self.window_ms - self._newest_ms[one.lane] if self.window_ms else 0

    def _placed(self, decision: Decision) -> _Placed:
        pctr, worth, chosen = _judged(decision)
        filled = zip(_decode_slots(decision.placement).slots, chosen.tolist(), strict=False)  # some slots may be empty
        shown = [one for one, _ in filled if one.slot < self.slots]
        weighed = chosen[: len(shown)]
        return _Placed(
            person=id64(decision.user_id),
            numbers=tuple(one.slot for one in shown),
            ads=tuple(one.ad_id for one in shown),
            weights=_weights(slot_chances(worth, weighed, self.temperature), decision.propensities[: len(shown)]),
            model=float(pctr[chosen[0]]),
            model_asked=float(first_chances(worth, self.temperature) @ pctr),
            lane=decision.lane,
            time_ms=decision.time_ms,
            ends_ms=decision.time_ms + int(decision.policy["placement_ttl_ms"]),
        )

    def _without(self, slot: int) -> str:
        """The error message for a log without a known placement that has this slot."""
        unjudged = {
            "of the control group": self.control,
            "older than the clicks that are still there": self.too_old,
            "may still be clicked": self.too_new,
        }
        beside = ", ".join(f"{count:,} {why}" for why, count in unjudged.items() if count)
        told = f"no placement with slot {slot} can be judged{beside and f': {beside}'}; "
        awaited_ms = [self._awaits_ms(one) for one in self._with_clicks().values() if slot in one.numbers]
        if not awaited_ms:
            return f"{told}is the decisions topic filled?"
        minutes = -(-min(awaited_ms) // MINUTE_MS)
        later = f"ask again after {minutes:,} min more of traffic, or set SALIENCE_CLICK_WINDOW_MS to what workers have"
        return f"{told}{later} (placements valid for as long as clicks are kept, SALIENCE_PLACEMENT_TTL_MS, never can)"

    def logged(self) -> list[Weighted]:
        """For each slot, the choices of all placements that have it; those of the first also have the model's pCTR.

        Raises `ValueError` where there are none.
        """
        found: list[Weighted] = []
        known = self.known
        for slot in range(self.slots):
            placed = [(name, one) for name, one in known.items() if slot in one.numbers]
            if not placed:
                raise ValueError(self._without(slot))
            at = [one.numbers.index(slot) for _, one in placed]
            weight = np.array([one.weights[nth] for (_, one), nth in zip(placed, at, strict=True)])
            clicked = [(name, one.ads[nth]) in self.clicks for (name, one), nth in zip(placed, at, strict=True)]
            reward = np.array(clicked, dtype=float)
            person = np.array([one.person for _, one in placed], dtype=np.uint64).view(np.int64)
            found.append(
                Weighted(reward, weight, person=person)
                if slot
                else Logged(
                    reward,
                    weight,
                    np.array([one.model for _, one in placed]),
                    np.array([one.model_asked for _, one in placed]),
                    person=person,
                )
            )
        return found


def _weights(asked: Floats, logged: Sequence[float]) -> Floats:
    """Importance weight of each slot, ``[L]``: the product of the propensity ratios up to it.

    Raises `ValueError` where a weight is NaN or too large: one bad receipt must not spoil the sums over a million.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        weights: Floats = np.cumprod(asked / np.array(logged))
    if not (weights <= WEIGHT_MAX).all():  # also false for NaN
        raise ValueError(f"propensities are {logged}; expected chances of slots that may be drawn")
    return weights


def _judged(decision: Decision) -> tuple[Floats, Floats, Ints]:
    """Predicted click rates and worth ``[C]`` of the candidates that the rules left in, and which were chosen.

    The target policy is judged by its first slots.
    """
    stays = may_be_shown(fates_of(decision))
    chosen = np.array(decision.chosen, dtype=np.int64)
    if not stays[chosen].all():
        raise ValueError(f"chosen {decision.chosen}; expected places of candidates whom the rules left in")
    pctr = np.frombuffer(decision.pctr, dtype="<f4").astype(float)
    return pctr[stays], worth_of(decision)[stays], (np.cumsum(stays) - 1)[chosen]


async def read_choices(
    bootstrap: str, prefix: str, choices: Choices, progress: Progress = lambda _topic, _read, _there: None
) -> Choices:
    """``choices`` with those that the topics hold now. Raises `MissingTopicError`."""
    async for records in read_topic(bootstrap, prefix + DECISIONS, progress=partial(progress, DECISIONS)):
        choices.decided(record.value for record in records)
    async for records in read_topic(bootstrap, prefix + CLICKS, progress=partial(progress, CLICKS)):
        if records:
            choices.kept(records)
            choices.clicked(records)
    choices.begun(await log_begins(bootstrap, prefix + CLICKS))  # last: retention may have deleted records meanwhile
    return choices
