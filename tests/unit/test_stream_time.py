"""Windows of the click layer end by the lane's time, whatever the clocks of people's phones say."""

from scoring.feedback import ClickLayer
from tests.builders import START_MS
from tests.unit.test_feedback import LEARNING, WINDOW_MS, events_of, observe

LATER_MS = START_MS + 3 * WINDOW_MS


def test_a_phone_whose_clock_is_ahead_ends_nobodys_window_and_the_click_that_comes_then_counts() -> None:
    layer = ClickLayer(LEARNING)
    ahead = events_of((START_MS, "shown", 7, START_MS), (LATER_MS, "shown", 8, LATER_MS))
    ahead["stream_ms"] = START_MS, START_MS + 1

    assert len(observe(layer, ahead).outcomes) == 0
    assert layer.clock_ms == START_MS + 1

    clicked = events_of((START_MS + 2, "clicked", 7, START_MS))
    assert observe(layer, clicked).outcomes[["ad", "clicked"]].tolist() == [(7, 1)]


def test_a_window_ends_with_the_lanes_time_though_all_that_comes_is_dated_before() -> None:
    layer = ClickLayer(LEARNING)
    observe(layer, events_of((START_MS, "shown", 7, START_MS)))
    late = events_of((START_MS + 1, "viewed", 8, START_MS))
    late["stream_ms"] = START_MS + WINDOW_MS

    assert observe(layer, late).outcomes[["ad", "clicked"]].tolist() == [(7, 0)]
