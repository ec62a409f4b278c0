"""What an outcome is a part of: whose records count it, by which of the chances that were predicted, and when."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scoring.clicks import FEATURES, NUMBERS, probability
from scoring.events import Events
from scoring.evidence import log_loss
from scoring.examination import NOWHERE, SLOTS_MAX, looked
from scoring.feedback import ClickLayer, Learning
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM
from tests.unit.test_feedback import LEARNING, WINDOW_MS, events_of, observe

LOOKED_AT = 0.5
"""How likely the slot is looked at in which all of these stand."""
DECLARED = replace(LEARNING, examination=(1.0, LOOKED_AT))


def shown(*, logit: float = 0.0, shadow_logit: float = math.nan) -> tuple[Events, Impressions]:
    """An impression in the second slot, and what models say of it."""
    events = events_of((1_000, "shown", 7, 1_000))
    events["slot"] = 1
    seen = Impressions(
        np.array([0]),
        np.full(1, logit, dtype=np.float32),
        np.zeros((1, CONTEXT_DIM), dtype=np.float32),
        shadow_logit=np.full(1, shadow_logit, dtype=np.float32),
        shadow=5,
    )
    return events, seen


def let(layer: ClickLayer, events: Events, seen: Impressions) -> None:
    layer.observe(events, np.ones(len(events), dtype=np.uint64), np.zeros(len(events), dtype=bool), seen)


def test_a_shadow_is_held_to_what_it_says_of_the_slot_and_the_live_model_to_what_it_says() -> None:
    layer = ClickLayer(DECLARED)
    shadow = layer.learner(5)
    shadow.known_ms = 0
    let(layer, *shown(logit=0.0, shadow_logit=2.0))
    (told,) = observe(layer, events_of((90_000, "shown", 9, 90_000))).outcomes
    live, beside = LOOKED_AT * probability(0.0), LOOKED_AT * probability(2.0)
    assert (told["predicted"], told["shadow"]) == (pytest.approx(live), 5)
    assert told["shadow_predicted"] == pytest.approx(beside)
    evidence = shadow.evidence
    assert (evidence.outcomes, evidence.beside, evidence.clicks) == (1, 1, 0)
    assert evidence.beside_log_loss == pytest.approx(log_loss(0, beside))
    assert evidence.live_log_loss == pytest.approx(log_loss(0, live))
    step = 2.0 * looked(LOOKED_AT, beside) * probability(2.0)  # along its own log-odds
    assert shadow.model.caution[FEATURES.index("logit")] == pytest.approx(1 + step**2)
    assert layer.model.array[FEATURES.index("logit")] == 1.0


@pytest.mark.parametrize("clicked", [False, True])
def test_ads_and_people_are_expected_the_clicks_of_their_slot_without_their_lifts_and_slots_those_of_the_first(
    clicked: bool,
) -> None:
    layer = ClickLayer(DECLARED)
    layer.lifts.learn(7, 8.0, 0.0)
    layer.people.meet(1, 0)
    layer.people.learn(1, 0, 4.0, 8.0)
    lifts = layer.lifts.lift(7), layer.people.lift(1)
    assert lifts[0] > 0 > lifts[1]
    let(layer, *shown(logit=-1.0))
    answer = [(2_000, "clicked", 7, 1_000)] if clicked else []
    observe(layer, events_of(*answer, (90_000, "shown", 9, 90_000)))
    plain, lifted = probability(-1.0), probability(-1.0 + sum(lifts))
    assert layer.lifts.records([7])[0, :2] == pytest.approx([8.0 + clicked, LOOKED_AT * plain])
    assert layer.people.records([1])[0, :2] == pytest.approx([4.0 + clicked, 8.0 + LOOKED_AT * plain])
    assert layer.examination.record[:, 1].tolist() == pytest.approx([float(clicked), lifted])
    step = 1 - lifted if clicked else looked(LOOKED_AT, LOOKED_AT * lifted) * lifted  # who clicks has looked
    assert layer.model.caution[FEATURES.index("bias")] == pytest.approx(1 + step**2)


@pytest.mark.parametrize(
    ("slot", "control", "chosen", "stood"),
    [(-1, False, 0, NOWHERE), (0, False, 1, 0), (0, True, 0, 0), (99, False, 1, 99), (30_000, False, 1, SLOTS_MAX - 1)],
)
def test_what_the_engine_has_chosen_stands_in_a_slot_of_somebody_whom_it_chooses_for(
    slot: int, control: bool, chosen: int, stood: int
) -> None:
    layer = ClickLayer(LEARNING)
    events, seen = shown()
    events["slot"] = slot
    layer.observe(events, np.ones(1, dtype=np.uint64), np.array([control]), seen)
    (waits,) = layer.pending.between(0, 1)
    assert (waits["chosen"], waits["slot"], waits["control"]) == (chosen, stood, control)


def test_a_stream_that_goes_back_does_not_take_the_layers_clock_along() -> None:
    layer = ClickLayer(LEARNING)
    observe(layer, events_of((50_000, "shown", 7, 50_000)))
    back = observe(layer, events_of((20_000, "shown", 8, 20_000)))
    assert (layer.clock_ms, len(back.predicted), len(back.outcomes)) == (50_000, 1, 0)
    assert layer.pending.between(0, 2)["due_ms"].tolist() == [50_000 + WINDOW_MS] * 2


@pytest.mark.parametrize("wait_ms", [WINDOW_MS, 10 * WINDOW_MS])
def test_no_click_is_taken_for_none_before_the_window_ends_where_the_wait_is_as_long(wait_ms: int) -> None:
    layer = ClickLayer(Learning(window_ms=WINDOW_MS, wait_ms=wait_ms))
    observe(layer, events_of((1_000, "shown", 7, 1_000)))
    observe(layer, events_of((1_000 + WINDOW_MS - 1, "viewed", 8, 1_000)))
    assert (layer.pending.asked, layer.learned, layer.lifts.lift(7)) == (0, 0, 0.0)
    observe(layer, events_of((1_000 + WINDOW_MS, "viewed", 8, 1_000)))
    assert (layer.pending.asked, layer.learned) == (1, 1)
    assert layer.lifts.lift(7) < 0


@pytest.mark.parametrize(("late_ms", "asked"), [(LEARNING.wait_ms - 1, 0), (LEARNING.wait_ms, 1)])
def test_no_click_is_taken_for_none_once_the_wait_is_over(late_ms: int, asked: int) -> None:
    layer = ClickLayer(LEARNING)
    observe(layer, events_of((1_000, "shown", 7, 1_000)))
    observe(layer, events_of((1_000 + late_ms, "viewed", 8, 1_000)))
    assert (layer.pending.asked, layer.lifts.lift(7) < 0) == (asked, asked == 1)


def test_what_is_judged_is_told_once_and_clicks_that_have_closed_what_waited_are_named() -> None:
    layer = ClickLayer(LEARNING)
    told = [(1_000, "shown", 7, 1_000), (1_100, "shown", 8, 1_100), (2_000, "clicked", 8, 1_100)]
    first = observe(layer, events_of(*told, (2_500, "clicked", 8, 1_100), (3_000, "clicked", 9, 1_000)))
    assert (len(first.judged), layer.answered) == (0, [1])
    later = observe(layer, events_of((90_000, "shown", 9, 90_000)))
    assert later.judged["clicked"].tolist() == [0, 1]
    assert len(observe(layer, events_of((90_001, "shown", 6, 90_001))).judged) == 0


def test_of_models_that_are_not_kept_nothing_is_known_any_more() -> None:
    layer = ClickLayer(LEARNING)
    kept = layer.learner(1)
    layer.learner(2)
    layer.keep([1, 3])
    assert layer.learners == {1: kept}


def test_what_was_clicked_and_must_go_before_the_wait_is_over_is_learned_and_judged() -> None:
    layer = ClickLayer(Learning(window_ms=WINDOW_MS, wait_ms=WINDOW_MS, pending_max=2))
    told = [(at, "shown", at, at) for at in (1_000, 2_000)]
    seen = observe(layer, events_of(*told, (2_500, "clicked", 1_000, 1_000), (3_000, "shown", 3, 3_000)))
    assert (seen.cut, seen.judged["clicked"].tolist(), len(layer.pending)) == (1, [1], 2)


def test_a_click_that_waits_is_learned_whole_whatever_share_of_non_clicks_is() -> None:
    learned = []
    for negatives in (1.0, 0.25):
        layer = ClickLayer(Learning(window_ms=60_000, wait_ms=1_000, negatives=negatives))
        observe(layer, events_of((1_000, "shown", 1, 1_000), (1_500, "clicked", 1, 1_000), (2_000, "shown", 2, 2_000)))
        learned.append(layer.model.array.tolist())
    assert learned[0] == learned[1] != ClickLayer().model.array.tolist()


@pytest.mark.parametrize("negatives", [1.0, 0.25])
def test_a_late_click_takes_back_as_much_as_was_learned_of_its_slot_and_in_its_sample(negatives: float) -> None:
    """The steps, by AdaGrad's sums of squares: that of the non-click, and that of the click that came after all."""
    counted = set()
    for ad in range(20):
        layer = ClickLayer(replace(DECLARED, negatives=negatives))
        events, seen = shown()
        events["ad"] = ad
        let(layer, events, seen)
        numbers = [float(layer.pending.between(0, 1)[0][name]) for name in NUMBERS]
        squares, steps = layer.model.caution[0], []
        for told in ((6_000, "viewed", 99, 1_000), (7_000, "clicked", ad, 1_000)):
            liked = layer.model.chances(numbers, 0)[0]
            observe(layer, events_of(told))
            steps.append(math.sqrt(layer.model.caution[0] - squares))
            squares = layer.model.caution[0]
        weight = round(steps[0] / (0.5 * looked(LOOKED_AT, LOOKED_AT * 0.5)), 9)
        assert steps[1] == pytest.approx(1 - liked + weight * looked(LOOKED_AT, LOOKED_AT * 0.5) * liked)
        counted.add(weight)
    assert counted == ({1.0} if negatives == 1 else {0.0, 4.0})
