"""The benchmarks' workload is what they say, their sums are right, and their engines do the work."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scoring.attention import load
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.events import Source
from scoring.policies import Policy
from streams.cli import app
from streams.cli.bench import INGESTED
from streams.step import LaneState, Slice, Step
from streams.wire import Click, encode_json
from tests.bench import ingest, peers
from tests.bench.goals import GOALS, judged
from tests.bench.load import ANSWERED_AFTER_MS, START_MS, Load, user_id
from tests.bench.pace import pace
from tests.bench.report import medians, ratio, repeated
from tests.builders import click, impression, records

SMALL = Load(events=20_000, users=2_000, ads=500)


def test_the_same_load_is_the_same_events_and_another_seed_is_not() -> None:
    first, again = (list(Load(events=500, users=50).stream()) for _ in range(2))
    assert first == again
    assert first != list(Load(events=500, users=50, seed=2).stream())


def test_there_are_as_many_events_and_ads_as_said_and_every_id_is_new() -> None:
    events = [event for _, event in SMALL.stream()]
    assert len({event.event_id for event in events}) == SMALL.events
    assert len({ad.ad_id for ad in SMALL.catalogue()}) == SMALL.ads
    assert {event.ad_id for event in events} <= {ad.ad_id for ad in SMALL.catalogue()}


def test_events_are_about_160_bytes() -> None:
    sizes = [len(encode_json(event)) for _, event in islice(Load().stream(), 5_000)]
    assert 150 < np.mean(sizes) < 170


def test_one_event_in_four_is_a_click_and_answers_what_was_shown_before() -> None:
    events = [event for _, event in SMALL.stream()]
    clicks = [event for event in events if isinstance(event, Click)]
    assert len(clicks) / len(events) == pytest.approx(0.25, abs=0.02)
    assert all(event.impression_time_ms == event.time_ms - ANSWERED_AFTER_MS for event in clicks)


def test_events_come_in_order_of_time_a_millisecond_apart() -> None:
    assert [event.time_ms for _, event in islice(SMALL.stream(), 100)] == [START_MS + at for at in range(100)]


def test_users_follow_zipfs_law() -> None:
    load = Load()
    seen = np.bincount(load.user_numbers(), minlength=load.users)
    assert seen.sum() == load.events
    harmonic = (1 / np.arange(1, load.users + 1)).sum()
    for rank in (1, 2, 10, 100):
        expected = load.events / (rank * harmonic)
        assert abs(seen[rank - 1] - expected) < 5 * np.sqrt(expected)


def test_an_event_belongs_to_the_user_that_is_said_with_it() -> None:
    assert all(event.user_id == user_id(user) for user, event in SMALL.stream())


def test_a_pace_leaves_the_first_tenth_out() -> None:
    assert pace([(0.0, 0), (10.0, 5), (20.0, 10), (21.0, 60), (22.0, 100)]) == 90 / 2


def test_a_pace_of_one_step_is_that_of_the_step() -> None:
    assert pace([(0.0, 0), (2.0, 100)]) == 50


def test_medians_go_number_by_number_and_keep_what_is_none() -> None:
    runs = [{"a": n, "b": {"c": 100.0 * n, "d": None}, "e": "x"} for n in (1, 5, 2)]
    assert medians(runs) == {"a": 2, "b": {"c": 200, "d": None}, "e": "x"}


def test_a_report_of_several_runs_has_least_and_most_beside_the_medians_and_that_of_one_has_not() -> None:
    numbers = iter([3, 1, 2])
    told = repeated("x", 3, lambda: {"a": {"b": next(numbers)}, "c": "text"}, lambda _line: None, events=7)
    assert (told["a"], told["min"], told["max"]) == ({"b": 2}, {"a": {"b": 1}}, {"a": {"b": 3}})
    assert (told["benchmark"], told["runs"], told["events"], told["c"]) == ("x", 3, 7, "text")
    assert {"versions", "hardware", "load_1m"} <= told.keys()
    assert "min" not in repeated("x", 1, lambda: {"a": 1}, lambda _line: None)


def test_a_ratio_to_nothing_is_nothing() -> None:
    assert ratio(30, 20) == 1.5
    assert ratio(30, None) is None


def test_a_number_at_its_bound_reaches_its_goal_and_one_beyond_or_missing_does_not() -> None:
    report = {"benchmark": "scale", "cost_ratio_users": 1.301, "cost_ratio_ads": 2, "two_workers_ratio": {"e2e": None}}
    assert judged(report) == {
        "cost_ratio_users": {"found": 1.301, "wanted": "<= 1.3", "reached": False},
        "cost_ratio_ads": {"found": 2, "wanted": "<= 2", "reached": True},
        "two_workers_ratio.e2e": {"found": None, "wanted": ">= 1.6", "reached": None},
    }
    assert judged({"benchmark": "learn", "examples_per_s": 40_000})["examples_per_s"]["reached"]
    assert judged({"benchmark": "e2e"}) == {}


def test_a_run_of_the_goals_size_is_held_to_them_and_a_smaller_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"benchmark": "ingest", "ratio_vs_quix": None} | dict.fromkeys(
        ("exactly_once_ratio", "ratio_vs_aiokafka", "ratio_vs_faust_stock"), 1.0
    )
    monkeypatch.setattr(ingest, "run", lambda *_: found)

    def told(events: int, *how: str) -> str:
        return CliRunner().invoke(app, ["bench", "ingest", "--events", str(events), *how]).stdout

    goals = json.loads(told(INGESTED, "--json"))["goals"]
    assert goals["ratio_vs_faust_stock"] == {"found": 1.0, "wanted": ">= 8", "reached": False}
    assert goals.keys() == {goal.at for goal in GOALS["ingest"]}
    assert json.loads(told(INGESTED - 1, "--json"))["goals"] == {}
    table = [line.split() for line in told(INGESTED).splitlines()]
    assert ["ratio", "vs", "faust", "stock", "1.0", ">=", "8", "not", "reached"] in table
    assert ["ratio", "vs", "aiokafka", "1.0", ">=", "0.25", "reached"] in table
    assert ["ratio", "vs", "quix", "not", "measured", ">=", "1.5"] in table


def test_the_peers_state_counts_and_remembers_the_last_fifty() -> None:
    state = peers.new()
    for number in range(60):
        peers.update(state, impression("user-1", f"ad-{number}", START_MS + number))
    peers.update(state, click("user-1", "ad-x", START_MS))
    assert Counter(state["recent"]) == Counter([*(f"ad-{number}" for number in range(11, 60)), "ad-x"])
    assert (state["impressions"], state["clicks"], state["time_ms"]) == (60, 1, START_MS + 59)


def test_without_scoring_a_slice_changes_the_state_and_publishes_no_placement() -> None:
    model = load()
    engine = Engine(Catalogue(model.encode, model.dim), model, Policy())
    state = LaneState(0, ("topic-id-1", "topic-id-2"), 1)
    taken = Slice(records([click()]), np.array([Source.CLICK], dtype=np.uint8), (0, START_MS))
    effects = Step(engine, lambda _: 0, 0, 10**12, scoring=False).run(state, taken, START_MS)
    assert {name: len(messages) for name, messages in effects.messages.items() if messages} == {"state-changelog": 1}
    assert effects.counts["applied"] == 1


def test_without_a_checkout_the_command_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.__file__", str(tmp_path / "streams" / "__init__.py"))
    result = CliRunner().invoke(app, ["bench", "e2e", "--json"])
    assert result.exit_code == 1
    assert "clone the repository" in json.loads(result.stdout)["error"]
