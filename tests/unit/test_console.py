"""What the console keeps of topics, what it calls wrong, and to whom its server answers."""

import asyncio
import hashlib
import json
import re
from pathlib import Path
from typing import Any, get_args

import aiohttp
import msgspec
import numpy as np
import pytest
from aiohttp import web

from scoring.catalogue import Catalogue
from scoring.confidence import wilson
from scoring.events import Kind
from scoring.market import Fate
from scoring.pacing import DAY_MS, FINISH
from streams.catalogue_feed import entry_of
from streams.compute import Compute
from streams.console.alarms import AUC_LEAST, alarms
from streams.console.campaigns import Campaigns
from streams.console.clicks import MODELS_MAX, POINTS, Accuracy, Clicks, ModelQuality
from streams.console.desk import Desk
from streams.console.flow import LATENCIES_KEPT, Flow, Placed
from streams.console.lanes import History, lane_states, shown
from streams.console.people import Found, People
from streams.console.refused import KINDS_MAX, Refused
from streams.console.serve import HEADERS, Live, make_app
from streams.console.tails import Tails
from streams.console.tastes import Vocabulary
from streams.console.trials import Trials
from streams.console.why import Judged, Reason
from streams.control_wire import Drift
from streams.dead_letters import Letter
from streams.experiment_report import Against, ArmReport, ExperimentReport, encode_report
from streams.lag.arithmetic import PartitionLag, Status
from streams.lag.board import GroupLag, Report, Sum
from streams.lag.monitor import LagMonitor, News
from streams.lag.poller import Poller
from streams.settings import Settings
from streams.wire import CampaignMetrics, Decision, Figures, Outcome, encode_json
from tests.builders import START_MS, Record, ad

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "streams" / "console" / "static"
TOPICS = ("ad-impressions", "clicks")


def placed(user: str, time_ms: int = START_MS, **fields: Any) -> Placed:
    told: dict[str, Any] = {"placement_id": f"p-{user}", "arm": "engine", "model": "m"}
    return Placed(user_id=user, time_ms=time_ms, **(told | fields))


def outcome(predicted: float = 0.2, *, clicked: bool = False, **fields: Any) -> Outcome:
    told: dict[str, Any] = {"event": "e", "ad_id": "a", "shown_ms": START_MS, "known_ms": START_MS, "arm": "engine"}
    return Outcome(**(told | {"model": "m", "attention": predicted} | fields), predicted=predicted, clicked=clicked)


def partition(number: int, status: Status = Status.OK, topic: str = "clicks", **fields: Any) -> PartitionLag:
    told: dict[str, Any] = {
        "committed": 90, "log_end": 100, "lag": 10, "time_lag_s": 0.5, "time_lag_at_least": False,
        "consumed_per_s": 5.0, "produced_per_s": 6.0, "catch_up_s": 1.0, "stuck_s": 0.0, "owner": "w@host",
    }  # fmt: skip
    return PartitionLag(topic=topic, partition=number, status=status, **(told | fields))


def group(*partitions: PartitionLag, state: str = "stable", produced_per_s: float = 100.0) -> GroupLag:
    total = Sum(
        status=Status.OK, partitions=len(partitions), lag=0, time_lag_s=0, time_lag_at_least=False,
        consumed_per_s=0, produced_per_s=produced_per_s, catch_up_s=0,
    )  # fmt: skip
    return GroupLag(
        group="salience", state=state, members=1, total=total, topics={"clicks": total}, partitions=partitions
    )


def news(*groups: GroupLag, stale: bool = False) -> News:
    report = Report(watched_s=60, groups=groups)
    return News(
        time_ms=1, age_s=9.0 if stale else 0.1, stale=stale, polls=9, failed=0, poll_s=0.01, error="", report=report
    )


# --- what is kept ------------------------------------------------------------------------------------------------


def test_latency_percentiles_are_of_the_newest_placements_and_rates_of_the_last_seconds() -> None:
    flow = Flow(2)
    flow.take(1, [placed("a")] * 600, [START_MS + at for at in range(600)])
    first = flow.tick(1_000)
    newest = np.arange(600 - LATENCIES_KEPT, 600)
    assert (first[1].p50_ms, first[1].p99_ms) == tuple(np.percentile(newest, [50, 99]).round(1))
    assert (first[0].placements, first[0].p50_ms) == (0, None)
    flow.take(1, [placed("a")] * 50, [START_MS] * 50)
    assert flow.tick(6_000)[1].placements_per_s == 10.0


