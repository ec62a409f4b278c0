"""Figures that several places tell: the same events give the same number under the same name in each of them."""

import json
from collections.abc import AsyncIterator

import numpy as np
import pytest
from msgspec.json import decode as json_decode
from typer.testing import CliRunner

from onnx_models.metrics import measure
from scoring.assignment import Arm, Experiment
from scoring.features import top_category
from scoring.feedback import ClickLayer, Learning
from scoring.ids import id64
from scoring.policies import CONTROL_ARM, ENGINE_ARM
from scoring.rows import RowStore
from scoring.trial import SUMS, Trial
from scoring.update import apply
from streams import reading
from streams.behaviour.personal import _totals, personalisation
from streams.cli import app
from streams.cli.screen import moment
from streams.console.clicks import Clicks
from streams.console.flow import Flow
from streams.console.why import Explainer
from streams.control_wire import ModelStatus
from streams.experiments.findings import figure
from streams.experiments.people import FROM_ROWS, People, counted
from streams.metrics.dashboards import WORKERS, dashboards, metrics_in
from streams.metrics.worker import Metrics
from streams.models.roles import Record as ModelRecord
from streams.outcomes import outcomes_in
from streams.quality import Quality
from streams.wire import Decision, Outcome, encode_json
from tests.builders import START_MS, Record, ad, catalogue, click, columns_of, impression, record
from tests.unit.slices import NOW_MS, log_records, new_state, placements, slice_of, step_of
from tests.unit.test_behaviour import behaviour_of
from tests.unit.test_console import placed
from tests.unit.test_console_alarms import STATIC
from tests.unit.test_feedback import events_of, observe
from tests.unit.test_metrics import told_by
from tests.unit.test_tally import calibrations

SHOWN, EVERY, PREDICTED = 2_000, 40, 0.05
"""Impressions of which every fortieth is clicked, and every twentieth was predicted to be: half as many clicks."""


def told() -> list[bytes]:
    """The outcomes of the impressions, one a second, each known as its window ended."""
    return [
        encode_json(
            Outcome(
                event=f"{at:016x}", ad_id="a", shown_ms=1_000 * at, known_ms=1_000 * at, ends_ms=1_000 * at,
                predicted=PREDICTED, attention=PREDICTED, clicked=at % EVERY == 0, arm="engine", model="m",
            )
        )
        for at in range(1, SHOWN + 1)
    ]  # fmt: skip


def test_calibration_is_clicks_over_predicted_clicks_wherever_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    values = told()
    outcomes, _ = outcomes_in([Record("outcomes", 0, at, 0, None, value) for at, value in enumerate(values)])
    rows = np.array([(one.predicted, one.clicked) for one in outcomes], dtype=[("predicted", "<f8"), ("clicked", "u1")])
    clicks, predicted = int(rows["clicked"].sum()), float(rows["predicted"].sum())

    metrics, console = Quality(), Clicks()
    metrics.observe(rows)
    console.take(0, outcomes)
    status = ModelStatus(
        lane=0, worker="w", model="m", time_ms=1, outcomes=SHOWN, clicks=clicks, predicted=predicted, log_loss=1.0
    )

    async def read(*_: object, **__: object) -> AsyncIterator[list[Record]]:
        yield [Record("outcomes", 0, at, 0, None, value) for at, value in enumerate(values)]

    monkeypatch.setattr(reading, "read_topic", read)
    printed = json.loads(CliRunner().invoke(app, ["outcomes", "--json"]).stdout)["outcomes"][0]

    assert {
        "metrics": metrics.figures()[0],
        "console": console.models(0)[0].layer.calibration,
        "salience model list": ModelRecord.of([status]).calibration,
        "salience outcomes": printed["calibration"],
        "the demo": calibrations(values)[0],
        "training and evaluation": measure(rows["clicked"].astype(float), rows["predicted"]).calibration,
    } == dict.fromkeys(
        ("metrics", "console", "salience model list", "salience outcomes", "the demo", "training and evaluation"),
        pytest.approx(0.5),
    )


