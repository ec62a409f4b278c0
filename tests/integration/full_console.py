"""A console's snapshot and an answer with something in every place: what a person may see, all at once."""

import math
from typing import Any

from scoring.confidence import wilson
from streams.console.alarms import Alarm
from streams.console.campaigns import CampaignSpend, Day
from streams.console.clicks import Accuracy, ArmRate, ModelQuality
from streams.console.desk import Snapshot
from streams.console.lanes import SERIES, LaneState
from streams.console.refused import RefusedKind
from streams.console.tastes import Taste
from streams.console.trials import Band, TrialState
from streams.console.why import Attention, Lost, Named, Past, Why, Won
from streams.control_wire import Drift
from streams.experiments.findings import Finding
from streams.experiments.report import Against, ArmReport, ExperimentReport
from streams.lag.arithmetic import Status
from tests.builders import START_MS

TENT = Named(ad_id="tent-1", title="A tent for two & their dog", category="outdoor/tents")
BOOTS = Named(ad_id="boots-7", title="", category="boots/hiking")


def lane(number: int, status: Status, **fields: Any) -> LaneState:
    """A lane that keeps up but for what ``fields`` say."""
    told: dict[str, Any] = {
        "behind": 12 * number, "consumed": 1_234_567, "end": 1_234_567 + 12 * number, "time_lag_s": 0.4,
        "time_lag_at_least": False, "consumed_per_s": 812.5, "produced_per_s": 820.25, "stuck_s": 0.0,
        "owner": f"worker-{number}@shop-7f9c", "placements": 98_765, "placements_per_s": 71.5, "p50_ms": 11.0,
        "p99_ms": 48.5,
    }  # fmt: skip
    return LaneState(lane=number, status=status, **(told | fields))


def history() -> dict[int, dict[str, list[float]]]:
    """Three minutes of every lane."""
    waves = [50 + 40 * math.sin(at / 9) for at in range(180)]
    return {number: {name: [value * (1 + number) for value in waves] for name in SERIES} for number in range(6)}


def arm(name: str, clicks: int, impressions: int) -> ArmRate:
    parts = [wilson(clicks * at // 40, impressions * at // 40) for at in range(1, 41)]
    return ArmRate(
        arm=name, impressions=impressions, clicks=clicks, rate=clicks / impressions, low=parts[-1][0],
        high=parts[-1][1], lows=[low for low, _ in parts], highs=[high for _, high in parts],
    )  # fmt: skip


def trial() -> TrialState:
    against = Against(value=0.0021, low=-0.0004, high=0.0046, relative=0.04, p_value=0.09, variance_cut=0.2)
    arms = (
        ArmReport(arm="as-is", users=4_021, metrics={"ctr": 0.0512}),
        ArmReport(arm="warmer", users=3_987, metrics={"ctr": 0.0533}, against_first={"ctr": against}),
    )
    shows = Finding(code="open", first="as-is", metric="ctr")
    report = ExperimentReport(
        experiment="warmth", number=1, status="running", time_ms=START_MS, primary="ctr", split_p_value=0.7,
        verdict=shows.sentence, finding=shows, crossed_users=0, arms=arms,
    )  # fmt: skip
    wide = [0.04 / math.sqrt(at) for at in range(1, 61)]
    return TrialState(
        report=report,
        silent=False,
        bands=[Band(arm="warmer", lows=[0.0021 - each for each in wide], highs=[0.0021 + each for each in wide])],
    )


def campaign(name: str, spent: int, budget: int | None) -> CampaignSpend:
    return CampaignSpend(
        campaign=name,
        impressions=120_345,
        clicks=6_012,
        spent_micros=spent,
        budget_micros=budget,
        unpriced=3,
        level=0.8,
    )


def snapshot(number: int = 1, late_s: float = 0.4) -> Snapshot:
    """Lanes of every status, alarms of both kinds, arms, an experiment, campaigns, models, drift, dead letters."""
    about = {"partition": "clicks[3]", "status": "STALL", "behind": 36, "seconds": 95.0, "owner": "worker-3@shop-7f9c"}
    layers = (Accuracy(calibration=0.97, log_loss=0.1876, auc=0.7627, drifts=1, clicks=194, expected=200.1),
              Accuracy(calibration=None, log_loss=None, auc=None, drifts=0, clicks=2, expected=1.4))  # fmt: skip
    return Snapshot(
        time_ms=START_MS + 1_000 * number, level="red", worst=Status.STALL,
        alarms=[
            Alarm(name="SaliencePartitionStuck", red=True, about=dict(about)),
            Alarm(name="SalienceCalibrationOff", red=False, about={"model": "m-1", "calibration": 1.4, "auc": 0.7}),
        ],
        group="salience", members=2, poll_age_s=0.3, caught_up=True, skipped=number, malformed=0,
        lanes=[lane(at, status, time_lag_s=late_s + at) for at, status in enumerate(Status)], lanes_hidden=3,
        arms=[arm("engine", 5_210, 98_004), arm("control", 812, 20_111), arm("warmth/warmer", 402, 7_777)],
        experiments=[trial()],
        models=[
            ModelQuality(model=name, outcomes=20_000, newest_ms=START_MS, layer=layer, alone=layer)
            for name, layer in zip(("attention-2026-11-25-a81f", "before"), layers, strict=True)
        ],
        drifts=[Drift(lane=2, detector="calibration", answer="quicken", was=0.0512, now=0.0731, learnt=9,
                      model="attention-2026-11-25-a81f", time_ms=START_MS)],
        day=Day(
            now_ms=START_MS, elapsed=0.42, more=2, untold=0,
            campaigns=[
                campaign("spring", 61_000_000, 100_000_000), campaign("even", 42_000_000, 100_000_000),
                campaign("slow", 9_000_000, 100_000_000), campaign("free", 5_000_000, None),
            ],
        ),
        refused=[RefusedKind(topic="ad-impressions", stage="decode", error="DecodeError", count=1_204, recent=3,
                             message="JSON is malformed: expected ':' (byte 17) of a message that is quite long",
                             partition="2", offset="881234", time_ms=START_MS)],
        people=[f"shopper-{at}" for at in range(10)],
    )  # fmt: skip


def why(user: str) -> Why:
    """An answer that fills every table of "why this ad?"."""
    past = [
        Past(ad=ad, kind=kind, shown=True, time_s=START_MS // 1_000)
        for ad, kind in ((TENT, "clicked"), (BOOTS, "viewed"))
    ]
    slots = [
        Won(slot=at, ad=ad, campaign_id="spring", pctr=0.0512, ecpm_micros=7_300, price_micros=6_100, propensity=0.42,
            attention=[Attention(ad=TENT, weight=0.7), Attention(ad=BOOTS, weight=0.3)], by_item=[0.7, 0.3])
        for at, ad in enumerate((TENT, BOOTS))
    ]  # fmt: skip
    lost = Lost(place=3, ad=BOOTS, pctr=0.04, bid_micros=150_000, worth_micros=6_000, chance=0.01, why="ecpm")
    tastes = [
        Taste(kind="category", word="outdoor/tents", likeness=0.91),
        Taste(kind="brand", word="acme", likeness=0.4),
    ]
    return Why(
        user=user, placement_id="p-0123456789abcdef", time_ms=START_MS, arm="engine", model="attention-2026-11-25-a81f",
        lane=0, temperature=1.0, candidates=120, identical=False, differences=["the catalogue has changed"],
        session=tastes, long=tastes, history=past, slots=slots, lost=[lost], lost_by={"ecpm": 80, "capped": 12},
        needed_worth_micros=6_100,
    )  # fmt: skip
