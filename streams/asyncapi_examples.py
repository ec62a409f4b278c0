"""One record of each kind, as the AsyncAPI document shows it: one ad, as it is placed, seen and accounted for."""

import numpy as np

from scoring.ids import id64
from streams import control_wire, wire
from streams.experiments import findings, report

TIME_MS = 1_700_000_000_000
_PLACED_MS = TIME_MS - 20_000
_MODEL, _NEXT = "demo-1a2b3c4d", "demo-5e6f7a8b"

REVIEW = wire.Review(
    review_id="r-40d1",
    ad_id="ad-204",
    time_ms=TIME_MS,
    text="Light, and the soles still hold after 800 km.",
    positive=True,
)
TONE = wire.Tone(of="brand", name="Arco", reviews=1_204, tone=0.81, turned_ms=None, time_ms=TIME_MS)
AD = wire.Ad(
    ad_id="ad-204",
    campaign_id="spring",
    advertiser_id="arco",
    bid_micros=250_000,
    budget_micros=500_000_000,
    category="shoes/running",
    brand="Arco",
    price_micros=89_900_000,
    tags=("light", "trail"),
    title="Arco Trail 3",
)
_PCTR = 0.034
_SLOT = wire.Slot(
    slot=0,
    ad_id=AD.ad_id,
    campaign_id=AD.campaign_id,
    pctr=_PCTR,
    ecpm_micros=round(1_000 * AD.bid_micros * _PCTR),
    price_micros=234_000,
    propensity=1.0,
    attention=(wire.Attended(ad_id="ad-311", weight=0.62),),
    seal="c01dbee5fade0ff1",
)
PLACEMENT = wire.Placement(
    placement_id="3-8c0-2ef-7d94013a73497c81",
    user_id="user-17",
    time_ms=_PLACED_MS,
    valid_until_ms=_PLACED_MS + 600_000,
    arm="engine",
    model=_MODEL,
    slots=(_SLOT,),
)
IMPRESSION = wire.Impression(
    event_id="i-91bc",
    user_id=PLACEMENT.user_id,
    ad_id=_SLOT.ad_id,
    time_ms=TIME_MS - 15_000,
    placement_id=PLACEMENT.placement_id,
    slot=_SLOT.slot,
    price_micros=_SLOT.price_micros,
    surface="home",
    seal=_SLOT.seal,
)
CLICK = wire.Click(
    event_id="c-7f3a",
    user_id=IMPRESSION.user_id,
    ad_id=IMPRESSION.ad_id,
    time_ms=TIME_MS,
    kind="view",
    viewed_s=12.5,
    impression_time_ms=IMPRESSION.time_ms,
    placement_id=IMPRESSION.placement_id,
    surface=IMPRESSION.surface,
    price_micros=IMPRESSION.price_micros,
    seal=IMPRESSION.seal,
)
OUTCOME = wire.Outcome(
    event=f"{id64(IMPRESSION.event_id):016x}",
    ad_id=IMPRESSION.ad_id,
    shown_ms=IMPRESSION.time_ms,
    known_ms=TIME_MS + 4_200,
    ends_ms=IMPRESSION.time_ms + 600_000,
    predicted=0.031,
    attention=0.058,
    clicked=True,
    arm=PLACEMENT.arm,
    model=PLACEMENT.model,
)
DECISION = wire.Decision(
    placement_id=PLACEMENT.placement_id,
    user_id=PLACEMENT.user_id,
    time_ms=PLACEMENT.time_ms,
    lane=3,
    offsets=(2_239, 750),
    versions={"model": PLACEMENT.model},
    arm=PLACEMENT.arm,
    seed=id64(PLACEMENT.placement_id),
    policy={"slots": 1.0, "temperature": 0.0},
    row=b"\x01\x00",
    candidates=np.uint64(id64(_SLOT.ad_id)).tobytes(),
    revisions=bytes(8),
    weights=bytes(8),
    lifts=bytes(4),
    rates=bytes(8),
    pctr=np.float32(_SLOT.pctr).tobytes(),
    bids_micros=np.int64(AD.bid_micros).tobytes(),
    chosen=(0,),
    propensities=(_SLOT.propensity,),
    placement=wire.encode_json(PLACEMENT),
)
DRIFT = control_wire.Drift(
    lane=3,
    detector="surprise",
    answer="quicken",
    was=0.001,
    now=0.019,
    learnt=41_250,
    model=_MODEL,
    time_ms=TIME_MS,
)
ERASURE = control_wire.Erasure(user_id="user-17", time_ms=TIME_MS)
CONSENT = control_wire.Consent(user_id="user-17", granted=False, time_ms=TIME_MS)
EXPERIMENT = control_wire.ExperimentSetting(
    experiment="warmth",
    number=1,
    layer="ranking",
    low=0.0,
    high=0.5,
    ramp=0.1,
    arms=(
        control_wire.ArmSetting(arm="as-is", share=0.5),
        control_wire.ArmSetting(arm="warmer", share=0.5, changes={"temperature": 0.3}),
    ),
    status="running",
    time_ms=TIME_MS,
    guardrails=(control_wire.Guardrail(metric="ctr", most_loss=0.05),),
    revision=2,
)
EXPERIMENT_REPORT = report.ExperimentReport(
    experiment="warmth",
    number=1,
    status="running",
    time_ms=TIME_MS,
    primary="ctr",
    verdict="no difference is certain yet",
    finding=findings.Finding(code="open", first="as-is", metric="ctr"),
    split_p_value=1.0,
    crossed_users=0,
    arms=(
        report.ArmReport(arm="as-is", users=4_112, metrics={"ctr": 0.211}),
        report.ArmReport(
            arm="warmer",
            users=4_087,
            metrics={"ctr": 0.214},
            against_first={
                "ctr": report.Against(
                    value=0.003, low=-0.004, high=0.010, relative=0.014, p_value=0.6, variance_cut=0.31
                )
            },
        ),
    ),
    doubts=(
        report.Doubt(
            metric="cvr",
            arm="warmer",
            share=0.4,
            words=findings.Finding(code="one_decides", first="as-is", metric="cvr", arms=("warmer",), by=0.4).sentence,
        ),
    ),
)


