"""What the console calls wrong, and the words in which its page says all that it says."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from scoring.events import Kind
from scoring.feedback import JUDGED
from scoring.units import HOUR_MS, MINUTE_MS
from streams.cli import app
from streams.console.alarms import AUC_LEAST, CALIBRATION, DRIFT_RECENT_MS, ERRORS, WANTED_MS, alarms
from streams.console.clicks import DRIFTS_MAX, HOURS, MODELS_MAX, SERVES_MS, Accuracy, Clicks, ModelQuality, _accuracy
from streams.console.desk import Desk
from streams.console.refused import RECENT_MS, SECONDS_MAX, Refused
from streams.console.serve import WhyNot
from streams.console.why import Reason
from streams.control_wire import Drift, Metric
from streams.experiments.findings import PREFERENCE, SENTENCES
from streams.lag.arithmetic import Status
from streams.lag.board import GroupLag, Report
from streams.lag.monitor import News
from streams.quality import Quality
from streams.settings import Settings
from streams.wire import Outcome, Tone
from tests.builders import START_MS, Record
from tests.unit.consoles import group, letter, outcome, partition

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "streams" / "console" / "static"


def news(*groups: GroupLag, stale: bool = False) -> News:
    report = Report(watched_s=60, groups=groups)
    return News(
        time_ms=1, age_s=9.0 if stale else 0.1, stale=stale, polls=9, failed=0, poll_s=0.01, error="", report=report
    )


FIGURES = Accuracy(calibration=1.0, log_loss=0.3, auc=0.7, drifts=0, clicks=100, expected=100.0)


def model(name: str = "m", newest_ms: int = START_MS, **layer: Any) -> ModelQuality:
    figures = msgspec.structs.replace(FIGURES, **layer)
    if "calibration" not in layer:
        figures = msgspec.structs.replace(figures, calibration=figures.clicks / figures.expected)
    return ModelQuality(model=name, outcomes=2_000, newest_ms=newest_ms, layer=figures, alone=FIGURES)


def drift(time_ms: int, **fields: Any) -> Drift:
    told = {
        "lane": 0,
        "detector": "calibration",
        "answer": "quicken",
        "was": 0.0,
        "now": 0.1,
        "learnt": 5,
        "model": "m",
    }
    return Drift(time_ms=time_ms, **(told | fields))


def wish(time_ms: int, **fields: Any) -> Drift:
    return drift(time_ms, answer="retrain", **fields)


def tone(turned_ms: int | None, name: str = "acme") -> Tone:
    return Tone(of="brand", name=name, reviews=90, tone=0.312, turned_ms=turned_ms, time_ms=START_MS)


WELL = group(partition(0))
CASES: list[tuple[dict[str, Any], list[tuple[str, bool]]]] = [
    ({}, []),
    ({"news": news(WELL, stale=True)}, [("SalienceLagUnknown", True)]),
    ({"group": None}, [("SalienceGroupEmpty", True)]),
    ({"group": group(state="empty")}, [("SalienceGroupEmpty", True)]),
    ({"group": group(partition(0), partition(1, Status.STALL))}, [("SaliencePartitionStuck", True)]),
    ({"group": group(partition(0, Status.STOP, owner=None))}, [("SaliencePartitionStuck", True)]),
    ({"group": group(partition(0, Status.REWIND))}, [("SalienceOffsetsRewound", True)]),
    ({"group": group(partition(0, time_lag_s=31.0))}, [("SalienceTimeLag", True)]),
    ({"group": group(partition(0, time_lag_s=6.0, catch_up_s=None))}, [("SalienceLagGrowing", False)]),
    ({"group": group(partition(0, time_lag_s=6.0))}, []),  # it catches up
    ({"group": group(partition(0, catch_up_s=None))}, []),  # half a second behind for ever
    ({"group": group(partition(0, time_lag_s=None, catch_up_s=None))}, []),
    ({"group": group(partition(0, Status.WARN))}, [("SalienceLagGrowing", False)]),
    (
        {"group": group(partition(0, Status.WARN), partition(1, Status.STALL))},
        [("SaliencePartitionStuck", True), ("SalienceLagGrowing", False)],
    ),
    ({"models": [model(clicks=12_500, expected=10_000.0)]}, []),
    ({"models": [model(clicks=12_501, expected=10_000.0)]}, [("SalienceCalibrationOff", False)]),
    ({"models": [model(clicks=148)]}, []),  # what chance may make of 100
    ({"models": [model(clicks=149)]}, [("SalienceCalibrationOff", False)]),
    ({"models": [model(clicks=60)]}, []),
    ({"models": [model(clicks=59)]}, [("SalienceCalibrationOff", False)]),
    ({"models": [model(clicks=0, expected=16.0)]}, []),
    ({"models": [model(clicks=0, expected=17.0)]}, [("SalienceCalibrationOff", False)]),
    ({"models": [model(auc=0.44)]}, []),
    ({"models": [model(auc=0.43)]}, [("SalienceCalibrationOff", False)]),
    ({"models": [model(auc=0.31, clicks=12, expected=12.0)]}, []),
    ({"models": [model(auc=AUC_LEAST - 0.02, clicks=10_000, expected=10_000.0)]}, [("SalienceCalibrationOff", False)]),
    ({"models": [model(auc=0.5, day_auc=0.5, day_clicks=533)]}, []),
    ({"models": [model(auc=0.5, day_auc=0.5, day_clicks=534)]}, [("SalienceCalibrationOff", False)]),
    ({"models": [model(), model(newest_ms=START_MS - SERVES_MS - 1, clicks=900)]}, []),
    ({"drifts": [drift(START_MS)]}, [("SalienceDrift", False)]),
    ({"drifts": [drift(START_MS - 3_600_000)]}, []),
    ({"drifts": [wish(START_MS)]}, [("SalienceDrift", False), ("SalienceNewModelWanted", False)]),
    ({"drifts": [wish(START_MS - 6 * HOUR_MS)]}, [("SalienceNewModelWanted", False)]),
    ({"drifts": [wish(START_MS - 6 * HOUR_MS - 1)]}, []),
    ({"drifts": [wish(START_MS - HOUR_MS, model="it has told no outcome")]}, [("SalienceNewModelWanted", False)]),
    ({"drifts": [wish(START_MS - HOUR_MS)], "models": [model("new"), model(newest_ms=START_MS - SERVES_MS - 1)]}, []),
    ({"tones": [tone(None), tone(START_MS - 1_000)]}, [("SalienceToneTurned", False)]),
    ({"tones": [tone(START_MS - 3_600_000)]}, []),
    ({"letters": [letter()] * 90}, [("SalienceDeadLetters", False)]),
    ({"letters": [letter()] * 30}, []),  # half a record a second of a hundred
    ({"letters": [letter()] * 59 + [letter(topic="ads")] * 5}, [("SalienceDeadLetters", False)]),  # of ads alone
    ({"letters": [letter()] * 9, "group": None}, [("SalienceGroupEmpty", True), ("SalienceDeadLetters", False)]),
    ({"letters": [letter(at_ms=START_MS - 120_000)] * 90}, []),
]


@pytest.mark.parametrize(("given", "expected"), CASES, ids=range(len(CASES)))
def test_what_is_wrong_is_named_by_its_alert(given: dict[str, Any], expected: list[tuple[str, bool]]) -> None:
    refused = Refused()
    refused.take(given.get("letters", []))
    found = alarms(
        given.get("news", news(WELL)),
        given.get("group", WELL),
        given.get("models", [model()]),
        given.get("drifts", []),
        refused.told(START_MS),
        given.get("tones", []),
        START_MS,
        START_MS,
        wanted=[told for told in given.get("drifts", []) if told.answer == "retrain"],
    )
    assert [(alarm.name, alarm.red) for alarm in found] == expected


@pytest.mark.parametrize("rate", [0.0055, 0.008])
def test_right_predictions_of_a_shop_of_few_clicks_are_no_alarm_in_a_week(rate: float) -> None:
    random, quality, told = np.random.default_rng(1), Quality(), set()
    for _ in range(300):  # two outcomes a second; a click is predicted higher than a non-click 59 % of the time
        some = np.zeros(4_000, dtype=JUDGED)
        some["predicted"] = rate * np.exp(random.normal(0, 0.3, len(some)) - 0.3**2 / 2)
        some["clicked"] = random.random(len(some)) < some["predicted"]
        quality.observe(some)
        serves = msgspec.structs.replace(model(), layer=_accuracy(quality))
        told |= {alarm.name for alarm in alarms(news(WELL), WELL, [serves], [], [], [], START_MS, START_MS)}
    assert told == set()


def test_an_order_of_chance_is_told_by_the_clicks_of_a_day_in_a_shop_of_few_and_no_more_a_day_after() -> None:
    clicks, told = Clicks(), []
    for hour in range(2 * HOURS):
        if hour < HOURS:  # all are predicted alike, and 30 clicked: too few in what is looked back on
            clicks.take(0, [outcome(0.01, clicked=at % 100 == 0) for at in range(3_000)])
        found = alarms(news(WELL), WELL, clicks.models(START_MS + hour * HOUR_MS), [], [], [], START_MS, START_MS)
        told.append([(alarm.name, alarm.about["auc"]) for alarm in found])
    assert told == [[]] * 17 + [[("SalienceCalibrationOff", 0.5)]] * 13 + [[]] * 18


def test_the_rules_judge_predictions_by_the_numbers_of_the_console() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
    rules = [rule for each in groups for rule in each["rules"] if rule["alert"] == "SalienceCalibrationOff"]
    numbers = {float(number) for rule in rules for number in re.findall(r"\b[\d.]+\b", rule["expr"])}
    assert numbers == {*CALIBRATION, AUC_LEAST, ERRORS, 12}


def test_the_rules_look_back_for_drift_and_wishes_as_far_as_the_console() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
    looks_back = {rule["alert"]: re.findall(r"\[(\w+)\]", rule["expr"]) for each in groups for rule in each["rules"]}
    told = [f"{DRIFT_RECENT_MS // MINUTE_MS}m"], [f"{WANTED_MS // HOUR_MS}h"]
    assert (looks_back["SalienceDrift"], looks_back["SalienceNewModelWanted"]) == told


def test_of_a_model_that_all_lanes_want_replaced_the_latest_wish_is_told_however_many_drift_after_it() -> None:
    desk = Desk(Settings(), 1)
    (take,) = (tail.take for tail in desk.tails() if tail.topic == "control")
    wishes = [wish(START_MS - HOUR_MS + at, lane=at, model=name) for at, name in enumerate(["m", "canary", "m"])]
    for told in (*wishes, *(drift(START_MS, lane=lane) for lane in range(DRIFTS_MAX))):
        take([Record("control", 0, 0, START_MS, told.key, msgspec.json.encode(told))])
    found = desk.tick(news(WELL), START_MS, caught_up=True, skipped=0).alarms
    wanted = [alarm.about for alarm in found if alarm.name == "SalienceNewModelWanted"]
    assert [(about["model"], about["lane"]) for about in wanted] == [("m", 2), ("canary", 1)]


def test_wishes_for_more_models_than_are_judged_leave_the_oldest_out() -> None:
    clicks = Clicks()
    for at in range(MODELS_MAX + 1):
        clicks.drifted(wish(START_MS + at, model=f"m-{at}"))
    assert [told.model for told in clicks.wanted()] == [f"m-{at}" for at in range(MODELS_MAX, 0, -1)]


def test_a_figure_of_a_model_that_is_unknown_is_told_as_such() -> None:
    for unknown, known in (("auc", {"calibration": 1.5, "clicks": 150}), ("calibration", {"auc": 0.1})):
        (alarm,) = alarms(news(WELL), WELL, [model(**known, **{unknown: None})], [], [], [], START_MS, START_MS)
        assert alarm.about == {"model": "m", "calibration": known.get("calibration"), "auc": known.get("auc")}


def test_an_order_that_only_a_day_shows_to_be_of_chance_is_told_by_the_days_figure() -> None:
    blind = model(auc=0.7, day_auc=0.4, day_clicks=1_000)
    (alarm,) = alarms(news(WELL), WELL, [blind], [], [], [], START_MS, START_MS)
    assert alarm.about["auc"] == 0.4


@pytest.mark.parametrize(("letters", "told"), [(30_000, []), (30_001, [30_001])])
def test_letters_of_a_fast_topic_are_an_alarm_from_a_hundredth_of_it_on(letters: int, told: list[int]) -> None:
    refused, fast = Refused(), group(partition(0), produced_per_s=50_000.0)
    refused.take([letter()] * letters)
    found = alarms(news(fast), fast, [model()], [], refused.told(START_MS), [], START_MS, START_MS)
    assert [alarm.about["count"] for alarm in found] == told


def test_letters_of_a_worker_whose_clock_is_ahead_put_no_others_out_and_are_of_now() -> None:
    refused = Refused()
    refused.told(START_MS)
    refused.take([letter(at_ms=START_MS + 3_600_000 + 1_000 * at) for at in range(2 * SECONDS_MAX)])
    refused.take([letter(at_ms=START_MS)] * 1_000)
    assert [kind.recent for kind in refused.told(START_MS)] == [1_000 + 2 * SECONDS_MAX]
    assert [kind.recent for kind in refused.told(START_MS + 2 * RECENT_MS)] == [0]


@pytest.mark.parametrize("bad", ["live", "canary"])
def test_of_models_that_serve_at_once_each_is_judged_whichever_had_the_last_outcome(bad: str) -> None:
    for last in ("live", "canary"):
        both = [
            model(name, START_MS - (name != last), clicks=150 if name == bad else 100)
            for name in (last, *{"live", "canary"} - {last})
        ]
        found = alarms(news(WELL), WELL, both, [], [], [], START_MS, START_MS)
        assert [alarm.about["model"] for alarm in found] == [bad]


def test_of_a_stopped_cluster_the_partitions_that_waited_longest_are_told_and_the_rest_counted() -> None:
    stopped = group(*(partition(at, Status.STOP, stuck_s=20.0 + at) for at in range(64)))
    found = alarms(news(stopped), stopped, [], [], [], [], START_MS, START_MS)
    assert [(alarm.about["partition"], alarm.more) for alarm in found] == [
        ("clicks[63]", 0), ("clicks[62]", 0), ("clicks[61]", 61),
    ]  # fmt: skip
    told = {"partition": "clicks[63]", "status": "STOP", "behind": 10, "seconds": 83.0, "owner": "w@host"}
    assert found[0].about == told


def test_alarms_of_partitions_that_are_late_by_turns_keep_their_places_until_one_is_twice_as_late() -> None:
    desk = Desk(Settings(), 4)

    def told(*seconds: float) -> list[str]:
        late = group(*(partition(at, time_lag_s=each) for at, each in enumerate(seconds)))
        found = desk.tick(news(late), START_MS, caught_up=True, skipped=0).alarms
        assert [alarm.more for alarm in found] == [0, 0, 1]
        return [str(alarm.about["partition"]) for alarm in found]

    first = told(33, 36, 35, 34)
    assert first == ["clicks[1]", "clicks[2]", "clicks[3]"]
    assert told(36, 33, 35, 34) == told(35, 34, 33, 36) == told(40, 32, 41, 60) == first
    assert told(70, 32, 41, 60) == ["clicks[0]", "clicks[1]", "clicks[2]"]


def test_of_many_that_have_drifted_or_turned_the_newest_are_told_and_the_rest_counted() -> None:
    drifts = [drift(START_MS - at) for at in range(13)]
    turned = [tone(START_MS - 5 + at, f"brand-{at}") for at in range(5)]
    found = alarms(news(WELL), WELL, [model()], drifts, [], turned, START_MS, START_MS)
    assert [(alarm.name, alarm.about["time_ms"], alarm.more) for alarm in found if alarm.name == "SalienceDrift"] == [
        ("SalienceDrift", START_MS, 0), ("SalienceDrift", START_MS - 1, 0), ("SalienceDrift", START_MS - 2, 10),
    ]  # fmt: skip
    assert [(alarm.about["name"], alarm.more) for alarm in found if alarm.name == "SalienceToneTurned"] == [
        ("brand-4", 0), ("brand-3", 0), ("brand-2", 2),
    ]  # fmt: skip


def test_an_outcome_that_is_dated_far_ahead_silences_no_drift() -> None:
    desk = Desk(Settings(), 1)
    take = {tail.topic: tail.take for tail in desk.tails()}
    told = drift(START_MS)
    take["control"]([Record("control", 0, 0, START_MS, told.key, msgspec.json.encode(told))])
    for known_ms in (START_MS, START_MS + 10**11):
        came = Outcome(
            event="e", ad_id="a", shown_ms=START_MS, known_ms=known_ms, predicted=0.1, attention=0.1, clicked=False,
            arm="engine", model="m",
        )  # fmt: skip
        take["outcomes"]([Record("outcomes", 0, 0, START_MS, None, msgspec.json.encode(came))])
        snapshot = desk.tick(news(WELL), START_MS, caught_up=True, skipped=0)
        assert [alarm.name for alarm in snapshot.alarms] == ["SalienceDrift"]


def test_every_alarm_is_an_alert_with_a_runbook_red_where_it_is_critical() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    severity = dict(re.findall(r"alert: (\w+)\n(?:.*\n)*?.*severity: (\w+)", rules))
    runbooks = (ROOT / "deploy" / "OPERATIONS.md").read_text()
    for name, red in {alarm for _, expected in CASES for alarm in expected}:
        assert severity[name] == ("critical" if red else "warning")
        assert f"### {name}\n" in runbooks


def words(language: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((STATIC / "i18n" / f"{language}.json").read_text())
    return found


def test_both_languages_have_the_same_words_with_the_same_values_in_them() -> None:
    english, chinese = words("en"), words("zh")
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert set(re.findall(r"\{(\w+)\}", text)) == set(re.findall(r"\{(\w+)\}", chinese[key])), key
        assert chinese[key].strip()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_says_that_intervals_by_impressions_compare_no_arms_and_which_command_does(language: str) -> None:
    command = "salience experiment report"
    assert command in words(language)["arms.hint"]
    assert CliRunner().invoke(app, [*command.split()[1:], "--help"]).exit_code == 0


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_says_how_far_back_its_counts_of_outcomes_and_dead_letters_reach(language: str) -> None:
    newest = {tail.topic: tail.newest for tail in Desk(Settings(), 1).tails()}
    for topic, hint in (("outcomes", "arms.hint"), ("dead-letters", "refused.hint")):
        assert f"{newest[topic]:,}" in words(language)[hint]


def test_whatever_the_page_says_is_in_the_dictionaries() -> None:
    sources = {path.name: path.read_text() for path in [*STATIC.glob("*.js"), STATIC / "index.html"]}
    said = {key for text in sources.values() for key in re.findall(r'say\("([^"$]+)"|data-i18n="([^"]+)"', text)}
    keys = {one or other for one, other in said}
    keys |= set(re.findall(r'"(state\.\w+)"', sources["console.js"]))
    keys |= {f"alarm.{name}" for _, expected in CASES for name, _ in expected}
    keys |= {f"status.{status}" for status in Status} | {f"kind.{kind.name.lower()}" for kind in Kind}
    codes = re.findall(r'error: (?:answer.error \?\? )?"(\w+)"', sources["why.js"])
    assert {"token", "unreachable"} <= set(codes)  # what the page finds out by itself
    keys |= {f"why.error.{one}" for one in (*get_args(WhyNot), *codes)}
    keys |= {f"lost.{reason}" for reason in get_args(Reason)}
    keys |= {f"metric.{metric}" for metric in (*get_args(Metric), PREFERENCE)}
    keys |= {f"finding.{code}" for code in SENTENCES} | {f"base.{metric}" for metric in get_args(Metric)}
    keys |= {f"of.{one}" for one in get_args(Tone.__annotations__["of"])}
    fields = {name: get_args(kind) for name, kind in Drift.__annotations__.items()}
    keys |= {f"detector.{one}" for one in fields["detector"]} | {f"answer.{one}" for one in fields["answer"]}
    for prefix, name in (("lanes", "lanes"), ("arms", "clicks"), ("campaigns", "campaigns"), ("models", "models")):
        columns = re.findall(r'\["(\w+)", (?:true|false)\]', sources[f"{name}.js"])
        keys |= {f"{prefix}.{column}" for column in columns if name != "models" or f"models.{column}" in words("en")}
    assert keys <= words("en").keys(), sorted(keys - words("en").keys())


def test_what_an_experiment_shows_is_said_of_the_same_arms_on_the_page_and_by_the_commands() -> None:
    for code, sentence in SENTENCES.items():
        assert words("en")[f"finding.{code}"] == sentence
        assert set(re.findall(r"{(\w+)}", words("zh")[f"finding.{code}"])) == set(re.findall(r"{(\w+)}", sentence))


def test_the_vendored_library_is_the_one_that_is_written_down() -> None:
    noted = dict(re.findall(r"([0-9a-f]{64})  (\S+)", (STATIC / "vendor" / "README.md").read_text()))
    for digest, name in noted.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest
    assert len(noted) == 2
    assert (STATIC / "vendor" / "LICENSE.uPlot").read_text().startswith("The MIT License")


def test_the_page_never_makes_markup_of_what_it_is_told() -> None:
    scripts = [path for path in STATIC.rglob("*.js") if "vendor" not in path.parts]
    assert STATIC / "console.js" in scripts
    for path in scripts:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text()), path
