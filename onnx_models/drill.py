"""A drift drill: from the middle of the test on a third of the ads turn, and the click layer is watched finding out.

Of a turned ad clicked becomes not clicked and the other way round, in the stream itself: people's state and ads' counts
follow what is told, as they would. The model is that of the test, which knows nothing of it.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_models.examples import Examples, collect, in_time_order
from onnx_models.trial import Stream, Trial, logit_of, same_rows
from scoring.events import Events, Kind, Source
from scoring.ids import mix64
from scoring.pending import keys_of
from scoring.watch import Alarm

Floats = npt.NDArray[np.floating]

TURNED = 3
"""One in so many ads turns, by their order in the catalogue."""
CLICK_AFTER_MS = 26_000
"""When a click comes that was none: half of KuaiRand's come within this."""
BLOCK = 1_000
"""Outcomes of which calibration is told: at a click rate of 44 % its standard error is .036."""
BLOCKS = 10
_MADE = np.uint64(0x7475726E)
"""Told apart from the impression's by this are the ids of clicks that are made."""


@dataclass(frozen=True, slots=True)
class Drill:
    """``false_alarms``: on the stream as it is. ``detected_after``: outcomes from the turn to the first alarm.

    None where there was none. ``answers``: to the alarms since the turn. ``calibration``: predicted clicks over clicks,
    of every `BLOCK` outcomes since the turn.
    """

    false_alarms: int
    outcomes_before: int
    detected_after: int | None
    answers: list[str]
    calibration: list[float]

    def named(self) -> dict[str, Any]:
        """As numbers by name."""
        return asdict(self) | {"block": BLOCK, "calibration": [round(each, 4) for each in self.calibration]}


def drill(trial: Trial, predict: Callable[[Examples], Floats], false_alarms: int) -> Drill:
    """Turn the trial's stream at the middle of its impressions, and watch. ``predict``: the model's chances ``[E]``."""
    stream = trial.stream
    turn_ms = int(np.median(trial.stateful.time_ms))
    store = same_rows(trial.store)
    events = in_time_order(turned(stream.events, trial.catalogue.ad[::TURNED], turn_ms), store)
    examples, place = collect(events, store, trial.catalogue, rates=copy.deepcopy(trial.rates))
    users = np.zeros(len(store.rows), dtype=np.uint64)
    users[stream.events["row"]] = stream.users
    logit = logit_of(predict(examples))
    layer, observed = Stream(events, users[events["row"]], place).observe(logit, examples.context)
    return watched(layer.alarms, observed.outcomes, turn_ms, false_alarms)


def turned(events: Events, ads: npt.NDArray[np.uint64], from_ms: int) -> Events:
    """``events``, but what ``ads`` are shown from ``from_ms`` on and what answers it, which tell the opposite.

    Their clicks, and all that comes of one, are gone; each of their impressions that had none, once if it is doubled,
    has one. In no order.
    """
    of = np.isin(events["ad"], ads) & (events["shown_ms"] >= from_ms)
    shown = np.flatnonzero(of & (events["source"] == Source.IMPRESSION))
    clicks = of & (events["source"] == Source.CLICK) & events["answers"] & (events["kind"] >= Kind.CLICKED)
    keys = keys_of(events["row"].astype(np.uint64), events["ad"], events["shown_ms"])
    _, first = np.unique(keys[shown], return_index=True)
    once = shown[first]
    made = events[once[~np.isin(keys[once], keys[clicks])]]
    made["source"], made["kind"], made["answers"], made["slot"] = Source.CLICK, Kind.CLICKED, True, -1
    made["time_ms"] += CLICK_AFTER_MS
    made["event"] = mix64(made["event"] ^ _MADE)
    return np.concatenate([events[~clicks], made])


def watched(alarms: list[Alarm], outcomes: npt.NDArray[Any], turn_ms: int, false_alarms: int) -> Drill:
    """What is told of ``alarms`` and ``outcomes [N]``, of `scoring.feedback.OUTCOME`, as they came."""
    before = int((outcomes["shown_ms"] < turn_ms).sum())
    since = outcomes[outcomes["shown_ms"] >= turn_ms][: BLOCK * BLOCKS]
    told = [alarm for alarm in alarms if alarm.learned > before]
    blocks = [since[start : start + BLOCK] for start in range(0, len(since) - BLOCK + 1, BLOCK)]
    return Drill(
        false_alarms,
        before,
        told[0].learned - before if told else None,
        [alarm.answer.value for alarm in told],
        [float(block["predicted"].sum() / max(block["clicked"].sum(), 1)) for block in blocks],
    )
