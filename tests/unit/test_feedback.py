"""The click layer as a stream: what is learned when, and that it does not depend on where the stream is cut."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.clicks import FEATURES, NUMBERS, START_WEIGHTS, AdLifts, PersonLifts, example, probability
from scoring.events import EVENT, Events, Kind, Source
from scoring.feedback import ClickLayer, Learning, Observed
from scoring.impressions import Impressions
from scoring.inputs import CONTEXT_DIM
from scoring.pending import PENDING, Pending
from scoring.watch import Answer, Detector
from streams.columns import columns
from tests.builders import START_MS, click, impression

WINDOW_MS = 10_000
LEARNING = Learning(window_ms=WINDOW_MS, wait_ms=4_000, pending_max=50)


def events_of(*told: tuple[int, str, int, int]) -> Events:
    """Events of (time, "shown" or a kind, ad, time shown) of user 1; what was not shown answers an impression."""
    out = np.zeros(len(told), dtype=EVENT)
    for place, (time_ms, what, ad, shown_ms) in enumerate(told):
        kind = Kind.SHOWN if what == "shown" else Kind[what.upper()]
        source = Source.IMPRESSION if what == "shown" else Source.CLICK
        out[place]["time_ms"], out[place]["shown_ms"], out[place]["ad"] = time_ms, shown_ms, ad
        out[place]["kind"], out[place]["source"], out[place]["slot"] = kind, source, -1
        out[place]["answers"] = source == Source.CLICK
    out["stream_ms"] = np.maximum.accumulate(out["time_ms"])
    return out


def observe(
    layer: ClickLayer,
    events: Events,
    logit: float = 0.0,
    users: np.ndarray | None = None,
    trained_to_ms: int = -1,
    closeness: float = np.nan,
) -> Observed:
    """All impressions with one logit and an empty context."""
    place = np.flatnonzero(events["source"] == Source.IMPRESSION)
    seen = Impressions(
        place,
        np.full(len(place), logit, dtype=np.float32),
        np.zeros((len(place), CONTEXT_DIM), dtype=np.float32),
        known=events["time_ms"][place] <= trained_to_ms,
        closeness=np.full(len(place), closeness, dtype=np.float32),
    )
    users = np.ones(len(events), dtype=np.uint64) if users is None else users
    return layer.observe(events, users, np.zeros(len(events), dtype=bool), seen)


def test_an_outcome_is_told_at_its_click_or_at_the_end_of_the_window() -> None:
    layer = ClickLayer(LEARNING)
    first = observe(
        layer, events_of((1_000, "shown", 7, 1_000), (2_000, "shown", 8, 2_000), (3_000, "clicked", 8, 2_000))
    )
    assert first.outcomes["clicked"].tolist() == [1]
    assert first.outcomes["ad"].tolist() == [8]
    later = observe(layer, events_of((1_000 + WINDOW_MS, "shown", 9, 1_000 + WINDOW_MS)))
    assert later.outcomes[["ad", "clicked"]].tolist() == [(7, 0)]
    assert layer.learned == 2
    assert len(layer.pending) == 2


def test_a_prediction_precedes_what_is_learned_from_its_outcome() -> None:
    layer = ClickLayer(LEARNING)
    told = [(at, "shown", 7, at) for at in (1_000, 2_000, 5_000)]  # the first has waited when the last is shown
    seen = observe(layer, events_of(told[0], (1_500, "clicked", 7, 1_000), *told[1:]))
    assert seen.predicted[:2] == pytest.approx(probability(0.0))
    assert seen.predicted[2] > seen.predicted[0]


@pytest.mark.parametrize("kind", ["viewed", "viewed_long"])
def test_what_is_less_than_a_click_answers_nothing(kind: str) -> None:
    layer = ClickLayer(LEARNING)
    seen = observe(layer, events_of((1_000, "shown", 7, 1_000), (2_000, kind, 7, 1_000)))
    assert not len(seen.outcomes)


def test_a_click_of_itself_in_the_second_of_an_impression_is_not_its_outcome() -> None:
    layer = ClickLayer(LEARNING)
    events = columns([impression(), click(time_ms=START_MS + 400), impression(time_ms=START_MS + WINDOW_MS)], [0] * 3)
    assert observe(layer, events).outcomes["clicked"].tolist() == [0]


def test_a_click_counts_once_and_only_within_the_window() -> None:
    layer = ClickLayer(LEARNING)
    late = 1_000 + WINDOW_MS
    seen = observe(
        layer,
        events_of(
            (1_000, "shown", 7, 1_000), (2_000, "clicked", 7, 1_000), (2_500, "carted", 7, 1_000),
            (3_000, "shown", 8, 3_000), (3_001 + late, "clicked", 8, 3_000),
        ),
    )  # fmt: skip
    assert seen.outcomes[["ad", "clicked"]].tolist() == [(7, 1), (8, 0)]


def test_impressions_of_the_models_own_training_span_are_predicted_and_not_learned() -> None:
    layer = ClickLayer(LEARNING)
    seen = observe(
        layer,
        events_of((1_000, "shown", 7, 1_000), (1_001, "clicked", 7, 1_000), (1_500, "shown", 8, 1_500)),
        trained_to_ms=1_000,
    )
    assert len(seen.predicted) == 2
    assert not len(seen.outcomes)
    assert len(layer.pending) == 1


def test_when_too_many_wait_for_a_click_the_oldest_is_learned_before_its_time() -> None:
    layer = ClickLayer(Learning(window_ms=WINDOW_MS, pending_max=3))
    seen = observe(layer, events_of(*((1_000 + 1_000 * at, "shown", at, 1_000 + 1_000 * at) for at in range(5))))
    assert (len(layer.pending), layer.learned, seen.cut) == (3, 2, 2)
    assert seen.outcomes[["ad", "clicked"]].tolist() == [(0, 0), (1, 0)]
    assert layer.lifts.lift(0) < 0


def test_where_too_many_wait_the_window_of_the_oldest_that_was_learned_ends_early() -> None:
    layer = ClickLayer(Learning(window_ms=60_000, wait_ms=1_500, pending_max=3))
    told = [(1_000 * at, "shown", at, 1_000 * at) for at in range(1, 7)]
    seen = observe(layer, events_of(*told[:2], (2_100, "clicked", 1, 1_000), *told[2:]))
    assert (len(layer.pending), seen.cut) == (3, 3)
    assert seen.outcomes[["ad", "clicked"]].tolist() == [(1, 1), (2, 0), (3, 0)]
    assert seen.judged["clicked"].tolist() == [1, 0, 0]
    assert layer.learner(0).learned == 3
    assert layer.lifts.lift(4) < layer.lifts.lift(5) == 0  # which waits as long as it would have


@pytest.mark.parametrize(("window_ms", "wait_ms"), [(60_000, 5_000), (20_000, 5_000), (60_000, 30_000), (200_000, 0)])
def test_a_restored_queue_stands_where_it_stood_whatever_the_settings_are_now(window_ms: int, wait_ms: int) -> None:
    layer = ClickLayer(Learning(window_ms=60_000, wait_ms=5_000))
    observe(layer, events_of(*((1_000 * at, "shown", at, 1_000 * at) for at in range(1, 41))))
    queue, again = layer.pending, ClickLayer(Learning(window_ms=window_ms, wait_ms=wait_ms))
    again.clock_ms = layer.clock_ms
    again.reopen(queue.head, queue.between(queue.head, queue.tail), queue.asked)
    assert (again.pending.head, again.pending.asked, again.pending.tail) == (0, 35, 40)
    due_ms = again.pending.between(0, 40)["due_ms"]
    assert due_ms.max() <= layer.clock_ms + window_ms
    later = observe(again, events_of((layer.clock_ms + window_ms, "shown", 99, layer.clock_ms + window_ms)))
    assert len(later.outcomes) == 40  # nothing waits longer than it would today


def test_where_fewer_may_wait_after_a_restart_as_many_make_room_with_the_next_impression() -> None:
    layer = ClickLayer(LEARNING)
    observe(layer, events_of(*((1_000 + 100 * at, "shown", at, 1_000 + 100 * at) for at in range(50))))
    queue, again = layer.pending, ClickLayer(Learning(window_ms=WINDOW_MS, wait_ms=4_000, pending_max=10))
    again.clock_ms = layer.clock_ms
    again.reopen(queue.head, queue.between(queue.head, queue.tail), queue.asked)
    seen = observe(again, events_of((6_000, "shown", 99, 6_000)))
    assert (len(again.pending), seen.cut) == (10, 41)


def test_down_sampled_non_clicks_count_the_more() -> None:
    def level(negatives: float) -> float:
        layer = ClickLayer(Learning(window_ms=1_000, negatives=negatives))
        told = []
        for at in range(3_000):
            time_ms = 10_000 + 2_000 * at
            told.append((time_ms, "shown", at, time_ms))
            if at % 4 == 0:
                told.append((time_ms + 500, "clicked", at, time_ms))
        return float(observe(layer, events_of(*told)).predicted[-1_000:].mean())

    assert level(1.0) == pytest.approx(0.25, abs=0.02)
    assert level(0.3) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("wait_ms", [0, 1_000, 30_000, 60_000, 90_000])
def test_however_long_non_clicks_are_waited_for_the_rate_of_clicks_is_predicted(wait_ms: int) -> None:
    layer = ClickLayer(Learning(window_ms=60_000, wait_ms=wait_ms))
    told = []
    for at in range(3_000):
        time_ms = 10_000 + 2_000 * at
        told.append((time_ms, "shown", at, time_ms))
        if at % 4 == 0:
            told.append((time_ms + 1_500, "clicked", at, time_ms))
    assert float(observe(layer, events_of(*told)).predicted[-1_000:].mean()) == pytest.approx(0.25, abs=0.04)


def test_a_late_click_takes_back_what_was_learned_of_its_impression() -> None:
    """In one step as large as both, but for AdaGrad's pace; its ad's record is as if it had come soon."""
    late, soon = (ClickLayer(Learning(window_ms=WINDOW_MS, wait_ms=wait_ms)) for wait_ms in (1_000, 9_000))
    for layer in (late, soon):
        observe(layer, events_of((1_000, "shown", 7, 1_000), (4_500, "viewed", 8, 4_500)), logit=1.0)
    assert late.model.chance(example([1.0] + [0.0] * 6, 0)) < soon.model.chance(example([1.0] + [0.0] * 6, 0))
    assert late.lifts.lift(7) < soon.lifts.lift(7) == 0
    for layer in (late, soon):
        observe(layer, events_of((5_000, "clicked", 7, 1_000), (10_000, "viewed", 8, 4_500)), logit=1.0)
    np.testing.assert_array_equal(late.lifts.records([7]), soon.lifts.records([7]))
    assert late.model.array[FEATURES.index("bias")] == pytest.approx(
        soon.model.array[FEATURES.index("bias")], abs=0.015
    )


def quick_clicks(count: int, every_ms: int, share: float) -> Events:
    """Impressions of ads of their own, ``share`` of which are clicked half a second later."""
    draws = np.random.default_rng(3).random(count) < share
    times = range(10_000, 10_000 + every_ms * count, every_ms)
    told = [(at, "shown", at, at) for at in times]
    told += [(at + 500, "clicked", at, at) for at, clicked in zip(times, draws, strict=True) if clicked]
    return events_of(*sorted(told, key=lambda each: each[0]))


def test_first_clicks_are_not_taken_for_more_than_they_are_while_nobody_knows_what_else_will_be_clicked() -> None:
    """A click comes within a second, and that there is none is known minutes later."""
    layer, events = ClickLayer(), quick_clicks(5_900, 100, 0.05)
    told = observe(layer, events, logit=float(np.log(0.05 / 0.95)))
    assert layer.clock_ms < 10_000 + layer.learning.window_ms  # the first window has not ended
    assert told.predicted[-1_000:].mean() == pytest.approx((len(events) - 5_900) / 5_900, rel=0.25)
    assert layer.people.lift(1) == pytest.approx(0, abs=0.3)


def test_a_shop_that_has_just_opened_is_no_alarm_though_its_clicks_are_known_before_its_non_clicks() -> None:
    layer = ClickLayer()
    told = observe(layer, quick_clicks(15_000, 100, 0.05), logit=float(np.log(0.05 / 0.95)))
    assert len(told.outcomes) > 8_000
    assert layer.learner(0).learned > 8_000
    assert layer.alarms == []


def test_a_shadow_whose_chance_is_not_known_learns_nothing_of_the_impression() -> None:
    """It was not held yet when it was asked, or a former version did not keep what it said."""
    layer = ClickLayer(LEARNING)
    events = events_of((1_000, "shown", 7, 1_000), (1_100, "shown", 8, 1_100), (2_000, "clicked", 8, 1_100))
    seen = Impressions(
        np.array([0, 1]),
        np.zeros(2, dtype=np.float32),
        np.zeros((2, CONTEXT_DIM), dtype=np.float32),
        shadow_logit=np.ones(2, dtype=np.float32),
        shadow=5,
    )
    layer.observe(events[:2], np.ones(2, dtype=np.uint64), np.zeros(2, dtype=bool), seen)
    shadow = layer.learner(5)
    outcomes = observe(layer, events_of((2_000, "clicked", 8, 1_100), (900_000, "shown", 9, 900_000))).outcomes
    assert layer.learned == 2
    assert outcomes[["shadow", "shadow_predicted"]].tolist() == [(0, 0.0)] * 2  # as of one that no shadow has scored
    assert (shadow.learned, shadow.evidence.outcomes) == (0, 0)
    assert shadow.model.array.tolist() == START_WEIGHTS.tolist()


@pytest.mark.parametrize("logit", [-40.0, 16.0, 18.0, 40.0])
def test_a_shadow_that_is_quite_sure_is_learned_from_like_any_other(logit: float) -> None:
    layer = ClickLayer(LEARNING)
    shadow = layer.learner(5)
    events = events_of((1_000, "shown", 7, 1_000), (1_100, "shown", 8, 1_100))
    sure = np.full(2, logit, dtype=np.float32)
    context = np.zeros((2, CONTEXT_DIM), dtype=np.float32)
    seen = Impressions(np.array([0, 1]), np.zeros(2, dtype=np.float32), context, shadow_logit=sure, shadow=5)
    layer.observe(events, np.ones(2, dtype=np.uint64), np.zeros(2, dtype=bool), seen)
    observe(layer, events_of((100_000, "shown", 9, 100_000), (100_100, "clicked", 8, 1_100)))
    observe(layer, events_of((900_000, "shown", 9, 900_000)))
    assert shadow.learned == 2
    assert np.isfinite(shadow.model.array).all()
    assert math.isfinite(shadow.evidence.log_loss)


def random_stream(seed: int, count: int) -> tuple[Events, np.ndarray]:
    """Impressions, and clicks on some of those before, of three users and five ads, times now and then going back."""
    rng = np.random.default_rng(seed)
    told: list[tuple[int, str, int, int]] = []
    users: list[int] = []
    shown: list[tuple[int, int, int]] = []
    for at in range(count):
        time_ms = 5_000 + 700 * at - int(rng.choice([0, 0, 2_500]))
        if shown and rng.random() < 0.4:
            user, ad, when = shown[rng.integers(len(shown))]
            told.append((time_ms, "clicked", ad, when))
        else:
            user, ad = int(rng.integers(1, 4)), int(rng.integers(1, 6))
            shown.append((user, ad, time_ms))
            told.append((time_ms, "shown", ad, time_ms))
        users.append(user)
    events = events_of(*told)
    events["slot"] = rng.integers(-1, 5, count)
    return events, np.array(users, dtype=np.uint64)


def state(layer: ClickLayer) -> list[bytes | int]:
    pending = layer.pending
    return [
        layer.model.array.tobytes(), layer.model.caution.tobytes(), layer.clock_ms, layer.learned,
        *(column.tobytes() for of in (layer.lifts, layer.people) for column in of.arrays()),
        layer.examination.record.tobytes(),
        pending.head, pending.asked, pending.between(pending.head, pending.tail).tobytes(),
    ]  # fmt: skip


@settings(max_examples=40)
@given(st.integers(0, 50), st.lists(st.integers(1, 79), max_size=6))
def test_neither_predictions_nor_state_depend_on_where_the_stream_is_cut(seed: int, cuts: list[int]) -> None:
    events, users = random_stream(seed, 80)
    whole, parts = ClickLayer(LEARNING), ClickLayer(LEARNING)
    expected = observe(whole, events, users=users)
    edges = [0, *sorted(set(cuts)), len(events)]
    seen = [observe(parts, events[start:end], users=users[start:end]) for start, end in itertools.pairwise(edges)]
    assert np.concatenate([part.predicted for part in seen]).tobytes() == expected.predicted.tobytes()
    assert np.concatenate([part.outcomes for part in seen]).tobytes() == expected.outcomes.tobytes()
    assert state(parts) == state(whole)


def row(key: int, due_ms: int) -> tuple[float, ...]:
    return (key, 1, key, 1, due_ms, due_ms, *([0.0] * len(NUMBERS)), 1.0, 0.5, 0.5, 0, 0, 1, 0, 0, 0, 0.0, 0.0, 0.0)


def test_a_restored_queue_is_the_queue_it_was_taken_from() -> None:
    queue, again = Pending(5_000), Pending(5_000)
    for key in range(1, 2_001):
        queue.push(row(key, key))
    for _ in range(800):
        queue.ask()
    for _ in range(600):
        queue.pop()
    assert queue.answer(700) is not None
    assert queue.answer(700) is None
    again.restore(queue.head, queue.between(queue.head, queue.tail), queue.asked)
    assert not again.holds(700)
    assert again.holds(701)
    for key in range(2_001, 4_000):
        queue.push(row(key, key))
        again.push(row(key, key))
    assert len(queue) == len(again) == 3_399
    assert queue.between(queue.head, queue.tail).tobytes() == again.between(again.head, again.tail).tobytes()
    assert queue.pop() == again.pop()


@pytest.mark.parametrize("now", [0.3, 0.9, np.nan])
def test_a_new_model_is_asked_for_when_people_click_what_is_further_from_what_drew_them(now: float) -> None:
    layer = ClickLayer(Learning(window_ms=WINDOW_MS))

    def shown(first: int, count: int, *, clicked: bool) -> Events:
        times = range(first, first + 10 * count, 10)
        told = [(at, "shown", at, at) for at in times] + [(at + 1, "clicked", at, at) for at in times if clicked]
        return events_of(*sorted(told))

    observe(layer, shown(1_000, 2_000, clicked=True), logit=8.0, closeness=0.6)
    observe(layer, shown(1_000_000, 2_000, clicked=False), logit=-8.0, closeness=0.1)  # what is not clicked is no sign
    observe(layer, shown(2_000_000, 2_000, clicked=True), logit=8.0, closeness=now)
    alarms = [alarm for alarm in layer.alarms if alarm.detector is Detector.INTEREST]
    assert [alarm.answer for alarm in alarms[:1]] == ([Answer.RETRAIN] if now < 0.6 else [])
    if alarms:
        assert alarms[0].was == pytest.approx(0.6)
        assert alarms[0].now < alarms[0].was


def test_what_waits_is_as_large_as_documented() -> None:
    assert PENDING.itemsize == 152


def test_who_clicks_more_than_others_is_expected_to_go_on_so() -> None:
    layer, ad = ClickLayer(LEARNING), itertools.count(1)
    for moment in range(60):
        start, keens, others = 1_000 + moment * WINDOW_MS, next(ad), next(ad)
        keen, shown = (start, "shown", keens, start), (start + 1, "shown", others, start + 1)
        events = events_of(keen, shown, (start + 500, "clicked", keens, start))
        found = observe(layer, events, users=np.array([1, 2, 1], dtype=np.uint64))
    of_keen, of_other = found.predicted
    assert of_other < 0.3
    assert of_keen > 0.65  # nothing else tells them apart, and no ad was seen before


def test_a_record_that_is_forgotten_makes_room_and_is_no_others() -> None:
    people = PersonLifts()
    for person in (5, 6, 7):
        people.meet(person, 10)
        people.learn(person, 10, 1, person / 10)
    for _ in range(2):
        people.forget(6)
    people.learn(6, 11, 1, 0.5)
    assert (people.lift(6), 6 in set(people)) == (0.0, False)
    people.meet(8, 12)
    people.learn(8, 11, 1, 0.5)  # what came of an impression before its first
    assert people.lift(8) == 0.0
    assert len(people._columns[0]) == 3  # where the forgotten one stood
    ids, records = people.arrays()
    assert dict(zip(ids.tolist(), records.tolist(), strict=True)) == {5: [1, 0.5, 10], 7: [1, 0.7, 10], 8: [0, 0, 12]}
    assert people.lifts(ids).tolist() == [people.lift(person) for person in ids.tolist()]


def test_lifts_come_back_from_their_arrays() -> None:
    lifts, again = AdLifts(), AdLifts()
    for ad in (9, 4, 9, 2**63 + 5):
        lifts.learn(ad, 1, 0.2)
    lifts.count(np.array([4], dtype=np.uint64), np.array([[3.0, 1.0]]))
    again.put(*lifts.arrays())
    assert again.records([4]).tolist() == [[1.0, 0.2, 3.0, 1.0]]
    assert again.records([9, 1]).tolist() == [lifts.records([9])[0].tolist(), [0, 0, 0, 0]]
    assert again.lift(9) == lifts.lift(9)
    assert again.lift(2**63 + 5) == lifts.lift(2**63 + 5)
