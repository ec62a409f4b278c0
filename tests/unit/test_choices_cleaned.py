"""Clicks that no worker counts are none of the log's either."""

import dataclasses
import json

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from scoring.policies import CONTROL_ARM
from scoring.units import MINUTE_MS
from streams import choices
from streams.choices import Choices
from streams.cleaned import Cleaned
from streams.cli import app
from streams.wire import encode_json
from tests.builders import Record
from tests.unit.test_choices import POLICY, _all_begin_at, _click, _decision


def test_the_clicks_of_a_bot_count_for_the_command_as_far_as_they_do_for_workers(monkeypatch):
    """Of forty people each clicks once, a bot on all of its forty placements within a second."""
    made = [_decision(seed, 1.0, user=f"u{seed}" if seed <= 40 else "bot") for seed in range(1, 81)]
    made.append((replace(_decision(81, 1.0, CONTROL_ARM)[0], time_ms=MINUTE_MS), []))

    async def read(_bootstrap, topic, *, progress):
        if topic == "decisions":
            yield [Record(topic, 0, at, 0, b"u", encode_json(one)) for at, (one, _) in enumerate(made)]
        else:
            clicks = [_click(one.placement_id, ads[0], one.user_id) for one, ads in made if ads]
            yield [dataclasses.replace(click, offset=at) for at, click in enumerate(clicks)]

    monkeypatch.setattr(choices, "read_topic", read)
    monkeypatch.setattr(choices, "log_begins", _all_begin_at(0))
    monkeypatch.setenv("SALIENCE_CLICK_WINDOW_MS", "1000")
    monkeypatch.setenv("SALIENCE_ACTIONS_PER_MINUTE", "2")
    (told,) = json.loads(CliRunner().invoke(app, ["ope", "--log", "topics", "--json"]).stdout).values()
    assert told["observed"] * told["choices"] == pytest.approx(40 + 2)
    assert told["clicks_left_out"] == 38
    shown = CliRunner().invoke(app, ["ope", "--log", "topics"])
    told = " ".join(shown.output.split())
    assert "Left out: 38 clicks that workers filter (bursts, bots), or that came too late" in told


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({}, True),
        ({"time_ms": MINUTE_MS, "impression_time_ms": 50_000}, True),
        ({"time_ms": MINUTE_MS, "impression_time_ms": 49_999}, False),
        ({"time_ms": 2 * MINUTE_MS}, False),
    ],
    ids=["at once", "at its window's end", "after its window", "of the future"],
)
def test_a_click_counts_that_comes_within_its_window(fields, counts):
    found = Choices(1.0, cleaned=Cleaned(latest_ms=MINUTE_MS, window_ms=10_000))
    made, (first, _) = _decision(1, 1.0)
    found.decided([encode_json(made)])
    found.clicked([_click("p-1", first, **fields)])
    assert bool(found.clicks) == counts


def test_a_click_on_another_persons_placement_does_not_count():
    found = Choices(1.0)
    made, (first, _) = _decision(1, 1.0)
    found.decided([encode_json(one) for one in (made, replace(made, placement_id="p-2", user_id="v", policy=POLICY))])
    found.clicked([_click("p-1", first, "v"), _click("p-2", first, "v"), _click("p-2", first, "w")])
    assert found.clicks == {("p-2", first)}


def test_a_click_that_is_sent_again_counts_once_and_is_not_told_as_left_out():
    found = Choices(1.0)
    made, (first, _) = _decision(1, 1.0)
    found.decided([encode_json(made)])
    found.clicked([_click("p-1", first), _click("p-1", first)])
    found.clicked([_click("p-1", first)])
    assert (found.clicks, found.uncounted) == ({("p-1", first)}, 0)
