"""Drift drills: from the middle of the test on, the world changes, and we measure how the click layer detects it.

In one drill, a third of the ads turn: their clicks become non-clicks, and the reverse. In the other, people swap:
everybody does what somebody else did. Both change the stream itself, so people's state and ads' counts follow, as they
would in reality. The model is the one of the test, which has seen none of it.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_models.examples import Examples, collect, in_time_order
from onnx_models.metrics import Floats
from onnx_models.trial import Stream, Trial, logit_of, same_rows
from scoring.events import Events, Kind, Source
from scoring.evidence import calibration
from scoring.ids import mix64
from scoring.pending import keys_of
from scoring.watch import Alarm

TURNED = 3
"""One in so many ads turns, in catalogue order."""
CLICK_AFTER_MS = 26_000
"""Delay of a made-up click: half of KuaiRand's clicks come within this."""
BLOCK = 1_000
"""Outcomes per figure of calibration: at a click rate of 44 % its standard error is .036."""
BLOCKS = 10
_MADE = np.uint64(0x7475726E)
"""Mixed into the impression's id for the id of a made-up click."""


@dataclass(frozen=True, slots=True)
class Found:
    """An alarm; ``after``: how many outcomes after the turn."""

    after: int
    detector: str
    answer: str


@dataclass(frozen=True, slots=True)
class Drill:
    """``alarms``: since the turn. ``calibration``: clicks over predicted clicks, for every `BLOCK` impressions since.

    Impressions count in the order of showing, and only if their window has ended: clicks are known before non-clicks.
    """

    outcomes_before: int
    alarms: list[Found]
    calibration: list[float]


@dataclass(frozen=True, slots=True)
class Drills:
    """Both drills. ``false_alarms``: alarms on the unchanged stream."""

    false_alarms: int
    ads_turn: Drill
    people_change_places: Drill

    def named(self) -> dict[str, Any]:
        """As numbers by name."""
        return asdict(self) | {"block": BLOCK}


def hold(trial: Trial, predict: Callable[[Examples], Floats], false_alarms: int) -> Drills:
    """Run both drills from the middle of the trial's impressions. ``predict``: the model's probabilities ``[E]``."""
    events, turn_ms = trial.stream.events, int(np.median(trial.stateful.time_ms))
    ads = turned(events, trial.catalogue.ad[::TURNED], turn_ms)
    people = changed(events, turn_ms)
    return Drills(false_alarms, *(_drill(trial, told, turn_ms, predict) for told in (ads, people)))


def _drill(trial: Trial, events: Events, turn_ms: int, predict: Callable[[Examples], Floats]) -> Drill:
    """How the click layer does on ``events`` in place of the trial's."""
    store, stream = same_rows(trial.store), trial.stream
    events = in_time_order(events, store)
    rates, window_ms = copy.deepcopy(trial.rates), stream.learning.window_ms
    told = collect(events, store, trial.catalogue, rates=rates, said=trial.said, window_ms=window_ms)
    users = np.zeros(len(store.rows), dtype=np.uint64)
    users[stream.events["row"]] = stream.users
    logit = logit_of(predict(told.examples))
    layer, observed = Stream.of(events, users[events["row"]], told, stream.learning).observe(logit, told.examples)
    return watched(layer.alarms, observed.outcomes, turn_ms)


def turned(events: Events, ads: npt.NDArray[np.uint64], from_ms: int) -> Events:
    """``events`` in which the outcomes of ``ads`` shown from ``from_ms`` on are reversed.

    Their clicks, and what follows a click, are removed; each of their impressions without a click gets one, repeated
    impressions only once. The order is undefined.
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


def changed(events: Events, from_ms: int) -> Events:
    """``events`` in which impressions from ``from_ms`` on, and their answers, go to the next person by row."""
    out, late = events.copy(), np.flatnonzero(events["shown_ms"] >= from_ms)
    people, which = np.unique(events["row"][late], return_inverse=True)
    out["row"][late] = np.roll(people, 1)[which]
    return out


def watched(alarms: list[Alarm], outcomes: npt.NDArray[Any], turn_ms: int) -> Drill:
    """The drill's result from ``alarms`` and ``outcomes [N]`` of `scoring.feedback.OUTCOME`, in the order they came."""
    before = int((outcomes["shown_ms"] < turn_ms).sum())
    ended = outcomes[outcomes["due_ms"] <= outcomes["time_ms"].max(initial=0)]
    since = ended[ended["shown_ms"] >= turn_ms]
    since = since[np.argsort(since["shown_ms"], kind="stable")][: BLOCK * BLOCKS]
    blocks = [since[start : start + BLOCK] for start in range(0, len(since) - BLOCK + 1, BLOCK)]
    return Drill(
        before,
        [Found(a.learned - before, a.detector.value, a.answer.value) for a in alarms if a.learned > before],
        [round(calibration(float(block["clicked"].sum()), float(block["predicted"].sum())), 4) for block in blocks],
    )