def test_people_are_bounded_the_newest_stay_and_the_forgotten_go_at_once() -> None:
    people = People(people_max=3)
    for user in ("a", "b", "c", "a", "d"):
        people.add(Found(placed(user), 0, START_MS))
    assert people.recent() == ["d", "a", "c"]
    assert people.find("b") is None
    people.forget("a")
    assert people.find("a") is None
    people.add(Found(placed("e", context_only=True), 0, START_MS))
    assert "e" not in people.recent()  # there is no receipt to tell why


def test_a_tombstone_between_two_placements_of_one_read_forgets_the_first_alone() -> None:
    desk = Desk(Settings(), 1)
    (tail,) = [tail for tail in desk.tails() if tail.topic == "placements"]
    value = msgspec.json.encode(placed("a"))
    tail.take([Record("placements", 0, 0, START_MS, b"a", value), Record("placements", 0, 1, START_MS, b"a", None)])
    assert desk.people.find("a") is None


def test_an_arms_interval_is_wilsons_and_its_story_is_whole_and_bounded() -> None:
    clicks = Clicks()
    clicks.take([outcome(clicked=at % 4 == 0) for at in range(10_000)])
    (arm,) = clicks.arms()
    assert (arm.impressions, arm.clicks) == (10_000, 2_500)
    assert (arm.low, arm.high) == wilson(2_500, 10_000)
    assert POINTS // 2 <= len(arm.lows) <= POINTS
    widths = [high - low for low, high in zip(arm.lows, arm.highs, strict=True)]
    assert widths[0] > 2 * widths[-1]


def test_of_models_those_with_the_newest_outcomes_are_kept_and_the_serving_one_is_first() -> None:
    clicks = Clicks()
    for at in range(MODELS_MAX + 3):
        clicks.take([outcome(model=f"m{at}", known_ms=START_MS + at)])
    told = [model.model for model in clicks.models()]
    assert told == [f"m{at}" for at in range(MODELS_MAX + 2, 2, -1)]


def test_a_model_is_told_with_and_without_the_click_layer() -> None:
    clicks = Clicks()
    clicks.take([outcome(0.25, clicked=at % 4 == 0, attention=0.5) for at in range(2_000)])
    (model,) = clicks.models()
    assert (model.layer.calibration, model.alone.calibration) == (1.0, 0.5)
    clicks.take([])
    assert clicks.models()[0].outcomes == 2_000


