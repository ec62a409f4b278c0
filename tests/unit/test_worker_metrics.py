"""What a worker's slices add to its metrics, one by one, and what its gauges say of the market and of clicks."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from scoring.feedback import JUDGED, OUTCOME, Observed
from scoring.market import Fate
from scoring.shown import Shown
from streams import topics
from streams.metrics.clicks import ClickMetrics
from streams.metrics.dashboards import HEIGHT, LAG, REVIEWS, WIDTH, WORKERS, Panel, _panel
from streams.metrics.market import MarketMetrics
from streams.metrics.worker import ARM_SILENT_MS, ARMS_MAX, OUTCOMES, Metrics, Standing
from streams.quality import LEAST
from streams.refusal import Refusal
from streams.step import Effects
from tests.builders import Record
from tests.unit.slices import NOW_MS, log_records, new_state, slice_of, step_of
from tests.unit.test_metrics import told_by


def committed(metrics: Metrics, count: int = 2) -> list[Effects]:
    """What came of ``count`` slices, which took half a second to apply and were committed a second later each."""
    step, state, records = step_of(), new_state(), log_records(300)
    size, found = -(-len(records) // count), []
    for number, start in enumerate(range(0, len(records), size)):
        taken = slice_of(records[start : start + size])
        effects = step.run(state, taken, NOW_MS)
        metrics.committed(taken, effects, [("apply", 0.5), ("place", 2.0)], NOW_MS + 1_000 * number)
        found.append(effects)
    return found


def test_what_became_of_a_slice_is_counted_once() -> None:
    metrics = Metrics()
    slices = committed(metrics)
    told = told_by(metrics.registry)
    tally = sum((effects.tally for effects in slices), Counter())
    assert tally
    for (source, outcome), count in tally.items():
        topic = ("ad-impressions", "clicks")[source]
        assert told[f'salience_events_total{{outcome="{outcome}",topic="{topic}"}}'] == count
    records = len(log_records(300))
    assert sum(value for name, value in told.items() if name.startswith("salience_events_total")) == records
    assert (told["salience_slice_records_count"], told["salience_slice_records_sum"]) == (2, records)
    assert told["salience_event_to_placement_seconds_count"] == records
    assert told['salience_stage_seconds_sum{stage="apply"}'] == 1.0
    assert told['salience_stage_seconds_count{stage="place"}'] == 2
    assert told["salience_last_commit_timestamp_seconds"] == (NOW_MS + 1_000) / 1000
    for name in slices[0].messages:
        count = sum(len(effects.messages[name]) for effects in slices)
        assert told.get(f'salience_produced_records_total{{topic="{name}"}}', 0) == count
    arms = sum((effects.arms for effects in slices), Counter())
    assert {arm: told[f'salience_placements_total{{arm="{arm}"}}'] for arm in arms} == dict(arms)
    assert told["salience_refused_ads_total"] == 0
    unknown = sum(effects.counts["unknown_ads"] for effects in slices)
    assert told["salience_unknown_ads_total"] == unknown > 0


def test_the_rare_fates_of_a_slice_are_counted_too() -> None:
    metrics = Metrics()
    (effects,) = committed(Metrics(), 1)
    effects.counts.update(misquoted=3, expired=5)
    effects.arms.clear()
    effects.arms.update({f"arm-{number}": 2 for number in range(ARMS_MAX + 2)})
    effects.observed = observed([True, False, False], cut=4)
    effects.messages["outcomes"] = effects.messages["outcomes"][:1] or [effects.messages["placements"][0]]
    metrics.committed(slice_of(()), effects, (), NOW_MS)
    told = told_by(metrics.registry)
    assert (told["salience_misquoted_events_total"], told["salience_expired_users_total"]) == (3, 5)
    assert (told['salience_placements_total{arm="arm-0"}'], told['salience_placements_total{arm="other"}']) == (2, 4)
    assert told['salience_impression_outcomes_total{clicked="true"}'] == 1
    assert told["salience_unnamed_outcomes_total"] == 2
    assert told["salience_click_windows_cut_total"] == 4


def test_arms_that_have_long_been_silent_make_room_for_those_of_new_experiments() -> None:
    metrics, (effects,) = Metrics(), committed(Metrics(), 1)

    def placed_by(now_ms: int, *arms: str) -> dict[str, float]:
        effects.arms.clear()
        effects.arms.update(arms)
        metrics.committed(slice_of(()), effects, (), now_ms)
        told = told_by(metrics.registry)
        return {arm: told.get(f'salience_placements_total{{arm="{arm}"}}', 0) for arm in ("former", "new", "other")}

    placed_by(NOW_MS, "former", *(f"arm-{number}" for number in range(ARMS_MAX - 1)))
    assert placed_by(NOW_MS + ARM_SILENT_MS - 1, "new", "arm-0") == {"former": 1, "new": 0, "other": 1}
    assert placed_by(NOW_MS + ARM_SILENT_MS, "new", "arm-0") == {"former": 0, "new": 1, "other": 1}


@pytest.mark.parametrize("ahead_ms", [-2_500, -1, 0, 1, 10_000])
def test_an_event_of_the_future_was_answered_in_no_time(ahead_ms: int) -> None:
    metrics, (effects,) = Metrics(), committed(Metrics(), 1)
    (record,) = log_records(300)[:1]
    metrics.committed(slice_of([record]), effects, (), record.timestamp - ahead_ms)
    told = told_by(metrics.registry)["salience_event_to_placement_seconds_sum"]
    assert told == pytest.approx(max(0, -ahead_ms) / 1000)


@pytest.mark.parametrize(
    ("after_ms", "told_s"),
    [((7_000, 7_000, -90_000), 7), ((-500, -500, 7_000), 0), ((-1, 6_000, 7_000), 6.5), ((), 3)],
    ids=["most are ahead", "one is ahead", "all but one, which tells no time", "of none nothing is learnt"],
)
def test_how_far_most_records_are_ahead_of_the_workers_clock_is_told(after_ms: Sequence[int], told_s: float) -> None:
    metrics, (effects,) = Metrics(), committed(Metrics(), 1)
    (record,) = log_records(300)[:1]
    metrics.ahead.set(3)
    taken = [replace(record, timestamp=NOW_MS + each if each != -1 else -1) for each in after_ms]
    metrics.committed(slice_of(taken), effects, (), NOW_MS)
    assert told_by(metrics.registry)["salience_records_ahead_seconds"] == told_s


@pytest.mark.parametrize("time_ms", [-1, -2])
def test_of_a_record_that_tells_no_time_it_is_not_told_how_old_it_was(time_ms: int) -> None:
    metrics, (effects,) = Metrics(), committed(Metrics(), 1)
    first, second = log_records(300)[:2]
    metrics.committed(slice_of([first, replace(second, timestamp=time_ms)]), effects, (), first.timestamp + 2_500)
    told = told_by(metrics.registry)
    assert told["salience_event_to_placement_seconds_count"] == 1
    assert told["salience_event_to_placement_seconds_sum"] == 2.5
    assert told["salience_slice_records_sum"] == 2


def test_what_may_happen_is_there_before_it_does() -> None:
    metrics = Metrics()
    told = told_by(metrics.registry)
    for topic in ("ad-impressions", "clicks"):
        assert all(told[f'salience_events_total{{outcome="{outcome}",topic="{topic}"}}'] == 0 for outcome in OUTCOMES)
    assert told['salience_stage_seconds_count{stage="commit"}'] == 0
    assert told['salience_lanes{stage="taking over"}'] == 0
    assert told['salience_impression_outcomes_total{clicked="false"}'] == 0
    assert told["salience_filled_slots_total"] == 0
    assert told['salience_losing_candidates_total{reason="outbid"}'] == 0
    produced = {name for name in told if name.startswith("salience_produced_records_total")}
    read = {topics.AD_IMPRESSIONS, topics.CLICKS, topics.ADS, topics.CONTROL, topics.MODELS}
    assert produced == {
        f'salience_produced_records_total{{topic="{one.name}"}}' for one in topics.TABLE if one.name not in read
    }


def test_gauges_of_the_market_and_of_models_are_set() -> None:
    metrics = Metrics()
    shown = Shown(empty_slots=3, filled_slots=5)
    metrics.stands(
        Standing(
            unaccounted=2,
            models_refused=1,
            shown=shown,
            ready=True,
            pacing_error=0.25,
            unbilled_share=0.125,
            ledger_share=0.5,
        )
    )
    metrics.describe_model("net-01234567", "abc", 7)
    told = told_by(metrics.registry)
    assert (told["salience_unaccounted_records"], told["salience_models_refused"]) == (2, 1)
    assert (told["salience_pacing_error_ratio"], told["salience_unbilled_ratio"]) == (0.25, 0.125)
    assert told["salience_ledger_full_ratio"] == 0.5
    assert (told["salience_empty_slots_total"], told["salience_filled_slots_total"]) == (3, 5)
    assert told['salience_model_info{layout="7",specification="abc",version="net-01234567"}'] == 1
    metrics.stands(Standing())
    told = told_by(metrics.registry)
    assert (told["salience_empty_slots_total"], told["salience_filled_slots_total"]) == (3, 5)


class Busy(Shown):
    """One in which the compute thread counts a slot of either kind and a loser of each whenever it is looked at."""

    def losers(self) -> dict[str, int]:
        found = super().losers()
        self.fates += 1
        self.empty_slots += 1
        self.filled_slots += 1
        return found


def test_what_is_counted_while_the_market_is_told_is_told_the_next_time() -> None:
    metrics, busy = Metrics(), Busy()
    market: MarketMetrics = metrics._market
    for number in range(1, 4):
        busy.fates[Fate.OUTBID] += number
        market.stand(busy)
    quiet = Shown(empty_slots=busy.empty_slots, filled_slots=busy.filled_slots, fates=busy.fates.copy())
    market.stand(quiet)
    told = told_by(metrics.registry)
    for reason, count in quiet.losers().items():
        assert told[f'salience_losing_candidates_total{{reason="{reason}"}}'] == count
    assert told["salience_empty_slots_total"] == quiet.empty_slots
    assert told["salience_filled_slots_total"] == quiet.filled_slots


def test_the_market_is_told_as_it_stands() -> None:
    metrics, shown = Metrics(), Shown()
    shown._distance[:] = 3, 4
    shown._entropy[:] = 5, 2
    metrics.stands(Standing(shown=shown))
    told = told_by(metrics.registry)
    assert (told["salience_list_distance"], told["salience_interest_entropy_bits"]) == (0.75, 2.5)
    for division in (shown.advertisers, shown.categories):
        assert told[f'salience_exposure_fairness_ratio{{among="{division.column}"}}'] == division.ratio


def test_an_ad_that_cannot_be_read_is_counted_where_a_letter_is_made_of_it() -> None:
    metrics, step, state, records = Metrics(), step_of(), new_state(), log_records(2)
    for offset in range(3):
        record = Record("ads", 0, offset, NOW_MS, b"tent", b"no ad")
        step.refused.refuse(record, Refusal("ValidationError", "no ad"))
    taken = slice_of(records)
    metrics.committed(taken, step.run(state, taken, NOW_MS), [], NOW_MS)
    metrics.committed(slice_of(()), step.run(state, slice_of(()), NOW_MS), [], NOW_MS)
    assert told_by(metrics.registry)["salience_refused_ads_total"] == 3


def observed(clicked: list[bool], judged: int = 0, cut: int = 0, predicted: float = 0.5) -> Observed:
    outcomes, known = np.zeros(len(clicked), dtype=OUTCOME), np.zeros(judged, dtype=JUDGED)
    outcomes["clicked"] = clicked
    known["clicked"][::4] = 1
    known["predicted"] = predicted
    return Observed(np.zeros(0), outcomes, known, cut)


def test_outcomes_are_counted_as_they_come_and_predictions_when_their_windows_have_ended() -> None:
    metrics = Metrics()
    clicks: ClickMetrics = metrics._clicks
    for _ in range(2):
        clicks.observe(observed([True, False, False, True, False], judged=LEAST // 2, cut=1), told=3)
    clicks.stand(())
    told = told_by(metrics.registry)
    assert told['salience_impression_outcomes_total{clicked="true"}'] == 4
    assert told['salience_impression_outcomes_total{clicked="false"}'] == 6
    assert (told["salience_unnamed_outcomes_total"], told["salience_click_windows_cut_total"]) == (4, 2)
    assert told["salience_click_calibration_ratio"] == pytest.approx(0.5)
    assert told["salience_click_log_loss"] == pytest.approx(math.log(2))
    assert told["salience_click_auc"] == 0.5
    assert (told["salience_ranked_clicks_total"], told["salience_click_ranks_total"]) == (LEAST / 4, LEAST / 8)
    clicks, expected = told["salience_click_window_clicks"], told["salience_click_window_expected_clicks"]
    assert (clicks, expected) == (LEAST / 4, pytest.approx(LEAST / 2))


def test_the_rank_of_a_click_is_counted_once_however_often_it_is_asked_for() -> None:
    metrics = Metrics()
    clicks: ClickMetrics = metrics._clicks
    for judged in (LEAST, 0, LEAST):
        clicks.observe(observed([], judged=judged), told=0)
        clicks.stand(())
    told = told_by(metrics.registry)
    assert (told["salience_ranked_clicks_total"], told["salience_click_ranks_total"]) == (LEAST / 2, LEAST / 4)


def test_every_drift_is_counted_once() -> None:
    metrics = Metrics()
    clicks: ClickMetrics = metrics._clicks
    for predicted in [0.25] * 60 + [0.9] * 60 + [0.1] * 60:
        clicks.observe(observed([], judged=LEAST, predicted=predicted), told=0)
    assert told_by(metrics.registry)["salience_click_drifts_total"] == clicks._quality.drifts > 1


@pytest.mark.parametrize("panels", [WORKERS, LAG, REVIEWS])
def test_panels_lie_side_by_side_and_none_upon_another(panels: tuple[Panel, ...]) -> None:
    made = [_panel(number, panel) for number, panel in enumerate(panels)]
    assert len({panel["id"] for panel in made}) == len(panels)
    places = [panel["gridPos"] for panel in made]
    assert {(place["x"], place["y"]) for place in places} == {
        (at % 2 * WIDTH // 2, at // 2 * HEIGHT) for at in range(len(panels))
    }
    assert all(place["x"] + place["w"] <= WIDTH and place["h"] == HEIGHT for place in places)
    for panel in made:
        names = [target["refId"] for target in panel["targets"]]
        assert names == [chr(ord("A") + at) for at in range(len(names))]
