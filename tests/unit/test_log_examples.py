"""What a log teaches, where devices' clocks are behind and events come twice."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest

from onnx_models.examples import Examples, collect, in_time_order
from onnx_models.trial import Stream
from scoring.cleaning import Rules
from scoring.events import Source
from scoring.feedback import Learning
from scoring.rows import RowStore
from scoring.units import MINUTE_MS
from streams.logs import Event, in_order
from tests.builders import START_MS, catalogue, click, columns_of, impression

PERSON = np.array([1], dtype=np.uint64)


def learnt(events: Sequence[Event]) -> tuple[Examples, list[int]]:
    """Examples of one person's ``events``, and of each known outcome whether the click layer has learnt a click."""
    store = RowStore()
    ordered = in_time_order(columns_of(store, in_order(events)), store)
    collected = collect(ordered, store, catalogue())
    stream = Stream.of(ordered, PERSON[ordered["row"]], collected)
    examples = collected.examples
    _, observed = stream.observe(np.zeros(len(examples)), examples, Learning(window_ms=10_000, wait_ms=4_000))
    return examples, observed.outcomes["clicked"].tolist()


@pytest.mark.parametrize("behind_ms", [1, 900, 5_000])
def test_a_click_of_a_device_whose_clock_is_behind_is_unknown_before_its_impression_and_learnt_after_it(
    behind_ms: int,
) -> None:
    shown, later = impression(), impression(ad_id="ad-2", time_ms=START_MS + 60_000)
    expected, clicked = learnt([shown, click(time_ms=START_MS + behind_ms, impression_time_ms=START_MS), later])
    examples, also = learnt([shown, click(time_ms=START_MS - behind_ms, impression_time_ms=START_MS), later])
    assert clicked == also == [1]
    assert examples.label.tolist() == [1, 0]
    for field in fields(Examples):
        here, there = (getattr(one, field.name)[:1] for one in (examples, expected))
        np.testing.assert_array_equal(here, there, err_msg=field.name)


@pytest.mark.parametrize("shown_ms", [None, START_MS + 30_000, 4_000_000_000_000])
def test_what_answers_no_impression_of_the_log_keeps_its_own_time(shown_ms: int | None) -> None:
    did = click(ad_id="ad-3", time_ms=START_MS - 900, impression_time_ms=shown_ms)
    ordered = in_time_order(columns_of(RowStore(), [impression(), did]), RowStore())
    assert ordered["time_ms"].tolist() == [START_MS - 900, START_MS]


def test_a_click_that_the_rules_keep_from_interest_answers_nothing_however_often_it_is_delivered() -> None:
    minute_ms = START_MS // MINUTE_MS * MINUTE_MS
    screens = [minute_ms + 2_000 * at for at in range(20)]  # of 20 ads
    shown = [impression(ad_id=f"ad-{ad}", time_ms=time_ms) for time_ms in screens for ad in range(20)]
    clicks = [click(ad_id=one.ad_id, time_ms=one.time_ms + 9, impression_time_ms=one.time_ms) for one in shown]
    once, _ = learnt([*shown, *clicks])
    twice, _ = learnt([*shown, *(one for one in clicks for _ in range(2))])
    assert once.label.sum() == Rules().per_minute[Source.CLICK] < len(shown)
    np.testing.assert_array_equal(twice.label, once.label)


def test_a_click_with_an_id_of_another_answers_nothing() -> None:
    shown = [impression(), impression(ad_id="ad-2", time_ms=START_MS + 60_000)]
    clicks = [
        click(ad_id=one.ad_id, time_ms=one.time_ms + 9, impression_time_ms=one.time_ms, event_id="again")
        for one in shown
    ]
    examples, clicked = learnt([*shown, *clicks])
    assert examples.label.tolist() == [1, 0]
    assert clicked == [1]


@pytest.mark.parametrize("named_ms", [START_MS, START_MS + 640, START_MS + 999], ids=["cut off", "exact", "about"])
def test_a_click_answers_the_impression_of_the_second_that_it_names_as_in_a_lane(named_ms: int) -> None:
    shown = [impression(time_ms=START_MS + 640), impression(time_ms=START_MS + 60_000)]
    examples, clicked = learnt([*shown, click(time_ms=START_MS + 1_900, impression_time_ms=named_ms)])
    assert clicked == [1]
    assert examples.label.tolist() == [1, 0]


@pytest.mark.parametrize(("named_ms", "labels"), [(START_MS + 700, [0, 1]), (START_MS, [1, 0])])
def test_of_impressions_of_one_second_a_click_answers_the_one_that_it_names_else_the_first(
    named_ms: int, labels: list[float]
) -> None:
    shown = [impression(time_ms=START_MS + after_ms) for after_ms in (640, 700)]
    examples, _ = learnt([*shown, click(time_ms=START_MS + 1_900, impression_time_ms=named_ms)])
    assert examples.label.tolist() == labels


def test_a_click_dated_before_the_impression_of_the_second_that_it_names_is_unknown_to_it() -> None:
    shown = [impression(time_ms=START_MS + 640), impression(ad_id="ad-2", time_ms=START_MS + 60_000)]
    examples, clicked = learnt([click(time_ms=START_MS + 200, impression_time_ms=START_MS), *shown])
    assert clicked == [1]
    assert examples.label.tolist() == [1, 0]
    assert (examples.history[0] < 0).all()