def cell(campaign: str, day: int, spent: int, lane: int = 0, arm: str = "", **fields: Any) -> Record:
    today = Figures(impressions=10, clicks=2, spent_micros=spent)
    told = {"lane": lane, "campaign_id": campaign, "arm": arm, "time_ms": day * DAY_MS + DAY_MS // 2, "day": day}
    metrics = CampaignMetrics(**told, today=today, total=today, **fields)
    return Record("campaign-metrics", lane, 0, 0, f"{lane}/{campaign}/{arm}".encode(), encode_json(metrics))


def test_a_campaigns_day_is_the_sum_of_its_newest_cells_and_the_next_day_begins_at_nothing() -> None:
    campaigns = Campaigns()
    campaigns.take([cell("a", 7, 100), cell("a", 7, 50, lane=1, budget_micros=1_000, level=0.5), cell("b", 6, 999)])
    campaigns.take([cell("a", 7, 130), cell("b", 7, 20, arm="1-0"), Record("campaign-metrics", 0, 0, 0, b"k", b"{")])
    day = campaigns.day()
    assert [(one.campaign, one.spent_micros, one.impressions, one.clicks) for one in day.campaigns] == [
        ("a", 180, 20, 4), ("b", 20, 10, 2),
    ]  # fmt: skip
    assert (day.campaigns[0].level, day.elapsed, day.more, campaigns.malformed) == (0.0, 0.5, 0, 1)
    assert day.planned == pytest.approx(0.5 / FINISH, abs=1e-4)
    campaigns.take([Record("campaign-metrics", 1, 0, 0, b"1/a/", None)])
    assert campaigns.day().campaigns[0].spent_micros == 130
    campaigns.take([cell("b", 8, 5)])
    assert [(one.campaign, one.spent_micros) for one in campaigns.day().campaigns] == [("b", 5)]


def letter(error: str = "DecodeError", at_ms: int = START_MS, topic: str = "clicks") -> Letter:
    origin = {
        "topic": topic,
        "stage": "decode",
        "error": error,
        "message": "m" * 1_000,
        "partition": "1",
        "offset": "7",
    }
    return Letter(0, 0, at_ms, b"key", b"secret", origin, (), 0, truncated=False)


def test_dead_letters_are_counted_by_kind_bounded_and_never_show_what_was_refused() -> None:
    refused = Refused()
    refused.take([letter(at_ms=START_MS - 120_000), letter(), letter("Other")])
    other, decode = refused.told(START_MS)
    assert (other.error, decode.count, decode.recent) == ("Other", 2, 1)
    assert len(decode.message) < 300
    assert b"secret" not in msgspec.json.encode(refused.told(START_MS))
    refused.take([letter(f"E{at}") for at in range(KINDS_MAX + 5)])
    assert len(refused.told(START_MS)) == KINDS_MAX


def test_an_experiments_band_follows_its_reports_and_begins_anew_with_another_of_its_name() -> None:
    trials = Trials()

    def report(number: int, low: float) -> bytes:
        against = Against(value=0.0, low=low, high=-low, relative=None, p_value=1.0, variance_cut=0.0)
        arms = (
            ArmReport(arm="a", users=1, metrics={"ctr": 0.1}),
            ArmReport(arm="b", users=1, metrics={"ctr": 0.1}, against_first={"ctr": against}),
        )
        return encode_report(
            ExperimentReport(
                experiment="x",
                number=number,
                status="running",
                time_ms=1,
                primary="ctr",
                verdict="",
                split_p_value=1.0,
                crossed_users=0,
                arms=arms,
            )
        )

    for low in (-0.3, -0.2, -0.1):
        trials.take("x", report(1, low))
    (told,) = trials.told()
    assert told.bands[0].lows == [-0.3, -0.2, -0.1]
    trials.take("x", report(2, -0.5))
    assert trials.told()[0].bands[0].lows == [-0.5]
    trials.take("x", None)
    assert trials.told() == []


def test_an_interest_vector_is_told_by_the_words_it_was_made_of() -> None:
    catalogue = Catalogue()
    catalogue.upsert([entry_of(ad(f"ad-{n}", category=f"shelf-{n}", brand=f"brand-{n}")) for n in range(40)])
    told = Vocabulary(catalogue).tastes(catalogue.features[7].copy())
    assert {(taste.kind, taste.word) for taste in told[:2]} == {("category", "shelf-7"), ("brand", "brand-7")}
    assert Vocabulary(catalogue).tastes(np.zeros(64, dtype=np.float32)) == []


def receipt(worth: list[float], fates: list[int], **fields: Any) -> Decision:
    chosen = sorted((fate, at) for at, fate in enumerate(fates) if fate >= Fate.WON)
    told: dict[str, Any] = {
        "placement_id": "p", "user_id": "u", "time_ms": 1, "lane": 0, "offsets": (0, 0), "versions": {},
        "arm": "engine", "seed": 1, "policy": {"temperature": 0.0},
        "row": b"", "revisions": b"", "weights": b"", "lifts": b"",
        "pctr": np.full(len(worth), 0.1, dtype=np.float32).tobytes(), "propensities": (), "placement": b"",
        "candidates": np.arange(len(worth), dtype=np.uint64).tobytes(),
        "bids_micros": np.array([10 * each for each in worth], dtype=np.int64).tobytes(),
        "worth": np.array(worth, dtype=np.float32).tobytes(), "fates": bytes(fates),
    }  # fmt: skip
    return Decision(**(told | {"chosen": tuple(at for _, at in chosen)} | fields))


def test_who_lost_is_told_by_its_fate_and_where_it_was_outbid_by_how_the_slots_were_drawn() -> None:
    fates = [Fate.WON + 1, Fate.WON, Fate.OUTBID, Fate.OUTBID, Fate.CAPPED, Fate.BELOW_RESERVE, Fate.KEPT_APART]
    worth = [2.0, 9.0, 2.0, 1.0, 50.0, 0.5, 3.0]
    judged = Judged.of(receipt(worth, fates))
    assert [judged.reason(at) for at in range(2, 7)] == ["tie", "ecpm", "capped", "below_reserve", "kept_apart"]
    assert judged.lost() == [4, 6, 2, 3, 5]
    assert judged.chances().tolist() == [0, 1, 0, 0, 0, 0, 0]  # greedy; the capped one never stood a chance
    drawn = Judged.of(receipt(worth, fates, policy={"temperature": 1.0}))
    assert (drawn.reason(2), drawn.reason(3), drawn.chances().sum()) == ("draw", "ecpm", pytest.approx(1))
    control = Judged.of(receipt(worth, fates, arm="control"))
    assert control.reason(2) == "random"
    assert set(control.chances().tolist()) == {0.0, 0.2}


def test_an_older_receipt_without_fates_is_ranked_by_bid_times_click_rate() -> None:
    older = receipt([4.0, 3.0, 2.0], [Fate.WON, 0, 0])
    judged = Judged.of(msgspec.structs.replace(older, worth=b"", fates=b""))
    assert judged.worth == pytest.approx([4.0, 3.0, 2.0])
    assert (judged.lost(), judged.reason(1)) == ([1, 2], "ecpm")


def test_a_lane_is_the_worse_of_its_two_partitions_and_of_many_lanes_the_worst_are_shown() -> None:
    both = group(
        partition(0),
        partition(0, Status.STALL, "ad-impressions", time_lag_s=9.0, stuck_s=12.0),
        partition(0, topic="x"),
    )
    flows = Flow(100).tick(0)
    states = lane_states(both, TOPICS, flows)
    assert (states[0].status, states[0].behind, states[0].time_lag_s, states[0].end) == (Status.STALL, 20, 9.0, 200)
    assert states[1].status is Status.UNKNOWN
    assert shown(states)[0].lane == 0
    history = History(100)
    history.add(states)
    assert history.of(states[:1])[0]["time_lag_s"] == [9.0]


# --- what is wrong -----------------------------------------------------------------------------------------------

FIGURES = Accuracy(calibration=1.0, log_loss=0.3, auc=0.7, drifts=0)


def model(**layer: Any) -> ModelQuality:
    figures = msgspec.structs.replace(FIGURES, **layer)
    return ModelQuality(model="m", outcomes=2_000, newest_ms=START_MS, layer=figures, alone=FIGURES)


def drift(time_ms: int) -> Drift:
    return Drift(
        lane=0, detector="calibration", answer="quicken", was=0.0, now=0.1, learnt=5, model="m", time_ms=time_ms
    )


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
    ({"group": group(partition(0, Status.WARN))}, [("SalienceLagGrowing", False)]),
    ({"models": [model(calibration=1.3)]}, [("SalienceCalibrationOff", False)]),
    ({"models": [model(auc=AUC_LEAST - 0.01)]}, [("SalienceCalibrationOff", False)]),
    ({"models": [model(), model(calibration=9.0)]}, []),
    ({"drifts": [drift(START_MS)]}, [("SalienceDrift", False)]),
    ({"drifts": [drift(START_MS - 3_600_000)]}, []),
    ({"letters": [letter()] * 90}, [("SalienceDeadLetters", False)]),
    ({"letters": [letter()] * 30}, []),  # half a record a second of a hundred
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
        START_MS,
    )
    assert [(alarm.name, alarm.red) for alarm in found] == expected


