"""What versions until now have written: one record of each kind, to which `test_formats` holds readers and writers.

A record here is of a former version for ever. What is added to a kind is added here, and what stands here stays.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from scoring.evidence import Evidence
from scoring.manifest import Manifest
from streams import control_wire as control
from streams import wire
from streams.experiments import findings, report
from streams.feeds.layers import LayerShare
from streams.lanes import layer_rows, learner_rows, snapshots
from streams.reviews import state

MS = 1_790_000_000_123
"""A moment of all records."""


@dataclass(frozen=True)
class Format:
    """A kind of record, or a part of one.

    ``told``: a record with every field, none of them at its default. ``unsaid``: what a record means that lacks these
    fields. ``key``: of the record on its topic, where it follows from the content. ``words``: all values of a field
    that knows no others. ``packed``: whether it is msgpack rather than JSON.
    """

    kind: type[Any]
    told: Mapping[str, Any]
    unsaid: Mapping[str, Any] = field(default_factory=dict)
    key: bytes | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    packed: bool = False


# fmt: off
INPUTS = (
    Format(wire.Impression, {
        "event_id": "i-1", "user_id": "ü 1", "ad_id": "ad-1", "time_ms": MS, "placement_id": "3-8c0", "slot": 2,
        "price_micros": 234_000, "surface": "home", "consent": True, "seal": "c01dbee5fade0ff1",
    }, {"placement_id": None, "slot": None, "price_micros": 0, "surface": "", "consent": None, "seal": ""}),
    Format(wire.Click, {
        "event_id": "c-1", "user_id": "ü 1", "ad_id": "ad-1", "time_ms": MS, "kind": "purchase", "viewed_s": 12.5,
        "value_micros": 7, "impression_time_ms": MS - 9, "placement_id": "3-8c0", "surface": "home", "consent": False,
        "price_micros": 234_000, "seal": "c01dbee5fade0ff1",
    }, {
        "kind": "click", "viewed_s": None, "value_micros": 0, "impression_time_ms": None, "placement_id": None,
        "surface": "", "consent": None, "price_micros": 0, "seal": "",
    }, words={"kind": "click view cart purchase"}),
    Format(wire.Ad, {
        "ad_id": "ad-1", "campaign_id": "spring", "advertiser_id": "arco", "bid_micros": 250_000, "bid_type": "cpa",
        "attention_micros": 3, "budget_micros": 500, "category": "shoes/running", "brand": "Arco", "price_micros": 9,
        "tags": ["light", "trail"], "title": "Arco Trail 3", "status": "paused", "start_ms": MS, "end_ms": MS + 9,
    }, {
        "bid_type": "cpc", "attention_micros": 0, "budget_micros": None, "category": "", "brand": "",
        "price_micros": 0, "tags": [], "title": "", "status": "active", "start_ms": 0, "end_ms": None,
    }, words={"bid_type": "cpc cpm cpa attention", "status": "active paused ended"}),
    Format(wire.Review, {"review_id": "r-1", "ad_id": "ad-1", "time_ms": MS, "text": "Light.", "positive": False},
           {"positive": None}),
)
"""What producers send."""

_SLOT = {
    "slot": 1, "ad_id": "ad-1", "campaign_id": "spring", "pctr": 0.034, "ecpm_micros": 8_500, "price_micros": 234_000,
    "propensity": 0.75, "attention": [{"ad_id": "ad-311", "weight": 0.62}], "seal": "c01dbee5fade0ff1",
    "until_ms": MS + 9,
}
_FIGURES = {
    "impressions": 812, "clicks": 31, "viewed_s": 402.5, "spent_micros": 7_254_000, "unpriced": 3, "purchases": 2.5,
    "value_micros": 179, "spread_purchases": 1.4, "spread_value_micros": 126, "sold": 2,
}
_OTHER = {
    "model": "demo-5e6f7a8b", "temperature": 0.3, "weights": b"w", "lifts": b"l", "pctr": b"p", "explore": "linucb",
    "ucb_alpha": 0.5, "evidence": b"e",
}
OUTPUTS = (
    Format(wire.Attended, {"ad_id": "ad-311", "weight": 0.62}),
    Format(wire.Slot, _SLOT, {"attention": [], "seal": "", "until_ms": UNSET}),
    Format(wire.Placement, {
        "placement_id": "3-8c0", "user_id": "ü 1", "time_ms": MS, "valid_until_ms": MS + 600_000, "arm": "engine",
        "model": "demo-1a2b3c4d", "slots": [_SLOT], "context_only": True,
    }, {"context_only": False}),
    Format(wire.Interleaved, _OTHER, {"explore": "plackett-luce", "ucb_alpha": 0.0, "evidence": b""}),
    Format(wire.Decision, {
        "placement_id": "3-8c0", "user_id": "ü 1", "time_ms": MS, "lane": 3, "offsets": [2_239, 750],
        "versions": {"model": "demo-1a2b3c4d", "layout": "5"}, "arm": "warmth/warmer", "seed": 2**64 - 1,
        "policy": {"slots": 2.0, "temperature": 0.3}, "row": b"\x05\x00", "candidates": b"c", "revisions": b"r",
        "weights": b"w", "lifts": b"l", "pctr": b"p", "bids_micros": b"b", "chosen": [4, 1],
        "propensities": [0.75, 0.5], "placement": b"{}", "offers": b"o", "worth": b"$", "fates": b"f",
        "examined": b"x", "allocation": 0.5, "other": _OTHER, "explore": "thompson", "evidence": b"e",
        "spreads": b"s", "rates": b"%",
    }, {
        "offers": b"", "worth": b"", "fates": b"", "examined": b"", "allocation": 1.0, "other": None,
        "explore": "plackett-luce", "evidence": b"", "spreads": b"", "rates": b"",
    }),
    Format(wire.Outcome, {
        "event": "00ff", "ad_id": "ad-1", "shown_ms": MS, "known_ms": MS + 5, "predicted": 0.031, "attention": 0.058,
        "clicked": True, "arm": "control", "model": "demo-1a2b3c4d", "shadow": "demo-5e6f7a8b",
        "shadow_predicted": 0.029, "ends_ms": MS + 600_000,
    }, {"shadow": "", "shadow_predicted": 0.0, "ends_ms": 0}),
    Format(wire.Figures, _FIGURES, {
        "impressions": 0, "clicks": 0, "viewed_s": 0.0, "spent_micros": 0, "unpriced": 0, "purchases": 0.0,
        "value_micros": 0, "spread_purchases": 0.0, "spread_value_micros": 0, "sold": UNSET,
    }),
    Format(wire.CampaignMetrics, {
        "lane": 3, "campaign_id": "spring", "time_ms": MS, "day": 20_717, "today": _FIGURES, "total": _FIGURES,
        "arm": "1-0", "before_day": 20_715, "before": _FIGURES, "before_billed_micros": 59, "budget_micros": 500,
        "yesterday_budget_micros": None, "billed_micros": 61, "level": 0.62, "starts_ms": MS - 9, "ends_ms": MS + 9,
        "anew_ms": MS - 1, "anew_micros": 17,
    }, {
        "arm": "", "before_day": 0, "before": None, "before_billed_micros": 0, "budget_micros": None,
        "yesterday_budget_micros": UNSET, "billed_micros": 0, "level": 0.0, "starts_ms": None, "ends_ms": None,
        "anew_ms": None, "anew_micros": 0,
    }),
    Format(wire.Tone, {
        "of": "brand", "name": "Arco", "reviews": 1_204, "tone": 0.81, "turned_ms": MS - 9, "time_ms": MS,
    }, key=b"brand/Arco", words={"of": "ad brand"}),
    Format(wire.ShadowSlot, {"ad_id": "ad-1", "pctr": 0.034, "shadow_pctr": 0.029, "difference": -0.005}),
    Format(wire.ShadowScore, {
        "decision": "00ff", "time_ms": MS, "model": "demo-1a2b3c4d", "shadow": "demo-5e6f7a8b",
        "slots": [{"ad_id": "ad-1", "pctr": 0.034, "shadow_pctr": 0.029, "difference": -0.005}], "candidates": 100,
        "mean_difference": 0.002, "largest_difference": 0.011,
    }),
)
"""What workers and the reader of reviews publish."""

_ARM = {"arm": "warmer", "share": 0.4, "changes": {"temperature": 0.3, "explore": "linucb"}, "model": "demo-5e6f7a8b"}
_PAIR = [0.31, 0.69]
CONTROL = (
    Format(control.Consent, {"kind": "consent", "user_id": "ü/1", "time_ms": MS, "granted": True},
           key="consent/ü/1".encode()),
    Format(control.Erasure, {"kind": "erasure", "user_id": "u", "time_ms": MS, "repeated": True},
           {"repeated": False}, b"erasure/u"),
    Format(control.ArmSetting, _ARM, {"changes": {}, "model": ""}),
    Format(control.Guardrail, {"metric": "cvr", "most_loss": 0.05},
           words={"metric": "ctr cvr revenue_micros viewed_s diversity"}),
    Format(control.ExperimentSetting, {
        "kind": "experiment", "revision": 2, "experiment": "warmth", "number": 7, "layer": "ranking", "low": 0.25,
        "high": 0.75, "ramp": 0.1, "arms": [_ARM, _ARM], "status": "running", "time_ms": MS, "primary": "cvr",
        "guardrails": [{"metric": "ctr", "most_loss": 0.05}], "reason": "why", "allocation": "bandit",
        "minimum": 0.1, "epoch_s": 3_600, "interleaved": True, "started_ms": MS - 9,
    }, {
        "revision": 0, "primary": "ctr", "guardrails": [], "reason": "", "allocation": "fixed", "minimum": 0.0,
        "epoch_s": 0, "interleaved": False, "started_ms": 0,
    }, b"experiment/warmth", {
        "status": "draft running stopped", "primary": "ctr cvr revenue_micros viewed_s diversity",
        "allocation": "fixed bandit",
    }),
    Format(control.CohortSetting, {"upto": 0.2, "shares": _PAIR}),
    Format(control.Allocation, {
        "kind": "allocation", "revision": 1, "experiment": "warmth", "number": 7,
        "cohorts": [{"upto": 0.2, "shares": _PAIR}], "time_ms": MS,
    }, {"revision": 0}, b"allocation/warmth"),
    Format(control.HourlyTraffic, {"kind": "traffic", "lane": 3, "hours": [None, *[40.5] * 23], "time_ms": MS},
           key=b"traffic/3"),
    Format(control.Drift, {
        "kind": "drift", "lane": 3, "detector": "surprise", "answer": "quicken", "was": 0.001, "now": 0.019,
        "learnt": 41_250, "model": "demo-1a2b3c4d", "time_ms": MS,
    }, key=b"drift/3/surprise/demo-1a2b3c4d", words={
        "detector": "calibration surprise interest gain", "answer": "quicken fall-back retrain",
    }),
    Format(control.PushedModel, {
        "kind": "model", "model": "demo-1a2b3c4d", "manifest": '{"format":1}', "bytes": 764_538, "parity": 5.1e-7,
        "score_ms": 0.19, "time_ms": MS,
    }, key=b"model/demo-1a2b3c4d"),
    Format(control.ModelRoles, {
        "kind": "model-roles", "revision": 2, "live": "demo-1a2b3c4d", "former": [""], "canary": "demo-5e6f7a8b",
        "canary_share": 0.05, "shadow": "next-00000000", "shadow_share": 0.1, "time_ms": MS, "forced": True,
        "reason": "why",
    }, {
        "revision": 0, "live": "", "former": [], "canary": "", "canary_share": 0.0, "shadow": "", "shadow_share": 0.0,
        "time_ms": 0, "forced": False, "reason": "",
    }, b"model-roles/all"),
    Format(control.ModelStatus, {
        "kind": "model-status", "lane": 3, "model": "demo-1a2b3c4d", "worker": "worker-0:17", "refused": "why",
        "outcomes": 1_240, "clicks": 41, "predicted": 39.6, "log_loss": 171.2, "beside": 1_200,
        "beside_log_loss": 170.2, "live_log_loss": 174.9, "gain_squares": 2.3, "candidates": 118_000,
        "difference": 212.4, "largest_difference": 0.11, "time_ms": MS,
    }, {
        "refused": "", "outcomes": 0, "clicks": 0, "predicted": 0.0, "log_loss": 0.0, "beside": 0,
        "beside_log_loss": 0.0, "live_log_loss": 0.0, "gain_squares": 0.0, "candidates": 0, "difference": 0.0,
        "largest_difference": 0.0,
    }, b"model-status/demo-1a2b3c4d/3"),
)
"""What commands, lanes and the referee write on ``control``."""

_FINDING = {
    "code": "better", "first": "as-is", "metric": "ctr", "arms": ["warmer"], "by": 0.4, "relative": False,
    "reason": "why", "detail": "figures",
}
_AGAINST = {"value": 0.003, "low": -0.004, "high": 0.01, "relative": None, "p_value": 0.6, "variance_cut": 0.31}
_ARM_REPORT = {
    "arm": "warmer", "users": 4_087, "share": 0.4, "metrics": {"ctr": 0.214, "cvr": None},
    "against_first": {"ctr": _AGAINST},
}
_DOUBT = {"metric": "cvr", "arm": "warmer", "share": 0.4, "expected": 0.2, "words": "one person"}
REPORTS = (
    Format(findings.Finding, _FINDING, {"arms": [], "by": None, "relative": True, "reason": "", "detail": ""}, words={
        "code": "stopped unequal_shares better first_is_better worse open too_little one_decides preferred "
                "neither_preferred too_few_clicks one_clicks",
    }),
    Format(report.Against, _AGAINST),
    Format(report.ArmReport, _ARM_REPORT, {"share": 0.0, "against_first": {}}),
    Format(report.Doubt, _DOUBT, {"expected": 0.1}),
    Format(report.ExperimentReport, {
        "experiment": "warmth", "number": 7, "status": "stopped", "time_ms": MS, "primary": "ctr",
        "value_per": "user", "verdict": "said", "finding": _FINDING, "last_finding": _FINDING, "split_p_value": 0.9,
        "crossed_users": 2, "cohorts": 3, "arms": [_ARM_REPORT], "doubts": [_DOUBT], "judged_ms": MS - 9,
        "unwatched": 5,
    }, {
        "value_per": "user_day", "finding": None, "last_finding": None, "cohorts": 1, "doubts": [], "judged_ms": 0,
        "unwatched": 0,
    }, words={"value_per": "user user_day"}),
)
"""What the referee publishes."""

_WATCH = {
    "detectors": {}, "means": {"surprise": 0.019}, "good": [b"g", b"s"], "last_alarm": 41, "alarms_soon": 2,
    "clicked": 5.5, "predicted": 6.5, "unjudged": 7, "loss": 8.5, "loss_squared": 9.5, "gained": 0.25, "dull": True,
}
_EVIDENCE = {
    "outcomes": 1_240, "clicks": 41, "predicted": 39.6, "log_loss": 171.2, "beside": 1_200, "beside_log_loss": 170.2,
    "live_log_loss": 174.9, "gain_squares": 2.3,
}
_LEARNER = {
    "weights": b"w", "caution": b"c", "learned": 41_250, "watch": _WATCH, "evidence": _EVIDENCE, "known_ms": MS - 9,
}
_LESSON = {"next_offset": 5, "time_ms": MS, "parts": 1, "digest": "00ff"}
STATE = (
    Format(wire.LaneRow, {
        "version": 1, "from_offsets": [2_200, 740], "next_offsets": [2_241, 752], "records": 53, "order": b"\x0f",
        "watermarks_ms": [MS - 9, MS], "stream_ms": MS + 1, "topic_ids": ["impressions-1", "clicks-1"], "lanes": 4,
        "totals": {"applied": 2_990}, "flood_score": 0.5, "ads_next": 17, "control_id": "control-1",
        "control_next": 23, "ads_id": "ads-1",
    }, {"flood_score": 0.0, "ads_next": 0, "control_id": "", "control_next": 0, "ads_id": ""}, packed=True),
    Format(Evidence, _EVIDENCE, dict.fromkeys(_EVIDENCE, 0.0) | {"outcomes": 0, "clicks": 0, "beside": 0}, packed=True),
    Format(learner_rows.WatchRow, _WATCH, {
        "unjudged": 0, "loss": None, "loss_squared": 0.0, "gained": 0.0, "dull": False,
    }, packed=True),
    Format(learner_rows.LearnerRow, _LEARNER, {"known_ms": None}, packed=True),
    Format(layer_rows.LayerRow, {
        "layout": "c0ddae68dc6d3c62", "clock_ms": MS, "learned": 9, "dropped": 1, "head": 3, "tail": 8,
        "models": {17: "demo-1a2b3c4d"}, "live": 17, "learners": {17: _LEARNER}, "asked": 5, "examined": b"e",
    }, {"dropped": 0, "asked": 0, "examined": b""}, packed=True),
    Format(layer_rows.ChunkRow, {
        "first": 3, "settled": 8, "rows": b"r", "answered": b"a", "layout": 5, "window_ms": 600_000,
    }, {"layout": 1, "window_ms": 0}, packed=True),
    Format(LayerShare, {"layout": "6e3479ac14dc1b8f", "models": {17: [b"w", b"c"]}, "slots": [b"s", b"e"]},
           packed=True),
    Format(snapshots.Header, {
        "layout": 5, "changelog_id": "changelog-1", "changelog_offset": 4, "written_ms": MS, "parts": {b"\0k": b"v"},
    }, packed=True),
    Format(state.Lesson, _LESSON, packed=True),
    Format(state.At, {
        "version": 1, "reviews_id": "reviews-1", "next_offset": 7, "lesson": _LESSON, "turned": {"ad": 3},
    }, packed=True),
    Format(Manifest, {
        "format": 1, "name": "demo", "spec_hash": "SPEC", "dim": 32, "vocabulary": 2_048, "opset": 17, "data": "demo",
        "data_from_ms": MS - 9, "data_to_ms": MS, "metrics": {"auc": 0.71}, "git_revision": "00ff00ff",
        "files": {"attention.onnx": "00ff", "golden.npz": "0aff"}, "golden": "golden.npz", "text": "some-encoder",
    }, {"data_from_ms": 0, "data_to_ms": 0, "metrics": {}, "git_revision": "", "text": ""}),
)
"""What workers, the reader of reviews and ``salience train`` keep."""
# fmt: on

ROW_5 = """
    version:H surface:H seen_next:2B unshown:H time_ms:q interest_ms:q viewed_ms:q value_micros:q
    answered_value_micros:q offset:2q impressions:I views:I clicks:I carts:I purchases:I long_views:I answered_clicks:I
    answered_purchases:I interest:128f seen:24Q ring_ad:50Q ring_s:50I answered_viewed_cs:I showings:12I rate_minute:I
    minute_count:2H day_count:2H ring_kind:50B ring_place:25B
