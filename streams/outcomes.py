"""What came of impressions, for whoever watches, trains or evaluates: predicted before it was known, and known now."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.catalogue import Catalogue
from scoring.clicks import probability
from scoring.ids import MISSING
from scoring.policies import CONTROL_ARM, ENGINE_ARM
from scoring.watch import Alarm
from streams.control_wire import Drift
from streams.decode import Record
from streams.wire import UNREADABLE, Outcome, encode_json

KEPT_MAX = 2_000_000
"""Outcomes of a model and arm at most that are held to be told of: 50 MB, twice that while read.

At a click rate of 2 % the standard error of what was clicked is a two-hundredth of it."""
JUDGED = np.dtype([("shown_ms", "<i8"), ("clicked", "u1"), ("predicted", "<f8"), ("attention", "<f8")])
"""Of an `Outcome`, what tells how good its chances were."""

_decode = msgspec.json.Decoder(Outcome).decode


class Newest:
    """The ``most`` outcomes that were shown last, of a topic that is read in any order."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.more = False
        """Whether there were more."""
        self._held = np.empty(0, dtype=JUDGED)
        self._count = 0

    def take(self, rows: npt.NDArray[Any]) -> None:
        """Take ``rows [N]`` of `JUDGED`. Where they do not fit, the oldest of all are dropped first."""
        if self._count + len(rows) > len(self._held):
            kept = self.rows()
            self._held = np.empty(2 * (len(kept) + len(rows)), dtype=JUDGED)
            self._held[: len(kept)] = kept
            self._count = len(kept)
        self._held[self._count : self._count + len(rows)] = rows
        self._count += len(rows)
        self.more |= self._count > self.most

    def rows(self) -> npt.NDArray[Any]:
        """They, by when they were shown."""
        held = self._held[: self._count]
        return held[np.argsort(held["shown_ms"], kind="stable")[-self.most :]]

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return self._held.nbytes


def encoded(outcomes: npt.NDArray[np.void], catalogue: Catalogue, models: dict[int, str]) -> list[bytes]:
    """``outcomes [N]`` of `scoring.feedback.OUTCOME` as messages; ``models``: names of the attention models.

    Of an ad that the catalogue does not know, since it was withdrawn and the topic compacted while its impression was
    open, there is no message: the layer keeps its 64-bit id, and only the catalogue has its name.
    """
    slot_of = catalogue.slots_of(outcomes["ad"])
    named = slot_of != MISSING
    slots, outcomes = slot_of[named].tolist(), outcomes[named]
    return [
        encode_json(
            Outcome(
                event=f"{event:016x}",
                ad_id=catalogue.entries[slot].content.item_id,
                shown_ms=shown_ms,
                known_ms=known_ms,
                ends_ms=ends_ms,
                predicted=predicted,
                attention=probability(logit),
                clicked=bool(clicked),
                arm=CONTROL_ARM if control else ENGINE_ARM,
                model=models.get(model, ""),
                shadow=models.get(beside[0], ""),
                shadow_predicted=beside[1],
            )
        )
        for slot, (known_ms, shown_ms, ends_ms, event, _, predicted, logit, clicked, control, _, model, *beside) in zip(
            slots, outcomes.tolist(), strict=True
        )
    ]


def outcomes_in(records: Iterable[Record]) -> tuple[list[Outcome], int]:
    """The outcomes among ``records`` of their topic, and how many are none: one of a stranger's hand ends no reader."""
    outcomes, unreadable = [], 0
    for record in records:
        try:
            outcomes.append(_decode(record.value or b""))
        except UNREADABLE:
            unreadable += 1
    return outcomes, unreadable


def columns(outcomes: Sequence[Outcome]) -> npt.NDArray[Any]:
    """``outcomes [N]`` as `streams.quality.Settled` takes them."""
    times = ("shown_ms", "known_ms", "ends_ms")
    rows = np.empty(len(outcomes), dtype=[*((name, "<i8") for name in times), ("clicked", "u1"), ("outcome", object)])
    for name in (*times, "clicked"):
        rows[name] = [getattr(outcome, name) for outcome in outcomes]
    rows["outcome"] = outcomes
    return rows


def told(alarms: Iterable[Alarm], lane: int, model: str, time_ms: int) -> list[Drift]:
    """What a lane detected, for the control topic."""
    return [
        Drift(
            lane=lane,
            detector=alarm.detector.value,
            answer=alarm.answer.value,
            was=alarm.was,
            now=alarm.now,
            learnt=alarm.learned,
            model=model,
            time_ms=time_ms,
        )
        for alarm in alarms
    ]