def test_of_a_stopped_cluster_the_partitions_that_waited_longest_are_told_and_the_rest_counted() -> None:
    stopped = group(*(partition(at, Status.STOP, stuck_s=20.0 + at) for at in range(64)))
    found = alarms(news(stopped), stopped, [], [], [], START_MS)
    assert [(alarm.about["partition"], alarm.more) for alarm in found] == [
        ("clicks[63]", 0), ("clicks[62]", 0), ("clicks[61]", 61),
    ]  # fmt: skip


def test_every_alarm_is_an_alert_with_a_runbook_red_where_it_is_critical() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    severity = dict(re.findall(r"alert: (\w+)\n(?:.*\n)*?.*severity: (\w+)", rules))
    runbooks = (ROOT / "deploy" / "OPERATIONS.md").read_text()
    for name, red in {alarm for _, expected in CASES for alarm in expected}:
        assert severity[name] == ("critical" if red else "warning")
        assert f"### {name}\n" in runbooks


# --- words -------------------------------------------------------------------------------------------------------


def words(language: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((STATIC / "i18n" / f"{language}.json").read_text())
    return found


def test_both_languages_have_the_same_words_with_the_same_values_in_them() -> None:
    english, chinese = words("en"), words("zh")
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert set(re.findall(r"\{(\w+)\}", text)) == set(re.findall(r"\{(\w+)\}", chinese[key])), key
        assert chinese[key].strip()


def test_whatever_the_page_says_is_in_the_dictionaries() -> None:
    sources = {path.name: path.read_text() for path in [*STATIC.glob("*.js"), STATIC / "index.html"]}
    said = {key for text in sources.values() for key in re.findall(r'say\("([^"$]+)"|data-i18n="([^"]+)"', text)}
    keys = {one or other for one, other in said}
    keys |= {f"alarm.{name}" for _, expected in CASES for name, _ in expected}
    keys |= {f"status.{status}" for status in Status} | {f"kind.{kind.name.lower()}" for kind in Kind}
    keys |= {f"lost.{reason}" for reason in get_args(Reason)}
    fields = {name: get_args(kind) for name, kind in Drift.__annotations__.items()}
    keys |= {f"detector.{one}" for one in fields["detector"]} | {f"answer.{one}" for one in fields["answer"]}
    for prefix, name in (("lanes", "lanes"), ("arms", "clicks"), ("campaigns", "campaigns"), ("models", "models")):
        columns = re.findall(r'\["(\w+)", (?:true|false)\]', sources[f"{name}.js"])
        keys |= {f"{prefix}.{column}" for column in columns if name != "models" or f"models.{column}" in words("en")}
    assert keys <= words("en").keys(), sorted(keys - words("en").keys())


def test_the_vendored_library_is_the_one_that_is_written_down() -> None:
    noted = dict(re.findall(r"([0-9a-f]{64})  (\S+)", (STATIC / "vendor" / "README.md").read_text()))
    for digest, name in noted.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest
    assert len(noted) == 2
    assert (STATIC / "vendor" / "LICENSE.uPlot").read_text().startswith("The MIT License")


def test_the_page_never_makes_markup_of_what_it_is_told() -> None:
    for path in STATIC.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text()), path