"""
"""A person's row: its fields in order, as `struct` writes them, little-endian and without gaps."""
OPEN_5 = """
    key:Q ad:Q event:Q person:Q shown_ms:q due_ms:q logit:d lift:d person_lift:d long_views:d clicks:d activity:d
    chosen:d examined:d predicted:d expected:d surface:B control:B open:B slot:B model:I shadow:I shadow_logit:f
    shadow_predicted:f closeness:f
"""
"""An open impression of a click layer."""


def without(layout: str, *names: str) -> str:
    """``layout`` without these fields."""
    return " ".join(one for one in layout.split() if one.partition(":")[0] not in names)


ROW_4 = without(ROW_5, "answered_value_micros", "answered_clicks", "answered_purchases", "answered_viewed_cs")
ROW_3 = without(ROW_4, "ring_place")
ROW_1 = without(ROW_3, "showings", "rate_minute", "minute_count", "day_count")
"""Its unshown were two bytes that nothing used."""
OPEN_4 = without(OPEN_5, "shadow_predicted")


def numbers(layout: str, said: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The fields of a record of ``layout``, each number another one of its field, but for what is ``said``."""
    out = {}
    for place, one in enumerate(layout.split(), 1):
        name, _, code = one.partition(":")
        counted: list[Any] = [1 + (3 * place + at) % 11 for at in range(int(code[:-1] or 1))]
        if code[-1] in "df":
            counted = [number + 0.5 for number in counted]
        elif code[-1] in "HIQ":  # as large as they may be: with a sign they would be negative
            counted = [256 ** struct.calcsize(f"<{code[-1]}") - number for number in counted]
        given = said.get(name, counted)
        out[name] = given if isinstance(given, list) else [given] * len(counted)
    return out


def packed(layout: str, fields: Mapping[str, Sequence[Any]]) -> bytes:
    """The bytes of a record of ``layout``."""
    codes = [one.partition(":")[2] for one in layout.split()]
    return b"".join(struct.pack(f"<{code}", *fields[name]) for code, name in zip(codes, fields, strict=True))