def _figures(impressions: int, clicks: int, viewed_s: float, purchases: int) -> wire.Figures:
    """Figures of the example's ad alone."""
    return wire.Figures(
        impressions=impressions,
        clicks=clicks,
        viewed_s=viewed_s,
        spent_micros=clicks * _SLOT.price_micros,
        purchases=purchases,
        value_micros=purchases * AD.price_micros,
        sold=purchases,
    )


CAMPAIGN_METRICS = wire.CampaignMetrics(
    lane=3,
    campaign_id=AD.campaign_id,
    time_ms=TIME_MS,
    day=19_675,
    today=_figures(impressions=812, clicks=31, viewed_s=402.5, purchases=2),
    before_day=19_674,
    before=_figures(impressions=4_308, clicks=159, viewed_s=2_237.5, purchases=7),
    before_billed_micros=318_000_000,
    total=_figures(impressions=5_120, clicks=190, viewed_s=2_640.0, purchases=9),
    budget_micros=AD.budget_micros,
    yesterday_budget_micros=400_000_000,
    billed_micros=61_900_000,
    level=0.62,
)
LANE_ROW = wire.LaneRow(
    version=1,
    from_offsets=(2_200, 740),
    next_offsets=(2_241, 752),
    records=53,
    order=bytes(7),
    watermarks_ms=(TIME_MS - 15_000, TIME_MS),
    stream_ms=TIME_MS,
    topic_ids=("mBqcvd2YQPq0GT0wUV8dCg", "yGrtBDUMQmGUSWZkbkzU9A"),
    lanes=4,
    totals={"events_in": 2_993, "applied": 2_990, "duplicate": 3},
)
ALLOCATION = control_wire.Allocation(
    experiment="warmth",
    number=7,
    cohorts=(control_wire.CohortSetting(upto=0.2, shares=(0.31, 0.69)),),
    time_ms=TIME_MS,
    revision=1,
)
TRAFFIC = control_wire.HourlyTraffic(lane=3, hours=(None, *(40.0 + hour for hour in range(23))), time_ms=TIME_MS)
PUSHED_MODEL = control_wire.PushedModel(
    model=_NEXT, manifest='{"format":1}', bytes=764_538, parity=5.1e-7, score_ms=0.19, time_ms=TIME_MS
)
MODEL_ROLES = control_wire.ModelRoles(
    live=_MODEL, former=("",), canary=_NEXT, canary_share=0.05, time_ms=TIME_MS, reason="calibration holds", revision=2
)
MODEL_STATUS = control_wire.ModelStatus(
    lane=3,
    model=_NEXT,
    worker="worker-0:17",
    outcomes=1_240,
    clicks=41,
    predicted=39.6,
    log_loss=171.2,
    beside=1_240,
    beside_log_loss=171.2,
    live_log_loss=174.9,
    gain_squares=2.3,
    candidates=118_000,
    difference=212.4,
    largest_difference=0.11,
    time_ms=TIME_MS,
)
SHADOW_SCORE = wire.ShadowScore(
    decision=f"{id64(PLACEMENT.placement_id):016x}",
    time_ms=PLACEMENT.time_ms,
    model=PLACEMENT.model,
    shadow=_NEXT,
    slots=(wire.ShadowSlot(ad_id=_SLOT.ad_id, pctr=_SLOT.pctr, shadow_pctr=0.029, difference=-0.005),),
    candidates=100,
    mean_difference=0.002,
    largest_difference=0.011,
)