# --- who is answered ---------------------------------------------------------------------------------------------


def ask(path: str, headers: dict[str, str] | None = None, **settings: Any) -> tuple[int, Any, Any]:
    """Status, headers and body of an answer of the console's server, with no broker behind it."""

    async def scenario() -> tuple[int, Any, Any]:
        given, compute = Settings(bootstrap="127.0.0.1:1", **settings), Compute()
        desk = Desk(given, 2)
        live = Live(
            given, LagMonitor(Poller("127.0.0.1:1")), desk, Tails("127.0.0.1:1", desk.tails(), compute), compute
        )
        running = asyncio.create_task(live.run())
        runner = web.AppRunner(make_app(live, given))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await live.next()  # the first snapshot
        try:
            async with aiohttp.ClientSession() as client, client.get(url + path, headers=headers) as response:
                body = await (response.content.readline() if "events" in path else response.read())
                return response.status, response.headers, body
        finally:
            running.cancel()
            await runner.cleanup()
            compute.stop()

    return asyncio.run(scenario())


def test_a_console_without_a_broker_says_so_in_red() -> None:
    status, _, body = ask("/api/snapshot")
    told = json.loads(body)
    assert (status, told["level"], told["caught_up"]) == (200, "red", False)
    assert told["alarms"][0]["name"] == "SalienceLagUnknown"
    assert ask("/api/events")[2] == b"event: history\n"


def test_a_container_may_ask_whether_it_lives_and_learns_nothing_else() -> None:
    status, _, body = ask("/healthz", web_host="0.0.0.0", web_token="s3cret")
    assert (status, json.loads(body)) == (200, {"healthy": True})


@pytest.mark.parametrize("path", ["/", "/console.js", "/i18n/zh.json", "/vendor/uPlot.iife.min.js", "/icon.svg"])
def test_the_page_is_for_everyone_and_kept_to_itself(path: str) -> None:
    status, headers, body = ask(path, web_host="0.0.0.0", web_token="s3cret")
    assert status == 200
    assert body
    assert {name: headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("path", ["/api/snapshot", "/api/events", "/api/why?user=u"])
def test_what_it_shows_is_for_the_tokens_bearer(path: str) -> None:
    beyond = {"web_host": "0.0.0.0", "web_token": "s3cret"}
    status, headers, _ = ask(path, **beyond)
    assert (status, headers["Cache-Control"]) == (401, "no-store")
    assert ask(path, {"Authorization": "Bearer s3cret"}, **beyond)[0] in (200, 404)


def test_on_loopback_a_foreign_name_is_refused() -> None:
    assert ask("/api/snapshot", {"Host": "evil.example:9309"})[0] == 403
    assert ask("/api/snapshot", {"Host": "localhost:9309"})[0] == 200
    assert ask("/api/snapshot", {"Host": "[::1]:9309"})[0] == 200


def test_a_user_who_has_no_placement_and_a_question_without_one_get_a_clear_answer() -> None:
    status, _, body = ask("/api/why?user=nobody")
    assert (status, json.loads(body)["error"]) == (404, "nobody")
    assert ask("/api/why")[0] == 400
    assert ask(f"/api/why?user={'u' * 65}")[0] == 400
    assert ask("/../pyproject.toml")[0] == 404