WINDOW_MS = 10_000
CLICKED = 5
"""One impression in so many is clicked, at once."""


def shown(from_ms: int, count: int) -> list[tuple[int, str, int, int]]:
    """``count`` impressions, evenly over a click window, and their clicks, in the order of time."""
    at = [from_ms + place * WINDOW_MS // count for place in range(count)]
    told = [(time_ms, "shown", time_ms, time_ms) for time_ms in at]
    return sorted(told + [(time_ms + 5, "clicked", time_ms, time_ms) for time_ms in at[::CLICKED]])


def test_the_dashboards_click_rate_is_the_same_while_traffic_grows_and_fades() -> None:
    (query,) = (panel.queries["click rate"] for panel in WORKERS if "click rate" in panel.queries)
    (counter,) = metrics_in(query)
    metrics, layer = Metrics(), ClickLayer(Learning(window_ms=WINDOW_MS, wait_ms=4_000))
    counts, found = np.zeros(2), []
    for number, impressions in enumerate((100, 100, 1_000, 100, 100)):
        seen = observe(layer, events_of(*shown(WINDOW_MS * (1 + number), impressions)))
        metrics._clicks.observe(seen, told=len(seen.outcomes))
        told = told_by(metrics.registry)
        now = np.array([told[f'{counter}{{clicked="{clicked}"}}'] for clicked in ("true", "false")])
        (clicks, others), counts = now - counts, now
        found.append(float(clicks / (clicks + others)) if clicks + others else None)
    assert found == [None, *[pytest.approx(1 / CLICKED, abs=0.01)] * 4]


LATE_MS = 60_000


def test_how_old_events_are_when_placed_is_not_called_what_the_time_that_workers_take_is_called() -> None:
    """An event that a device sends a minute late, and a worker answers at once."""
    came = record(impression(time_ms=NOW_MS - LATE_MS), timestamp=NOW_MS)
    metrics, flow, taken = Metrics(), Flow(1), slice_of([came])
    effects = step_of().run(new_state(), taken, NOW_MS)
    metrics.committed(taken, effects, [], NOW_MS)
    flow.take(0, [placed(user, told.time_ms) for user, told in placements(effects).items()], [NOW_MS])

    assert flow.tick(NOW_MS)[0].p99_ms == LATE_MS
    assert told_by(metrics.registry)["salience_event_to_placement_seconds_sum"] == 0
    on_console = json.loads((STATIC / "i18n" / "en.json").read_text())["lanes.p99_ms"]
    assert on_console not in {panel.title for panel in WORKERS}


def test_seconds_viewed_of_a_page_left_open_are_a_minute_in_the_reports_comparison_as_in_an_experiment() -> None:
    left_open = {"kind": "view", "viewed_s": 3_600.0, "impression_time_ms": START_MS}
    events = [impression(), click(time_ms=START_MS + 3_600_000, **left_open)]
    store, at = RowStore(), SUMS.index("viewed_s")
    apply(store, columns_of(store, events), catalogue())
    in_experiment = counted(store.rows)[0, FROM_ROWS.index(at)]

    in_report = _totals(behaviour_of(events, [ad()]), np.zeros(1, dtype=np.int64))[0, at]
    assert in_report == in_experiment == 60


def test_an_ad_of_no_catalogue_changes_no_category_in_the_report_as_in_an_experiment() -> None:
    shelves = {"ad-1": "tents/small", "ad-2": "boots"}
    seen = ["ad-1", "gone", "ad-1", "gone", "ad-2"]
    people, at = People(), SUMS.index("switches")
    (place,) = people.places(np.array([7], dtype=np.uint64)).tolist()
    for name in seen:
        people.show(place, id64(top_category(shelves[name])) if name in shelves else 0)

    events = [impression(ad_id=name, time_ms=START_MS + 1_000 * second) for second, name in enumerate(seen)]
    behaviour = behaviour_of(events, [ad(name, category=category) for name, category in shelves.items()])
    assert _totals(behaviour, np.arange(len(seen)))[0, at] == people.totals[place, at] == 1


def test_revenue_of_a_user_is_not_called_what_revenue_of_a_user_and_day_is_called() -> None:
    """Everybody spends 30 units within two days."""
    events, decisions, spent, days = [], [], 30_000_000, 2.0
    for number in range(40):
        user, arm = f"u-{number}", CONTROL_ARM if number % 2 else ENGINE_ARM
        decisions.append({"placement_id": user, "user_id": user, "arm": arm, "policy": {"control_share": 0.5}})
        bought = {"kind": "purchase", "value_micros": spent, "impression_time_ms": START_MS}
        events += [impression(user, placement_id=user), click(user, time_ms=START_MS + 1_000, **bought)]
    behaviour, everybody = behaviour_of(events, [ad()], decisions), np.arange(40)
    totals, trial = _totals(behaviour, everybody), Trial(shares=np.array([0.5, 0.5]))
    trial.expose(everybody, everybody % 2, np.zeros_like(totals))
    in_experiment = trial.look(totals, days=np.full(40, days)).values["revenue_micros"]

    found = personalisation(behaviour)
    assert found is not None
    told = {each.metric: each.control for each in found.changes}
    assert in_experiment == [spent / days, spent / days]
    assert told["revenue_micros_a_user"] == spent
    assert "revenue_micros" not in told
    assert figure(told["revenue_micros_a_user"]) == "30,000,000"


def test_the_engine_of_outcomes_whom_experiments_are_among_is_not_called_as_the_placements_of_none_are() -> None:
    step, arms = step_of(), (Arm("as-is", 0.5), Arm("warmer", 0.5, {"temperature": 0.3}))
    step.engine.experiments.set(1, Experiment("warmth", "own", 0.0, 1.0, 1.0, arms))  # everybody takes part
    effects = step.run(new_state(), slice_of(log_records()), NOW_MS)
    values = [message.value for message in effects.messages["outcomes"]]
    outcomes, _ = outcomes_in([Record("outcomes", 0, at, 0, None, value) for at, value in enumerate(values)])

    assert effects.arms.keys() == {"warmth/as-is", "warmth/warmer", CONTROL_ARM}
    assert {one.arm for one in outcomes} == {ENGINE_ARM, CONTROL_ARM}
    assert json.loads((STATIC / "i18n" / "en.json").read_text())["arms.engine"] != ENGINE_ARM


def test_a_moment_is_in_utc_on_dashboards_as_on_the_console_and_in_commands() -> None:
    assert {json.loads(text)["timezone"] for text in dashboards().values()} == {"utc"}
    assert moment(START_MS, "%H:%M") == "22:13"
    assert 'timeZone: "UTC"' in (STATIC / "text.js").read_text()


def test_what_ads_rank_by_is_not_called_the_ecpm_of_slots_which_leaves_out_fairness_and_exploration() -> None:
    step = step_of()
    groups = np.unique(step.engine.catalogue.advertiser)
    step.engine.market.favour(groups, np.full(len(groups), 4.0))
    effects = step.run(new_state(), slice_of(log_records()), NOW_MS)
    receipts = [json_decode(message.value or b"", type=Decision) for message in effects.messages["decisions"]]
    receipt = next(one for one in receipts if one.arm == ENGINE_ARM)

    told = Explainer(step.engine.catalogue, None).why(receipt)
    assert told.lost[0].worth_micros < told.needed_worth_micros  # so it lost
    assert told.lost[0].worth_micros > max(slot.ecpm_micros for slot in told.slots)
    said = json.loads((STATIC / "i18n" / "en.json").read_text())
    assert said["why.worth"] != said["why.ecpm"]
