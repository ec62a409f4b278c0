"""Outcomes of impressions, for monitoring, training and evaluation: what was predicted, and what happened."""

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
"""Most outcomes of a model and arm that a report holds: 50 MB, twice that while reading.

At a click rate of 2 %, its standard error is a two-hundredth of it."""
JUDGED = np.dtype([("shown_ms", "<i8"), ("clicked", "u1"), ("predicted", "<f8"), ("attention", "<f8")])
"""The part of an `Outcome` that tells how good its predictions were."""

_decode = msgspec.json.Decoder(Outcome).decode


class Newest:
    """The ``most`` outcomes that were shown last; the topic may be read in any order."""

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
        """The outcomes held, in the order of showing."""
        held = self._held[: self._count]
        return held[np.argsort(held["shown_ms"], kind="stable")[-self.most :]]

    @property
    def nbytes(self) -> int:
        """Memory that the outcomes take."""
        return self._held.nbytes


def encoded(outcomes: npt.NDArray[np.void], catalogue: Catalogue, models: dict[int, str]) -> list[bytes]:
    """``outcomes [N]`` of `scoring.feedback.OUTCOME` as messages; ``models``: names of the attention models.

    An outcome has no message if the catalogue does not know its ad: the layer keeps only the 64-bit id, and the
    catalogue the name. That happens if the ad was withdrawn, and the topic compacted, while the impression was open.
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
    """The outcomes among ``records`` of their topic, and how many records are none: a foreign record ends no reader."""
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


def told(alarms: Iterable[Alarm], lane: int, models: dict[int, str], time_ms: int) -> list[Drift]:
    """What a lane has detected, as messages for the control topic; ``models``: names of the attention models."""
    return [
        Drift(
            lane=lane,
            detector=alarm.detector.value,
            answer=alarm.answer.value,
            was=alarm.was,
            now=alarm.now,
            learnt=alarm.learned,
            model=models.get(alarm.model, ""),
            time_ms=time_ms,
        )
        for alarm in alarms
    ]
