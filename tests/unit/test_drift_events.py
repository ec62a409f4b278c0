"""Whose drift it is: the model that made the predictions, whichever of them is live."""

from dataclasses import replace

import msgspec
import numpy as np

from scoring.attention import load
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.events import EVENT, Kind, Source
from scoring.feedback import ClickLayer, Learning
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM
from scoring.models import number_of
from scoring.policies import Policy
from scoring.watch import Alarm, Answer, Detector
from streams.console.desk import Desk
from streams.control import Control
from streams.control_wire import Drift, decode_control
from streams.metrics.worker import Metrics
from streams.settings import Settings
from streams.step import LaneState, Slice, Step
from tests.builders import START_MS, Record

LIVE, CANARY = number_of("live"), number_of("canary")
DRIFT = Drift(lane=0, detector="surprise", answer="quicken", was=0.0, now=0.2, learnt=7, model="m", time_ms=START_MS)


def half_and_half(layer: ClickLayer, first: int, count: int, *, turned: bool) -> None:
    """``count`` people, every second one scored by the canary, which is wrong of them where they have turned."""
    says_yes = np.arange(count) % 4 < 2
    likely = says_yes ^ (turned & (np.arange(count) % 2 == 1))
    clicks = np.random.default_rng(first).random(count) < np.where(likely, 0.88, 0.12)
    shown = np.zeros(count, dtype=EVENT)
    shown["time_ms"] = shown["stream_ms"] = shown["shown_ms"] = START_MS + 100 * (first + np.arange(count))
    shown["source"], shown["kind"], shown["slot"] = Source.IMPRESSION, Kind.SHOWN, -1
    shown["ad"] = 1 + np.arange(count) % 2  # what is learned of an ad serves all models
    shown["event"] = users = first + np.arange(1, count + 1, dtype=np.uint64)
    answers = shown[clicks]
    answers["source"], answers["kind"], answers["answers"] = Source.CLICK, Kind.CLICKED, True
    answers["time_ms"] += 50
    answers["stream_ms"] += 50
    events, who = np.concatenate([shown, answers]), np.concatenate([users, users[clicks]])
    order = np.argsort(events["time_ms"], kind="stable")
    events, who = events[order], who[order]
    impressions = Impressions(
        np.flatnonzero(events["source"] == Source.IMPRESSION),
        np.where(says_yes, 2.0, -2.0).astype(np.float32),
        np.zeros((count, CONTEXT_DIM), dtype=np.float32),
        np.where(np.arange(count) % 2, CANARY, LIVE).astype(np.uint32),
    )
    layer.observe(events, who, np.zeros(len(events), dtype=np.bool_), impressions)


def test_an_alarm_is_of_the_model_whose_predictions_have_turned_wrong_and_not_of_the_live_one() -> None:
    layer = ClickLayer(Learning(window_ms=10_000, wait_ms=0))
    layer.heed(LIVE)
    layer.learner(LIVE), layer.learner(CANARY)
    for first in range(0, 12_000, 500):
        half_and_half(layer, first, 500, turned=first >= 6_000)
    assert {alarm.model for alarm in layer.alarms} == {CANARY}


def test_a_drift_is_an_event_under_the_name_of_its_own_model() -> None:
    engine = Engine(Catalogue(), load(), Policy())
    live, lane = engine.models.live, LaneState(0, ("a", "b"), 1)
    lane.clicks.models[CANARY] = "canary"
    alarm = Alarm(Detector.SURPRISE, Answer.QUICKEN, 77, 0.0, 0.2)
    lane.clicks.layer.alarms = [replace(alarm, model=number) for number in (live.number, CANARY, 5)]
    step, nothing = Step(engine, lambda _: 0, 0, 10**12), Slice([], np.zeros(0, dtype=np.uint8), (0, 0))

    effects, metrics = step.run(lane, nothing, 2**42), Metrics()
    metrics.committed(nothing, effects, [], START_MS)
    told = effects.control
    drifts = [decode_control(message.value or b"") for message in told]
    assert [drift.model for drift in drifts if isinstance(drift, Drift)] == [live.version, "canary", ""]
    names = [live.version.encode(), b"canary", b""]
    assert [message.key for message in told] == [b"drift/0/surprise/" + name for name in names]
    again = step.run(lane, nothing, 2**42)
    metrics.committed(nothing, again, [], START_MS)
    assert again.control == []
    counted = {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "salience_click_alarms_total"
    }
    assert len(counted) == len(Detector) * len(Answer)  # from 0 on, so that Prometheus sees the first one, too
    assert {labels: count for labels, count in counted.items() if count} == {("surprise", "quicken"): 3}


def test_drifts_that_were_told_without_the_model_in_their_key_are_still_read() -> None:
    former = Record("control", 0, 0, START_MS, b"drift/0/surprise", msgspec.json.encode(DRIFT))
    another = replace(former, key=b"drift/1/surprise", offset=1)
    control, desk = Control(), Desk(Settings(), 1)
    assert control.take([former, another]) == 1
    assert [*control.all(Drift).values()] == [DRIFT]
    {tail.topic: tail.take for tail in desk.tails()}["control"]([former])
    assert desk.malformed == 0
